"""IQL (Kostrikov et al., 2022): implicit Q-learning, which never asks for the value of an action outside the data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from benchmarks.algos import Info, State, every_update, task
from benchmarks.batches import Ratio, Sampler, Sizes
from benchmarks.data import LearnerData
from benchmarks.nets import Parameters, adam, cosine, follow, forward, gradients, mlp, moments, stack

BLOCK = 100
MAX_WEIGHT = 100.0
"""Bound of the exponentiated advantages."""
LOG_STD = (-20.0, 2.0)
"""Bounds of the policy's log standard deviation."""
policy_frequency = every_update


@dataclass(frozen=True, kw_only=True)
class Config:
    """CORL's settings.

    Attributes:
        steps: Gradient steps, over which the actor's learning rate falls to 0 along a cosine.
        batch_size: Transitions in a batch.
        hidden: Width of both hidden layers.
        actor_rate: The actor's first learning rate.
        critic_rate: Learning rate of the critics.
        value_rate: Learning rate of the value network.
        discount: Gamma.
        target_rate: How far the target critics move at each step.
        beta: Inverse temperature of the advantage weights.
        expectile: Of the action values that the value network learns; CORL's `iql_tau`.
        deterministic: Regress actions instead of fitting a Gaussian.
        normalize_rewards: Scale rewards by 1000 over the range of the original episodes' returns.
        dropout: Rate in the actor's hidden layers.
    """

    steps: int = 1_000_000
    batch_size: int = 256
    hidden: int = 256
    actor_rate: float = 3e-4
    critic_rate: float = 3e-4
    value_rate: float = 3e-4
    discount: float = 0.99
    target_rate: float = 0.005
    beta: float = 3.0
    expectile: float = 0.7
    deterministic: bool = False
    normalize_rewards: bool = False
    dropout: float = 0.0

    @classmethod
    def for_dataset(cls, dataset_id: str) -> Config:
        """CORL's exceptions."""
        match task(dataset_id):
            case "hopper", "medium" | "medium-replay":
                return cls(deterministic=True, normalize_rewards=True, target_rate=0.001)
            case "hopper", "medium-expert":
                return cls(beta=6.0, expectile=0.5)
            case "pen", _:
                return cls(expectile=0.8, dropout=0.1)
        return cls()


def sampler(config: Config, data: LearnerData, ratios: Sequence[Ratio], generators: Sequence[Generator]) -> Sampler:
    """Transitions, with rewards scaled where the settings say so."""
    scale = data.reward_scale if config.normalize_rewards else 1.0
    return data.transitions(ratios, generators, config.batch_size, reward_scale=scale)


def init(config: Config, sizes: Sizes, generators: Sequence[Generator]) -> State:
    """Actor, two critics with targets equal to them, and value network of each run."""
    hidden, device = [config.hidden, config.hidden], generators[0].device
    actor = mlp(generators, [sizes.states, *hidden, sizes.actions])
    if not config.deterministic:
        actor["log_std"] = torch.zeros(len(generators), 1, sizes.actions, device=device)
    critic = mlp(generators, [sizes.states + sizes.actions, *hidden, 1], members=2)
    value = mlp(generators, [sizes.states, *hidden, 1])
    return {
        "actor": actor,
        "critic": critic,
        "value": value,
        "critic_target": {name: tensor.clone() for name, tensor in critic.items()},
        "actor_moments": moments(actor),
        "critic_moments": moments(critic),
        "value_moments": moments(value),
        "step": torch.zeros((), device=device),
    }


def noise(
    config: Config, sizes: Sizes, generators: Sequence[Generator], batch_size: int, steps: int
) -> dict[str, Tensor]:
    """`dropout` `(steps, K, 2, B, hidden)`: the actor's masks, 0 or 1 / (1 - rate); nothing without dropout.

    By hand, since `F.dropout` takes no generator.
    """
    if not config.dropout:
        return {}
    shape, keep = (steps, 2, batch_size, config.hidden), 1 - config.dropout
    masks = stack(generators, lambda g: torch.rand(shape, device=g.device, generator=g) < keep, 1)
    return {"dropout": masks / keep}


def update(
    config: Config, state: State, batch: dict[str, Tensor], noise: dict[str, Tensor], update_policy: bool
) -> Info:
    """A step of the value network, the critics, the actor and the targets, each from what was before the step."""
    step = state["step"].add_(1)
    following = values(state["value"], batch["next_states"])
    target = batch["rewards"] + config.discount * batch["continues"] * following
    best = action_values(state["critic_target"], batch).amin(1)
    value_grads, value_info = gradients(value_loss, state["value"], batch, best, config.expectile)
    weights = (config.beta * value_info.pop("advantages")).exp().clamp(max=MAX_WEIGHT)
    critic_grads, critic_info = gradients(critic_loss, state["critic"], batch, target)
    actor_grads, actor_info = gradients(actor_loss, state["actor"], batch, weights, noise.get("dropout"))
    adam(state["value"], value_grads, state["value_moments"], config.value_rate)
    adam(state["critic"], critic_grads, state["critic_moments"], config.critic_rate)
    adam(state["actor"], actor_grads, state["actor_moments"], cosine(config.actor_rate, step, config.steps))
    follow(state["critic_target"], state["critic"], config.target_rate)
    return value_info | critic_info | actor_info


def act(config: Config, state: State, observations: Tensor) -> Tensor:
    """`(K, N, S)` -> `(K, N, A)`, the mean action."""
    return policy(state["actor"], observations)


def policy(actor: Parameters, states: Tensor, dropout: Tensor | None = None) -> Tensor:
    """Mean actions `(K, B, A)` in [-1, 1]; `dropout` is `(K, 2, B, hidden)`."""
    return forward(actor, states, None if dropout is None else dropout.unbind(1))[:, 0].tanh()


def values(value: Parameters, states: Tensor) -> Tensor:
    """State values `(K, B)`."""
    return forward(value, states)[:, 0, :, 0]


def action_values(critic: Parameters, batch: dict[str, Tensor]) -> Tensor:
    """Both critics' values of the data's actions `(K, 2, B)`."""
    return forward(critic, torch.cat([batch["states"], batch["actions"]], -1))[..., 0]


def value_loss(
    value: Parameters, batch: dict[str, Tensor], best: Tensor, expectile: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Expectile regression on the action values `best` `(K, B)`; `advantages` `(K, B)` come with the info."""
    advantages = best - values(value, batch["states"])
    slope = torch.where(advantages < 0, 1 - expectile, expectile)
    loss = (slope * advantages.square()).mean(-1)
    return loss, {"value_loss": loss.detach(), "advantages": advantages.detach()}


def critic_loss(critic: Parameters, batch: dict[str, Tensor], target: Tensor) -> tuple[Tensor, Info]:
    """Squared error of both critics, averaged over the two and over the batch: `(K,)`."""
    value = action_values(critic, batch)
    loss = (value - target[:, None]).square().mean((1, 2))
    return loss, {"critic_loss": loss.detach(), "value": value.detach().mean((1, 2))}


def actor_loss(
    actor: Parameters, batch: dict[str, Tensor], weights: Tensor, dropout: Tensor | None
) -> tuple[Tensor, Info]:
    """Advantage-weighted regression, or likelihood where the actor has a `log_std`: `(K,)`."""
    errors = (policy(actor, batch["states"], dropout) - batch["actions"]).square()
    if "log_std" in actor:
        log_std = actor["log_std"].clamp(*LOG_STD)
        errors = 0.5 * errors * (-2 * log_std).exp() + log_std + 0.5 * math.log(2 * math.pi)
    loss = (weights * errors.sum(-1)).mean(-1)
    return loss, {"actor_loss": loss.detach(), "weight": weights.mean(-1)}
