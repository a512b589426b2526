"""GCIVL: goal-conditioned implicit V-learning, as OGBench defines it (Park et al., 2025): no action values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from benchmarks.algos import Info, State, every_update, no_noise
from benchmarks.algos.gcbc import act as act
from benchmarks.algos.gcbc import imitation_loss, new_actor
from benchmarks.batches import Ratio, Sampler, Sizes
from benchmarks.data import LearnerData
from benchmarks.goals import Goals, Hindsight
from benchmarks.nets import Parameters, adam, follow, forward_gelu, glorot, gradients, moments

BLOCK = 100
GOALS = True
"""Policies read a state and a goal."""
MAX_WEIGHT = 100.0
"""Bound of the exponentiated advantages."""
noise, policy_frequency = no_noise, every_update


@dataclass(frozen=True, kw_only=True)
class Config:
    """OGBench's settings; three hidden layers, those of values normalised.

    Attributes:
        steps: Gradient steps.
        batch_size: Transitions in a batch.
        hidden: Width of the hidden layers.
        learning_rate: Of all networks.
        discount: Gamma, of values and of the distances of value goals.
        target_rate: How far target values move at each step.
        expectile: Of the values that are learned.
        alpha: Inverse temperature of the advantage weights.
        value_current: Share of value goals that are the state itself.
        value_trajectory: Share of value goals from the same trajectory; the rest are random states.
        actor_trajectory: Share of policy goals from the same trajectory; the rest are random states.
    """

    steps: int = 1_000_000
    batch_size: int = 1024
    hidden: int = 512
    learning_rate: float = 3e-4
    discount: float = 0.99
    target_rate: float = 0.005
    expectile: float = 0.9
    alpha: float = 10.0
    value_current: float = 0.2
    value_trajectory: float = 0.5
    actor_trajectory: float = 1.0

    @classmethod
    def for_dataset(cls, dataset_id: str) -> Config:
        """OGBench's exceptions: half of the policy's goals are random for stitch sets; a giant maze is long."""
        changes: dict[str, Any] = {"actor_trajectory": 0.5} if "-stitch" in dataset_id else {}
        changes |= {"discount": 0.995} if "-giant" in dataset_id else {}
        return cls(**changes)


def sampler(config: Config, data: LearnerData, ratios: Sequence[Ratio], generators: Sequence[Generator]) -> Sampler:
    """Transitions with goals."""
    value, actor = config.value_current + config.value_trajectory, config.actor_trajectory
    return Hindsight(
        data,
        ratios,
        generators,
        config.batch_size,
        value=Goals(
            current=config.value_current,
            trajectory=config.value_trajectory,
            random=1 - value,
            geometric=True,
            discount=config.discount,
        ),
        actor=Goals(current=0, trajectory=actor, random=1 - actor, geometric=False, discount=config.discount),
    )


def init(config: Config, sizes: Sizes, generators: Sequence[Generator]) -> State:
    """Actor, and two value networks with targets equal to them, for each run."""
    actor = new_actor(generators, sizes, config.hidden)
    value = glorot(generators, [2 * sizes.states, *[config.hidden] * 3, 1], members=2, norm=True)
    return {
        "actor": actor,
        "value": value,
        "value_target": {name: tensor.clone() for name, tensor in value.items()},
        "actor_moments": moments(actor),
        "value_moments": moments(value),
        "step": torch.zeros((), device=generators[0].device),
    }


def update(
    config: Config, state: State, batch: dict[str, Tensor], noise: dict[str, Tensor], update_policy: bool
) -> Info:
    """A step of values, actor and targets, each from what was before the step."""
    state["step"].add_(1)
    targets, advantages = backups(config, state["value_target"], batch)
    value_grads, value_info = gradients(value_loss, state["value"], batch, targets, advantages, config.expectile)
    gain = values(state["value"], batch["next_states"], batch["actor_goals"]).mean(1)
    gain = gain - values(state["value"], batch["states"], batch["actor_goals"]).mean(1)
    weights = (config.alpha * gain).exp().clamp(max=MAX_WEIGHT)
    actor_grads, actor_info = gradients(imitation_loss, state["actor"], batch, weights)
    follow(state["value_target"], state["value"], config.target_rate)
    adam(state["value"], value_grads, state["value_moments"], config.learning_rate)
    adam(state["actor"], actor_grads, state["actor_moments"], config.learning_rate)
    return value_info | actor_info


def values(value: Parameters, states: Tensor, goals: Tensor) -> Tensor:
    """Both networks' values of states `(K, B, S)` for goals `(K, B, S)`: `(K, 2, B)`."""
    return forward_gelu(value, torch.cat([states, goals], -1))[..., 0]


def backups(config: Config, target: Parameters, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """What each network should say, `(K, 2, B)`, and advantages `(K, B)`, by the lesser target value of next states."""
    following = values(target, batch["next_states"], batch["value_goals"])
    here = values(target, batch["states"], batch["value_goals"]).mean(1)
    rewards, factor = batch["rewards"][:, None], config.discount * batch["continues"][:, None]
    advantages = (rewards + factor * following.amin(1, keepdim=True))[:, 0] - here
    return rewards + factor * following, advantages


def value_loss(
    value: Parameters, batch: dict[str, Tensor], targets: Tensor, advantages: Tensor, expectile: float
) -> tuple[Tensor, Info]:
    """Squared errors weighted by the side of the advantage, summed over the two networks: `(K,)`."""
    found = values(value, batch["states"], batch["value_goals"])
    slope = torch.where(advantages >= 0, expectile, 1 - expectile)[:, None]
    loss = (slope * (targets - found).square()).mean(-1).sum(-1)
    return loss, {"value_loss": loss.detach(), "value": found.detach().mean((1, 2))}
