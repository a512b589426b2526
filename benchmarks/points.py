"""Points in a maze, many at once: one model of the maze, and a state of the simulator for each.

A maze is a large model. Of two hundred environments each has its own, 2.4 GB in all, so that no cache holds the next
one's; and a step passes through a dozen functions of NumPy's for two numbers. What is played here is bit by bit what
that many environments would play.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np

from minari_stitch.data.spaces import FlatSpace

Drive = Callable[[Sequence[Any], np.ndarray], None]
"""Makes states of the simulator ready for actions `(B, A)`."""
_FASTEST = 5.0  # point.py of gymnasium-robotics
_STRIDE = 0.2  # point.py of OGBench


class Points:
    """States of one model.

    Args:
        model: Of the maze with its point.
        count: Of the states.
        drive: What the environment does with an action before the simulator steps.
        repeats: Steps of the simulator in one of the environment's.
    """

    def __init__(self, model: Any, count: int, drive: Drive, repeats: int) -> None:
        self._model, self._drive, self._repeats = model, drive, repeats
        self._states = [mujoco.MjData(model) for _ in range(count)]  # type: ignore[attr-defined]

    def __len__(self) -> int:
        """How many."""
        return len(self._states)

    def place(self, row: int, state: Any) -> None:
        """Put one where an environment has its own."""
        mujoco.mj_copyData(self._states[row], self._model, state)  # type: ignore[attr-defined]

    def step(self, rows: Sequence[int] | np.ndarray, actions: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """Step some: their positions and velocities `(B, 4)`."""
        moved, states = np.empty((len(rows), 4)), [self._states[row] for row in rows]
        self._drive(states, np.asarray(actions))
        for state, out in zip(states, moved, strict=True):
            mujoco.mj_step(self._model, state, nstep=self._repeats)  # type: ignore[attr-defined]
            out[:2], out[2:] = state.qpos, state.qvel
        return moved


def forced(states: Sequence[Any], actions: np.ndarray) -> None:
    """As gymnasium-robotics' points: an action is a force, and no point is faster than can be controlled."""
    for state, action in zip(states, np.clip(actions, -1.0, 1.0), strict=True):
        velocity = state.qvel
        if not all(-_FASTEST <= part <= _FASTEST for part in velocity.tolist()):  # cutting takes longer than looking
            np.clip(velocity, -_FASTEST, _FASTEST, out=velocity)
        state.ctrl[:] = action


def displaced(states: Sequence[Any], actions: np.ndarray) -> None:
    """As OGBench's points: an action moves them, and the simulator keeps them out of the walls."""
    for state, move in zip(states, _STRIDE * actions, strict=True):
        state.qpos[:] = state.qpos + move
        state.qvel[:] = 0.0


def alike(env: gym.Env) -> bool:
    """Whether an environment is a point maze of gymnasium-robotics whose goal stays."""
    maze: Any = env.unwrapped
    if type(maze).__name__ != "PointMazeEnv":  # before an import that takes its time
        return False
    from gymnasium_robotics.envs.maze.point_maze import PointMazeEnv

    return type(maze) is PointMazeEnv and not (maze.continuing_task and maze.reset_target)


class PointMazes:
    """So many environments that are `alike`, which are reset together and stepped one by one.

    Args:
        env: One of them; it draws where each begins.
        count: How many.
    """

    def __init__(self, env: gym.Env, count: int) -> None:
        self._env = env
        self._maze: Any = env.unwrapped
        point = self._maze.point_env
        self._points = Points(point.model, count, forced, point.frame_skip)
        self._flatten = FlatSpace(env.observation_space).flatten
        self._actions = FlatSpace(env.action_space, "action")
        self._goals = np.empty((count, 2))

    def reset(self, seeds: Sequence[int]) -> np.ndarray:
        """Observations `(count, S)`."""
        maze, first = self._maze, []
        for row, seed in enumerate(seeds):
            self._env.reset(seed=seed)
            self._points.place(row, maze.data)
            self._goals[row] = maze.goal
            first.append(np.concatenate([maze.data.qpos, maze.data.qvel]))
        return self._flat(np.stack(first), self._goals)

    def step(self, indices: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Observations, rewards and ends of those at `indices`."""
        maze = self._maze
        states = self._points.step(indices, list(self._actions.unflatten(actions)))
        goals = self._goals[indices]
        rewards = np.asarray(maze.compute_reward(states[:, :2], goals, {}), np.float64)
        ended = np.zeros(len(indices), bool)
        if not maze.continuing_task:
            ended[:] = [maze.compute_terminated(*pair, {}) for pair in zip(states[:, :2], goals, strict=True)]
        return self._flat(states, goals), rewards, ended

    def close(self) -> None:
        """Close the one there is."""
        self._env.close()

    def _flat(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        return self._flatten({"observation": states, "achieved_goal": states[:, :2], "desired_goal": goals})
