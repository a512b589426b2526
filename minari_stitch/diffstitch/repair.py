"""Repair: pull generated bridges onto the learned dynamics by direct collocation.

A diffusion model draws a plausible path, but each of its states carries a small independent error, and the
largest one decides whether a bridge qualifies. Here the generated states and the actions become variables of a
least-squares problem, whose residuals are the transition errors; both ends stay. Few Gauss-Newton steps
(`learn.collocation`) lower them as far as gradient descent does in hundreds. Only networks that do not judge take
part, so qualification still sees the result for the first time.

Where the networks disagree they are off from the truth, so that is a residual too. And of all actions that lead about
the same way, those are best that the source's own policies would take: learners imitate what a bridge shows, and odd
actions, each sound where it stands, make no policy together. So actions are held near a clone of the behaviour.

A target that the dynamics cannot reach in time leaves an error in every step, small and all in one direction: the
bridge gains what no action gave it, and a critic learns to count on it. So the sum of errors is lowered as well.
"""

from __future__ import annotations

import torch
from torch import Tensor

from minari_stitch.diffstitch.models import Models
from minari_stitch.learn.collocation import Paths
from minari_stitch.learn.judging import transition_errors, transitions

_DISAGREEMENT = 10.0
"""Weight of the networks' variance beside their squared error. They learned from the same data and err alike: where
they disagree, they are off from the truth by many times their variance (docs/EXPERIMENTS.md)."""
_DRIFT = 0.3
"""Weight of the squared sum of a bridge's errors beside the sum of their squares."""
_DAMPING = 0.1
"""Of the first step; less after each that helped a bridge, more after each that did not."""


@torch.no_grad()
def repair(
    models: Models, states: Tensor, actions: Tensor, steps: Tensor, iterations: int, imitation: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Lower the transition errors of bridges by Gauss-Newton steps on their inner states and actions.

    Args:
        models: The trained bundle; its repairing networks are used.
        states: `(B, L + 2, S)` standardised; the first and the padding from the target on stay.
        actions: `(B, L + 1, A)` in [-1, 1]; they stay inside.
        steps: `(B,)` number of generated states.
        iterations: Steps; 0 returns the input.
        imitation: Weight of the actions' squared distance from those of the cloned behaviour.

    Returns:
        States and actions; a bridge whose largest error did not fall is returned as it came.
    """
    if iterations == 0:
        return states, actions
    row, time = transitions(states, steps)
    width, one = states.shape[-1], torch.ones_like(actions[0, 0])
    low, high = torch.cat([models.scales.low, -one]), torch.cat([models.scales.high, one])
    paths = Paths(path=row, time=time, count=len(states), width=width, low=low, high=high, drift=_DRIFT)
    target, last = states[row, time + 1], (time == steps[row])[:, None]

    def linear(points: Tensor) -> tuple[Tensor, Tensor]:
        # Transitions lie one after the other, so the next one's state is a shift, and the target ends a bridge.
        following = torch.where(last, target, points[:, :width].roll(-1, 0))
        return _residuals(models, points, following, imitation)

    points = torch.cat([states[row, time], actions[row, time]], -1)
    residuals, slopes = linear(points)
    damping = states.new_full((len(states),), _DAMPING)
    for _ in range(iterations):
        tried = paths.step(points, residuals, slopes, damping)
        there, steeper = linear(tried)
        better = paths.total(there) < paths.total(residuals)
        at = better[row][:, None]
        points, residuals = torch.where(at, tried, points), torch.where(at, there, residuals)
        slopes = torch.where(at[..., None], steeper, slopes)
        damping = torch.where(better, damping / 5, damping * 10)
    repaired, acted = states.clone(), actions.clone()
    repaired[row, time], acted[row, time] = points[:, :width], points[:, width:]
    before, after = (
        _off(*transition_errors(models.repairers, *path, steps)) for path in ((states, actions), (repaired, acted))
    )
    fell = (after.amax(1) < before.amax(1))[:, None, None]
    return torch.where(fell, repaired, states), torch.where(fell, acted, actions)


def _residuals(models: Models, points: Tensor, following: Tensor, imitation: float) -> tuple[Tensor, Tensor]:
    """What repair lowers the squares of, `(N, R)`, transition errors first, and its derivatives `(N, R, S + A)`."""
    predicted, slopes = models.repairers_linear(points)
    mean, slope = predicted.mean(0), slopes.mean(0)
    apart = (_DISAGREEMENT / len(predicted)) ** 0.5
    values = [mean - following, *apart * (predicted - mean)]
    derivatives = [slope, *apart * (slopes - slope)]
    if imitation:
        width, weight = following.shape[-1], imitation**0.5
        clone, along = models.behaviour_linear(points[:, :width])
        own = torch.eye(along.shape[1], dtype=along.dtype, device=along.device).expand(len(along), -1, -1)
        values.append(weight * (points[:, width:] - clone))
        derivatives.append(weight * torch.cat([-along, own], -1))
    return torch.cat(values, -1), torch.cat(derivatives, 1)


def _off(error: Tensor, spread: Tensor) -> Tensor:
    """The same of each transition, without the actions."""
    return error + _DISAGREEMENT * spread
