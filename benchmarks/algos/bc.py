"""Behavioural cloning: imitate the data, or only their best episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from benchmarks.algos import Info, State, every_update, no_noise
from benchmarks.batches import Ratio, Sampler, Sizes
from benchmarks.data import LearnerData
from benchmarks.nets import Parameters, adam, forward, gradients, mlp, moments

BLOCK = 100
noise, policy_frequency = no_noise, every_update


@dataclass(frozen=True, kw_only=True)
class Config:
    """CORL's settings, but for `best`, which is 0.1 there ("10 % BC").

    Attributes:
        steps: Gradient steps.
        batch_size: Transitions in a batch.
        hidden: Width of both hidden layers.
        learning_rate: Of the actor.
        best: Share of the episodes, those of the highest return, that is imitated.
    """

    steps: int = 1_000_000
    batch_size: int = 256
    hidden: int = 256
    learning_rate: float = 3e-4
    best: float = 1.0

    @classmethod
    def for_dataset(cls, dataset_id: str) -> Config:
        """The defaults: CORL makes no exception."""
        return cls()


def sampler(config: Config, data: LearnerData, ratios: Sequence[Ratio], generators: Sequence[Generator]) -> Sampler:
    """Transitions of the best episodes, of the original and of the augmented side each."""
    return data.transitions(ratios, generators, config.batch_size, best=config.best)


def init(config: Config, sizes: Sizes, generators: Sequence[Generator]) -> State:
    """One actor for each run."""
    actor = mlp(generators, [sizes.states, config.hidden, config.hidden, sizes.actions])
    return {"actor": actor, "moments": moments(actor), "step": torch.zeros((), device=generators[0].device)}


def update(
    config: Config, state: State, batch: dict[str, Tensor], noise: dict[str, Tensor], update_policy: bool
) -> Info:
    """A step of the actor."""
    state["step"].add_(1)
    grads, info = gradients(actor_loss, state["actor"], batch)
    adam(state["actor"], grads, state["moments"], config.learning_rate)
    return info


def act(config: Config, state: State, observations: Tensor) -> Tensor:
    """`(K, N, S)` -> `(K, N, A)`."""
    return policy(state["actor"], observations)


def policy(actor: Parameters, states: Tensor) -> Tensor:
    """Actions `(K, B, A)` in [-1, 1]."""
    return forward(actor, states)[:, 0].tanh()


def actor_loss(actor: Parameters, batch: dict[str, Tensor]) -> tuple[Tensor, Info]:
    """Mean squared error of the actions: `(K,)`."""
    loss = (policy(actor, batch["states"]) - batch["actions"]).square().mean((1, 2))
    return loss, {"actor_loss": loss.detach()}
