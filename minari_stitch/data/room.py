"""Whether something fits: what is free on a disk and in memory, asked before work begins."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from minari_stitch.data.ids import datasets_path
from minari_stitch.errors import OutOfMemoryError, StorageError

EPISODE = 4500
"""Bytes that an episode takes in the file of a dataset beside its rows."""
_CGROUP = Path("/sys/fs/cgroup")


def in_words(n_bytes: float) -> str:
    """An amount in decimal units, as disks are sold."""
    for unit in ("kB", "MB", "GB", "TB", "PB"):
        n_bytes /= 1000
        if n_bytes < 999.5:
            return f"{n_bytes:.2g} {unit}" if n_bytes < 99.5 else f"{n_bytes:.0f} {unit}"
    return f"{n_bytes:,.0f} PB"


def free_disk(folder: Path) -> int:
    """Bytes that are free where a folder is, or will be."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


def free_memory() -> int | None:
    """Bytes that processes can still have, as far as the system says."""
    found: list[int] = []
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")))
    with suppress(OSError, ValueError):  # of a container, which is killed beyond
        found.append(int((_CGROUP / "memory.max").read_text()) - int((_CGROUP / "memory.current").read_text()))
    if not found:
        with suppress(OSError, ValueError, AttributeError):
            found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(found) if found else None


def require_room(what: str, *, disk: float, memory: float, folder: Path, remedy: str) -> None:
    """Refuse what cannot fit.

    Args:
        what: With its amount, to be named.
        disk: Bytes that will be written to `folder`.
        memory: Bytes that will be held.
        folder: Where.
        remedy: What to do about it.

    Raises:
        StorageError: The disk is too small.
        OutOfMemoryError: The memory is.
    """
    if disk > (free := free_disk(folder)):
        raise StorageError(
            f"{what} would take about {in_words(disk)} in {folder}, where {in_words(free)} are free: {remedy}, free "
            "some space there, or set MINARI_DATASETS_PATH elsewhere"
        )
    if (there := free_memory()) is not None and memory > there:
        raise OutOfMemoryError(
            f"{what} would take about {in_words(memory)} of memory, of which {in_words(there)} are free: {remedy}, or "
            "use a machine with more"
        )


def require_import(path: Path, n_bytes: int) -> None:
    """Refuse, before it is read, a file that cannot be held in memory, or written as a dataset.

    Args:
        path: The file.
        n_bytes: Of its tables, uncompressed.

    Raises:
        StorageError: The disk is too small.
        OutOfMemoryError: The memory is.
    """
    remedy = "import a part of the file"
    require_room(str(path), disk=n_bytes, memory=2 * n_bytes, folder=datasets_path(), remedy=remedy)
