"""What an environment makes of single steps, each put where a state says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcomes:
    """What the environment makes of `B` states and actions; NaN where the state is not known as a whole.

    Attributes:
        following: `(B, S)` next observations.
        rewards: `(B,)`.
        terminated: `(B,)` 1 where the episode ends, else 0.
    """

    following: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray

    @classmethod
    def unknown(cls, count: int, width: int) -> Outcomes:
        """Of `count` steps, with observations of so many dimensions; to be filled in."""
        rewards, terminated = np.full((2, count), np.nan)
        return cls(following=np.full((count, width), np.nan), rewards=rewards, terminated=terminated)

    def rows(self, chosen: np.ndarray | slice) -> Outcomes:
        """Those of some steps."""
        return Outcomes(**{name: values[chosen] for name, values in vars(self).items()})

    def put(self, at: np.ndarray, others: Outcomes) -> None:
        """Write the outcomes of other steps at rows `at`."""
        for name, values in vars(others).items():
            getattr(self, name)[at] = values


def ask(
    env: Any,
    place: Callable[[int], None],
    known: np.ndarray,
    actions: np.ndarray,
    width: int,
    flat: Callable[[Any], np.ndarray] = np.asarray,
) -> Outcomes:
    """Put the environment where each known row says, and step.

    Args:
        env: The environment.
        place: Puts it where a row says.
        known: `(B,)` rows whose state is known as a whole.
        actions: `(B, A)`.
        width: Dimensions of an observation.
        flat: Observation -> `(width,)`.
    """
    found = Outcomes.unknown(len(actions), width)
    for row in np.flatnonzero(known):
        place(int(row))
        seen, found.rewards[row], found.terminated[row], *_ = env.step(actions[row])
        found.following[row] = flat(seen)
    return found


def one(observation: Any) -> Any:
    """A batch of one."""
    if isinstance(observation, dict):
        return {name: one(part) for name, part in observation.items()}
    return np.asarray(observation)[None]
