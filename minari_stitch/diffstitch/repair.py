"""Repair: pull generated bridges onto the learned dynamics by direct collocation.

A diffusion model draws a plausible path, but each of its states carries a small independent error, and the
largest one decides whether a bridge qualifies. Here the generated states and the actions become variables,
and gradient descent on the squared transition error spreads and removes what is inconsistent; both ends stay.
Only networks that do not judge take part, so qualification still sees the result for the first time.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from minari_stitch.diffstitch.models import Models

_RATE = 0.1


def transition_errors(
    dynamics: Callable[[Tensor, Tensor], Tensor], states: Tensor, actions: Tensor, steps: Tensor
) -> tuple[Tensor, Tensor]:
    """How far each transition of a bridge is from what dynamics networks predict.

    Args:
        dynamics: Maps `(B', S)` states and `(B', A)` actions to next states `(M, B', S)`.
        states: `(B, L + 2, S)` standardised.
        actions: `(B, L + 1, A)`.
        steps: `(B,)` number of generated states; later transitions are padding.

    Returns:
        Squared distance to the mean prediction and variance between the networks, `(B, L + 1)` each,
        summed over dimensions and 0 on padding.
    """
    row, time = _transitions(states, steps)
    error, spread = _errors(dynamics(states[row, time], actions[row, time]), states[row, time + 1])
    padded = states.new_zeros(2, *actions.shape[:2])
    padded[:, row, time] = torch.stack([error, spread])
    return padded[0], padded[1]


def repair(models: Models, states: Tensor, actions: Tensor, steps: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Lower the transition errors of bridges by gradient descent on their inner states and actions.

    Args:
        models: The trained bundle; its repairing networks are used.
        states: `(B, L + 2, S)` standardised; the first and the padding from the target on stay.
        actions: `(B, L + 1, A)` in [-1, 1]; they stay inside.
        steps: `(B,)` number of generated states.
        iterations: Gradient steps; 0 returns the input.

    Returns:
        States and actions; a bridge whose largest error did not fall is returned as it came.
    """
    if iterations == 0:
        return states, actions
    row, time = _transitions(states, steps)
    free = (time > 0)[:, None]
    low, high = models.scales.low, models.scales.high
    before = torch.stack(transition_errors(models.repairers, states, actions, steps)).sum(0)
    with torch.enable_grad():
        z, u = states[row, time].requires_grad_(), actions[row, time].requires_grad_()
        # Transitions lie one after the other, so the next one's state is a shift, and the target ends a bridge.
        start, last, target = states[row, time], (time == steps[row])[:, None], states[row, time + 1]
        optimizer = torch.optim.Adam([z, u], lr=_RATE, betas=(0.9, 0.95))
        for i in range(iterations):
            for group in optimizer.param_groups:
                group["lr"] = _RATE * (1 - i / iterations)
            optimizer.zero_grad()
            error, spread = _errors(models.repairers(z, u), torch.where(last, target, z.roll(-1, 0)))
            # Disagreement counts as error: it keeps the path where the networks know the dynamics.
            (error + spread).sum().backward()
            optimizer.step()
            with torch.no_grad():
                u.clamp_(-1, 1)
                z.copy_(torch.where(free, z.clamp(low, high), start))
    repaired, acted = states.clone(), actions.clone()
    repaired[row, time], acted[row, time] = z.detach(), u.detach()
    after = torch.stack(transition_errors(models.repairers, repaired, acted, steps)).sum(0)
    better = (after.amax(1) < before.amax(1))[:, None, None]
    return torch.where(better, repaired, states), torch.where(better, acted, actions)


def _transitions(states: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
    """Bridge and time of each transition that is not padding, in order."""
    time = torch.arange(states.shape[1] - 1, device=states.device)
    row, time = (time <= steps[:, None]).nonzero(as_tuple=True)
    return row, time


def _errors(predicted: Tensor, actual: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distance of `(B', S)` to the mean of `(M, B', S)`, and their variance, summed over dimensions."""
    mean = predicted.mean(0)
    return (mean - actual).square().sum(-1), (predicted - mean).square().mean(0).sum(-1)
