"""How far generated states lie from real ones, in units of how far real ones lie from each other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from minari_stitch.learn.seeds import seeded
from minari_stitch.learn.tables import Tables

REFERENCE = 32_768
_HELD = 4096
_SHARE = 0.9
_BLOCK = 2**24
"""Distances held at once: 64 MB."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Support:
    """Squared distance to the nearest real state; nine of ten held-out real states are nearer than 1.

    Attributes:
        reference: `(R, S)` standardised states that networks learned from, or as many of them as are compared with.
        unit: Squared distance that counts as 1.
    """

    reference: Tensor
    unit: float

    def __call__(self, states: Tensor) -> Tensor:
        """Of standardised states `(..., S)`: `(...)`."""
        return nearest(states.reshape(-1, states.shape[-1]), self.reference).reshape(states.shape[:-1]) / self.unit

    @classmethod
    def of(cls, tables: Tables, seed: int) -> Support:
        """Compare the source's held-out states with those that networks learned from."""
        generator = seeded([seed, 8], tables.z.device)

        def some(steps: Tensor, count: int) -> Tensor:
            order = torch.randperm(len(steps), device=steps.device, generator=generator)
            return tables.z[tables.state[steps[order[:count]]]]

        reference = some(tables.train, REFERENCE)
        distances = nearest(some(tables.held, _HELD), reference)
        # Held-out states that all have a twin leave no unit: then any distance is too far.
        return cls(reference=reference, unit=max(float(distances.quantile(_SHARE)), 1e-9))


def nearest(states: Tensor, reference: Tensor) -> Tensor:
    """`(B,)` squared distance of states `(B, S)` to the nearest of `(R, S)`, however many."""
    rows = states.split(max(1, _BLOCK // len(reference)))
    return torch.cat([torch.cdist(part, reference).amin(1).square() for part in rows])
