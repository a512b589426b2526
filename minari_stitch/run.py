"""A run: where it keeps its work, on which device, and in how many processes.

Everything under the run directory is keyed by what it depends on, so a killed run goes on where it was, a run
with another delta or amount reuses models and proposals, and a changed config never silently reuses anything.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import torch

from minari_stitch.cluster import Cluster
from minari_stitch.data.storage import sweep
from minari_stitch.errors import ConfigError, StorageError
from minari_stitch.executor import Executor, executor
from minari_stitch.pool import Pool
from minari_stitch.progress import Progress

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class Run:
    """Where and how a transform does its work.

    Seed, device and precision decide the result, the number of threads its last bits, and nothing else changes it.

    Attributes:
        directory: Holds models, proposals and the source's arrays; made on first use.
        seed: Seed of every generator.
        device: Torch device.
        precision: Of the diffusion network's arithmetic.
        workers: Processes; on a GPU everything runs in this one. On Ray, cores of a Ray that is started here.
        threads: Threads of each training process.
        executor: Processes of this machine, `local`, or tasks on `ray`.
        progress: Called as `progress(stage, done, total)`.
        dry: No stage is done and nothing written; the device need not be there.
    """

    directory: Path
    seed: int = 0
    device: str = "cpu"
    precision: Precision = "fp32"
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    threads: int = field(default_factory=lambda: max(1, (os.cpu_count() or 1) // 2))
    executor: Executor = "local"
    progress: Progress | None = None
    dry: bool = False

    def __post_init__(self) -> None:
        """Refuse a device or an amount that does not exist."""
        if self.executor not in get_args(Executor):
            raise ConfigError(f"executor={self.executor!r} is not possible: use {' or '.join(get_args(Executor))}")
        Pool(workers=self.workers, threads=self.threads)
        try:
            kind = torch.device(self.device).type
        except (RuntimeError, TypeError):
            raise ConfigError(f"device={self.device!r} is not a torch device: use cpu, cuda or mps") from None
        there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        if kind not in there:
            raise ConfigError(f"device={self.device!r} is not supported: use cpu, cuda or mps")
        if not self.dry:
            self._require_device(kind, there=there[kind])
        if self.precision not in get_args(Precision):
            raise ConfigError(f"precision={self.precision!r} is not possible: use {' or '.join(get_args(Precision))}")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed={self.seed} is not possible: use 0 to 2**63 - 1")

    def _require_device(self, kind: str, *, there: bool) -> None:
        if not there:
            raise ConfigError(f"device={self.device!r} is not there: torch sees no {kind.upper()} device; use cpu")
        if kind == "cuda" and (torch.device(self.device).index or 0) >= (count := torch.cuda.device_count()):
            raise ConfigError(f"device={self.device!r} is not there: torch sees {count}, cuda:0 to cuda:{count - 1}")

    @property
    def autocast(self) -> torch.dtype | None:
        """Reduced precision of the diffusion network."""
        return torch.bfloat16 if self.precision == "bf16" else None

    def pool(self, threads: int = 1) -> Pool | Cluster:
        """The run's processes or tasks, with so many threads each."""
        return executor(
            self.executor,
            workers=self.workers,
            threads=threads,
            device=self.device,
            folder=self.directory,
            cores=self.threads,
            progress=self.progress,
        )

    def folder(self, name: str) -> Path:
        """A folder of the run, made if missing, unless the run is dry.

        Raises:
            StorageError: It cannot be made.
        """
        path = self.directory.absolute() / name  # other machines may work there
        if self.dry:
            return path
        try:
            path.mkdir(parents=True, exist_ok=True)
            sweep(path)
        except OSError as error:
            raise StorageError(f"cannot write the run directory {path}: {error.strerror}; name another one") from error
        return path
