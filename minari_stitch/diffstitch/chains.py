"""Chains: episodes that cross several bridges, each where a good way leads.

Where trajectories pass through one region of the state space, one may change over from one to the other. Value
iteration over the regions says where that lies on the best way: to the highest return where returns can be compared,
else, in the fewest steps, to a region that is drawn. Only those joins are bridged.

Shape letters: `B` joins, `K` regions; `N + E` state rows of the source.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from minari_stitch.diffstitch.config import StitchConfig
from minari_stitch.diffstitch.source import Source
from minari_stitch.errors import NothingToStitchError

_FASTEST = 0.9
"""Share of the data's windows that lead less far in as many steps: what the fastest do."""
_PACE = 0.65
"""Of how far they lead, how far a bridge has to: it turns on its way, and what has no time to spare drifts."""
_GAIN = 0.01
"""Share of the largest return that a join has to add: regions are coarse."""
_EACH = 32
"""Chains to one end, before another is drawn."""
_TRIES = 64
"""Ends to which no chain leads, before it is given up."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Joins:
    """Where trajectories are joined.

    Attributes:
        source: `(B,)` state rows where a trajectory is left.
        target: `(B,)` state rows where another one is entered.
        steps: `(B,)` generated states between them.
        chain: `(B,)` number of the chain that each belongs to; those of a chain follow each other.
    """

    source: Tensor
    target: Tensor
    steps: Tensor
    chain: Tensor


def draw(source: Source, config: StitchConfig, generator: torch.Generator) -> Joins:
    """Draw about `config.chunk` joins: whole chains of up to `config.hops`.

    Raises:
        NothingToStitchError: No chain leads to anything better.
    """
    reach = _PACE * source.reach(config.longest + 1, _FASTEST)
    rows: list[tuple[int, ...]] = []
    chains = in_vain = 0
    while len(rows) < config.chunk:
        ways = _Ways.to_return(source, config) if config.rising else _Ways.to_region(source, config, generator)
        before = chains
        for start in ways.starts(generator):
            joins = ways.chain(start, reach)
            rows += [(*join, chains) for join in joins]
            chains += bool(joins)
            if len(rows) >= config.chunk:
                break
        in_vain = 0 if chains > before else in_vain + 1
        if in_vain == _TRIES:
            raise NothingToStitchError(
                f"no chain of up to {config.hops} bridges leads to anything better: raise stitch.hops or "
                f"stitch.regions={config.regions}, or stitch single pairs with stitch.hops=1"
            )
    columns = torch.tensor(rows, device=source.z.device).T
    return Joins(**dict(zip(("source", "target", "steps", "chain"), columns, strict=True)))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Ways:
    """The best ways to an end.

    Attributes:
        source: The data.
        config: Lengths of bridges, and how many there may be.
        region: `(N + E,)` region of each state.
        end: `(N + E,)` states where ways end.
        onward: `(N + E,)` what going on along its own trajectory is worth.
        across: `(K,)` what changing over is worth.
        slack: By how much less than the best of its region a state that is entered may be worth.
        first: `(F,)` first states of trajectories from which ways are of use.
        whole: Whether only chains that reach the end are.
    """

    source: Source
    config: StitchConfig
    region: Tensor
    end: Tensor
    onward: Tensor
    across: Tensor
    slack: float
    first: Tensor
    whole: bool

    @classmethod
    def to_return(cls, source: Source, config: StitchConfig) -> _Ways:
        """To the highest discounted return."""
        found, returns, discount = source.regions(config.regions), source.returns, source.discount
        rewards = torch.cat([returns[:-1] - discount * returns[1:], returns.new_zeros(1)])
        steps, gain = _crossing(config), _GAIN * float(returns.abs().max())
        # A bridge earns what steps do on average, and has to add something.
        earned = float(rewards[source.inner].mean()) * sum(discount**step for step in range(steps)) - gain
        worth = returns.masked_fill(source.inner, -torch.inf)
        onward, across = found.ways(rewards, ~source.inner, worth, discount, (earned, discount**steps))
        return cls(
            source=source,
            config=config,
            region=found.region,
            end=~source.inner,
            onward=onward,
            across=across,
            slack=gain,
            first=_first(source),
            whole=False,
        )

    @classmethod
    def to_region(cls, source: Source, config: StitchConfig, generator: torch.Generator) -> _Ways:
        """To the region of some state, in the fewest steps, from where no single trajectory leads there."""
        found = source.regions(config.regions)
        state = torch.randint(len(source.z), (), device=source.z.device, generator=generator)
        end = found.region == found.region[state]
        nothing, first = source.returns.new_zeros(len(end)), _first(source)
        steps, worth = float(_crossing(config)), nothing.masked_fill(~end, -torch.inf)
        # No bridge leaves the last state of a trajectory, which shows no action to compare with.
        onward, across = found.ways(nothing - 1, end | ~source.inner, worth, 1.0, (-steps, 1.0))
        return cls(
            source=source,
            config=config,
            region=found.region,
            end=end,
            onward=onward,
            across=across,
            slack=steps / 2,
            first=first[~found.led[found.region[first], found.region[state]]],
            whole=True,
        )

    def starts(self, generator: torch.Generator) -> list[int]:
        """Some first states of episodes from which something is reached."""
        first = self.first
        open_ = first[torch.maximum(self.onward, self.across[self.region])[first].isfinite()]
        order = torch.randperm(len(open_), device=first.device, generator=generator)
        return open_[order[:_EACH]].tolist()

    def chain(self, start: int, reach: Tensor) -> list[tuple[int, int, int]]:
        """Follow the best way from a state.

        Returns:
            `(source, target, steps)` of its joins; none where it crosses none, or has to be whole and would cross more
            than there may be.
        """
        source, config, joins, at, time = self.source, self.config, [], start, 0
        while True:
            rows = torch.arange(at, int(source.last[at]) + 1, device=source.z.device)
            leaves = self.across[self.region[rows]] > self.onward[rows]
            leaves &= source.inner[rows] & (source.step[rows] >= source.context - 1)
            leaves[: 1 if joins else 0] = False  # a real step lies between two bridges
            until, left = (int(mask.int().argmax()) if mask.any() else len(rows) for mask in (self.end[rows], leaves))
            if until <= left:  # also where neither comes
                return joins if until < len(rows) or not self.whole else []
            row = int(rows[left])
            target = self._entrance(row)
            far = (source.z[target] - source.z[row]).norm()
            steps = int(torch.searchsorted(reach, far).clamp(config.shortest, config.longest))
            time += left + steps + 1
            if len(joins) == config.hops or time + 1 > source.limit:
                return [] if self.whole else joins
            joins.append((row, target, steps))
            at = target

    def _entrance(self, row: int) -> int:
        """Of the states of its region that are worth about the most, the nearest."""
        source = self.source
        rows = ((self.region == self.region[row]) & source.inner).nonzero().squeeze(1)
        worth = self.onward[rows]
        rows = rows[worth >= worth.max() - self.slack]
        return int(rows[(source.z[rows] - source.z[row]).norm(dim=-1).argmin()])


def _first(source: Source) -> Tensor:
    """First states of trajectories."""
    return (source.step == 0).nonzero().squeeze(1)


def _crossing(config: StitchConfig) -> int:
    """Steps that a bridge is planned with: the most it may have, so that there are few."""
    return config.longest + 1
