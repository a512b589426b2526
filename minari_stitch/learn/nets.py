"""MLP ensembles in one batched product a layer, and how networks get their first weights.

Shape letters: `B` batch, `M` ensemble members.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_ALL = slice(None)
_ROWS = 512
"""Whose derivatives are held at once: they are wide, and as fast again where they fit in a cache."""


class MLP(nn.Module):
    """`M` independent multi-layer perceptrons with SiLU, evaluated in one batched product per layer.

    Args:
        inputs: Input width.
        outputs: Output width.
        hidden: Width of the hidden layers.
        layers: Number of hidden layers.
        members: Number of networks M.
        generator: Source of the initial weights.
    """

    def __init__(
        self, inputs: int, outputs: int, *, hidden: int, layers: int, members: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        sizes = [inputs, *[hidden] * layers, outputs]
        pairs = list(zip(sizes[:-1], sizes[1:], strict=True))
        self.weights = nn.ParameterList(_uniform((members, i, o), i, generator) for i, o in pairs)
        self.biases = nn.ParameterList(_uniform((members, 1, o), i, generator) for i, o in pairs)

    def forward(self, x: Tensor, members: slice = _ALL) -> Tensor:
        """Map `(B, inputs)`, shared by the members, or `(M, B, inputs)` to `(M, B, outputs)`."""
        weights = [weight[members] for weight in self.weights]
        biases = [bias[members] for bias in self.biases]
        x = x.expand(len(weights[0]), *x.shape[-2:])
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            x = F.silu(torch.baddbmm(bias, x, weight))
        return torch.baddbmm(biases[-1], x, weights[-1])

    def linear(self, x: Tensor, members: slice = _ALL) -> tuple[Tensor, Tensor]:
        """The same of `(B, inputs)`, and its derivatives `(M, B, outputs, inputs)`."""
        parts = [self._linear(part, members) for part in x.split(_ROWS)]
        return torch.cat([value for value, _ in parts], 1), torch.cat([slope for _, slope in parts], 1)

    def _linear(self, x: Tensor, members: slice) -> tuple[Tensor, Tensor]:
        """From the last layer to the first, since that one is the wider."""
        weights = [weight[members] for weight in self.weights]
        biases = [bias[members] for bias in self.biases]
        x, slopes = x.expand(len(weights[0]), *x.shape), []
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            x = torch.baddbmm(bias, x, weight)
            gate = x.sigmoid()
            slopes.append(gate * (1 + x * (1 - gate)))
            x = x * gate
        back = weights[-1].mT[:, None].expand(-1, x.shape[1], -1, -1)
        for weight, slope in zip(weights[-2::-1], slopes[::-1], strict=True):
            back = ((back * slope[:, :, None]).flatten(1, 2) @ weight.mT).unflatten(1, back.shape[1:3])
        return torch.baddbmm(biases[-1], x, weights[-1]), back


def initialise(net: nn.Module, generator: torch.Generator) -> None:
    """Set every parameter, drawing weights from `generator` and never from the global RNG."""
    for module in net.modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.ConvTranspose1d):
            bound = 1 / math.sqrt(module.weight[0].numel())
            for parameter in module.parameters():
                with torch.no_grad():
                    parameter.uniform_(-bound, bound, generator=generator)
        elif isinstance(module, nn.GroupNorm | nn.LayerNorm):
            module.reset_parameters()


def _uniform(shape: tuple[int, ...], fan_in: int, generator: torch.Generator) -> nn.Parameter:
    bound = 1 / math.sqrt(fan_in)
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound, generator=generator))
