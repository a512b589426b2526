"""Which goals a dataset has: Adroit's pen, or Dict observations with what is achieved and what is desired.

Of the latter the environment itself says what a state earns under a goal, and whether that ends the episode
(`compute_reward`, `compute_terminated`), so a dataset's environment is made here and asked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from minari_stitch.data.dataset import Dataset
from minari_stitch.data.episodes import Episodes
from minari_stitch.data.goals import Goals, PenGoals
from minari_stitch.data.spaces import FlatSpace
from minari_stitch.sim.behaviour import make_env

_CHECKED = 20  # episodes
_ROUNDING = 1e-6


def goals_of(dataset: Dataset) -> Goals | None:
    """What is known of a dataset's goals.

    None where nothing is, where an episode changes its goal, where the environment cannot be made here or has no
    `compute_reward`, and where the goals do not yield the recorded rewards: then a goal is an observation like others.
    """
    known = _pen(dataset) or _dict(dataset)
    return known if known and _explains(known.rewards, dataset.episodes, "rewards") else None


def _pen(dataset: Dataset) -> Goals | None:
    spec = dataset.env_spec
    if spec is None or not spec.id.startswith("AdroitHandPen") or dataset.episodes.observations.shape[1] != 45:
        return None
    return PenGoals(sparse="Sparse" in spec.id or spec.kwargs.get("reward_type") == "sparse")


def _dict(dataset: Dataset) -> Goals | None:
    layout = FlatSpace(dataset.observation_space)
    sizes = {name: columns.stop - columns.start for name, columns in layout.slices.items()}
    if dataset.env_spec is None or "desired_goal" not in sizes or sizes.get("achieved_goal") != sizes["desired_goal"]:
        return None
    desired = dataset.episodes.observations[:, layout.slices["desired_goal"]]
    if not (desired == np.repeat(desired[dataset.episodes.state_offsets[:-1]], dataset.episodes.lengths + 1, 0)).all():
        return None
    try:
        env = make_env(dataset.env_spec)
    except Exception:  # each simulator has its own
        return None
    if not all(hasattr(env.unwrapped, f"compute_{what}") for what in ("reward", "terminated")):
        return None
    goals = DictGoals(env, layout, dataset.episodes.observations)
    if not _explains(goals.terminations, dataset.episodes, "terminations"):
        goals.terminates = False
    return goals


class DictGoals:
    """Observations with `achieved_goal` and `desired_goal`, as Gymnasium-Robotics' goal environments give them.

    What is achieved is a part of the state: where other columns repeat it, as in point mazes, these stand for it.

    Args:
        env: The environment.
        layout: Of its observations.
        observations: Some of them, `(N, S)`, from which repeated columns are found.

    Attributes:
        terminates: Whether an episode ends at its goal.
        place: Columns of a state that are what is achieved, where that is a place in the plane.
    """

    def __init__(self, env: gym.Env, layout: FlatSpace, observations: np.ndarray) -> None:
        self._task: Any = env.unwrapped
        self._desired, self._achieved = layout.slices["desired_goal"], layout.slices["achieved_goal"]
        goals = range(self._desired.start, self._desired.stop), range(self._achieved.start, self._achieved.stop)
        others = [column for column in range(layout.size) if column not in goals[0] and column not in goals[1]]
        repeats = [_repeated(observations, column, others) for column in goals[1]]
        self._explained = None not in repeats
        self._kept = np.array(others if self._explained else sorted([*others, *goals[1]]))
        self._shown = np.searchsorted(self._kept, np.array(repeats if self._explained else goals[1], int))
        self.place = tuple(self._shown.tolist()) if len(self._shown) == 2 else None
        self._width = layout.size
        some = observations[0, self._achieved]
        self.terminates = bool(self._task.compute_terminated(some, some, {}))
        self._success = _success(env)

    def states(self, observations: np.ndarray) -> np.ndarray:
        """All but the goal, and what is achieved once."""
        return observations[..., self._kept]

    def goal(self, observation: np.ndarray) -> np.ndarray:
        """What is desired."""
        return observation[self._desired]

    def achieved(self, observation: np.ndarray) -> np.ndarray:
        """What is achieved."""
        return observation[self._achieved]

    def pursue(self, states: np.ndarray, goal: np.ndarray) -> np.ndarray:
        """States, with what they achieve and what is desired."""
        observations = np.empty((len(states), self._width), states.dtype)
        observations[:, self._kept] = states
        observations[:, self._achieved] = states[:, self._shown]
        observations[:, self._desired] = goal
        return observations

    def rewards(self, observations: np.ndarray) -> np.ndarray:
        """The environment's own."""
        return _each(self._task.compute_reward, *self._pairs(observations[1:])).astype(np.float64)

    def terminations(self, observations: np.ndarray) -> np.ndarray:
        """The environment's own."""
        if not self.terminates:
            return np.zeros(len(observations) - 1, bool)
        return _one_by_one(self._task.compute_terminated, *self._pairs(observations[1:])).astype(bool)

    def infos(self, observations: np.ndarray) -> dict[str, np.ndarray]:
        """The environment's `success`, where its rewards tell it."""
        if self._success is None:
            return {}
        name, success = self._success
        return {name: success(*self._pairs(observations))[:, None]}

    def _pairs(self, observations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return observations[:, self._achieved], observations[:, self._desired]


def _repeated(observations: np.ndarray, column: int, others: list[int]) -> int | None:
    """The first of the other columns that says the same everywhere."""
    near = _ROUNDING * max(1.0, float(np.abs(observations[:, column]).max()))
    same = (other for other in others if (np.abs(observations[:, other] - observations[:, column]) <= near).all())
    return next(same, None)


def _success(env: gym.Env) -> tuple[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] | None:
    """The info that says whether the goal is reached, and how to tell: by what a sparse reward pays there.

    None where the environment has no sparse rewards, or where they say something else.
    """
    spec = env.spec
    if spec is None or "reward_type" not in spec.kwargs:
        return None
    task: Any = env.unwrapped
    if spec.kwargs["reward_type"] != "sparse":
        task = make_env(dataclasses.replace(spec, kwargs=spec.kwargs | {"reward_type": "sparse"})).unwrapped

    def success(achieved: np.ndarray, desired: np.ndarray) -> np.ndarray:
        return _each(task.compute_reward, achieved, desired) == _each(task.compute_reward, desired, desired)

    env.reset(seed=0)
    observation, *_, info = env.step(np.zeros(env.action_space.shape or (), env.action_space.dtype))
    names = [name for name in ("success", "is_success") if name in info]
    pair = (observation[name][None] for name in ("achieved_goal", "desired_goal"))
    return (names[0], success) if names and success(*pair)[0] == bool(info[names[0]]) else None


def _each(function: Callable[..., Any], achieved: np.ndarray, desired: np.ndarray) -> np.ndarray:
    """What a function says of each row: at once, as is usual, or one by one."""
    try:
        together = np.asarray(function(achieved, desired, {}))
    except Exception:  # it was not written for several
        together = np.zeros(())
    return together if together.shape == (len(achieved),) else _one_by_one(function, achieved, desired)


def _one_by_one(function: Callable[..., Any], achieved: np.ndarray, desired: np.ndarray) -> np.ndarray:
    return np.array([function(one, other, {}) for one, other in zip(achieved, desired, strict=True)])


def _explains(rule: Callable[[np.ndarray], np.ndarray], episodes: Episodes, what: str) -> bool:
    """Whether what was recorded in the first episodes follows from their observations, but for borderline steps."""
    checked = [episodes.episode(index) for index in range(min(len(episodes), _CHECKED))]
    off = np.concatenate([np.abs(rule(part["observations"]) - part[what].astype(float)) for part in checked])
    return bool((off < 1e-3).mean() > 0.99)
