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

from benchmarks.evaluate import Policy, SimulatorError, Watch, environment_spec, starts, unwatched
from benchmarks.ogbench.generate import make
from benchmarks.points import Points, displaced
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
        """Fail early where the environment is none of OGBench's point mazes, or cannot be built."""
        spec = environment_spec(self.dataset)
        ours = str(spec.entry_point).startswith("ogbench.") and spec.id.startswith("pointmaze-")
        if not ours or "teleport" in spec.id:
            raise SimulatorError(
                f"{self.dataset.dataset_id!r} was recorded in {spec.id}, which is none of OGBench's point mazes: "
                "learners for goals need a dataset of one that `minari-stitch import-ogbench` wrote"
            )
        self._spec, self._limit = spec, spec.max_episode_steps or 1000
        self.tasks: int = _maze(self._spec).inner.num_tasks

    def __call__(
        self, policy: Policy, seeds: Sequence[int], episodes: int = 10, watch: Watch = unwatched
    ) -> np.ndarray:
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
        maze = _maze(self._spec)
        points, width = maze.points(len(seeds) * episodes), FlatSpace(self.dataset.observation_space).size
        inputs = np.empty((*shape, 2 * width), np.float32)
        goals = np.empty((*shape, 2))
        for k, seed in enumerate(seeds):
            for e, start in enumerate(starts(seed, episodes)):
                with _numpy_seeded(start):
                    options = {"task_id": 1 + e // (episodes // self.tasks)}
                    state, info = maze.env.reset(seed=start, options=options)
                inputs[k, e] = np.concatenate([state, info["goal"]])
                points.place(k * episodes + e, maze.inner.data)
                goals[k, e] = maze.inner.cur_goal_xy
        live, reached = np.ones(shape, bool), np.zeros(shape)
        for _ in range(self._limit):
            watch(inputs[..., :width], live)
            slots = np.argsort(~live, axis=1, kind="stable")[:, : live.sum(1).max()]  # (K, M), the live ones first
            with torch.inference_mode():
                read = torch.tensor(inputs[np.arange(len(slots))[:, None], slots], device=self.device)
                actions = policy(read).float().cpu().numpy()
            runs, columns = np.nonzero(np.take_along_axis(live, slots, 1))
            rows = (runs, slots[runs, columns])
            moved = points.step(np.ravel_multi_index(rows, shape), actions[runs, columns].clip(-1, 1))[:, :2]
            inputs[rows[0], rows[1], :width] = moved
            reached[rows] = np.linalg.norm(moved - goals[rows], axis=-1) <= maze.inner._goal_tol
            live[rows] = reached[rows] == 0
            if not live.any():
                break
        watch(inputs[..., :width], live)
        return reached


class _Maze:
    """An environment, and points that are in its maze.

    Args:
        spec: Of the environment; it ends where the goal is reached, and at no other place.
    """

    def __init__(self, spec: EnvSpec) -> None:
        self.spec, self.env = spec, make(spec.id)
        self.inner: Any = self.env.unwrapped
        Path(self.inner.fullpath).unlink(missing_ok=True)  # of the maze, which would stay for ever
        self._points: Points | None = None

    def points(self, count: int) -> Points:
        """So many; those last asked for stay."""
        if self._points is None or len(self._points) != count:
            self._points = Points(self.inner.model, count, displaced, self.inner.frame_skip)
        return self._points


_kept: list[_Maze] = []


def _maze(spec: EnvSpec) -> _Maze:
    """The one last asked for stays with the process."""
    if not _kept or _kept[0].spec != spec:
        _kept[:] = [_Maze(spec)]
    return _kept[0]


@contextlib.contextmanager
def _numpy_seeded(seed: int) -> Iterator[None]:
    """Seed NumPy's global generator, from which OGBench draws where tasks start and end, and put it back."""
    before = np.random.get_state()
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        np.random.set_state(before)
