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

from minari_stitch.models import Models

_RATE = 0.03


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
    batch, length, width = states.shape
    predicted = dynamics(states[:, :-1].reshape(-1, width), actions.reshape(-1, actions.shape[-1]))
    predicted = predicted.reshape(len(predicted), batch, length - 1, width)
    inside = torch.arange(length - 1, device=states.device) <= steps[:, None]
    error = (predicted.mean(0) - states[:, 1:]).square().sum(-1)
    spread = predicted.var(0, correction=0).sum(-1)
    return error * inside, spread * inside


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
    position = torch.arange(states.shape[1], device=states.device)
    free = ((position >= 1) & (position <= steps[:, None]))[..., None]
    low, high = models.scales.low, models.scales.high
    first, _ = transition_errors(models.repairers, states, actions, steps)
    with torch.enable_grad():
        z, u = states.clone().requires_grad_(), actions.clone().requires_grad_()
        optimizer = torch.optim.Adam([z, u], lr=_RATE, betas=(0.9, 0.95))
        for i in range(iterations):
            for group in optimizer.param_groups:
                group["lr"] = _RATE * (1 - i / iterations)
            optimizer.zero_grad()
            error, spread = transition_errors(models.repairers, torch.where(free, z, states), u, steps)
            # Disagreement counts as error: it keeps the path where the networks know the dynamics.
            (error + spread).sum().backward()
            optimizer.step()
            with torch.no_grad():
                u.clamp_(-1, 1)
                z.clamp_(low, high)
        z, u = torch.where(free, z.detach(), states), u.detach()
    last, _ = transition_errors(models.repairers, z, u, steps)
    better = (last.amax(1) < first.amax(1))[:, None, None]
    return torch.where(better, z, states), torch.where(better, u, actions)
