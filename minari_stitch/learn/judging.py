"""Judges: dynamics networks that say how far a transition is off, and a classifier of terminations.

Every method of this package is judged by them; how they are weighed is the method's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minari_stitch.config import Count, settings
from minari_stitch.learn.loop import FitConfig, classifier, perceptron
from minari_stitch.learn.nets import MLP
from minari_stitch.learn.tables import RowLoss, Tables

DELTAS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Thresholds at which acceptance is reported."""
SALTS = {"dynamics": 1, "termination": 4}
"""Tells the generators of the networks apart."""


@settings
class JudgeConfig:
    """The judging networks of a method that has no dynamics networks of its own."""

    hidden: Count = 144
    """Width of the hidden layers."""
    layers: Count = 4
    """Hidden layers of the dynamics networks."""
    members: Count = 4
    """Dynamics networks."""
    dynamics: FitConfig = field(default_factory=lambda: perceptron(3500))
    """Training of the dynamics networks."""
    termination: FitConfig = field(default_factory=lambda: classifier(2000))
    """Training of the classifier of terminations."""

    @classmethod
    def full(cls) -> Self:
        """As many and as large as DiffStitch's on a GPU."""
        fit = FitConfig(steps=30_000, batch_size=1024, learning_rate=1e-3, evaluate_every=1000)
        return cls(hidden=512, layers=4, members=7, dynamics=fit, termination=fit)


def build_judge(
    name: str, states: int, actions: int, *, hidden: int, layers: int, members: int, generator: torch.Generator
) -> MLP:
    """The dynamics ensemble, or the classifier of terminations, with fresh weights on the CPU."""
    if name == "dynamics":
        return MLP(states + actions, states, hidden=hidden, layers=layers, members=members, generator=generator)
    return MLP(states, 1, hidden=hidden, layers=2, members=1, generator=generator)


def judge_loss(name: str, tables: Tables) -> RowLoss:
    """Squared error of the scaled change of the state, or cross-entropy of the termination, on steps `(M, B)`."""

    def dynamics(net: nn.Module, steps: Tensor, _: torch.Generator) -> Tensor:
        return (net(tables.inputs(steps)) - tables.change(steps)).square().mean()

    def termination(net: nn.Module, steps: Tensor, _: torch.Generator) -> Tensor:
        ended = tables.terminal[steps].float()
        return F.binary_cross_entropy_with_logits(net(tables.z[tables.state[steps] + 1]).squeeze(-1), ended)

    return dynamics if name == "dynamics" else termination


def transition_errors(
    dynamics: Callable[[Tensor, Tensor], Tensor], states: Tensor, actions: Tensor, steps: Tensor
) -> tuple[Tensor, Tensor]:
    """How far each transition of a path is from what dynamics networks predict.

    Args:
        dynamics: Maps `(B', S)` states and `(B', A)` actions to next states `(M, B', S)`.
        states: `(B, L + 2, S)` standardised.
        actions: `(B, L + 1, A)`.
        steps: `(B,)` number of inner states; later transitions are padding.

    Returns:
        Squared distance to the mean prediction and variance between the networks, `(B, L + 1)` each,
        summed over dimensions and 0 on padding.
    """
    errors, spread, _ = judged_transitions(dynamics, states, actions, steps)
    return errors, spread


def judged_transitions(
    dynamics: Callable[[Tensor, Tensor], Tensor], states: Tensor, actions: Tensor, steps: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The same as `transition_errors`, and the mean prediction `(B, L + 1, S)`, which is the path's own on padding."""
    row, time = transitions(states, steps)
    predicted = dynamics(states[row, time], actions[row, time])
    padded = states.new_zeros(2, *actions.shape[:2])
    padded[:, row, time] = torch.stack(squared_errors(predicted, states[row, time + 1]))
    following = states[:, 1:].index_put((row, time), predicted.mean(0))
    return padded[0], padded[1], following


def transitions(states: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
    """Path and time of each transition that is not padding, in order."""
    time = torch.arange(states.shape[1] - 1, device=states.device)
    row, time = (time <= steps[:, None]).nonzero(as_tuple=True)
    return row, time


def squared_errors(predicted: Tensor, actual: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distance of `(B', S)` to the mean of `(M, B', S)`, and their variance, summed over dimensions."""
    mean = predicted.mean(0)
    return (mean - actual).square().sum(-1), (predicted - mean).square().mean(0).sum(-1)
