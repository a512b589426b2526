"""Diffusion over single rows as SynthER uses it: EDM's preconditioning, loss and Heun sampler (Karras et al., 2022).

Shape letters: `B` batch, `D` width of a row. Rows have unit variance in every dimension (`sigma_data` = 1).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from minari_stitch.config import Positive, settings
from minari_stitch.errors import ConfigError

Network = Callable[[Tensor, Tensor], Tensor]
"""`(B, D)` scaled rows at noise levels `(B,)`, or `(1,)` for all, both as `denoised` makes them, to `(B, D)`."""


@settings
class NoiseConfig:
    """Noise levels, EDM's table 1 (the values that SynthER uses)."""

    smallest: Positive = 0.002
    """sigma_min, where sampling ends."""
    largest: Positive = 80.0
    """sigma_max, where it begins."""
    rho: Positive = 7.0
    """Bends the levels between them towards the smallest."""
    log_mean: float = -1.2
    """Mean of ln(sigma) in training."""
    log_std: Positive = 1.2
    """Its standard deviation."""

    def __post_init__(self) -> None:
        """Refuse an empty range."""
        if self.smallest >= self.largest:
            raise ConfigError(f"smallest={self.smallest} is not possible: use less than largest={self.largest}")


def denoised(net: Network, noised: Tensor, sigma: Tensor) -> Tensor:
    """The clean rows that the network sees in noised `(B, D)` at noise `(B,)` or `(1,)` (EDM, Eq. 7): `(B, D)`."""
    level = sigma[:, None]
    total = level.square() + 1
    return noised / total + level / total.sqrt() * net(noised / total.sqrt(), sigma.log() / 4)


def loss(net: Network, rows: Tensor, config: NoiseConfig, generator: torch.Generator) -> Tensor:
    """EDM's weighted denoising loss (its Eq. 2 and section 5) on rows `(B, D)`: a scalar."""
    device = rows.device
    draw = torch.randn(len(rows), device=device, generator=generator)
    sigma = (config.log_mean + config.log_std * draw).exp()
    noise = torch.randn(rows.shape, device=device, generator=generator)
    error = denoised(net, rows + sigma[:, None] * noise, sigma) - rows
    weight = (sigma.square() + 1) / sigma.square()
    return (weight[:, None] * error.square()).mean()


def levels(steps: int, config: NoiseConfig) -> list[float]:
    """The `steps + 1` noise levels of a sampler, from the largest to 0 (EDM, Eq. 5)."""
    ends = [config.largest ** (1 / config.rho), config.smallest ** (1 / config.rho)]
    inner = [(ends[0] + i / (steps - 1) * (ends[1] - ends[0])) ** config.rho for i in range(steps)]
    return [*inner, 0.0]


def draw_rows(
    net: Network, shape: tuple[int, int], steps: int, config: NoiseConfig, generator: torch.Generator
) -> Tensor:
    """Rows `(B, D)` by Heun's second-order method (EDM, algorithm 1, without churn).

    Args:
        net: The trained network.
        shape: `(B, D)`.
        steps: Noise levels; each but the last takes two evaluations.
        config: Noise levels.
        generator: Draws the initial noise, on the device to sample on.
    """
    schedule = levels(steps, config)
    x = torch.randn(shape, device=generator.device, generator=generator) * schedule[0]

    def slope(x: Tensor, sigma: float) -> Tensor:
        return (x - denoised(net, x, x.new_full((1,), sigma))) / sigma

    for now, following in zip(schedule, schedule[1:], strict=False):
        first = slope(x, now)
        ahead = x + (following - now) * first
        if following > 0:
            ahead = x + (following - now) * (first + slope(ahead, following)) / 2
        x = ahead
    return x
