"""Who is at work on a file or a folder: a lock that goes with its process, so that what a killed one left is known."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has none: there only age tells
    fcntl = None

_STALE = 24 * 3600


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the lock of a file or folder, until the end or the death of this process."""
    handle = os.open(path, os.O_RDONLY) if fcntl else None
    try:
        if fcntl and handle is not None:
            with suppress(OSError):  # of a file system without locks, where nothing is swept
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        if handle is not None:
            os.close(handle)


def abandoned(path: Path) -> bool:
    """Whether nobody holds the lock of something hidden that was made to be held."""
    try:
        if fcntl is None:
            return path.stat().st_mtime < time.time() - _STALE
        handle = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(handle)
    except OSError:  # it is held, or gone
        return False
    return True
