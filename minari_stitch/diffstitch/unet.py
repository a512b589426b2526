"""The temporal U-Net of the generative model (section 4.2).

Shape letters: `B` batch, `H` horizon, `S` state width, `C` channels.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TemporalUNet(nn.Module):
    """1-D convolutional U-Net over a window of states (section 4.2; Janner et al., 2022).

    Its inputs are the noised window, the masked window and the mask (Eq. 11), and which positions lie inside
    the episode, so that windows past an episode's end need no zero padding that could be taken for states.

    Args:
        states: State width S.
        width: Channels of the first level.
        multipliers: Channels of each level, in units of `width`; each level but the last halves the horizon.
        kernel: Odd kernel size of the convolutions.
        conditional: Take a return as a further condition (classifier-free guidance of the released code).
    """

    def __init__(
        self, states: int, *, width: int, multipliers: tuple[int, ...], kernel: int, conditional: bool = False
    ) -> None:
        super().__init__()
        embedding = 4 * width
        self.frequencies = width
        self.time = nn.Sequential(nn.Linear(width, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.returns = (
            nn.Sequential(nn.Linear(2, embedding), nn.SiLU(), nn.Linear(embedding, embedding)) if conditional else None
        )
        channels = [width * multiplier for multiplier in multipliers]
        self.stem = nn.Conv1d(2 * states + 2, channels[0], 1)
        self.down = nn.ModuleList()
        previous = channels[0]
        for level, c in enumerate(channels):
            blocks = [_Block(previous, c, embedding, kernel), _Block(c, c, embedding, kernel)]
            half = nn.Conv1d(c, c, 3, stride=2, padding=1) if level < len(channels) - 1 else nn.Identity()
            self.down.append(nn.ModuleList([*blocks, half]))
            previous = c
        self.middle = nn.ModuleList([_Block(previous, previous, embedding, kernel) for _ in range(2)])
        self.up = nn.ModuleList()
        for c, skip in zip(reversed(channels[:-1]), reversed(channels[1:]), strict=True):
            double = nn.ConvTranspose1d(c, c, 4, stride=2, padding=1)
            blocks = [_Block(previous + skip, c, embedding, kernel), _Block(c, c, embedding, kernel)]
            self.up.append(nn.ModuleList([*blocks, double]))
            previous = c
        self.head = nn.Sequential(
            nn.Conv1d(previous + channels[0], previous, kernel, padding=kernel // 2),
            nn.GroupNorm(_groups(previous), previous),
            nn.SiLU(),
            nn.Conv1d(previous, states, 1),
        )

    def forward(
        self,
        noised: Tensor,
        masked: Tensor,
        known: Tensor,
        valid: Tensor,
        step: Tensor,
        returns: Tensor | None = None,
    ) -> Tensor:
        """Predict the target of the parametrisation.

        Args:
            noised: `(B, H, S)` window with noise on the unknown positions.
            masked: `(B, H, S)` known states, zero elsewhere.
            known: `(B, H)` 1 where a state is given.
            valid: `(B, H)` 1 inside the episode.
            step: `(B,)` diffusion step in `0 .. K - 1`.
            returns: `(B,)` scaled returns; NaN hides the return of a row (guidance dropout).

        Returns:
            `(B, H, S)`.
        """
        embedding = self.time(_sinusoid(step, self.frequencies))
        if self.returns is not None:
            assert returns is not None, "a conditional network needs returns"
            shown = ~returns.isnan()
            pair = torch.stack([returns.nan_to_num(), shown.to(returns.dtype)], -1)
            embedding = embedding + self.returns(pair)
        x = torch.cat([noised, masked, known[..., None], valid[..., None]], -1).transpose(1, 2)
        x = stem = self.stem(x)
        skips = []
        for first, second, half in self.down:  # type: ignore[misc]
            x = second(first(x, embedding), embedding)
            skips.append(x)
            x = half(x)
        for block in self.middle:
            x = block(x, embedding)
        for first, second, double in self.up:  # type: ignore[misc]
            x = second(first(torch.cat([x, skips.pop()], 1), embedding), embedding)
            x = double(x)
        return self.head(torch.cat([x, stem], 1)).transpose(1, 2)


class _Block(nn.Module):
    """Two convolutions with a residual path; the diffusion step shifts the features between them."""

    def __init__(self, inputs: int, outputs: int, embedding: int, kernel: int) -> None:
        super().__init__()
        pad = kernel // 2
        self.first = nn.Conv1d(inputs, outputs, kernel, padding=pad)
        self.first_norm = nn.GroupNorm(_groups(outputs), outputs)
        self.shift = nn.Linear(embedding, outputs)
        self.second = nn.Conv1d(outputs, outputs, kernel, padding=pad)
        self.second_norm = nn.GroupNorm(_groups(outputs), outputs)
        self.skip = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        y = F.silu(self.first_norm(self.first(x))) + self.shift(F.silu(embedding))[..., None]
        return F.silu(self.second_norm(self.second(y))) + self.skip(x)


def _groups(channels: int) -> int:
    return math.gcd(8, channels)


def _sinusoid(step: Tensor, width: int) -> Tensor:
    """`(B,)` -> `(B, width)` positional features of the diffusion step (Vaswani et al., 2017)."""
    half = width // 2
    rates = torch.exp(torch.arange(half, device=step.device) * (-math.log(10_000) / (half - 1)))
    angles = step[:, None].float() * rates
    return torch.cat([angles.sin(), angles.cos()], -1)
