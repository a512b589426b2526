"""Small networks for many runs at once, and the optimiser as part of the graph.

Parameters are plain dicts of tensors `(K, M, ...)`: K runs of M networks each (twin critics are M = 2), so that
one batched product serves a layer of all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Generator, Tensor
from torch.optim.adamw import adamw

Parameters = dict[str, Tensor]


def stack(generators: Iterable[Generator], draw: Callable[[Generator], Tensor], dim: int = 0) -> Tensor:
    """Draw the same thing from each run's generator, and stack along `dim`."""
    return torch.stack([draw(generator) for generator in generators], dim)


def mlp(generators: Sequence[Generator], widths: Sequence[int], members: int = 1) -> Parameters:
    """Initial parameters of a multi-layer perceptron, uniform within 1 / sqrt(fan-in) as `nn.Linear` draws them.

    Args:
        generators: One for each run.
        widths: Inputs, hidden layers, outputs.
        members: Networks M of each run.

    Returns:
        `weight<i>` of `(K, M, in, out)` and `bias<i>` of `(K, M, 1, out)`.
    """
    parameters = {}
    for layer, (fan_in, fan_out) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
        for name, rows in (("weight", fan_in), ("bias", 1)):
            shape, bound = (members, rows, fan_out), 1 / math.sqrt(fan_in)
            parameters[f"{name}{layer}"] = stack(
                generators,
                lambda g, shape=shape, bound=bound: torch.empty(shape, device=g.device).uniform_(
                    -bound, bound, generator=g
                ),
            )
    return parameters


def glorot(
    generators: Sequence[Generator], widths: Sequence[int], members: int = 1, *, norm: bool = False, last: float = 1.0
) -> Parameters:
    """Initial parameters like those of `mlp`, uniform with variance 2 / (fan-in + fan-out), biases 0.

    Args:
        generators: One for each run.
        widths: Inputs, hidden layers, outputs.
        members: Networks M of each run.
        norm: Normalise the hidden layers after their activation (`scale<i>` and `shift<i>` of `(K, M, 1, out)`).
        last: Factor of the last layer's variance.
    """
    parameters, layers = {}, len(widths) - 1
    for layer, (fan_in, fan_out) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
        bound = math.sqrt(6 * (last if layer == layers - 1 else 1.0) / (fan_in + fan_out))
        parameters[f"weight{layer}"] = stack(
            generators,
            lambda g, shape=(members, fan_in, fan_out), bound=bound: torch.empty(shape, device=g.device).uniform_(
                -bound, bound, generator=g
            ),
        )
        zeros = torch.zeros(len(generators), members, 1, fan_out, device=generators[0].device)
        parameters[f"bias{layer}"] = zeros
        if norm and layer < layers - 1:
            parameters |= {f"scale{layer}": torch.ones_like(zeros), f"shift{layer}": zeros.clone()}
    return parameters


def forward_gelu(parameters: Parameters, x: Tensor) -> Tensor:
    """Apply perceptrons of `glorot`: GELU (by its tanh), and where they are normalised, layer norm after it.

    Args:
        parameters: Of `glorot`.
        x: `(K, B, in)`, shared by the members.

    Returns:
        `(K, M, B, out)`.
    """
    layers = sum(name.startswith("weight") for name in parameters)
    runs, members = parameters["weight0"].shape[:2]
    x = x[:, None].expand(runs, members, *x.shape[1:])
    for layer in range(layers):
        flat = [parameters[f"{name}{layer}"].flatten(0, 1) for name in ("bias", "weight")]
        x = torch.baddbmm(flat[0], x.flatten(0, 1), flat[1]).unflatten(0, (runs, members))
        if layer < layers - 1:
            x = torch.nn.functional.gelu(x, approximate="tanh")
            if f"scale{layer}" in parameters:
                x = torch.nn.functional.layer_norm(x, x.shape[-1:], eps=1e-6)
                x = x * parameters[f"scale{layer}"] + parameters[f"shift{layer}"]
    return x


def forward(parameters: Parameters, x: Tensor, dropout: Sequence[Tensor] | None = None) -> Tensor:
    """Apply perceptrons with ReLU.

    Args:
        parameters: Of `mlp`.
        x: `(K, B, in)`, shared by the members.
        dropout: For each hidden layer `(K, B, width)`, 0 where a unit is dropped, else 1 / (1 - rate).

    Returns:
        `(K, M, B, out)`.
    """
    layers = sum(name.startswith("weight") for name in parameters)
    runs, members = parameters["weight0"].shape[:2]
    x = x[:, None].expand(runs, members, *x.shape[1:]).flatten(0, 1)
    for layer in range(layers):
        x = torch.baddbmm(parameters[f"bias{layer}"].flatten(0, 1), x, parameters[f"weight{layer}"].flatten(0, 1))
        if layer < layers - 1:
            x = x.relu()
            if dropout is not None:
                x = x * dropout[layer]
    return x.unflatten(0, (runs, members))


def gradients(loss: Callable[..., tuple[Tensor, Any]], parameters: Parameters, *arguments: Any) -> tuple[Any, Any]:
    """Differentiate `loss(parameters, *arguments) -> (loss (K,), info)`; runs share nothing, so their sum will do.

    Returns:
        Gradients like `parameters`, and the info.
    """

    def total(parameters: Parameters) -> tuple[Tensor, Any]:
        losses, info = loss(parameters, *arguments)
        return losses.sum(), info

    if torch.compiler.is_compiling():
        return torch.func.grad(total, has_aux=True)(parameters)
    leaves = {name: value.detach().requires_grad_() for name, value in parameters.items()}  # a quarter faster eagerly
    value, info = total(leaves)
    return dict(zip(leaves, torch.autograd.grad(value, list(leaves.values())), strict=True)), info


def moments(parameters: Parameters) -> dict[str, Parameters]:
    """Adam's moments before the first step, and how many steps each parameter has taken."""
    return {
        **{name: {k: torch.zeros_like(v) for k, v in parameters.items()} for name in ("mean", "square")},
        "steps": {k: torch.zeros((), device=v.device) for k, v in parameters.items()},
    }


def cosine(rate: float, step: Tensor, steps: int) -> Tensor:
    """A learning rate that falls from `rate` in the first step to 0 after the last, along half a cosine."""
    return rate * 0.5 * (1 + torch.cos(math.pi * (step - 1) / steps))


@torch.no_grad()
def adam(
    parameters: Parameters,
    grads: Parameters,
    moments: dict[str, Parameters],
    rate: float | Tensor,
    weight_decay: float = 0.0,
) -> None:
    """One step of AdamW in place, which is Adam where no weight decays.

    PyTorch's functional form, since an optimiser's own state could not be part of a `State`.

    Args:
        parameters: To change.
        grads: Their gradients.
        moments: See `moments`.
        rate: Learning rate.
        weight_decay: Decoupled, of all parameters.
    """
    adamw(
        list(parameters.values()),
        [grads[name] for name in parameters],
        *([moments[kind][name] for name in parameters] for kind in ("mean", "square")),
        max_exp_avg_sqs=[],
        state_steps=[moments["steps"][name] for name in parameters],
        capturable=next(iter(parameters.values())).is_cuda,
        amsgrad=False,
        beta1=0.9,
        beta2=0.999,
        lr=rate,
        weight_decay=weight_decay,
        eps=1e-8,
        maximize=False,
    )


@torch.no_grad()
def follow(target: Parameters, parameters: Parameters, rate: float) -> None:
    """Move a target network by `rate` towards its network, in place."""
    for name, value in target.items():
        value.lerp_(parameters[name], rate)
