"""GCBC: behavioural cloning towards goals in hindsight, as OGBench defines it (Park et al., 2025)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from benchmarks.algos import Info, State, every_update, no_noise
from benchmarks.batches import Ratio, Sampler, Sizes
from benchmarks.data import LearnerData
from benchmarks.goals import Goals, Hindsight
from benchmarks.nets import Parameters, adam, cosine, forward_gelu, glorot, gradients, moments

BLOCK = 100
GOALS = True
"""Policies read a state and a goal."""
noise, policy_frequency = no_noise, every_update


@dataclass(frozen=True, kw_only=True)
class Config:
    """OGBench's settings; three hidden layers.

    Attributes:
        steps: Gradient steps.
        batch_size: Transitions in a batch.
        hidden: Width of the hidden layers.
        learning_rate: Of the actor.
        actor_trajectory: Share of goals from the same trajectory; the rest are random states.
        decay: The learning rate falls to 0 along half a cosine (OGBench: it stays).
    """

    steps: int = 1_000_000
    batch_size: int = 1024
    hidden: int = 512
    learning_rate: float = 3e-4
    actor_trajectory: float = 1.0
    decay: bool = False

    @classmethod
    def for_dataset(cls, dataset_id: str) -> Config:
        """OGBench makes no exception."""
        return cls()


def sampler(config: Config, data: LearnerData, ratios: Sequence[Ratio], generators: Sequence[Generator]) -> Sampler:
    """Transitions with goals; those of values are not used."""
    share = config.actor_trajectory
    goals = Goals(current=0, trajectory=share, random=1 - share, geometric=False, discount=0.99)
    return Hindsight(data, ratios, generators, config.batch_size, value=goals, actor=goals)


def init(config: Config, sizes: Sizes, generators: Sequence[Generator]) -> State:
    """One actor for each run."""
    actor = new_actor(generators, sizes, config.hidden)
    return {"actor": actor, "moments": moments(actor), "step": torch.zeros((), device=generators[0].device)}


def update(
    config: Config, state: State, batch: dict[str, Tensor], noise: dict[str, Tensor], update_policy: bool
) -> Info:
    """A step of the actor."""
    state["step"].add_(1)
    weights = torch.ones_like(batch["rewards"])
    grads, info = gradients(imitation_loss, state["actor"], batch, weights)
    rate = cosine(config.learning_rate, state["step"], config.steps) if config.decay else config.learning_rate
    adam(state["actor"], grads, state["moments"], rate)
    return info


def act(config: Config, state: State, observations: Tensor) -> Tensor:
    """States and goals `(K, N, 2 S)` -> `(K, N, A)`."""
    return forward_gelu(state["actor"], observations)[:, 0].clamp(-1, 1)


def new_actor(generators: Sequence[Generator], sizes: Sizes, hidden: int) -> Parameters:
    """An actor for each run, which starts with actions near 0."""
    return glorot(generators, [2 * sizes.states, *[hidden] * 3, sizes.actions], last=1e-2)


def policy(actor: Parameters, batch: dict[str, Tensor]) -> Tensor:
    """Means of a Gaussian of unit variance, `(K, B, A)`."""
    return forward_gelu(actor, torch.cat([batch["states"], batch["actor_goals"]], -1))[:, 0]


def imitation_loss(actor: Parameters, batch: dict[str, Tensor], weights: Tensor) -> tuple[Tensor, Info]:
    """Weighted negative log-likelihood, but for its constant: `(K,)`."""
    errors = 0.5 * (policy(actor, batch) - batch["actions"]).square().sum(-1)
    loss = (weights * errors).mean(-1)
    return loss, {"actor_loss": loss.detach(), "weight": weights.mean(-1).detach()}
