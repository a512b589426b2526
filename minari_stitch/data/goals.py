"""Tasks with a goal: an episode's observations and rewards under another goal than the one it was played for.

A stitched episode pursues one goal all along, that of its target. So networks see states without a goal, and the goal,
what is measured against it, and the rewards are put back when the episode is written.

Shape letters: `T` steps of an episode, `S` observation width, `V` state width, `G` goal width.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np

from minari_stitch.data.dataset import Dataset


class Goals(Protocol):
    """What a task's goal has to do with its observations and rewards.

    Attributes:
        terminates: Whether an episode ends at its goal.
        place: Columns of a state that are what is achieved, where that is a place in the plane.
    """

    terminates: bool
    place: tuple[int, ...] | None

    def states(self, observations: np.ndarray) -> np.ndarray:
        """States `(..., V)` in observations `(..., S)`."""
        ...

    def goal(self, observation: np.ndarray) -> np.ndarray:
        """The goal `(G,)` that an observation `(S,)` shows."""
        ...

    def achieved(self, observation: np.ndarray) -> np.ndarray:
        """The goal `(G,)` that is reached where an observation `(S,)` stands."""
        ...

    def pursue(self, states: np.ndarray, goal: np.ndarray) -> np.ndarray:
        """Observations `(T + 1, S)` of states `(T + 1, V)` under a goal `(G,)`."""
        ...

    def rewards(self, observations: np.ndarray) -> np.ndarray:
        """Rewards `(T,)` for arriving at all but the first of `(T + 1, S)`."""
        ...

    def terminations(self, observations: np.ndarray) -> np.ndarray:
        """`(T,)` whether arriving there ends the episode."""
        ...

    def infos(self, observations: np.ndarray) -> dict[str, np.ndarray]:
        """What infos `(T + 1, 1)` the environment gives that depend on the goal."""
        ...


class PenGoals:
    """Adroit's pen, to be turned to a desired direction (Gymnasium-Robotics, `AdroitHandPen-v1`).

    Its 45 observations are the hand (24), the pen's place (3), velocity (6) and direction (3), then the desired
    direction (3), and how far place and direction are from the desired ones (6).

    Args:
        sparse: Whether rewards only say if the goal is reached.
    """

    terminates = False
    place: tuple[int, ...] | None = None

    def __init__(self, sparse: bool) -> None:
        self._sparse = sparse

    def states(self, observations: np.ndarray) -> np.ndarray:
        """Hand and pen."""
        return observations[..., :36]

    def goal(self, observation: np.ndarray) -> np.ndarray:
        """Desired direction and place."""
        return np.concatenate([observation[36:39], observation[24:27] - observation[39:42]])

    def achieved(self, observation: np.ndarray) -> np.ndarray:
        """The pen's direction and place."""
        return np.concatenate([observation[33:36], observation[24:27]])

    def pursue(self, states: np.ndarray, goal: np.ndarray) -> np.ndarray:
        """Hand and pen, and where they are from the goal."""
        direction, place = goal[:3], goal[3:]
        wanted = np.broadcast_to(direction, (len(states), 3))
        off = (states[:, 24:27] - place, states[:, 33:36] - direction)
        return np.concatenate([states, wanted, *off], 1).astype(states.dtype)

    def rewards(self, observations: np.ndarray) -> np.ndarray:
        """As the environment computes them; a generated direction counts as one, whatever its length."""
        seen = observations[1:].astype(np.float64)
        direction = seen[:, 33:36] / np.linalg.norm(seen[:, 33:36], axis=1, keepdims=True).clip(1e-9)
        distance, likeness = np.linalg.norm(seen[:, 39:42], axis=1), (direction * seen[:, 36:39]).sum(1)
        near, dropped = distance < 0.075, seen[:, 26] < 0.075
        if self._sparse:
            return np.where(near & (likeness > 0.95), 10.0, -0.1)
        bonus = 10.0 * (near & (likeness > 0.9)) + 50.0 * (near & (likeness > 0.95))
        return likeness - distance + bonus - 5.0 * dropped

    def terminations(self, observations: np.ndarray) -> np.ndarray:
        """None: the task goes on until its time is over."""
        return np.zeros(len(observations) - 1, bool)

    def infos(self, observations: np.ndarray) -> dict[str, np.ndarray]:
        """None: recorded data say little of success that would follow from a state."""
        return {}


def without_goals(dataset: Dataset, goals: Goals) -> Dataset:
    """The dataset with states as observations; its spaces still are those of the whole observations."""
    states = goals.states(dataset.episodes.observations)
    episodes = dataclasses.replace(dataset.episodes, observations=np.ascontiguousarray(states))
    return dataclasses.replace(dataset, episodes=episodes)
