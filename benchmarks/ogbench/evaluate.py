"""Evaluation in OGBench's environments, on their own evaluation tasks: does a policy reach the goal?

Shape letters: `K` runs, `N` episodes of each, `M` the most of them still alive in one run, `S` and `A` as ever.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.envs.registration import EnvSpec

from benchmarks.evaluate import Policy, SimulatorError, environment_spec, starts
from benchmarks.ogbench.generate import make
from minari_stitch.data.minari_io import Dataset
from minari_stitch.data.spaces import FlatSpace
from minari_stitch.errors import ConfigError


@dataclass(kw_only=True)
class TaskEvaluator:
    """Plays the tasks of a dataset's environment, which a process builds once and resets for every evaluation.

    Policies read states and goals `(K, M, 2 S)` as the environment gives them.

    Attributes:
        dataset: Says which environment.
        device: Of the tensors that the policy reads.
    """

    dataset: Dataset
    device: str | torch.device = "cpu"

    def __post_init__(self) -> None:
        """Fail early where the environment is none of OGBench's, or cannot be built."""
        spec = environment_spec(self.dataset)
        if not str(spec.entry_point).startswith("ogbench."):
            raise SimulatorError(
                f"{self.dataset.dataset_id!r} was recorded in {spec.id}, which has no tasks of OGBench's: learners for "
                "goals need a dataset that `minari-stitch import-ogbench` wrote"
            )
        self._spec, self._limit = spec, spec.max_episode_steps or 1000
        self.tasks: int = _environments(self._spec, 1)[0].unwrapped.num_tasks

    def __call__(self, policy: Policy, seeds: Sequence[int], episodes: int = 10) -> np.ndarray:
        """Play `episodes` episodes for each run: `(K, N)`, 1 where the goal was reached, the tasks one after the other.

        There is a seed for each run; episode `e` of runs with the same seed starts the same.

        Raises:
            ConfigError: They cannot be shared out among the tasks.
        """
        if episodes % self.tasks:
            raise ConfigError(
                f"{episodes} episodes are not possible: {self._spec.id} has {self.tasks} tasks, so give a multiple of "
                "them"
            )
        shape = (len(seeds), episodes)
        envs: Any = np.array(_environments(self._spec, len(seeds) * episodes), object).reshape(shape)
        width = FlatSpace(self.dataset.observation_space).size
        inputs = np.empty((*shape, 2 * width), np.float32)
        for k, seed in enumerate(seeds):
            for e, start in enumerate(starts(seed, episodes)):
                with _numpy_seeded(start):
                    state, info = envs[k, e].reset(seed=start, options={"task_id": 1 + e // (episodes // self.tasks)})
                inputs[k, e] = np.concatenate([state, info["goal"]])
        live, reached = np.ones(shape, bool), np.zeros(shape)
        for _ in range(self._limit):
            slots = np.argsort(~live, axis=1, kind="stable")[:, : live.sum(1).max()]  # (K, M), the live ones first
            with torch.inference_mode():
                read = torch.tensor(inputs[np.arange(len(slots))[:, None], slots], device=self.device)
                actions = policy(read).float().cpu().numpy()
            for k, m in np.argwhere(np.take_along_axis(live, slots, 1)):
                e = slots[k, m]
                state, _, terminated, truncated, info = envs[k, e].step(actions[k, m].clip(-1, 1))
                inputs[k, e, :width] = state
                reached[k, e] = info["success"]
                live[k, e] = not (terminated or truncated)
            if not live.any():
                break
        return reached


_kept: list[tuple[EnvSpec, Any]] = []


def _environments(spec: EnvSpec, count: int) -> list[Any]:
    """So many; those of the maze that was last asked for stay with the process."""
    if not _kept or _kept[0][0] != spec:
        _kept.clear()
    while len(_kept) < count:
        env: Any = make(spec.id)
        Path(env.unwrapped.fullpath).unlink(missing_ok=True)  # of the maze, which would stay for ever
        _kept.append((spec, env))
    return [env for _, env in _kept[:count]]


@contextlib.contextmanager
def _numpy_seeded(seed: int) -> Iterator[None]:
    """Seed NumPy's global generator, from which OGBench draws where tasks start and end, and put it back."""
    before = np.random.get_state()
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        np.random.set_state(before)
