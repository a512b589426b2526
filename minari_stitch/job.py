"""A transform at work on one source: what its processes share, and where they keep what they make."""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from minari_stitch.config import DiffusionConfig, key
from minari_stitch.data.episodes import Episodes
from minari_stitch.data.minari_io import Dataset
from minari_stitch.data.spaces import FlatSpace
from minari_stitch.diffstitch.models import Scales
from minari_stitch.progress import Progress
from minari_stitch.run import Run

_DEFAULT = DiffusionConfig()


@dataclass(frozen=True, kw_only=True)
class Job:
    """All that a process needs to train a network or to make a chunk.

    Attributes:
        transform: The method with its settings.
        arrays: Folder of the source's arrays.
        networks: Folder of trained networks.
        chunks: Folder of numbered chunks of synthetic data.
        seed: Of the run.
        device: Torch device.
        autocast: Reduced precision of diffusion networks.
        limit: Time limit of the environment, or None.
        low: Bounds of the actions.
        high: Bounds of the actions.
    """

    transform: Any
    arrays: Path
    networks: Path
    chunks: Path
    seed: int
    device: str
    autocast: torch.dtype | None
    limit: int | None
    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def of(cls, transform: Any, dataset: Dataset, run: Run, *, trained: Sequence[Any], sampled: Sequence[Any]) -> Job:
        """Name the folders after what their content depends on, and write the source's arrays.

        Args:
            transform: The method with its settings.
            dataset: The source.
            run: Where and how to work.
            trained: Settings that decide what training yields.
            sampled: Further settings that decide what a chunk holds.

        Raises:
            StorageError: The run directory cannot be written.
        """
        bounds = FlatSpace(dataset.action_space, "action")
        limits = bounds.low.tolist(), bounds.high.tolist()
        about = (version("minari-stitch"), transform.name, dataset.fingerprint, run.seed, run.device, run.precision)
        identity = key(*about, *limits, *trained)
        arrays = run.folder(f"source-{dataset.fingerprint}")
        dataset.episodes.save(arrays)
        return cls(
            transform=transform,
            arrays=arrays,
            networks=run.folder(f"models-{identity}"),
            chunks=run.folder(f"chunks-{key(identity, *sampled, dataset.max_episode_steps)}"),
            seed=run.seed,
            device=run.device,
            autocast=run.autocast,
            limit=dataset.max_episode_steps,
            low=tuple(limits[0]),
            high=tuple(limits[1]),
        )

    def network(self, name: str) -> Path:
        """File of a trained network."""
        return self.networks / f"{name}.pt"

    def chunk(self, number: int) -> Path:
        """File of a chunk."""
        return self.chunks / f"{number:06d}.npz"


def train_missing(run: Run, job: Job, train: Callable[[Job, str, Progress | None], None], names: Iterable[str]) -> None:
    """Run `train(job, name, progress)` in the run's processes for each network whose file is not there."""
    missing = [(job, name) for name in names if not job.network(name).exists()]
    if missing:
        collections.deque(run.pool(run.threads).map(train, missing), maxlen=0)


@functools.lru_cache(maxsize=1)
def source(job: Job, config: DiffusionConfig = _DEFAULT) -> tuple[Episodes, Scales]:
    """The source's arrays, and normalisers fitted to them on the job's device."""
    episodes = Episodes.load(job.arrays)
    scales = Scales.of(episodes, np.array(job.low), np.array(job.high), config)
    return episodes, scales.to(job.device)
