"""Evaluation in the real environment: all runs and all their episodes step together, one policy call a step.

Shape letters: `K` runs, `N` episodes of each, `M` the most of them still alive in one run, `S` and `A` as ever.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.envs.registration import EnvSpec

from benchmarks.points import PointMazes, alike
from minari_stitch.data.minari_io import Dataset
from minari_stitch.data.spaces import FlatSpace
from minari_stitch.errors import StitchError
from minari_stitch.sim.behaviour import make_env, register_robotics

Policy = Callable[[Any], torch.Tensor]
"""Normalised observations `(K, M, S)`, or windows (see `Evaluator`), to actions `(K, M, A)` in [-1, 1]."""

Watch = Callable[[np.ndarray, np.ndarray], None]
"""Called before each step and at the end with observations `(K, N, S)` and which episodes are alive `(K, N)`."""

D4RL_REFERENCES = {
    "Hopper": (-20.27, 3234.3),
    "HalfCheetah": (-280.18, 12135.0),
    "Walker2d": (1.63, 4592.3),
    "AdroitHandPen": (96.26, 3076.83),
}


class SimulatorError(StitchError):
    """The environment of a dataset is unknown, cannot be built, or does not fit the dataset."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What turns a return into a score of 0 (random) to 100 (expert).

    Attributes:
        low: Return of score 0.
        high: Return of score 100.
        source: `dataset`, `D4RL`, `raw` where scores are returns, or `success` where they are shares of goals reached.
    """

    low: float
    high: float
    source: str

    @classmethod
    def of(cls, dataset: Dataset) -> Reference:
        """The dataset's own reference scores, else D4RL's for its environment, else none."""
        low, high = (dataset.metadata.get(f"ref_{end}_score") for end in ("min", "max"))
        if low is not None and high is not None:
            return cls(low=float(low), high=float(high), source="dataset")
        name = dataset.env_spec.name if dataset.env_spec else ""
        if name in D4RL_REFERENCES:
            low, high = D4RL_REFERENCES[name]
            return cls(low=low, high=high, source="D4RL")
        return cls(low=0.0, high=100.0, source="raw")

    def score(self, returns: np.ndarray) -> np.ndarray:
        """Scores of returns, any shape."""
        return 100 * (returns - self.low) / (self.high - self.low)


def unwatched(observations: np.ndarray, live: np.ndarray) -> None:
    """Nobody looks."""


@dataclass(kw_only=True)
class Evaluator:
    """Plays episodes in a dataset's environment, which a process builds once and resets for every evaluation.

    Attributes:
        dataset: Says which environment.
        mean: `(S,)` subtracted from observations.
        std: `(S,)` they are divided by.
        context: Steps of the windows that the policy reads; 0: states alone, `(K, M, S)`. Windows are `states
            (K, M, T, S)`, `actions (K, M, T, A)` (the last zero), `returns_to_go` (the target minus what was earned),
            `timesteps` and `mask (K, M, T)`, with `T` the steps so far, at most `context`.
        target_return: Return that windows ask for.
        device: Of the tensors the policy reads.
        workers: Processes that step environments; 1 stays in this one.
    """

    dataset: Dataset
    mean: np.ndarray
    std: np.ndarray
    context: int = 0
    target_return: float = 0.0
    device: str | torch.device = "cpu"
    workers: int = 1

    def __post_init__(self) -> None:
        """Fail early where the environment cannot be built, or is another than the dataset's."""
        self._spec = environment_spec(self.dataset)
        env = build(self._spec)
        for role in ("observation", "action"):
            ours, theirs = (FlatSpace(getattr(x, f"{role}_space"), role).size for x in (self.dataset, env))
            if ours != theirs:
                raise SimulatorError(
                    f"{self.dataset.dataset_id!r} has {role}s of width {ours}, but {self._spec.id} has {theirs}: the "
                    "dataset was recorded in another environment; correct its env_spec, or choose another dataset."
                )
        env.close()
        actions = FlatSpace(self.dataset.action_space, "action")
        self._low, self._high = actions.low, actions.high
        self._limit = self._spec.max_episode_steps or 1000

    def __call__(
        self, policy: Policy, seeds: Sequence[int], episodes: int = 10, watch: Watch = unwatched
    ) -> np.ndarray:
        """Play `episodes` episodes for each run: `(K, N)` undiscounted returns.

        There is a seed for each run; episode `e` of runs with the same seed starts the same. `watch` sees them.
        """
        shape = (len(seeds), episodes)
        environments = _environments(self._spec, len(seeds) * episodes, self.workers)
        observations = environments.reset([start for seed in seeds for start in starts(seed, episodes)])
        observations = observations.reshape(*shape, -1)
        width = len(self._low)
        live, returns = np.ones(shape, bool), np.zeros(shape)
        history: list[tuple[np.ndarray, ...]] = []
        for step in range(self._limit):
            watch(observations, live)
            slots = np.argsort(~live, axis=1, kind="stable")[:, : live.sum(1).max()]  # (K, M), the live ones first
            states = ((observations - self.mean) / self.std).astype(np.float32)
            history.append((states, np.zeros((*shape, width), np.float32), self.target_return - returns))
            history = history[-max(1, self.context) :]
            with torch.inference_mode():
                actions = policy(self._inputs(history, slots, step)).float().cpu().numpy()
            runs, columns = np.nonzero(np.take_along_axis(live, slots, 1))
            rows, chosen = (runs, slots[runs, columns]), actions[runs, columns].clip(-1, 1)
            history[-1][1][rows] = chosen
            scaled = self._low + (chosen + 1) / 2 * (self._high - self._low)
            after, rewards, ended = environments.step(np.ravel_multi_index(rows, shape), scaled)
            observations[rows] = after
            returns[rows] += rewards
            live[rows] = ~ended
            if not live.any():
                break
        watch(observations, live)
        return returns

    def _inputs(self, history: list[tuple[np.ndarray, ...]], slots: np.ndarray, step: int) -> Any:
        runs = np.arange(len(slots))[:, None]
        if not self.context:
            # Copied: a product's rounding depends on alignment, which torch guarantees and NumPy does not.
            return torch.tensor(history[0][0][runs, slots], device=self.device)
        states, actions, wanted = (np.stack([x[runs, slots] for x in part], 2) for part in zip(*history, strict=True))
        steps = np.broadcast_to(np.arange(step - len(history) + 1, step + 1), wanted.shape)
        mask, wanted = np.ones(wanted.shape, np.float32), wanted.astype(np.float32)
        names = ("states", "actions", "returns_to_go", "timesteps", "mask")
        arrays = zip(names, (states, actions, wanted, steps.copy(), mask), strict=True)
        return {name: torch.tensor(array, device=self.device) for name, array in arrays}


def starts(seed: int, episodes: int) -> list[int]:
    """Seeds of the environment for the episodes of a run."""
    return np.random.SeedSequence([seed, 1]).generate_state(episodes).tolist()


def environment_spec(dataset: Dataset) -> EnvSpec:
    """The environment to evaluate a dataset in: its `eval_env_spec`, else the one it was recorded in.

    Raises:
        SimulatorError: It names none.
    """
    stored = dataset.metadata.get("eval_env_spec")
    spec = EnvSpec.from_json(stored) if stored else dataset.env_spec
    if spec is None:
        raise SimulatorError(
            f"{dataset.dataset_id!r} names no environment, so nothing trained on it can be evaluated: choose a "
            "dataset with an env_spec (`minari show` prints it)."
        )
    return spec


def build(spec: EnvSpec) -> gym.Env:
    """Make an environment.

    Raises:
        SimulatorError: It cannot be made.
    """
    try:
        register_robotics(spec.id)
        return make_env(spec)
    except Exception as error:  # every simulator has its own
        raise SimulatorError(
            f"environment {spec.id} cannot be built ({type(error).__name__}: {error}): install what it needs, such as "
            '`pip install "gymnasium[mujoco]" gymnasium-robotics`, or choose another dataset.'
        ) from error


_kept: list[tuple[Any, _Local | PointMazes | _Remote]] = []


def _environments(spec: EnvSpec, count: int, workers: int) -> _Local | PointMazes | _Remote:
    """Those last asked for stay with the process."""
    wanted = (spec, count, workers)
    if not _kept or _kept[0][0] != wanted:
        _forget()
        _kept.append((wanted, _Remote(spec, count, workers) if workers > 1 else _here(spec, count)))
    return _kept[0][1]


def _here(spec: EnvSpec, count: int) -> _Local | PointMazes:
    env = build(spec)
    if alike(env):
        return PointMazes(env, count)
    return _Local([env, *(build(spec) for _ in range(count - 1))])


def _forget() -> None:
    while _kept:
        _kept.pop()[1].close()


class _Local:
    """Environments stepped one after the other in this process."""

    def __init__(self, envs: Sequence[gym.Env]) -> None:
        self._envs = envs
        self._flatten = FlatSpace(self._envs[0].observation_space).flatten
        self._actions = FlatSpace(self._envs[0].action_space, "action")

    def reset(self, seeds: Sequence[int]) -> np.ndarray:
        """Observations `(count, S)`."""
        return self._flat([env.reset(seed=seed)[0] for env, seed in zip(self._envs, seeds, strict=True)])

    def step(self, indices: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Observations, rewards and ends of the environments at `indices`."""
        results = [
            self._envs[i].step(action) for i, action in zip(indices, self._actions.unflatten(actions), strict=True)
        ]
        observations, rewards, terminated, truncated, _ = zip(*results, strict=True)
        ended = np.array(terminated) | np.array(truncated)
        return self._flat(observations), np.array(rewards, np.float64), ended

    def close(self) -> None:
        """Close all."""
        for env in self._envs:
            env.close()

    def _flat(self, observations: Sequence[Any]) -> np.ndarray:
        return self._flatten(_stacked(observations))


class _Remote:
    """The same, in processes that each hold every `workers`-th environment."""

    def __init__(self, spec: EnvSpec, count: int, workers: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._count, self._workers = count, min(workers, count)
        self._pipes: list[Connection] = []
        for worker in range(self._workers):
            ours, theirs = context.Pipe()
            share = len(range(worker, count, self._workers))
            context.Process(target=_serve, args=(theirs, spec.to_json(), share), daemon=True).start()
            theirs.close()
            self._pipes.append(ours)

    def reset(self, seeds: Sequence[int]) -> np.ndarray:
        """Observations `(count, S)`."""
        parts = self._ask([("reset", (seeds[worker :: self._workers],)) for worker in range(self._workers)])
        observations = np.empty((self._count, parts[0].shape[1]), parts[0].dtype)
        for worker, part in enumerate(parts):
            observations[worker :: self._workers] = part
        return observations

    def step(self, indices: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, ...]:
        """Observations, rewards and ends of the environments at `indices`."""
        order = [np.flatnonzero(indices % self._workers == worker) for worker in range(self._workers)]
        asked = [("step", (indices[at] // self._workers, actions[at])) if len(at) else None for at in order]
        parts = [part for part in self._ask(asked) if part is not None]
        back = np.argsort(np.concatenate(order))
        return tuple(np.concatenate(column)[back] for column in zip(*parts, strict=True))

    def close(self) -> None:
        """End the processes."""
        for pipe in self._pipes:
            pipe.close()

    def _ask(self, messages: Sequence[Any]) -> list[Any]:
        asked = list(zip(self._pipes, messages, strict=True))
        try:
            for pipe, message in asked:
                if message is not None:
                    pipe.send(message)
            return [None if message is None else pipe.recv() for pipe, message in asked]
        except BaseException:  # an answer that was not taken would be taken for that to the next question
            _forget()
            raise


def _serve(pipe: Connection, spec: str, count: int) -> None:
    environments = _here(EnvSpec.from_json(spec), count)
    while True:
        try:
            name, arguments = pipe.recv()
        except EOFError:
            return
        pipe.send(getattr(environments, name)(*arguments))


def _stacked(observations: Sequence[Any]) -> Any:
    """One observation of arrays `(N, *shape)` out of N."""
    if isinstance(observations[0], dict):
        return {key: _stacked([observation[key] for observation in observations]) for key in observations[0]}
    return np.stack(observations)
