"""What the data connect: regions of the state space, and which of them some trajectory leads between.

A learner that bootstraps joins trajectories by itself where they pass through one region. A bridge is worth what it
adds to that: more return than any chain of trajectories earns from where the source is, or, where rewards say nothing,
regions that none reaches.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from minari_stitch.learn.clusters import clusters

_FITTED = 20_000
"""States that regions are found from; all are assigned to them."""
_BLOCK = 2**24
"""Visits compared at once."""
_SWEEPS, _SETTLED = 100, 0.001
"""Of value iteration: sweeps at most, and the share by which a value may still rise when it stops."""


class Regions:
    """Clusters of states, when each episode visits them, and which are joined.

    Args:
        z: `(N + E, S)` standardised states.
        episode: `(N + E,)` episode of each.
        step: `(N + E,)` time step of each.
        count: Regions, at most.
        seed: Of the clusters.

    Attributes:
        region: `(N + E,)` region of each state.
        led: `(K, K)` whether a single trajectory leads from one to another. Each leads to itself.
        joined: `(K, K)` whether trajectories do, changing over where they share a region; where they lead everywhere,
            whether a single one does.
    """

    def __init__(self, z: Tensor, episode: Tensor, step: Tensor, count: int, seed: int) -> None:
        states = z.double().cpu().numpy()
        labels, found = clusters(states, count, np.random.default_rng(seed), sample=_FITTED)
        region = torch.tensor(labels, dtype=torch.int64, device=z.device)
        cells, times = episode * found + region, step.int()
        shape = (int(episode[-1]) + 1, found)

        def visits(never: int, reduce: str) -> Tensor:
            never_seen = torch.full((shape[0] * shape[1],), never, dtype=torch.int32, device=z.device)
            return never_seen.scatter_reduce(0, cells, times, reduce).reshape(shape)

        first, self._last = visits(2**31 - 1, "amin"), visits(-1, "amax")
        self.region, self._episode, self._step = region, episode, times
        self.led = torch.eye(shape[1], dtype=torch.bool, device=z.device)
        for rows in torch.arange(shape[0], device=z.device).split(max(1, _BLOCK // shape[1] ** 2)):
            self.led |= (first[rows, :, None] <= self._last[rows, None, :]).any(0)
        chained = _closure(self.led)
        self.joined = self.led if chained.all() else chained

    @cached_property
    def _backwards(self) -> list[Tensor]:
        """Rows that another one follows, backwards in time, all trajectories at once, for value iteration."""
        going_on = torch.cat([self._episode[1:] == self._episode[:-1], self._episode.new_zeros(1, dtype=torch.bool)])
        latest_first = self._step.argsort(descending=True, stable=True).split(self._step.bincount().flip(0).tolist())
        return [rows[going_on[rows]] for rows in latest_first[1:]]

    def earned(self, returns: Tensor, ended: Tensor, discount: float) -> Tensor:
        """Value iteration over the regions: what the best chain of trajectories earns from a state on.

        Args:
            returns: `(N + E,)` discounted return-to-go of each state in its own trajectory.
            ended: `(N + E,)` states in which the environment ended an episode, where no trajectory goes on.
            discount: Gamma.

        Returns:
            `(N + E,)`, the same for all states of a region; at an end its own return.
        """
        rewards = torch.cat([returns[:-1] - discount * returns[1:], returns.new_zeros(1)])
        best, _ = self._settled(rewards, ended, returns, discount)
        return torch.where(ended, returns, best[self.region])

    def ways(
        self, rewards: Tensor, fixed: Tensor, worth: Tensor, discount: float, crossing: tuple[float, float]
    ) -> tuple[Tensor, Tensor]:
        """Where to go on, and where to change over to another trajectory, for the most that any chain earns.

        Args:
            rewards: `(N + E,)` of the step from each state.
            fixed: `(N + E,)` states where ways end.
            worth: `(N + E,)` what is earned there; -inf elsewhere.
            discount: Gamma.
            crossing: What changing over earns, and the discount of what follows.

        Returns:
            `(N + E,)` what going on along its own trajectory earns from each state, -inf where it ends without earning;
            `(K,)` what is earned from a region on by whoever changes over to the best of its states.
        """
        best, onward = self._settled(rewards, fixed, worth, discount, crossing)
        return torch.where(fixed, worth, onward), crossing[0] + crossing[1] * best

    def _settled(
        self,
        rewards: Tensor,
        fixed: Tensor,
        worth: Tensor,
        discount: float,
        crossing: tuple[float, float] = (0.0, 1.0),
    ) -> tuple[Tensor, Tensor]:
        """Value iteration: of regions `(K,)` the best state that is not fixed, of states `(N + E,)` what follows."""
        going = self.region[~fixed]
        best = worth.new_full((len(self.joined),), -torch.inf).scatter_reduce(0, going, worth[~fixed], "amax")
        onward = worth.new_full((len(worth),), -torch.inf)
        for _ in range(_SWEEPS):
            value = torch.where(fixed, worth, (crossing[0] + crossing[1] * best)[self.region])
            for rows in self._backwards:
                onward[rows] = rewards[rows] + discount * value[rows + 1]
                value[rows] = torch.where(fixed[rows], worth[rows], torch.maximum(value[rows], onward[rows]))
            before, best = best, best.scatter_reduce(0, going, value[~fixed], "amax")
            if torch.allclose(before, best, rtol=_SETTLED, atol=0):
                break
        return best, onward

    def opened(self, source: Tensor, target: Tensor) -> Tensor:
        """Regions that targets `(P,)` go on to and that no trajectory reaches from sources `(B,)`: `(B, P)` counts."""
        onward = self._last[self._episode[target]] >= self._step[target][:, None]
        return (~self.joined[self.region[source]]).float() @ onward.float().T


def _closure(joined: Tensor) -> Tensor:
    """What can be reached in any number of steps."""
    while not torch.equal(further := (joined.float() @ joined.float()) > 0, joined):
        joined = further
    return joined
