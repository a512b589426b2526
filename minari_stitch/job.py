"""A transform at work on one source: what its processes share, and where they keep what they make."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from minari_stitch.config import key
from minari_stitch.data.episodes import Episodes
from minari_stitch.data.minari_io import Dataset
from minari_stitch.data.spaces import FlatSpace
from minari_stitch.data.storage import sweep
from minari_stitch.learn.normalize import NormalizerKind
from minari_stitch.learn.scales import Scales
from minari_stitch.progress import Progress
from minari_stitch.run import Run

_ARRAYS = "source-"
_FORMAT = "sealed"
"""Of the files that are kept: those of another one are not read."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """All that a process needs to train a network or to make a chunk; each transform says how, in a class of its own.

    What a process loads (the source, networks) is cached on its copy of the job, and goes with it.

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
        widths: S and A.
        normalizer: Of windows.
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
    widths: tuple[int, int]
    normalizer: NormalizerKind = "standard"

    @classmethod
    def of(
        cls,
        transform: Any,
        dataset: Dataset,
        run: Run,
        *,
        trained: Sequence[Any],
        sampled: Sequence[Any],
        normalizer: NormalizerKind = "standard",
    ) -> Self:
        """Name the folders after what their content depends on, and write the source's arrays.

        Args:
            transform: The method with its settings.
            dataset: The source.
            run: Where and how to work.
            trained: Settings that decide what training yields.
            sampled: Further settings that decide what a chunk holds.
            normalizer: Of windows.

        Raises:
            StorageError: The run directory cannot be written.
        """
        bounds = FlatSpace(dataset.action_space, "action")
        limits = bounds.low.tolist(), bounds.high.tolist()
        about = (
            version("minari-stitch"),
            _FORMAT,
            transform.name,
            dataset.fingerprint,
            run.seed,
            run.device,
            run.precision,
        )
        identity = key(*about, *limits, *trained)
        arrays = run.folder(f"{_ARRAYS}{dataset.fingerprint}")
        if not run.dry:
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
            widths=(dataset.episodes.observations.shape[1], dataset.episodes.actions.shape[1]),
            normalizer=normalizer,
        )

    def __getstate__(self) -> dict[str, Any]:
        """Fields only: every process loads its own copy of the rest."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @cached_property
    def episodes(self) -> Episodes:
        """The source's arrays, mapped into memory."""
        return Episodes.load(self.arrays, self.arrays.name.removeprefix(_ARRAYS))

    @cached_property
    def scales(self) -> Scales:
        """Normalisers fitted to the source, on the job's device."""
        return Scales.of(self.episodes, np.array(self.low), np.array(self.high), self.normalizer).to(self.device)

    def network(self, name: str) -> Path:
        """File of a trained network."""
        return self.networks / f"{name}.pt"

    def chunk(self, number: int) -> Path:
        """File of a chunk."""
        return self.chunks / f"{number:06d}.npz"

    def train(self, name: str, progress: Progress | None) -> None:
        """Train a network and keep it in its file."""
        raise NotImplementedError

    def make(self, number: int) -> Any:
        """Make a chunk: something with `save(path)`."""
        raise NotImplementedError

    def train_missing(self, run: Run, names: Iterable[str]) -> None:
        """Train, in the run's processes, each network whose file is not there."""
        missing = [(name,) for name in names if not self.network(name).exists()]
        if missing:
            collections.deque(run.pool(run.threads).map(self.train, missing), maxlen=0)

    def missing_chunks(self, count: float) -> int:
        """Of so many chunks, those that are not there."""
        there = sum(1 for path in self.chunks.glob("[0-9]*.npz"))
        return max(0, math.ceil(count) - there)

    def made(self, run: Run) -> Iterator[Path]:
        """Files of chunk after chunk, without end; those of the run directory are taken as they are."""
        try:
            yield from run.pool().map(self._keep, ((number,) for number in count()))
        finally:
            if self.chunks.is_dir():  # of what was under way when nobody waited any more
                sweep(self.chunks)

    def _keep(self, number: int, progress: Progress | None) -> Path:
        path = self.chunk(number)
        if not path.exists():
            with torch.no_grad():
                self.make(number).save(path)
        return path
