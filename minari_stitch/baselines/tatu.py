"""TATU (Zhang et al., 2023) as a transform: short model rollouts, truncated when they become too uncertain.

An ensemble of Gaussian dynamics networks is rolled out from states of the source with a policy learned from it (a
conditional variational autoencoder, as in BCQ). A rollout ends before the step at which its accumulated uncertainty
passes a threshold, and rewards are lowered by the uncertainty. An end of the episode is predicted by a classifier,
where TATU takes the environment's own rule.
"""

from __future__ import annotations

from dataclasses import field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minari_stitch.baselines.judged import FittedRollouts, JudgedJob
from minari_stitch.baselines.rollouts import End, Rollouts
from minari_stitch.config import Count, NonNegative, Positive, Share, settings
from minari_stitch.data.minari_io import Dataset
from minari_stitch.data.storage import load_sealed, reading
from minari_stitch.errors import ConfigError
from minari_stitch.learn.judging import JudgeConfig
from minari_stitch.learn.loop import FitConfig, save_atomically
from minari_stitch.learn.nets import MLP
from minari_stitch.learn.seeds import chunk_generator, seeded
from minari_stitch.learn.tables import Tables, load_weights, train_rows
from minari_stitch.pool import Pool
from minari_stitch.progress import Progress
from minari_stitch.run import Run
from minari_stitch.transforms.base import Transform
from minari_stitch.transforms.work import Expected

_SALTS = {"ensemble": 201, "policy": 202}
_LOG_VARIANCE = (-10.0, 0.5)
_LATENT = 0.5
_BATCH = 8192


def _large() -> dict[str, Any]:
    """The sizes of TATU's paper."""
    fit = FitConfig(steps=100_000, batch_size=256, learning_rate=1e-3, evaluate_every=1000)
    return {"ensemble": fit, "policy": fit, "judges": JudgeConfig.full(), "chunk": 65_536}


@settings
class TATU(Transform):
    """Model rollouts that end when they become too uncertain (Zhang et al., 2023).

    Example:
        >>> import minari_stitch as ms
        >>> ms.TATU(horizon=3).horizon
        3
    """

    horizon: Count = 5
    """Most steps of a rollout, h."""
    members: Count = 7
    """Dynamics networks."""
    elites: Count = 5
    """Those with the smallest held-out error, which predict."""
    hidden: Count = 200
    """Width of the networks."""
    strictness: Positive = 2.0
    """alpha: the threshold is the largest uncertainty of a step of the source, divided by it."""
    pessimism: NonNegative = 1.0
    """lambda: reward taken away for each unit of uncertainty."""
    ensemble: FitConfig = field(default_factory=lambda: FitConfig(steps=6000, batch_size=256, learning_rate=1e-3))
    """Training of the dynamics networks."""
    policy: FitConfig = field(default_factory=lambda: FitConfig(steps=6000, batch_size=256, learning_rate=1e-3))
    """Training of the rollout policy."""
    judges: JudgeConfig = field(default_factory=JudgeConfig)
    """Dynamics networks that judge, and the classifier of terminations."""
    chunk: Count = 4096
    """Rollouts made together, from one generator."""
    discount: Share = 0.99
    """Gamma of the accumulated uncertainty and of the returns-to-go that are written."""

    name: ClassVar[str] = "TATU"
    suffix: ClassVar[str] = "tatu"
    sizes = {"full": _large, "paper": _large}

    def __post_init__(self) -> None:
        """Refuse more elites than networks."""
        if self.elites > self.members:
            raise ConfigError(f"elites={self.elites} is not possible: use 1 to members={self.members}")

    def fit(self, dataset: Dataset, run: Run) -> FittedRollouts:
        """Train what the run directory does not hold yet, and set the threshold.

        Raises:
            StorageError: The run directory cannot be written.
            TrainingError: The training of a network diverged.
        """
        job = self._job(dataset, run)
        job.train_missing(run, ("ensemble", "policy", *_judges(dataset)))
        list(Pool(threads=run.threads).map(job.measure, [()]))  # here, but with a training's threads
        return FittedRollouts(dataset=dataset, run=run, job=job)

    def _job(self, dataset: Dataset, run: Run) -> TATUJob:
        nets = [self.members, self.hidden, self.ensemble, self.policy, self.judges]
        sampled = [self.horizon, self.elites, self.strictness, self.pessimism, self.chunk, self.discount]
        return TATUJob.of(self, dataset, run, trained=nets, sampled=sampled)

    def networks(self, dataset: Dataset, run: Run) -> Path:
        """Folder of the trained networks."""
        return self._job(dataset, run).networks

    def expected(self, dataset: Dataset, run: Run, n_steps: int) -> Expected:
        """Training of all networks, and chunks of rollouts, of which half of the steps are taken to be kept."""
        job = self._job(dataset, run)
        states, actions = job.widths
        ensemble, policy = job._ensemble(torch.Generator()), job._policy(torch.Generator())
        z = torch.zeros(1, states)
        nets = {
            "ensemble": (ensemble, (torch.zeros(1, states + actions),), self.ensemble),
            "policy": (policy.decoder, (torch.cat([z, torch.zeros(1, policy.latent)], -1),), self.policy),
        }
        return job.expected(nets, _judges(dataset), n_steps, (1 + self.horizon) / 2, run, passes=self.horizon)


def _judges(dataset: Dataset) -> tuple[str, ...]:
    return ("dynamics", "termination") if dataset.episodes.terminations.any() else ("dynamics",)


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


class TATUJob(JudgedJob):
    """Trains the ensemble, the policy and the judges of a source, and rolls out."""

    def train(self, name: str, progress: Progress | None) -> None:
        """Train one of the networks."""
        if name not in _SALTS:
            self.train_judge(name, progress)
            return
        config, tables, entropy = self.transform, self.tables, [self.seed, _SALTS[name]]
        host = seeded([*entropy, 2], "cpu")

        def likelihood(net: nn.Module, steps: Tensor, _: torch.Generator) -> Tensor:
            return likelihood_loss(net, tables.z[tables.state[steps]], tables.u[steps], self._targets(steps))  # type: ignore[arg-type]

        def reconstruction(net: nn.Module, steps: Tensor, generator: torch.Generator) -> Tensor:
            return net.loss(tables.z[tables.state[steps]], tables.u[steps], generator)  # type: ignore[operator]

        ensemble = name == "ensemble"
        train_rows(
            (self._ensemble(host) if ensemble else self._policy(host)).to(self.device),
            likelihood if ensemble else reconstruction,
            (tables.train, tables.held),
            getattr(config, name),
            members=config.members if ensemble else 0,
            entropy=entropy,
            path=self.network(name),
            progress=progress,
        )

    @torch.no_grad()
    def measure(self, progress: Progress | None = None) -> None:
        """Keep the elites and the largest uncertainty of a step of the source, unless they are known."""
        if self.network("limits").exists():
            return
        tables, units = self.tables, self._units
        net = load_weights(self._ensemble(torch.Generator()), self.network("ensemble"), self.device)
        error, largest = torch.zeros(self.transform.members, device=units.device), units.new_zeros(())
        for steps in tables.held.split(_BATCH):
            mean, _ = gaussians(net, tables.z[tables.state[steps]], tables.u[steps])
            error += (mean - self._targets(steps)).square().sum((1, 2))
        for steps in torch.arange(len(tables.u), device=units.device).split(_BATCH):
            _, log_variance = gaussians(net, tables.z[tables.state[steps]], tables.u[steps])
            largest = torch.maximum(largest, uncertainty(log_variance, units).amax())
        save_atomically({"order": error.argsort().cpu(), "largest": float(largest)}, self.network("limits"))

    def make(self, number: int) -> Rollouts:
        """Roll out a chunk."""
        config, tables, scales, units = self.transform, self.tables, self.scales, self._units
        ensemble, policy, judges, ends = self.nets
        device = torch.device(self.device)
        with reading(self.network("limits")):
            limits = torch.load(load_sealed(self.network("limits")), weights_only=True)
        elites = limits["order"][: config.elites].to(device)
        generator = chunk_generator(self.seed, number, device)
        shape = (config.chunk,)
        origin = tables.state[torch.randint(len(tables.state), shape, device=device, generator=generator)]
        z, rows = tables.z[origin], torch.arange(config.chunk, device=device)
        states, actions, rewards, doubts, ended = [z], [], [], [], []
        for _ in range(config.horizon):
            code = torch.randn((config.chunk, policy.latent), device=device, generator=generator)
            u = policy.decode(z, code.clamp(-_LATENT, _LATENT))
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
        return Rollouts.judged(
            judges,
            scales,
            source=origin,
            length=length,
            end=end,
            states=torch.stack(states, 1),
            actions=torch.stack(actions, 1),
            rewards=torch.stack(rewards, 1),
        )

    @cached_property
    def tables(self) -> Tables:
        """The source on the device."""
        return Tables(self.episodes, self.scales, self.seed)

    @cached_property
    def nets(self) -> tuple[MLP, Policy, MLP, MLP | None]:
        """The trained ensemble, policy, judges, and classifier of terminations where the source ever terminates."""
        return (
            load_weights(self._ensemble(torch.Generator()), self.network("ensemble"), self.device),
            load_weights(self._policy(torch.Generator()), self.network("policy"), self.device),
            self.judge(),
            self.judge("termination") if self.network("termination").exists() else None,
        )

    @property
    def _units(self) -> Tensor:
        """`(S + 1,)` what a unit of the ensemble's outputs is in the units of the source."""
        return torch.cat([self.scales.change * self.scales.state.scale, self.scales.reward.scale])

    def _targets(self, steps: Tensor) -> Tensor:
        return torch.cat([self.tables.change(steps), self.tables.r[steps]], -1)

    def _ensemble(self, generator: torch.Generator) -> MLP:
        config, (states, actions) = self.transform, self.widths
        shape = {"hidden": config.hidden, "layers": 4, "members": config.members}
        return MLP(states + actions, 2 * (states + 1), **shape, generator=generator)

    def _policy(self, generator: torch.Generator) -> Policy:
        return Policy(*self.widths, self.transform.hidden, generator)
