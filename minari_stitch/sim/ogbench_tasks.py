"""OGBench's environments without its package: how they are built, and what the tasks of its mazes want to reach.

The environments of mazes are known here by their entry point, from which Gymnasium builds them wherever the package is
installed; of other environments the package knows, where it is.
"""

from __future__ import annotations

import contextlib
import importlib
import re

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec

from minari_stitch.errors import ConfigError

_MAZE = re.compile(r"(?P<body>point|ant|humanoid)maze-(?P<maze>medium|large|giant|teleport)")
_STEPS = {"humanoid": 2000}  # time limits other than 1000; twice as long in the giant maze
_GOALS = {  # cells (row, column) that the five tasks of a maze want to reach
    "medium": ((6, 6), (1, 6), (4, 2), (6, 1), (1, 1)),
    "large": ((7, 10), (7, 1), (1, 10), (5, 4), (5, 4)),
    "giant": ((10, 14), (10, 1), (1, 1), (5, 12), (3, 8)),
    "teleport": ((7, 1), (7, 10), (7, 10), (7, 10), (7, 1)),
}
_CELL, _OFFSET = 4.0, 4.0  # width of a cell, and where the middle of cell (0, 0) lies left and below of the origin


def env_spec(name: str, task: int | None = None) -> EnvSpec | None:
    """Specification of an environment, such as `pointmaze-medium`; None where neither we nor a package know it."""
    env_id = f"{name}-singletask-task{task}-v0" if task else f"{name}-v0"
    if match := _MAZE.fullmatch(name):
        single = {"reward_task_id": task, "add_noise_to_goal": False, "success_timing": "pre"} if task else {}
        limit = _STEPS.get(match["body"], 1000)
        return EnvSpec(
            id=env_id,
            entry_point="ogbench.locomaze.maze:make_maze_env",
            max_episode_steps=2 * limit if match[0] == "humanoidmaze-giant" else limit,
            kwargs={"loco_env_type": match["body"], "maze_env_type": "maze", "maze_type": match["maze"], **single},
        )
    with contextlib.suppress(ImportError):
        importlib.import_module("ogbench")  # which registers them
    return gym.registry.get(env_id)


def successes(name: str, task: int, xy: np.ndarray) -> np.ndarray:
    """Whether positions lie in a task's goal.

    Args:
        name: A maze, such as `pointmaze-medium`.
        task: 1 to 5.
        xy: `(R, 2)` positions.

    Returns:
        `(R,)` bool.

    Raises:
        ConfigError: There is no such task.
    """
    match = _MAZE.fullmatch(name)
    if match is None:
        raise ConfigError(f"task={task} is not possible with {name}: only the tasks of mazes are known.")
    if not 1 <= task <= len(_GOALS[match["maze"]]):
        raise ConfigError(f"task={task} is not possible: {name} has tasks 1 to {len(_GOALS[match['maze']])}")
    row, column = _GOALS[match["maze"]][task - 1]
    goal = np.array([column, row]) * _CELL - _OFFSET
    return np.linalg.norm(xy - goal, axis=-1) <= (1.0 if match["body"] == "point" else 0.5)
