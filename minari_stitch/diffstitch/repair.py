"""Repair: pull generated bridges onto the learned dynamics by direct collocation.

A diffusion model draws a plausible path, but each of its states carries a small independent error, and the
largest one decides whether a bridge qualifies. Here the generated states and the actions become variables,
and gradient descent on the squared transition error spreads and removes what is inconsistent; both ends stay.
Only networks that do not judge take part, so qualification still sees the result for the first time.

Of all actions that lead about the same way, those are best that the source's own policies would take: learners imitate
what a bridge shows, and odd actions, each sound where it stands, make no policy together. So actions are held near a
clone of the behaviour.

A target that the dynamics cannot reach in time leaves an error in every step, small and all in one direction: the
bridge gains what no action gave it, and a critic learns to count on it. So the sum of errors is lowered as well.
"""

from __future__ import annotations

import torch
from torch import Tensor

from minari_stitch.diffstitch.models import Models
from minari_stitch.learn.judging import squared_errors, transition_errors, transitions

_RATE = 0.1
_DISAGREEMENT = 10.0
"""Weight of the networks' variance beside their squared error. They learned from the same data and err alike: where
they disagree, they are off from the truth by many times their variance (docs/EXPERIMENTS.md)."""

_DRIFT = 0.3
"""Weight of the squared sum of a bridge's errors beside the sum of their squares."""


def repair(
    models: Models, states: Tensor, actions: Tensor, steps: Tensor, iterations: int, imitation: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Lower the transition errors of bridges by gradient descent on their inner states and actions.

    Args:
        models: The trained bundle; its repairing networks are used.
        states: `(B, L + 2, S)` standardised; the first and the padding from the target on stay.
        actions: `(B, L + 1, A)` in [-1, 1]; they stay inside.
        steps: `(B,)` number of generated states.
        iterations: Gradient steps; 0 returns the input.
        imitation: Weight of the actions' squared distance from those of the cloned behaviour.

    Returns:
        States and actions; a bridge whose largest error did not fall is returned as it came.
    """
    if iterations == 0:
        return states, actions
    row, time = transitions(states, steps)
    free = (time > 0)[:, None]
    low, high = models.scales.low, models.scales.high
    before = _off(*transition_errors(models.repairers, states, actions, steps))
    with torch.enable_grad():
        z, u = states[row, time].requires_grad_(), actions[row, time].requires_grad_()
        # Transitions lie one after the other, so the next one's state is a shift, and the target ends a bridge.
        start, last, target = states[row, time], (time == steps[row])[:, None], states[row, time + 1]
        optimizer = torch.optim.Adam([z, u], lr=_RATE, betas=(0.9, 0.95))
        for i in range(iterations):
            for group in optimizer.param_groups:
                group["lr"] = _RATE * (1 - i / iterations)
            optimizer.zero_grad()
            following, predicted = torch.where(last, target, z.roll(-1, 0)), models.repairers(z, u)
            drift = z.new_zeros(len(states), z.shape[1]).index_add(0, row, following - predicted.mean(0))
            loss = _off(*squared_errors(predicted, following)).sum() + _DRIFT * drift.square().sum()
            if imitation:
                loss = loss + imitation * (u - models.behaviour(z)).square().sum()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                u.clamp_(-1, 1)
                z.copy_(torch.where(free, z.clamp(low, high), start))
    repaired, acted = states.clone(), actions.clone()
    repaired[row, time], acted[row, time] = z.detach(), u.detach()
    after = _off(*transition_errors(models.repairers, repaired, acted, steps))
    better = (after.amax(1) < before.amax(1))[:, None, None]
    return torch.where(better, repaired, states), torch.where(better, acted, actions)


def _off(error: Tensor, spread: Tensor) -> Tensor:
    """What repair lowers: disagreement counts, and keeps the path where the networks know the dynamics."""
    return error + _DISAGREEMENT * spread
