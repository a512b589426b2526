"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner (Vyas et al., 2024, algorithm 3), for ensembles of matrices.

A layer's inputs go together, and so do the errors of its outputs; Adam, which scales each weight by itself, does not
see it. In the eigenbases of E[G G'] and E[G' G] the entries of a gradient are nearly uncorrelated, so that scaling
each by itself is right. Rotations cost as much as the gradient of a batch of a few hundred rows, so batches are larger
and steps are fewer; a small network on noiseless data is after half of the time where Adam leaves it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

TURN_EVERY = 10
"""Steps between two turns of the bases."""
_WIDEST = 512
"""Sides longer than this keep their basis: a turn takes the cube of their length."""
_EPSILON = 1e-8


class Soap(torch.optim.Optimizer):
    """Adam in bases that `turn` follows up.

    A step is made of operations in place on tensors that stay where they are, so that a GPU can record it; what it
    cannot record, factorisations, is in `stepped`, which is called after every step.

    Args:
        parameters: Their last two dimensions are a matrix, those before tell independent networks apart. A side of
            length 1 or more than 512, and a vector, keeps its basis.
        lr: Rate; a tensor where steps are recorded.
        betas: Decay of the gradient's mean, of its squares, and of the statistics that give the bases.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float | Tensor,
        betas: tuple[float, float, float] = (0.9, 0.99, 0.9),
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "turns": 0})
        for parameter in self._parameters():
            state: dict[str, Any] = self.state[parameter]
            state["step"] = parameter.new_zeros(())
            state["mean"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
            for side in _sides(parameter):
                basis = torch.eye(parameter.shape[side], dtype=parameter.dtype, device=parameter.device)
                state[f"basis{side}"] = basis.repeat(*parameter.shape[:-2], 1, 1)
                state[f"statistics{side}"] = torch.zeros_like(state[f"basis{side}"])

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take a step along the gradients."""
        (group,) = self.param_groups
        first, second, third = group["betas"]
        for parameter in self._parameters():
            state = self.state[parameter]
            gradient = parameter.grad
            for side in _sides(parameter):
                one = parameter.grad if side == -2 else parameter.grad.mT
                state[f"statistics{side}"].lerp_(one @ one.mT, 1 - third)
                basis = state[f"basis{side}"]
                gradient = basis.mT @ gradient if side == -2 else gradient @ basis
            step = state["step"].add_(1)
            mean, square = state["mean"].lerp_(gradient, 1 - first), state["square"]
            square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
            spread = (square / (1 - second**step)).sqrt_().add_(_EPSILON)
            update = mean.mul(group["lr"] / (1 - first**step)).div_(spread)
            for side in _sides(parameter):
                basis = state[f"basis{side}"]
                update = basis @ update if side == -2 else update @ basis.mT
            parameter.sub_(update)

    def stepped(self) -> None:
        """Count a step, and turn the bases after every tenth."""
        (group,) = self.param_groups
        group["turns"] += 1
        if group["turns"] % TURN_EVERY == 0:
            self.turn()

    @torch.no_grad()
    def turn(self) -> None:
        """Turn the bases towards eigenvectors of the statistics, by a step of subspace iteration."""
        for parameter in self._parameters():
            state = self.state[parameter]
            for side in _sides(parameter):
                basis, mean = state[f"basis{side}"], state["mean"]
                new = torch.linalg.qr(state[f"statistics{side}"] @ basis).Q
                change = new.mT @ basis
                mean.copy_(change @ mean if side == -2 else mean @ change.mT)
                basis.copy_(new)

    def _parameters(self) -> list[Any]:
        return self.param_groups[0]["params"]


def _sides(parameter: Tensor) -> tuple[int, ...]:
    return tuple(side for side in (-2, -1) if parameter.ndim > 1 and 1 < parameter.shape[side] <= _WIDEST)
