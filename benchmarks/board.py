"""Results as TensorBoard shows them: a run for each cell, its curve of scores and its last losses.

Needs the extra `tensorboard`; the results themselves stay where they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.results import Cell
from minari_stitch.errors import ConfigError


def check_installed() -> None:
    """Refuse before hours of training what could not be written after them.

    Raises:
        ConfigError: TensorBoard is not installed.
    """
    try:
        import tensorboard  # noqa: F401
    except ImportError as error:
        raise ConfigError("--tensorboard needs TensorBoard: pip install -e '.[tensorboard]'") from error


def write(finished: Mapping[Cell, Mapping[str, Any]], folder: Path) -> int:
    """Write a run for each finished cell, anew; return how many."""
    from torch.utils.tensorboard import SummaryWriter

    for cell, record in finished.items():
        name = "-".join((cell.algo, cell.dataset, cell.augmented or "original", cell.ratio, str(cell.seed)))
        path = folder / name.replace("/", "_").replace(":", "_")
        for old in path.glob("events.*"):
            old.unlink()
        with SummaryWriter(path) as writer:
            for step, score in record.get("curve", ()):
                writer.add_scalar("score", score, step)
            last = record["curve"][-1][0] if record.get("curve") else 0
            for loss, value in record.get("losses", {}).items():
                writer.add_scalar(f"loss/{loss}", value, last)
    return len(finished)
