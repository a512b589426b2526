"""SynthER (Lu et al., 2023; SER in the paper) as a transform: an unconditional diffusion model of single transitions.

Each row is (s, a, r, s') and, where the source ever terminates, whether it does; what is sampled are one-step
episodes, each with a termination or a truncation. Nothing is rejected, but dynamics networks like those that qualify
DiffStitch's bridges say of each transition how far off it is, so that `filter` works on it.
"""

from __future__ import annotations

from dataclasses import field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from minari_stitch.baselines import edm
from minari_stitch.baselines.denoiser import ResidualMLP
from minari_stitch.baselines.edm import NoiseConfig
from minari_stitch.baselines.judged import FittedRollouts, JudgedJob
from minari_stitch.baselines.rollouts import End, Rollouts
from minari_stitch.config import Count, Share, settings
from minari_stitch.data.episodes import Episodes
from minari_stitch.data.minari_io import Dataset
from minari_stitch.data.storage import load_sealed, reading
from minari_stitch.learn.judging import JudgeConfig
from minari_stitch.learn.loop import FitConfig, save_atomically
from minari_stitch.learn.nets import MLP, initialise
from minari_stitch.learn.scales import Scales
from minari_stitch.learn.seeds import chunk_generator, seeded
from minari_stitch.learn.tables import load_weights, split, train_rows
from minari_stitch.progress import Progress
from minari_stitch.run import Run
from minari_stitch.transforms.base import Transform
from minari_stitch.transforms.work import Expected

_SALT = 101
_FLOOR = 1e-4


def _large() -> dict[str, Any]:
    """The sizes of SynthER's paper."""
    return {
        "hidden": 1024,
        "blocks": 6,
        "sampler_steps": 128,
        "train": FitConfig(steps=100_000, batch_size=1024, learning_rate=3e-4, ema=0.999, evaluate_every=1000),
        "judges": JudgeConfig.full(),
        "chunk": 65_536,
    }


@settings
class SynthER(Transform):
    """Single transitions drawn from a diffusion model, without any condition (Lu et al., 2023).

    Example:
        >>> import minari_stitch as ms
        >>> ms.SynthER.preset("paper").hidden
        1024
    """

    hidden: Count = 256
    """Width of the denoiser (SynthER: 1024)."""
    blocks: Count = 4
    """Residual blocks of the denoiser (SynthER: 6)."""
    whitening: Literal["columns", "full"] = "columns"
    """Unit variance of each column (SynthER), or of each principal component, so that small changes of state count too:
    a smaller median error and a longer tail."""
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    """Noise levels."""
    sampler_steps: Annotated[int, Field(ge=2)] = 32
    """Noise levels of the Heun sampler (SynthER: 128)."""
    train: FitConfig = field(
        default_factory=lambda: FitConfig(
            steps=10_000, batch_size=256, learning_rate=1e-3, ema=0.999, evaluate_every=500
        )
    )
    """Training of the denoiser (SynthER: 100,000 steps)."""
    judges: JudgeConfig = field(default_factory=JudgeConfig)
    """Dynamics networks that judge."""
    chunk: Count = 8192
    """Transitions sampled together, from one generator."""
    discount: Share = 0.99
    """Gamma of the returns-to-go that are written."""

    name: ClassVar[str] = "SER"
    suffix: ClassVar[str] = "ser"
    sizes = {"full": _large, "paper": _large}

    def fit(self, dataset: Dataset, run: Run) -> FittedRollouts:
        """Train the denoiser and the judges, unless the run directory holds them.

        Raises:
            StorageError: The run directory cannot be written.
            TrainingError: The training of a network diverged.
        """
        job = self._job(dataset, run)
        job.train_missing(run, ("denoiser", "dynamics"))
        return FittedRollouts(dataset=dataset, run=run, job=job)

    def _job(self, dataset: Dataset, run: Run) -> SynthERJob:
        trained = [self.hidden, self.blocks, self.whitening, self.noise, self.train, self.judges]
        return SynthERJob.of(self, dataset, run, trained=trained, sampled=[self.sampler_steps, self.chunk])

    def networks(self, dataset: Dataset, run: Run) -> Path:
        """Folder of the trained networks."""
        return self._job(dataset, run).networks

    def expected(self, dataset: Dataset, run: Run, n_steps: int) -> Expected:
        """Training of the denoiser and the judges, and chunks of transitions, each with two passes a noise level."""
        job = self._job(dataset, run)
        states, actions = job.widths
        row = 2 * states + actions + 1 + bool(dataset.episodes.terminations.any())
        net = ResidualMLP(row, hidden=self.hidden, blocks=self.blocks, generator=torch.Generator())
        nets = {"denoiser": (net, (torch.zeros(1, row), torch.zeros(1)), self.train)}
        return job.expected(nets, ("dynamics",), n_steps, 1.0, run, passes=2 * self.sampler_steps)


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


class SynthERJob(JudgedJob):
    """Trains the denoiser and the judges of a source, and samples rows."""

    def train(self, name: str, progress: Progress | None) -> None:
        """Train the denoiser, or the judges."""
        if name == "dynamics":
            self.train_judge(name, progress)
            return
        config, device = self.transform, torch.device(self.device)
        rows = self.rows.rows.to(device)

        def loss(net: torch.nn.Module, steps: Tensor, generator: torch.Generator) -> Tensor:
            return edm.loss(net, rows[steps], config.noise, generator)

        train_rows(
            self._denoiser(seeded([self.seed, _SALT, 2], "cpu")).to(device),
            loss,
            split(self.episodes, self.seed, device),
            config.train,
            members=0,
            entropy=[self.seed, _SALT],
            path=self.network(name),
            progress=progress,
        )

    def make(self, number: int) -> Rollouts:
        """Sample a chunk of transitions."""
        config, scales, rows = self.transform, self.scales, self.rows
        net, judges = self.nets
        generator = chunk_generator(self.seed, number, self.device)
        sampled = edm.draw_rows(net, (config.chunk, rows.width), config.sampler_steps, config.noise, generator)
        z, u, reward, z_next, *terminal = (part.to(self.device) for part in rows.split(sampled.cpu()))
        ended = terminal[0][:, 0] > 0.5 if terminal else torch.zeros(len(z), dtype=torch.bool, device=z.device)
        return Rollouts.judged(
            judges,
            scales,
            source=torch.full((len(z),), -1),
            length=torch.ones(len(z), dtype=torch.int64, device=z.device),
            end=torch.where(ended, End.TERMINATED, End.COMPLETE),
            states=torch.stack([z, z_next], 1),
            actions=u.clamp(-1, 1)[:, None],
            rewards=scales.reward.decode(reward),
        )

    @cached_property
    def rows(self) -> Rows:
        """The source's transitions."""
        rows, path = Rows(self.episodes, self.scales.to("cpu"), self.transform.whitening), self.network("whitening")
        # Axes are unique only up to their signs: what samples must use those that the denoiser was trained with.
        if path.exists():
            with reading(path):
                rows.maps = torch.load(load_sealed(path), weights_only=True)
        else:
            save_atomically(rows.maps, path)
        return rows

    @cached_property
    def nets(self) -> tuple[ResidualMLP, MLP]:
        """The trained denoiser and the judges."""
        net = load_weights(self._denoiser(torch.Generator()), self.network("denoiser"), self.device)
        return net, self.judge()

    def _denoiser(self, generator: torch.Generator) -> ResidualMLP:
        """With fresh weights, on the CPU."""
        config = self.transform
        net = ResidualMLP(self.rows.width, hidden=config.hidden, blocks=config.blocks, generator=generator)
        initialise(net, generator)
        return net
