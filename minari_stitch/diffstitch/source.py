"""The source dataset as stitching reads it: tensors on the device, and which states may be joined."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from minari_stitch.data.episodes import Episodes
from minari_stitch.diffstitch.config import StitchConfig
from minari_stitch.diffstitch.regions import Regions
from minari_stitch.errors import NothingToStitchError
from minari_stitch.learn.normalize import encode_rows
from minari_stitch.learn.scales import Scales

_GAIN = 0.01
"""Share by which a bridge has to raise what chains of trajectories earn: regions are coarse."""


class Source:
    """States, returns and limits of a dataset, by state row (`N + E` of them).

    Args:
        episodes: The source.
        scales: Normalisers, on the device to use.
        discount: Gamma.
        context: Real states shown before a bridge.
        max_episode_steps: Time limit of the environment, or None.
        place: Columns of a state that are a place in the plane, if any are.

    Attributes:
        z: `(N + E, S)` standardised states.
        windows: `(N + E, S)` the same in the space of the diffusion model.
        returns: `(N + E,)` discounted returns-to-go, in float64 where the device has it.
        episode: `(N + E,)` episode of each state.
        step: `(N + E,)` time step of each state in its episode.
        last: `(N + E,)` row of the last state of the same episode.
    """

    def __init__(
        self,
        episodes: Episodes,
        scales: Scales,
        discount: float,
        context: int,
        max_episode_steps: int | None,
        place: tuple[int, ...] | None = None,
    ) -> None:
        device = scales.low.device
        self.discount, self.context, self.place = discount, context, place
        self.limit = max_episode_steps or int(2**62)
        self.single = len(episodes) == 1
        self.z = encode_rows(scales.state, episodes.observations, device)
        self.windows = self.z if scales.one_space else encode_rows(scales.window, episodes.observations, device)
        exact = torch.float32 if device.type == "mps" else torch.float64  # which mps lacks
        self.returns = torch.tensor(episodes.returns_to_go(discount), dtype=exact, device=device)
        offsets = torch.tensor(episodes.state_offsets, device=device)
        self.episode = torch.repeat_interleave(offsets.diff())
        self.step = torch.arange(len(self.z), device=device) - offsets[self.episode]
        self.last = offsets[self.episode + 1] - 1
        self._sorted: dict[tuple[str, StitchConfig], Tensor] = {}
        ends = np.zeros(len(self.z), bool)
        ends[episodes.state_offsets[1:] - 1] = episodes.terminations[episodes.offsets[1:] - 1]
        self._ended = torch.tensor(ends, device=device)
        self._found: dict[int, Regions] = {}
        self._chained: dict[int, Tensor] = {}
        self._reaches: dict[tuple[int, float], Tensor] = {}

    @cached_property
    def inner(self) -> Tensor:
        """`(N + E,)` states with an action of their own."""
        return self.last > torch.arange(len(self.last), device=self.last.device)

    def starts(self, config: StitchConfig) -> Tensor:
        """Rows where a prefix may end: enough history, room under the time limit, and low in return, or any.

        Raises:
            NothingToStitchError: No state qualifies.
        """
        if ("source", config) not in self._sorted:
            rows = torch.arange(len(self.last), device=self.last.device)
            room = self.inner & (self.step >= self.context - 1) & self.fits(rows, config.shortest)
            # By default a source runs on longer than the shortest bridge, or there is nothing to compare with.
            room &= self.last - rows > (config.shortest if config.steps_left is None else config.steps_left)
            if config.latest_source is not None:
                room &= self.step <= config.latest_source
            share = config.source_fraction if config.by_return else 1.0
            lowest = self._by_return(room, share, highest=config.pairs == "reference", what="source")
            self._sorted["source", config] = lowest
        return self._sorted["source", config]

    def targets(self, config: StitchConfig) -> Tensor:
        """Rows where a suffix may begin: the highest share by return-to-go, or all; with an action of their own."""
        if ("target", config) not in self._sorted:
            share = config.target_fraction if config.by_return else 1.0
            highest = self._by_return(self.inner, share, highest=True, what="target")
            self._sorted["target", config] = highest
        return self._sorted["target", config]

    def fits(self, source: Tensor, steps: Tensor | int) -> Tensor:
        """Whether a bridge of `steps` states, and a real step after it, end before the time limit."""
        return self.step[source] + steps + 2 <= self.limit

    def may_follow(self, source: Tensor, target: Tensor) -> Tensor:
        """Whether a target could raise the return of a source; same-episode pairs only if there is no other."""
        other = (self.episode[source] != self.episode[target]) | self.single
        return other & (self.returns[target] > self.returns[source])

    def adds(self, source: Tensor, target: Tensor, steps: Tensor, config: StitchConfig) -> Tensor:
        """Whether bridges of `steps (B, P)` states add something to what chains of trajectories give, see `regions`.

        They raise the return of their sources `(B,)` beyond the best chain's, if they earn what the sources did in as
        many steps; or, where returns cannot be compared, lead on to regions that no trajectory reaches from there.

        Returns:
            `(B, P)` for targets `(P,)`.
        """
        if not config.rising:
            return self.regions(config.regions).opened(source, target) > 0
        chained = self.chained(config.regions)
        ahead = torch.minimum(source[:, None] + steps + 1, self.last[source][:, None])
        own = self.returns[source][:, None] - self.power(ahead - source[:, None]) * self.returns[ahead]
        gain = own + self.power(steps + 1) * chained[target] - chained[source][:, None]
        return gain > _GAIN * chained[source].abs()[:, None]

    def chained(self, regions: int) -> Tensor:
        """`(N + E,)` what the best chain of trajectories earns from each state."""
        if regions not in self._chained:
            found = self.regions(regions)
            self._chained[regions] = found.earned(self.returns, self._ended, self.discount)
        return self._chained[regions]

    def regions(self, count: int) -> Regions:
        """Clusters of its states, found once."""
        if count not in self._found:
            self._found[count] = Regions(self.z, self.episode, self.step, count, seed=0)
        return self._found[count]

    def pace(self, steps: int) -> Tensor:
        """`(S,)` how far so many steps lead in each dimension (root mean square); 1 where no episode has as many."""
        last = max(0, len(self.z) - steps)
        change = (self.z[steps:] - self.z[:last])[self.episode[steps:] == self.episode[:last]]
        return change.square().mean(0).sqrt().clamp(min=1e-6) if len(change) else torch.ones_like(self.z[0])

    def reach(self, most: int, share: float) -> Tensor:
        """`(most,)` how far 1, 2, ... steps lead in standardised space: no farther in this share of the windows."""
        if (most, share) not in self._reaches:
            found = []
            for steps in range(1, most + 1):
                inside = (self.episode[steps:] == self.episode[:-steps]).nonzero().squeeze(1)
                some = inside[:: 1 + len(inside) // 100_000]
                way = (self.z[some + steps] - self.z[some]).norm(dim=-1)
                found.append(way.quantile(share) if len(way) else way.new_tensor(0.0))
            self._reaches[most, share] = torch.stack(found).cummax(0).values
        return self._reaches[most, share]

    def suffix_return(self, source: Tensor, target: Tensor, steps: Tensor) -> Tensor:
        """`(B,)` discounted return of the target's suffix, cut where the time limit cuts the stitched episode."""
        allowed = self.limit - (self.step[source] + steps + 1)
        end = torch.minimum(target + allowed.clamp(min=0), self.last[target])
        return self.returns[target] - self.power(end - target) * self.returns[end]

    def power(self, steps: Tensor) -> Tensor:
        """The discount to the power of `steps`, as precise as the returns."""
        return self.discount ** steps.to(self.returns.dtype)

    def _by_return(self, allowed: Tensor, share: float, *, highest: bool, what: str) -> Tensor:
        """The share of the `allowed` rows with the highest or lowest returns, in order of rows."""
        rows = allowed.nonzero().squeeze(1)
        if len(rows) == 0:
            raise NothingToStitchError(
                f"no {what} state: every episode is shorter than the shortest bridge or has no room left before "
                "the time limit; lower stitch.min_bridge to 1, raise stitch.latest_source where it is set, or use a "
                "dataset with longer episodes"
            )
        order = self.returns[rows].argsort(descending=highest, stable=True)
        return rows[order[: max(1, round(share * len(rows)))]].sort().values
