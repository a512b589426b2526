"""Results as JSON lines: append-only, one line for each finished cell, every `*.jsonl` of a folder read as one.

A line is a mapping with `cell` (what was run, and so its key), `score`, `curve`, and how it came about: `config`,
`reference`, `versions`, `device`, `seconds`. Machines are merged by copying files into one folder, or by
concatenating them; where a cell was run twice, the last line of the last file counts.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from minari_stitch.errors import StorageError
from minari_stitch.quality.learners import digest, identity  # noqa: F401 - which data a cell is of

DEFAULT_FOLDER = Path(__file__).parent / "results"
_PACKAGES = ("minari-stitch", "minari", "gymnasium", "mujoco", "torch", "numpy")


@dataclass(frozen=True, kw_only=True, order=True)
class Cell:
    """What is run once: one seed of one learner on one mix of data.

    Attributes:
        algo: Name of the learner.
        dataset: Id of the original dataset.
        augmented: Id of the augmented dataset; empty for the original data alone.
        kind: `bridges` or `episodes`: what the augmented side is drawn from; empty for the original data alone.
        ratio: Original : augmented.
        seed: Of everything random.
        budget: Name of the budget.
        protocol: How the score is made.
        settings: Digest of the learner's settings.
        source: Digest of what identifies the original dataset, see `identity`.
        made: The same of the augmented dataset; empty for the original data alone.
    """

    algo: str
    dataset: str
    augmented: str = ""
    kind: str = ""
    ratio: str = "1:0"
    seed: int = 0
    budget: str = "small"
    protocol: str = ""
    settings: str = ""
    source: str = ""
    made: str = ""

    @property
    def group(self) -> tuple[str, ...]:
        """All but the seed."""
        return tuple(str(value) for name, value in asdict(self).items() if name != "seed")

    @property
    def original(self) -> tuple[str, ...]:
        """What a cell shares with those on the original data that it is compared with."""
        return (self.algo, self.dataset, self.source, self.budget, self.protocol, self.settings)


class Results:
    """The results in a folder.

    Args:
        folder: Made on the first append.
        name: File to append to, without its ending; others are only read.
    """

    def __init__(self, folder: Path = DEFAULT_FOLDER, name: str = "results") -> None:
        self.folder = folder
        self._file = folder / f"{name}.jsonl"

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """All whole lines, file by file. What a killed process left half written is passed over."""
        for path in sorted(self.folder.glob("*.jsonl")):
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    record = json.loads(line)
                    record["cell"] = Cell(**record["cell"])
                except (json.JSONDecodeError, KeyError, TypeError):
                    continue
                yield record

    def finished(self) -> dict[Cell, dict[str, Any]]:
        """The record of each finished cell."""
        return {record["cell"]: record for record in self}

    def append(self, cell: Cell, record: Mapping[str, Any]) -> None:
        """Add the record of a finished cell: one write under a lock, on a line of its own whatever came before.

        Raises:
            StorageError: The folder cannot be written.
        """
        line = json.dumps({"cell": asdict(cell), **record}, allow_nan=False)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._file.open("ab+") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                size = file.seek(0, os.SEEK_END)
                if size:
                    file.seek(size - 1)
                torn = size > 0 and file.read(1) != b"\n"
                file.write((b"\n" if torn else b"") + line.encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StorageError(
                f"cannot write results to {self._file}: {error.strerror}; name another folder with --results"
            ) from error


def conditions(device: str | torch.device) -> dict[str, Any]:
    """Versions and device, for a record."""
    device = torch.device(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "versions": {"python": platform.python_version(), **{package: version(package) for package in _PACKAGES}},
        "device": {"type": device.type, "name": name, "threads": torch.get_num_threads()},
    }
