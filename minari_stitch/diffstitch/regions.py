"""What the data connect: regions of the state space, and which of them some trajectory leads between.

Where rewards say nothing, a pair of states is worth what its bridge opens up: regions that the target's trajectory
goes on to, and that no trajectory reaches from where the source is.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.cluster.vq import kmeans2, vq
from torch import Tensor

_FITTED = 20_000
"""States that regions are found from; all are assigned to them."""
_BLOCK = 2**24
"""Visits compared at once."""


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
        joined: `(K, K)` whether a trajectory leads from one to another; each is joined to itself.
    """

    def __init__(self, z: Tensor, episode: Tensor, step: Tensor, count: int, seed: int) -> None:
        states, rng = z.double().cpu().numpy(), np.random.default_rng(seed)
        some = states if len(states) <= _FITTED else states[rng.choice(len(states), _FITTED, replace=False)]
        distinct = np.unique(some, axis=0)
        centres = distinct if len(distinct) <= count else kmeans2(some, count, minit="++", rng=rng)[0]
        region = torch.tensor(vq(states, centres)[0], dtype=torch.int64, device=z.device)
        cells, times = episode * len(centres) + region, step.int()
        shape = (int(episode[-1]) + 1, len(centres))

        def visits(never: int, reduce: str) -> Tensor:
            found = torch.full((shape[0] * shape[1],), never, dtype=torch.int32, device=z.device)
            return found.scatter_reduce(0, cells, times, reduce).reshape(shape)

        first, self._last = visits(2**31 - 1, "amin"), visits(-1, "amax")
        self.region, self._episode, self._step = region, episode, times
        self.joined = torch.eye(shape[1], dtype=torch.bool, device=z.device)
        for rows in torch.arange(shape[0], device=z.device).split(max(1, _BLOCK // shape[1] ** 2)):
            self.joined |= (first[rows, :, None] <= self._last[rows, None, :]).any(0)

    def opened(self, source: Tensor, target: Tensor) -> Tensor:
        """Regions that targets `(P,)` go on to and that no trajectory reaches from sources `(B,)`: `(B, P)` counts."""
        onward = self._last[self._episode[target]] >= self._step[target][:, None]
        return (~self.joined[self.region[source]]).float() @ onward.float().T
