"""TATU (Zhang et al., 2023) as a transform: short model rollouts, truncated when they become too uncertain.

An ensemble of Gaussian dynamics networks is rolled out from states of the source with a policy learned from it (a
conditional variational autoencoder, as in BCQ). A rollout ends before the step at which its accumulated uncertainty
passes a threshold, and rewards are lowered by the uncertainty. An end of the episode is predicted by the classifier
that DiffStitch uses, where TATU takes the environment's own rule.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minari_stitch.baselines.rolled import FittedRollouts, judge, train_judge
from minari_stitch.baselines.rollouts import End, Rollouts
from minari_stitch.config import FitConfig, ModelConfig
from minari_stitch.data.minari_io import Dataset
from minari_stitch.diffstitch.fitting import Tables, fit_rows, seeded
from minari_stitch.diffstitch.models import load_weights
from minari_stitch.diffstitch.proposals import chunk_generator
from minari_stitch.errors import ConfigError
from minari_stitch.job import Job, source, train_missing
from minari_stitch.learn.loop import save_atomically
from minari_stitch.learn.nets import MLP
from minari_stitch.progress import Progress
from minari_stitch.run import Run

_SALTS = {"ensemble": 201, "policy": 202}
_LOG_VARIANCE = (-10.0, 0.5)
_LATENT = 0.5
_BATCH = 8192


@dataclass(frozen=True, kw_only=True)
class Tatu:
    """The method and all its settings."""

    horizon: int = 5
    """Most steps of a rollout, h."""
    members: int = 7
    """Dynamics networks."""
    elites: int = 5
    """Those with the smallest held-out error, which predict."""
    hidden: int = 200
    """Width of the networks."""
    strictness: float = 2.0
    """alpha: the threshold is the largest uncertainty of a step of the source, divided by it."""
    pessimism: float = 1.0
    """lambda: reward taken away for each unit of uncertainty."""
    ensemble: FitConfig = field(default_factory=lambda: FitConfig(steps=6000, batch_size=256, learning_rate=1e-3))
    """Training of the dynamics networks."""
    policy: FitConfig = field(default_factory=lambda: FitConfig(steps=6000, batch_size=256, learning_rate=1e-3))
    """Training of the rollout policy."""
    models: ModelConfig = field(default_factory=ModelConfig)
    """Of its networks only dynamics, which judge, and termination are trained."""
    chunk: int = 4096
    """Rollouts made together, from one generator."""
    discount: float = 0.99
    """Gamma of the accumulated uncertainty and of the returns-to-go that are written."""

    name = "TATU"
    suffix = "tatu"

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        for name in ("horizon", "hidden", "chunk"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} is not possible: use at least 1")
        if not 1 <= self.elites <= self.members:
            raise ConfigError(f"elites={self.elites} is not possible: use 1 to members = {self.members}")
        if self.strictness <= 0 or self.pessimism < 0:
            raise ConfigError(
                f"strictness={self.strictness}, pessimism={self.pessimism} is not possible: use a positive and a "
                "non-negative number"
            )

    def fit(self, dataset: Dataset, run: Run) -> FittedRollouts:
        """Train what the run directory does not hold yet, and set the threshold.

        Raises:
            StorageError: The run directory cannot be written.
        """
        nets = [self.members, self.hidden, self.ensemble, self.policy, self.models]
        sampled = [self.horizon, self.elites, self.strictness, self.pessimism, self.chunk, self.discount]
        job = Job.of(self, dataset, run, trained=nets, sampled=sampled)
        names = ("ensemble", "policy", "dynamics", *(["termination"] if dataset.episodes.terminations.any() else []))
        train_missing(run, job, _train, names)
        train_missing(run, job, _measure, ("limits",))  # of what was trained
        return FittedRollouts(dataset=dataset, run=run, job=job, make=_roll)


class Policy(nn.Module):
    """Conditional variational autoencoder of actions given states (BCQ's).

    Args:
        states: State width S.
        actions: Action width A; the latent code has twice as many dimensions.
        hidden: Width.
        generator: Source of the initial weights.
    """

    def __init__(self, states: int, actions: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.latent = 2 * actions
        shape = {"hidden": hidden, "layers": 2, "members": 1, "generator": generator}
        self.encoder = MLP(states + actions, 2 * self.latent, **shape)
        self.decoder = MLP(states + self.latent, actions, **shape)

    def decode(self, z: Tensor, code: Tensor) -> Tensor:
        """Actions `(B, A)` in [-1, 1] from states `(B, S)` and codes `(B, 2 A)`."""
        return self.decoder(torch.cat([z, code], -1))[0].tanh()

    def loss(self, z: Tensor, u: Tensor, generator: torch.Generator) -> Tensor:
        """Squared reconstruction error and half the divergence of the code from a unit Gaussian (BCQ): a scalar."""
        mean, log_std = self.encoder(torch.cat([z, u], -1))[0].chunk(2, -1)
        log_std = log_std.clamp(-4, 15)
        noise = torch.randn(mean.shape, device=mean.device, generator=generator)
        divergence = (mean.square() + (2 * log_std).exp() - 1 - 2 * log_std).mean() / 2
        return (self.decode(z, mean + log_std.exp() * noise) - u).square().mean() + divergence / 2


def gaussians(net: MLP, z: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log-variance `(M, B, S + 1)` of the scaled change of the state and of the standardised reward."""
    mean, raw = net(torch.cat([z, u], -1)).chunk(2, -1)
    low, high = _LOG_VARIANCE
    return mean, low + F.softplus(high - F.softplus(high - raw) - low)


def likelihood_loss(net: MLP, z: Tensor, u: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood of `(M, B, S + 1)` targets, without its constant: a scalar."""
    mean, log_variance = gaussians(net, z, u)
    return ((mean - targets).square() * (-log_variance).exp() + log_variance).mean()


def uncertainty(log_variance: Tensor, scale: Tensor) -> Tensor:
    """`(B,)` largest norm over the members of a prediction's standard deviation.

    Args:
        log_variance: `(M, B, S + 1)`.
        scale: `(S + 1,)` units of the source, as TATU measures it.
    """
    return ((log_variance / 2).exp() * scale).norm(dim=-1).amax(0)


def accumulate(steps: Tensor, discount: float) -> Tensor:
    """`(B, h)` uncertainties of steps to the discounted sums up to each."""
    weights = discount ** torch.arange(steps.shape[1], device=steps.device)
    return (steps * weights).cumsum(1)


def truncate(total: Tensor, threshold: float, ended: Tensor) -> tuple[Tensor, Tensor]:
    """How many steps of each rollout are kept, and why it ends there.

    Args:
        total: `(B, h)` uncertainty accumulated up to each step, that step included.
        threshold: Largest that is allowed.
        ended: `(B, h)` whether each step ends the episode.

    Returns:
        `(B,)` steps, 0 to h, and an `End` each.
    """
    # NaN compares false: what has no number is not certain either.
    certain = (total <= threshold).cumprod(1).sum(1)
    alive = (~ended).cumprod(1).sum(1) + 1  # steps up to the one that ends the episode
    end = torch.where(certain < total.shape[1], End.UNCERTAIN, End.COMPLETE)
    return torch.minimum(certain, alive), torch.where(alive <= certain, End.TERMINATED, end)


def _units(job: Job) -> Tensor:
    scales = source(job)[1]
    return torch.cat([scales.change * scales.state.scale, scales.reward.scale])


def _ensemble(job: Job, generator: torch.Generator) -> MLP:
    config, episodes = job.transform, source(job)[0]
    states, actions = episodes.observations.shape[1], episodes.actions.shape[1]
    return MLP(
        states + actions,
        2 * (states + 1),
        hidden=config.hidden,
        layers=4,
        members=config.members,
        generator=generator,
    )


def _policy(job: Job, generator: torch.Generator) -> Policy:
    episodes = source(job)[0]
    return Policy(episodes.observations.shape[1], episodes.actions.shape[1], job.transform.hidden, generator)


def _tables(job: Job) -> Tables:
    episodes, scales = source(job)
    return Tables(episodes, scales, job.transform.models, 1.0, job.seed)


def _targets(tables: Tables, steps: Tensor) -> Tensor:
    state = tables.state[steps]
    return torch.cat([(tables.z[state + 1] - tables.z[state]) / tables.scales.change, tables.r[steps]], -1)


def _train(job: Job, name: str, progress: Progress | None) -> None:
    config = job.transform
    if name in ("dynamics", "termination"):
        train_judge(job, config.models, progress, name)
        return
    tables, entropy = _tables(job), [job.seed, _SALTS[name]]
    host = seeded([*entropy, 2], torch.device("cpu"))
    if name == "ensemble":
        net, members = _ensemble(job, host), config.members

        def loss(net: nn.Module, steps: Tensor, generator: torch.Generator) -> Tensor:
            return likelihood_loss(net, tables.z[tables.state[steps]], tables.u[steps], _targets(tables, steps))  # type: ignore[arg-type]

    else:
        net, members = _policy(job, host), 0

        def loss(net: nn.Module, steps: Tensor, generator: torch.Generator) -> Tensor:
            return net.loss(tables.z[tables.state[steps]], tables.u[steps], generator)  # type: ignore[operator]

    fit_rows(
        net.to(job.device),
        loss,
        (tables.train, tables.held),
        getattr(config, name),
        members=members,
        entropy=entropy,
        path=job.network(name),
        progress=progress,
    )


@torch.no_grad()
def _measure(job: Job, name: str, progress: Progress | None) -> None:
    """Keep the elites and the largest uncertainty of a step of the source."""
    tables, units = _tables(job), _units(job)
    net = load_weights(_ensemble(job, torch.Generator()), job.network("ensemble"), torch.device(job.device))
    error, largest = torch.zeros(job.transform.members, device=units.device), units.new_zeros(())
    for steps in tables.held.split(_BATCH):
        mean, _ = gaussians(net, tables.z[tables.state[steps]], tables.u[steps])
        error += (mean - _targets(tables, steps)).square().sum((1, 2))
    for steps in torch.arange(len(tables.u), device=units.device).split(_BATCH):
        _, log_variance = gaussians(net, tables.z[tables.state[steps]], tables.u[steps])
        largest = torch.maximum(largest, uncertainty(log_variance, units).amax())
    save_atomically({"order": error.argsort().cpu(), "largest": float(largest)}, job.network(name))


@functools.lru_cache(maxsize=1)
def _networks(job: Job) -> tuple[Tables, MLP, Policy, MLP, MLP | None]:
    device, config = torch.device(job.device), job.transform
    ends = judge(job, config.models, "termination") if job.network("termination").exists() else None
    return (
        _tables(job),
        load_weights(_ensemble(job, torch.Generator()), job.network("ensemble"), device),
        load_weights(_policy(job, torch.Generator()), job.network("policy"), device),
        judge(job, config.models),
        ends,
    )


@torch.no_grad()
def _roll(job: Job, chunk: int, progress: Progress | None) -> Path:
    path, config = job.chunk(chunk), job.transform
    if path.exists():
        return path
    tables, ensemble, policy, judges, ends = _networks(job)
    scales, units, device = tables.scales, _units(job), torch.device(job.device)
    limits = torch.load(job.network("limits"), weights_only=True)
    elites = limits["order"][: config.elites].to(device)
    generator = chunk_generator(job.seed, chunk, device)
    shape = (config.chunk,)
    origin = tables.state[torch.randint(len(tables.state), shape, device=device, generator=generator)]
    z, rows = tables.z[origin], torch.arange(config.chunk, device=device)
    states, actions, rewards, doubts, ended = [z], [], [], [], []
    for _ in range(config.horizon):
        code = torch.randn((config.chunk, policy.latent), device=device, generator=generator).clamp(-_LATENT, _LATENT)
        u = policy.decode(z, code)
        mean, log_variance = gaussians(ensemble, z, u)
        doubt = uncertainty(log_variance, units)
        member = elites[torch.randint(len(elites), shape, device=device, generator=generator)]
        noise = torch.randn(mean.shape[1:], device=device, generator=generator)
        outcome = mean[member, rows] + (log_variance[member, rows] / 2).exp() * noise
        z = z + scales.change * outcome[:, :-1]
        reward = scales.reward.decode(outcome[:, -1:])[:, 0] - config.pessimism * doubt
        states, actions, rewards, doubts = [*states, z], [*actions, u], [*rewards, reward], [*doubts, doubt]
        ended.append(ends(z)[0, :, 0] > 0 if ends else torch.zeros(shape, dtype=torch.bool, device=device))
    total = accumulate(torch.stack(doubts, 1), config.discount)
    length, end = truncate(total, limits["largest"] / config.strictness, torch.stack(ended, 1))
    Rollouts.judged(
        judges,
        scales,
        source=origin,
        length=length,
        end=end,
        states=torch.stack(states, 1),
        actions=torch.stack(actions, 1),
        rewards=torch.stack(rewards, 1),
    ).save(path)
    return path
