"""Hindsight: goals for transitions, drawn from the data as OGBench draws them.

Shape letters: `K` runs, `B` batch, `S` state width. A goal is a state of the data in which a step is taken, named by
the row of that step. States and goals are as the environment gives them, not normalised:
OGBench's learners need to tell a maze's walls apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from benchmarks.batches import Ratio
from benchmarks.data import LearnerData
from minari_stitch.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Goals:
    """Where goals come from.

    Attributes:
        current: Probability of the state itself.
        trajectory: Of a later state of its trajectory.
        random: Of any state of the data.
        geometric: Later states at geometric distances, cut at the end of the trajectory, instead of all alike.
        discount: Their distances have the mean 1 / (1 - discount).
    """

    current: float
    trajectory: float
    random: float
    geometric: bool
    discount: float

    def __post_init__(self) -> None:
        """Refuse what are no probabilities."""
        shares = (self.current, self.trajectory, self.random)
        if min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
            raise ConfigError(f"goals from (current, trajectory, random)={shares} are not possible: let them sum to 1")
        if not 0 < self.discount < 1:
            raise ConfigError(f"discount={self.discount:g} is not possible: choose one in (0, 1)")


class Hindsight:
    """Batches of transitions with goals, a `Sampler`."""

    def __init__(
        self,
        data: LearnerData,
        ratios: Sequence[Ratio],
        generators: Sequence[Generator],
        batch_size: int,
        *,
        value: Goals,
        actor: Goals,
    ) -> None:
        """Draw transitions and goals.

        Args:
            data: Original and augmented data.
            ratios: Original : augmented of each run, of transitions as of random goals.
            generators: One for each run, on the device of the data.
            batch_size: B.
            value: Goals of values.
            actor: Goals of the policy.

        Raises:
            RatioError: See `LearnerData.mixture`.
        """
        self._generators, self._kinds = generators, (value, actor)
        self._rows = data.mixture(ratios, generators, batch_size)
        self._random = [data.mixture(ratios, generators, batch_size) for _ in self._kinds]
        self._sizes, self._table = data.sizes, data.table.clone()
        for first in (0, data.sizes.states + data.sizes.actions + 1):
            self._table[:, first : first + data.sizes.states].mul_(data.std).add_(data.mean)
        self._last = data.offsets[1:][data.step_episode] - 1  # (N,) row of the last step of each step's trajectory

    def draw(self, steps: int) -> Tensor:
        """Rows of transitions, of value goals and of policy goals, `(steps, K, 3, B)`."""
        rows = self._rows.draw(steps)
        return torch.stack([rows, *map(self._goals, [rows] * 2, self._kinds, self._random)], 2)

    def gather(self, indices: Tensor) -> dict[str, Tensor]:
        """Look the rows up.

        Args:
            indices: `(K, 3, B)` of `draw`.

        Returns:
            `states`, `actions`, `next_states`, `value_goals`, `actor_goals` `(K, B, ...)`; `rewards` `(K, B)`, 0 where
            the state is the goal itself, else -1; and `continues` `(K, B)`, 0 there and else 1.
        """
        rows, value, actor = indices.unbind(1)
        width, actions = self._sizes.states, self._sizes.actions
        states, acted, _, following, _ = self._table[rows].split([width, actions, 1, width, 1], -1)
        elsewhere = (rows != value).to(states.dtype)
        return {
            "states": states,
            "actions": acted,
            "next_states": following,
            "value_goals": self._table[value, :width],
            "actor_goals": self._table[actor, :width],
            "rewards": -elsewhere,
            "continues": elsewhere,
        }

    def _goals(self, rows: Tensor, kind: Goals, random: object) -> Tensor:
        """A goal for each row, `(steps, K, B)`."""
        size = (3, len(rows), rows.shape[2])
        uniform = torch.stack([torch.rand(size, device=g.device, generator=g) for g in self._generators], 2)
        chosen = random.draw(len(rows))  # pyright: ignore[reportAttributeAccessIssue]
        last = self._last[rows]
        return pick(kind, rows, last, chosen, uniform)


def pick(kind: Goals, rows: Tensor, last: Tensor, random: Tensor, uniform: Tensor) -> Tensor:
    """Choose goals.

    Args:
        kind: Where from.
        rows: Of the transitions, any shape.
        last: Of the last steps of their trajectories.
        random: Rows of random goals.
        uniform: `(3, ...)` numbers in [0, 1): for the place in the trajectory, trajectory or not, current or not.

    Returns:
        Rows of the goals.
    """
    ahead = last - rows
    if kind.geometric:  # by inversion: P(n) = (1 - discount) discount^(n - 1)
        distance = torch.floor(torch.log1p(-uniform[0]) / torch.log(torch.tensor(kind.discount))).long() + 1
        later = rows + torch.minimum(distance, ahead)
    else:
        first = ahead.clamp(max=1)
        later = rows + first + torch.round((ahead - first) * (1 - uniform[0])).long()
    share = kind.trajectory / (1 - kind.current) if kind.current < 1 else 0.0
    goals = torch.where(uniform[1] < share, later, random)
    return torch.where(uniform[2] < kind.current, rows, goals)
