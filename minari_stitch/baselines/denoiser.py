"""The denoiser of single rows: SynthER's residual perceptron."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ResidualMLP(nn.Module):
    """Perceptron with residual blocks, conditioned on a noise level: SynthER's denoiser (Lu et al., 2023).

    Args:
        width: Width of a row D.
        hidden: Width of the blocks.
        blocks: Number of blocks.
        generator: Source of the fixed random frequencies of the noise level.
    """

    frequencies: Tensor

    def __init__(self, width: int, *, hidden: int, blocks: int, generator: torch.Generator) -> None:
        super().__init__()
        self.register_buffer("frequencies", 2 * math.pi * torch.randn(16, generator=generator))
        embedding = 128
        self.level = nn.Sequential(nn.Linear(33, embedding), nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU())
        self.stem = nn.Linear(width, hidden)
        self.blocks = nn.ModuleList(
            nn.ModuleList([nn.LayerNorm(hidden), nn.Linear(hidden, hidden), nn.Linear(embedding, hidden)])
            for _ in range(blocks)
        )
        self.norm = nn.LayerNorm(hidden)
        self.head = nn.Linear(hidden, width)

    def forward(self, rows: Tensor, level: Tensor) -> Tensor:
        """Map rows `(B, D)` at noise levels `(B,)`, or `(1,)` for all, to `(B, D)`."""
        angles = level[:, None] * self.frequencies
        embedding = self.level(torch.cat([level[:, None], angles.sin(), angles.cos()], -1))
        x = self.stem(rows)
        for norm, inner, shift in self.blocks:  # type: ignore[misc]
            x = x + inner(F.silu(norm(x) + shift(embedding)))
        return self.head(F.silu(self.norm(x)))
