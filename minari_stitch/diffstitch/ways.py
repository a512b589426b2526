"""What a stitched episode is joined from: real stretches of the source, with bridges between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from minari_stitch.data.episodes import Episodes
from minari_stitch.data.goals import Goals
from minari_stitch.diffstitch.proposals import Proposals

Form = Literal["full", "onward", "bridge", "transitions"]
"""Whole stitched episodes; bridge and suffix, without what led there; bridges with a little real context; or each step
of a bridge as an episode of its own, which ends where the judging networks say that it leads."""
BRIDGE_MARGIN = 5
"""Real steps on each side of a bridge written alone."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Link:
    """A bridge of a stitched episode, by episode and time step of the source.

    Attributes:
        chunk: The proposals that it is one of.
        row: Which one.
        head: Episode that it leaves.
        junction: State where it begins.
        steps: Generated states.
        tail: Episode that it enters.
        entry: State where it ends.
    """

    chunk: Proposals
    row: int
    head: int
    junction: int
    steps: int
    tail: int
    entry: int

    def of(self, name: str) -> np.ndarray:
        """What the proposals hold of each of its `steps + 1` steps."""
        return getattr(self.chunk, name)[self.row, : self.steps + 1]

    def value(self, name: str) -> float:
        """What the proposals hold of it, the largest of all steps."""
        return float(getattr(self.chunk, name)[self.row].max())


@dataclass(frozen=True, kw_only=True, eq=False)
class Way:
    """What an episode is joined from.

    Attributes:
        links: Its bridges, in order; each leaves the episode that the one before enters, later on.
        first: First step of the first episode that is written.
        stop: Step of the last episode before which it is cut.
        end: Step before which it ends in the whole stitched episode.
    """

    links: tuple[Link, ...]
    first: int
    stop: int
    end: int

    @property
    def leaves(self) -> list[int]:
        """For each bridge, the first step that is written of the episode that it leaves."""
        return [self.first, *(link.entry for link in self.links[:-1])]

    @property
    def begins(self) -> list[int]:
        """The step of the stitched episode at which each bridge begins."""
        found, time = [], 0
        for at, link in zip(self.leaves, self.links, strict=True):
            found.append(time + link.junction - at)
            time = found[-1] + link.steps + 1
        return found

    @property
    def length(self) -> int:
        """Steps of the episode as it is written."""
        return self.begins[-1] + self.links[-1].steps + 1 + self.stop - self.links[-1].entry

    @property
    def generated(self) -> int:
        """Its generated steps."""
        return sum(link.steps + 1 for link in self.links)


def ways_of(
    source: Episodes, chunk: Proposals, rows: np.ndarray, *, form: Form, max_episode_steps: int | None
) -> Iterator[Way]:
    """The ways of some rows of a chunk, all bridges of a chain in one, up to the first that does not qualify.

    Args:
        source: The source dataset.
        chunk: The proposals.
        rows: Bridges that qualify, in order.
        form: What is written of each.
        max_episode_steps: The environment's time limit, at which they are cut.
    """
    offsets = source.state_offsets
    heads, tails = (np.searchsorted(offsets, at, side="right") - 1 for at in (chunk.source, chunk.target))
    for chain in np.split(rows, np.flatnonzero(np.diff(chunk.chain[rows])) + 1) if len(rows) else ():
        links = tuple(
            Link(
                chunk=chunk,
                row=row,
                head=(head := int(heads[row])),
                junction=int(chunk.source[row] - offsets[head]),
                steps=int(chunk.steps[row]),
                tail=(tail := int(tails[row])),
                entry=int(chunk.target[row] - offsets[tail]),
            )
            for row in chain.tolist()
        )
        yield _cut(source, links, form, max_episode_steps)


def _cut(source: Episodes, links: tuple[Link, ...], form: Form, limit: int | None) -> Way:
    """A way from the start of its first episode, or what is written of it."""
    last, junction = links[-1], links[0].junction
    end = int(source.lengths[last.tail])
    whole = Way(links=links, first=0, stop=end, end=end)
    if limit is not None:
        # Time in the environment runs from the start of the first episode, whatever part is written.
        end = min(end, last.entry + limit - (whole.length - (end - last.entry)))
    first = {"full": 0, "bridge": max(0, junction - BRIDGE_MARGIN)}.get(form, junction)
    stop = {"bridge": min(end, last.entry + BRIDGE_MARGIN), "transitions": last.entry}.get(form, end)
    return Way(links=links, first=first, stop=stop, end=end)


def ends_early(source: Episodes, way: Way, goals: Goals) -> bool:
    """Whether what leads to the last target would end on its way there, under that target's goal."""
    return bool(goals.terminations(arriving(source, way, goals)).any())


def arriving(source: Episodes, way: Way, goals: Goals | None) -> np.ndarray:
    """Observations of all that is before the last target, and its first one."""
    target = source.episode(way.links[-1].tail)["observations"][way.links[-1].entry]
    goal, pieces = None if goals is None else goals.goal(target), []
    for at, link in zip(way.leaves, way.links, strict=True):
        real = source.episode(link.head)["observations"][at : link.junction + 1]
        bridge = link.chunk.states[link.row, 1 : link.steps + 1].astype(real.dtype)  # first, or a goal would be rounded
        if goals is not None and goal is not None:
            real, bridge = goals.pursue(goals.states(real), goal), goals.pursue(bridge, goal)
        pieces += [real, bridge]
    return np.concatenate([*pieces, target[None]])
