"""GCIQL: goal-conditioned implicit Q-learning with a policy of DDPG+BC, as OGBench defines it (Park et al., 2025)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from benchmarks.algos import Info, State, every_update, no_noise
from benchmarks.algos.gcbc import act as act
from benchmarks.algos.gcbc import new_actor, policy
from benchmarks.algos.gcivl import sampler as sampler
from benchmarks.batches import Sizes
from benchmarks.nets import Parameters, adam, follow, forward_gelu, glorot, gradients, moments

BLOCK = 100
GOALS = True
"""Policies read a state and a goal."""
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
        target_rate: How far target critics move at each step.
        expectile: Of the action values that the value network learns.
        alpha: Weight of imitation against the action value.
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
    alpha: float = 0.3
    value_current: float = 0.2
    value_trajectory: float = 0.5
    actor_trajectory: float = 1.0

    @classmethod
    def for_dataset(cls, dataset_id: str) -> Config:
        """OGBench's exceptions: point mazes, stitch sets, and giant mazes."""
        changes: dict[str, Any] = {"alpha": 0.003} if "pointmaze" in dataset_id else {}
        changes |= {"actor_trajectory": 0.5} if "-stitch" in dataset_id else {}
        changes |= {"discount": 0.995} if "-giant" in dataset_id else {}
        return cls(**changes)


def init(config: Config, sizes: Sizes, generators: Sequence[Generator]) -> State:
    """Actor, two critics with targets equal to them, and value network of each run."""
    hidden = [config.hidden] * 3
    actor = new_actor(generators, sizes, config.hidden)
    critic = glorot(generators, [2 * sizes.states + sizes.actions, *hidden, 1], members=2, norm=True)
    value = glorot(generators, [2 * sizes.states, *hidden, 1], norm=True)
    return {
        "actor": actor,
        "critic": critic,
        "value": value,
        "critic_target": {name: tensor.clone() for name, tensor in critic.items()},
        "actor_moments": moments(actor),
        "critic_moments": moments(critic),
        "value_moments": moments(value),
        "step": torch.zeros((), device=generators[0].device),
    }


def update(
    config: Config, state: State, batch: dict[str, Tensor], noise: dict[str, Tensor], update_policy: bool
) -> Info:
    """A step of the value network, the critics, the actor and the targets, each from what was before the step."""
    state["step"].add_(1)
    goals = batch["value_goals"]
    following = values(state["value"], batch["next_states"], goals)
    target = batch["rewards"] + config.discount * batch["continues"] * following
    best = action_values(state["critic_target"], batch["states"], goals, batch["actions"]).amin(1)
    value_grads, value_info = gradients(value_loss, state["value"], batch, best, config.expectile)
    critic_grads, critic_info = gradients(critic_loss, state["critic"], batch, target)
    actor_grads, actor_info = gradients(actor_loss, state["actor"], state["critic"], batch, config.alpha)
    follow(state["critic_target"], state["critic"], config.target_rate)
    adam(state["value"], value_grads, state["value_moments"], config.learning_rate)
    adam(state["critic"], critic_grads, state["critic_moments"], config.learning_rate)
    adam(state["actor"], actor_grads, state["actor_moments"], config.learning_rate)
    return value_info | critic_info | actor_info


def values(value: Parameters, states: Tensor, goals: Tensor) -> Tensor:
    """Values of states for goals, `(K, B)`."""
    return forward_gelu(value, torch.cat([states, goals], -1))[:, 0, :, 0]


def action_values(critic: Parameters, states: Tensor, goals: Tensor, actions: Tensor) -> Tensor:
    """Both critics' values, `(K, 2, B)`."""
    return forward_gelu(critic, torch.cat([states, goals, actions], -1))[..., 0]


def value_loss(value: Parameters, batch: dict[str, Tensor], best: Tensor, expectile: float) -> tuple[Tensor, Info]:
    """Expectile regression on the action values `best` `(K, B)`: `(K,)`."""
    found = values(value, batch["states"], batch["value_goals"])
    slope = torch.where(best >= found, expectile, 1 - expectile)
    loss = (slope * (best - found).square()).mean(-1)
    return loss, {"value_loss": loss.detach()}


def critic_loss(critic: Parameters, batch: dict[str, Tensor], target: Tensor) -> tuple[Tensor, Info]:
    """Squared errors, summed over the critics: `(K,)`."""
    found = action_values(critic, batch["states"], batch["value_goals"], batch["actions"])
    loss = (found - target[:, None]).square().mean(-1).sum(-1)
    return loss, {"critic_loss": loss.detach(), "value": found.detach().mean((1, 2))}


def actor_loss(actor: Parameters, critic: Parameters, batch: dict[str, Tensor], alpha: float) -> tuple[Tensor, Info]:
    """The lesser action value, scaled to 1 on average, against `alpha` times the negative log-likelihood: `(K,)`."""
    actions = policy(actor, batch)
    found = action_values(critic, batch["states"], batch["actor_goals"], actions.clamp(-1, 1)).amin(1)
    scale = found.abs().mean(-1).detach() + 1e-6
    imitation = 0.5 * (actions - batch["actions"]).square().sum(-1).mean(-1)
    loss = alpha * imitation - found.mean(-1) / scale
    return loss, {"actor_loss": loss.detach(), "imitation_loss": imitation.detach()}
