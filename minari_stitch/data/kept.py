"""What augmentations keep beside the datasets: models and proposals, which another run of the same source reuses."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from minari_stitch.data.ids import datasets_path
from minari_stitch.errors import StorageError


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A run directory.

    Attributes:
        name: Of the folder: the source's id and the fingerprint of its content.
        path: The folder.
        n_bytes: On disk.
        age: Seconds since something in it changed.
        models: Trained bundles.
        chunks: Chunks of proposals.
    """

    name: str
    path: Path
    n_bytes: int
    age: float
    models: int
    chunks: int


def runs_path() -> Path:
    """Where runs are kept by default: beside the datasets, hidden."""
    return datasets_path() / ".stitch-runs"


def kept_runs() -> list[Kept]:
    """All run directories beside the datasets, the largest first."""
    folders = runs_path().iterdir() if runs_path().is_dir() else ()
    return sorted((_look(folder) for folder in folders if folder.is_dir()), key=lambda run: (-run.n_bytes, run.name))


def remove(runs: Iterable[Kept]) -> int:
    """Delete run directories; nothing but time is lost. Returns the bytes that were freed.

    Raises:
        StorageError: A folder cannot be deleted.
    """
    freed = 0
    for run in runs:
        try:
            shutil.rmtree(run.path)
        except OSError as error:
            raise StorageError(f"cannot delete the run directory {run.path}: {error.strerror}") from error
        freed += run.n_bytes
    return freed


def _look(folder: Path) -> Kept:
    stats = [(path, path.stat()) for path in folder.rglob("*") if path.is_file()]
    newest = max((stat.st_mtime for _, stat in stats), default=folder.stat().st_mtime)
    return Kept(
        name=folder.name,
        path=folder,
        n_bytes=sum(stat.st_size for _, stat in stats),
        age=max(0.0, time.time() - newest),
        models=len({path.parent for path, _ in stats if path.parent.name.startswith("models-")}),
        chunks=sum(path.parent.name.startswith("chunks-") for path, _ in stats),
    )
