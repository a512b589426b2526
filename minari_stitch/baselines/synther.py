"""SynthER (Lu et al., 2023; SER in the paper) as a transform: an unconditional diffusion model of single transitions.

Each row is (s, a, r, s') and, where the source ever terminates, whether it does; what is sampled are one-step
episodes, each with a termination or a truncation. Nothing is rejected, but the dynamics networks that qualify
DiffStitch's bridges say of each transition how far off it is, so that `filter` works on it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from minari_stitch.baselines import edm
from minari_stitch.baselines.edm import NoiseConfig
from minari_stitch.baselines.rolled import FittedRollouts, judge, train_judge
from minari_stitch.baselines.rollouts import End, Rollouts
from minari_stitch.config import FitConfig, ModelConfig
from minari_stitch.data.episodes import Episodes
from minari_stitch.data.minari_io import Dataset
from minari_stitch.data.storage import reading
from minari_stitch.diffstitch.fitting import fit_rows, seeded, split
from minari_stitch.diffstitch.models import Scales, load_weights
from minari_stitch.diffstitch.proposals import chunk_generator
from minari_stitch.errors import ConfigError
from minari_stitch.job import Job, source, train_missing
from minari_stitch.learn.loop import save_atomically
from minari_stitch.learn.nets import MLP, ResidualMLP, initialise
from minari_stitch.progress import Progress
from minari_stitch.run import Run

_SALT = 101
_FLOOR = 1e-4


@dataclass(frozen=True, kw_only=True)
class SynthER:
    """The method and all its settings."""

    hidden: int = 256
    """Width of the denoiser (SynthER: 1024)."""
    blocks: int = 4
    """Residual blocks of the denoiser (SynthER: 6)."""
    whitening: Literal["columns", "full"] = "columns"
    """Unit variance of each column (SynthER), or of each principal component, so that small changes of state count too:
    a smaller median error and a longer tail."""
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    """Noise levels."""
    sampler_steps: int = 32
    """Noise levels of the Heun sampler (SynthER: 128)."""
    train: FitConfig = field(
        default_factory=lambda: FitConfig(
            steps=10_000, batch_size=256, learning_rate=1e-3, ema=0.999, evaluate_every=500
        )
    )
    """Training of the denoiser (SynthER: 100,000 steps)."""
    models: ModelConfig = field(default_factory=ModelConfig)
    """Of its networks only the dynamics ones are trained: they judge."""
    chunk: int = 8192
    """Transitions sampled together, from one generator."""
    discount: float = 0.99
    """Gamma of the returns-to-go that are written."""

    name = "SER"
    suffix = "ser"

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        for name, least in {"hidden": 1, "blocks": 1, "sampler_steps": 2, "chunk": 1}.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name}={getattr(self, name)} is not possible: use at least {least}")

    def fit(self, dataset: Dataset, run: Run) -> FittedRollouts:
        """Train the denoiser and the judges, unless the run directory holds them.

        Raises:
            StorageError: The run directory cannot be written.
        """
        trained = [self.hidden, self.blocks, self.whitening, self.noise, self.train, self.models]
        job = Job.of(self, dataset, run, trained=trained, sampled=[self.sampler_steps, self.chunk])
        train_missing(run, job, _train, ("denoiser", "dynamics"))
        return FittedRollouts(dataset=dataset, run=run, job=job, make=_sample)


class Rows:
    """Transitions as whitened rows `(N, D)`, and back.

    Args:
        episodes: The source.
        scales: Normalisers.
        whitening: See `SynthER`.

    Attributes:
        rows: `(N, D)`, on the CPU.
        maps: Mean `(D,)` and the matrices `(D, D)` to whitened rows and back.
    """

    def __init__(self, episodes: Episodes, scales: Scales, whitening: Literal["columns", "full"]) -> None:
        state = episodes.step_state
        columns = [
            scales.state.encode(torch.tensor(episodes.observations[state], dtype=torch.float32)),
            scales.action.encode(torch.tensor(episodes.actions, dtype=torch.float32)),
            scales.reward.encode(torch.tensor(episodes.rewards, dtype=torch.float32)[:, None]),
            scales.state.encode(torch.tensor(episodes.observations[state + 1], dtype=torch.float32)),
        ]
        if episodes.terminations.any():
            columns.append(torch.tensor(episodes.terminations, dtype=torch.float32)[:, None])
        self._widths = [column.shape[1] for column in columns]
        table = torch.cat(columns, 1).numpy().astype(np.float64)
        # In float64 NumPy: sums in torch depend on the number of threads.
        mean = torch.tensor(table.mean(0), dtype=torch.float32)
        covariance = np.cov(table.T) if whitening == "full" else np.diag(table.var(0))
        variance, axes = np.linalg.eigh(covariance)
        # A direction without variance (a constant column) stays as it is instead of being blown up.
        spread = np.sqrt(np.where(variance > _FLOOR**2, variance, 1.0))
        encode, decode = (torch.tensor(x, dtype=torch.float32) for x in (axes / spread, (axes * spread).T))
        self.maps = (mean, encode, decode)
        self.rows = (torch.tensor(table, dtype=torch.float32) - mean) @ encode

    @property
    def width(self) -> int:
        """D."""
        return len(self.maps[0])

    def split(self, rows: Tensor) -> list[Tensor]:
        """Rows `(B, D)` as standardised states, actions in units of [-1, 1], rewards, next states, and termination."""
        mean, _, decode = self.maps
        return list((rows @ decode + mean).split(self._widths, 1))


@functools.lru_cache(maxsize=1)
def _rows(job: Job) -> Rows:
    episodes, scales = source(job)
    rows, path = Rows(episodes, scales.to("cpu"), job.transform.whitening), job.network("whitening")
    # Axes are unique only up to their signs: what samples must use those that the denoiser was trained with.
    if path.exists():
        with reading(path):
            rows.maps = torch.load(path, weights_only=True)
    else:
        save_atomically(rows.maps, path)
    return rows


def _denoiser(job: Job, generator: torch.Generator) -> ResidualMLP:
    """With fresh weights, on the CPU."""
    net = ResidualMLP(_rows(job).width, hidden=job.transform.hidden, blocks=job.transform.blocks, generator=generator)
    initialise(net, generator)
    return net


def _train(job: Job, name: str, progress: Progress | None) -> None:
    if name == "dynamics":
        train_judge(job, job.transform.models, progress)
        return
    episodes, _ = source(job)
    config, device = job.transform, torch.device(job.device)
    rows = _rows(job).rows.to(device)

    def loss(net: torch.nn.Module, steps: Tensor, generator: torch.Generator) -> Tensor:
        return edm.loss(net, rows[steps], config.noise, generator)

    fit_rows(
        _denoiser(job, seeded([job.seed, _SALT, 2], torch.device("cpu"))).to(device),
        loss,
        split(episodes, job.seed, device),
        config.train,
        members=0,
        entropy=[job.seed, _SALT],
        path=job.network(name),
        progress=progress,
    )


@functools.lru_cache(maxsize=1)
def _networks(job: Job) -> tuple[ResidualMLP, MLP]:
    device = torch.device(job.device)
    net = load_weights(_denoiser(job, torch.Generator()), job.network("denoiser"), device)
    return net, judge(job, job.transform.models)


@torch.no_grad()
def _sample(job: Job, chunk: int, progress: Progress | None) -> Path:
    path, config = job.chunk(chunk), job.transform
    if path.exists():
        return path
    scales, rows = source(job)[1], _rows(job)
    net, judges = _networks(job)
    generator = chunk_generator(job.seed, chunk, job.device)
    sampled = edm.sample(net, (config.chunk, rows.width), config.sampler_steps, config.noise, generator)
    z, u, reward, z_next, *terminal = (part.to(job.device) for part in rows.split(sampled.cpu()))
    ended = terminal[0][:, 0] > 0.5 if terminal else torch.zeros(len(z), dtype=torch.bool, device=z.device)
    Rollouts.judged(
        judges,
        scales,
        source=torch.full((len(z),), -1),
        length=torch.ones(len(z), dtype=torch.int64, device=z.device),
        end=torch.where(ended, End.TERMINATED, End.COMPLETE),
        states=torch.stack([z, z_next], 1),
        actions=u.clamp(-1, 1)[:, None],
        rewards=scales.reward.decode(reward),
    ).save(path)
    return path
