"""TD3+BC (Fujimoto and Gu, 2021): twin delayed deep deterministic policy gradients that stay close to the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from benchmarks.algos import Info, State
from benchmarks.batches import Ratio, Sampler, Sizes
from benchmarks.data import LearnerData
from benchmarks.nets import Parameters, adam, follow, forward, gradients, mlp, moments, stack

BLOCK = 100


@dataclass(frozen=True, kw_only=True)
class Config:
    """CORL's settings, which are the same for every dataset.

    Attributes:
        steps: Gradient steps.
        batch_size: Transitions in a batch.
        hidden: Width of both hidden layers.
        learning_rate: Of actor and critics.
        discount: Gamma.
        target_rate: How far targets move at each actor step.
        alpha: Weight of the action value against imitation.
        policy_period: Critic steps for each actor step.
        policy_noise: Standard deviation of the noise on target actions.
        noise_clip: Its bound.
    """

    steps: int = 1_000_000
    batch_size: int = 256
    hidden: int = 256
    learning_rate: float = 3e-4
    discount: float = 0.99
    target_rate: float = 0.005
    alpha: float = 2.5
    policy_period: int = 2
    policy_noise: float = 0.2
    noise_clip: float = 0.5

    @classmethod
    def for_dataset(cls, dataset_id: str) -> Config:
        """The defaults: CORL makes no exception."""
        return cls()


def sampler(config: Config, data: LearnerData, ratios: Sequence[Ratio], generators: Sequence[Generator]) -> Sampler:
    """Transitions with rewards as they are."""
    return data.transitions(ratios, generators, config.batch_size)


def init(config: Config, sizes: Sizes, generators: Sequence[Generator]) -> State:
    """One actor and two critics for each run, and targets equal to them."""
    hidden = [config.hidden, config.hidden]
    actor = mlp(generators, [sizes.states, *hidden, sizes.actions])
    critic = mlp(generators, [sizes.states + sizes.actions, *hidden, 1], members=2)
    return {
        "actor": actor,
        "critic": critic,
        "actor_target": {name: value.clone() for name, value in actor.items()},
        "critic_target": {name: value.clone() for name, value in critic.items()},
        "actor_moments": moments(actor),
        "critic_moments": moments(critic),
        "step": torch.zeros((), device=generators[0].device),
    }


def noise(
    config: Config, sizes: Sizes, generators: Sequence[Generator], batch_size: int, steps: int
) -> dict[str, Tensor]:
    """`target` `(steps, K, B, A)`: standard normal noise for the target actions."""
    shape = (steps, batch_size, sizes.actions)
    return {"target": stack(generators, lambda g: torch.randn(shape, device=g.device, generator=g), 1)}


def policy_frequency(config: Config) -> int:
    """The actor learns in the last of every `policy_period` updates."""
    return config.policy_period


def update(
    config: Config, state: State, batch: dict[str, Tensor], noise: dict[str, Tensor], update_policy: bool
) -> Info:
    """A step of the critics, and with `update_policy` one of the actor and the targets."""
    state["step"].add_(1)
    target = target_values(config, state, batch, noise["target"])
    grads, info = gradients(critic_loss, state["critic"], batch, target)
    adam(state["critic"], grads, state["critic_moments"], config.learning_rate)
    if update_policy:
        grads, actor_info = gradients(actor_loss, state["actor"], state["critic"], batch, config.alpha)
        adam(state["actor"], grads, state["actor_moments"], config.learning_rate)
        follow(state["critic_target"], state["critic"], config.target_rate)
        follow(state["actor_target"], state["actor"], config.target_rate)
        info |= actor_info
    return info


def act(config: Config, state: State, observations: Tensor) -> Tensor:
    """`(K, N, S)` -> `(K, N, A)`."""
    return policy(state["actor"], observations)


def policy(actor: Parameters, states: Tensor) -> Tensor:
    """Actions `(K, B, A)` in [-1, 1]."""
    return forward(actor, states)[:, 0].tanh()


def values(critic: Parameters, states: Tensor, actions: Tensor) -> Tensor:
    """Both critics' action values `(K, 2, B)`."""
    return forward(critic, torch.cat([states, actions], -1))[..., 0]


def target_values(config: Config, state: State, batch: dict[str, Tensor], noise: Tensor) -> Tensor:
    """`(K, B)`: reward, plus the lesser target value of the next state unless it is terminal."""
    following = batch["next_states"]
    blur = (noise * config.policy_noise).clamp(-config.noise_clip, config.noise_clip)
    actions = (policy(state["actor_target"], following) + blur).clamp(-1, 1)
    value = values(state["critic_target"], following, actions).amin(1)
    return batch["rewards"] + config.discount * batch["continues"] * value


def critic_loss(critic: Parameters, batch: dict[str, Tensor], target: Tensor) -> tuple[Tensor, Info]:
    """Squared error of both critics, summed over the two and averaged over the batch: `(K,)`."""
    value = values(critic, batch["states"], batch["actions"])
    loss = (value - target[:, None]).square().mean(-1).sum(-1)
    return loss, {"critic_loss": loss.detach(), "value": value.detach().mean((1, 2))}


def actor_loss(actor: Parameters, critic: Parameters, batch: dict[str, Tensor], alpha: float) -> tuple[Tensor, Info]:
    """Imitation error minus the first critic's value, scaled to `alpha` on average: `(K,)`."""
    first = {name: value[:, :1] for name, value in critic.items()}
    actions = policy(actor, batch["states"])
    value = values(first, batch["states"], actions)[:, 0]
    imitation = (actions - batch["actions"]).square().mean((1, 2))
    loss = imitation - alpha / value.abs().mean(-1).detach() * value.mean(-1)
    return loss, {"actor_loss": loss.detach(), "imitation_loss": imitation.detach()}
