"""Batches: steps drawn in an exact ratio of original to augmented ones, and looked up in a table.

Shape letters: `K` runs, `B` batch, `S` state width, `A` action width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor

from minari_stitch.errors import StitchError

Ratio = tuple[int, int]
"""Parts original : augmented of every batch."""


class RatioError(StitchError):
    """A ratio is malformed, or asks for data that are not there."""


@dataclass(frozen=True)
class Sizes:
    """Widths of the flat spaces.

    Attributes:
        states: S.
        actions: A; learners see actions scaled to [-1, 1].
    """

    states: int
    actions: int


class Sampler(Protocol):
    """Where batches come from. Indices are drawn in blocks, ahead of the steps that use them."""

    def draw(self, steps: int) -> Tensor:
        """Draw what the next `steps` batches hold: `(steps, K, B)` int64 on the device, without a sync."""
        ...

    def gather(self, indices: Tensor) -> dict[str, Tensor]:
        """Look `(K, B)` indices up: the batch, each value `(K, B, ...)`. A pure function, compiled with `update`."""
        ...


def parse_ratio(text: str) -> Ratio:
    """`"4:1"` -> `(4, 1)`, original : augmented.

    Raises:
        RatioError: It is not two whole numbers of which one is positive.
    """
    parts = text.split(":")
    if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts) or not any(map(int, parts)):
        raise RatioError(f"ratio={text!r} is not possible: write original:augmented, such as 4:1, 1:0 or 0:1")
    return int(parts[0]), int(parts[1])


class Mixture:
    """Draws step rows uniformly from each side, in exact proportion.

    Batch t of a run holds `floor((t + 1) q) - floor(t q)` augmented steps, `q = B augmented / (original + augmented)`:
    the ratio itself where B is divisible by it, else within one step of it in each batch and exact in the long run.
    The numbers that a run draws do not depend on its ratio, nor on the other runs.
    """

    def __init__(
        self,
        sides: tuple[Tensor, Tensor],
        ratios: Sequence[Ratio],
        generators: Sequence[Generator],
        batch_size: int,
    ) -> None:
        """Take what `LearnerData.mixture` has checked."""
        self._rows, self._split = torch.cat(sides), len(sides[0])
        self._generators = generators
        self._batch_size = batch_size
        self._parts = torch.tensor(ratios, device=self._rows.device)  # (K, 2)
        self._drawn = 0

    def draw(self, steps: int) -> Tensor:
        """Rows of the next `steps` batches, `(steps, K, B)`; augmented ones first."""
        device, size = self._rows.device, self._batch_size
        shape = (steps, size)
        raw = torch.stack([torch.randint(2**62, shape, generator=g, device=device) for g in self._generators], 1)
        time = torch.arange(self._drawn, self._drawn + steps + 1, device=device)[:, None]
        augmented = (time * size * self._parts[:, 1] // self._parts.sum(1)).diff(dim=0)  # (steps, K)
        self._drawn += steps
        other = torch.arange(size, device=device) < augmented[..., None]
        rest = max(len(self._rows) - self._split, 1)
        return self._rows[torch.where(other, self._split + raw % rest, raw % max(self._split, 1))]


class Transitions:
    """Batches of transitions, a `Sampler`."""

    def __init__(self, table: Tensor, sizes: Sizes, mixture: Mixture, reward_scale: float) -> None:
        """Keep the columns of `LearnerData.table` at hand."""
        self.draw = mixture.draw
        self._table = table
        self._widths = [sizes.states, sizes.actions, 1, sizes.states, 1]
        self._scale = reward_scale

    def gather(self, indices: Tensor) -> dict[str, Tensor]:
        """`(K, B)` -> `states`, `actions`, `next_states` `(K, B, ...)`, `rewards`, `continues` `(K, B)`."""
        states, actions, rewards, following, continues = self._table[indices].split(self._widths, -1)
        return {
            "states": states,
            "actions": actions,
            "rewards": rewards[..., 0] * self._scale,
            "next_states": following,
            "continues": continues[..., 0],
        }
