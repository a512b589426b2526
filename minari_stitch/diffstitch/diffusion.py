"""Gaussian diffusion over masked windows of states: schedule, masks, loss and sampler.

Shape letters: `B` batch, `H` horizon, `S` state width, `K` diffusion steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Parametrisation = Literal["v", "eps", "x0"]
MaskKind = Literal["inference", "paper", "reference"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Schedule:
    """Noise schedule: step `k` holds `x_k = signal_k x_0 + noise_k eps` with `signal^2 + noise^2 = 1`.

    Attributes:
        signal: `(K,)` square root of alpha-bar.
        noise: `(K,)` square root of one minus alpha-bar.
        parametrisation: What the network predicts. Noise prediction is ill-conditioned where the signal
            vanishes; velocity `v = signal eps - noise x_0` is well-scaled everywhere (Salimans & Ho, 2022).
    """

    signal: Tensor
    noise: Tensor
    parametrisation: Parametrisation

    @classmethod
    def cosine(cls, steps: int, parametrisation: Parametrisation, device: torch.device | str = "cpu") -> Schedule:
        """The paper's cosine schedule (Nichol & Dhariwal, 2021), computed in float64."""

        def alpha_bar(time: Tensor) -> Tensor:
            return torch.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2

        edges = torch.arange(steps + 1, dtype=torch.float64) / steps
        beta = (1 - alpha_bar(edges[1:]) / alpha_bar(edges[:-1])).clamp(max=0.999)
        kept = torch.cumprod(1 - beta, 0)
        return cls(
            signal=kept.sqrt().float().to(device),
            noise=(1 - kept).sqrt().float().to(device),
            parametrisation=parametrisation,
        )

    def add_noise(self, x0: Tensor, noise: Tensor, step: Tensor) -> Tensor:
        """`(B, H, S)` clean windows to windows at step `(B,)`."""
        signal, sigma = self._at(step)
        return signal * x0 + sigma * noise

    def target(self, x0: Tensor, noise: Tensor, step: Tensor) -> Tensor:
        """What the network is trained to predict."""
        signal, sigma = self._at(step)
        match self.parametrisation:
            case "eps":
                return noise
            case "x0":
                return x0
            case "v":
                return signal * noise - sigma * x0

    def clean(self, xk: Tensor, prediction: Tensor, step: Tensor) -> Tensor:
        """The clean window that a prediction at step `(B,)` stands for."""
        signal, sigma = self._at(step)
        match self.parametrisation:
            case "eps":
                return (xk - sigma * prediction) / signal
            case "x0":
                return prediction
            case "v":
                return signal * xk - sigma * prediction

    def _at(self, step: Tensor) -> tuple[Tensor, Tensor]:
        return self.signal[step][:, None, None], self.noise[step][:, None, None]


def training_masks(valid: Tensor, kind: MaskKind, context: int, generator: torch.Generator) -> Tensor:
    """Draw which positions of each training window are shown to the network.

    Args:
        valid: `(B, H)` bool, positions inside the episode.
        kind: `inference` mirrors what stitching asks: the start alone, the start and the whole tail, or the
            start and a block. `paper` hides two intervals and shows the start and what lies between them; the
            second one reaches to the end (section 4.2). `reference` shows the start and one block anywhere before
            the last position, also right after the start (released code). In a window
            that an episode's end cuts short, the end is the last position inside the episode.
        context: Number of leading states that are always shown.
        generator: Random source on the device of `valid`.

    Returns:
        `(B, H)` bool; True where a state is given.
    """
    batch, horizon = valid.shape
    draw = torch.rand(3, batch, 1, device=valid.device, generator=generator)
    position = torch.arange(horizon, device=valid.device)
    length = valid.sum(1, keepdim=True)
    # The shown block begins at `start`, of which `starts` are possible, and ends before `stop <= last`.
    hidden = 0 if kind == "reference" else 1
    last = length if kind == "inference" else length - 1
    starts = last - context - hidden
    start = context + hidden + (draw[0] * starts.clamp(min=1)).long()
    stop = start + 1 + (draw[1] * (last - start).clamp(min=1)).long()
    if kind == "inference":
        stop = torch.where(draw[2] < 0.75, horizon, stop)
        start = torch.where(draw[2] < 0.25, horizon, start)
    else:
        stop = torch.minimum(stop, last)
    return valid & ((position < context) | ((position >= start) & (position < stop)))


def masked_loss(predicted: Tensor, target: Tensor, known: Tensor, valid: Tensor, edge_weight: float = 1.0) -> Tensor:
    """Mean squared error over hidden positions inside the episode (Eq. 12).

    Args:
        predicted: `(B, H, S)`.
        target: `(B, H, S)`.
        known: `(B, H)` bool, given positions, which carry no loss.
        valid: `(B, H)` bool.
        edge_weight: Weight of hidden positions next to a given one, relative to the others.
    """
    known_f = known.float()
    beside = torch.zeros_like(known_f)
    beside[:, 1:] += known_f[:, :-1]
    beside[:, :-1] += known_f[:, 1:]
    weight = (valid & ~known) * torch.where(beside > 0, edge_weight, 1.0)
    error = (predicted - target).square().mean(-1)
    return (error * weight).sum() / weight.sum().clamp(min=1e-8)


def sampling_steps(total: int, steps: int) -> list[int]:
    """Descending diffusion steps with even spacing from the last one ("trailing")."""
    return [round(total - i * total / steps) - 1 for i in range(steps)]


def draw_windows(
    predict: Callable[[Tensor, Tensor], Tensor],
    given: Tensor,
    known: Tensor,
    schedule: Schedule,
    *,
    steps: int,
    eta: float,
    generator: torch.Generator,
    temperature: float = 1.0,
    bounds: tuple[Tensor, Tensor] | None = None,
    overwrite: bool = True,
) -> Tensor:
    """Draw windows by DDIM; `steps == K` with `eta == 1` is the paper's ancestral sampler (Eq. 11).

    Args:
        predict: Maps a noised window `(B, H, S)` and steps `(B,)` to the network's prediction.
        given: `(B, H, S)` with the known states in place.
        known: `(B, H)` bool.
        schedule: Noise schedule of the network.
        steps: Number of denoising steps, at most K.
        eta: Fresh noise of each step: 0 is deterministic DDIM, 1 is DDPM's posterior variance.
        generator: Random source on the device of `given`.
        temperature: Scale of all noise; the released code uses 0.5.
        bounds: Lowest and highest clean state, `(S,)` each; the estimate of x_0 is clipped to them.
        overwrite: Whether known states overwrite the sample at each step (released code), or at the end only.

    Returns:
        `(B, H, S)` windows whose known positions equal `given`.
    """
    shape, device = given.shape, given.device

    def noise() -> Tensor:
        return temperature * torch.randn(shape, device=device, generator=generator)

    order = sampling_steps(len(schedule.signal), steps)
    fixed = known[..., None] & overwrite
    x = torch.where(fixed, given, noise())
    for k, following in zip(order, [*order[1:], -1], strict=True):
        step = torch.full((shape[0],), k, device=device)
        x0 = schedule.clean(x, predict(x, step), step)
        if bounds is not None:
            x0 = x0.clamp(*bounds)
        if following < 0:
            x = x0
        else:
            signal, sigma = schedule.signal[k], schedule.noise[k]
            next_signal, next_sigma = schedule.signal[following], schedule.noise[following]
            eps = (x - signal * x0) / sigma
            fresh = eta * (next_sigma / sigma) * (1 - (signal / next_signal) ** 2).clamp(min=0).sqrt()
            x = next_signal * x0 + (next_sigma**2 - fresh**2).clamp(min=0).sqrt() * eps
            if eta > 0:
                x = x + fresh * noise()
        x = torch.where(fixed, given, x)
    return torch.where(known[..., None], given, x)
