"""Named errors. Every message names the offending value and the remedy."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class StitchError(ValueError):
    """Base class of all errors that a user can cause and mend."""


class DatasetIdError(StitchError):
    """A dataset id is malformed, already taken, or cannot be resolved."""


class DatasetNotFoundError(StitchError):
    """A dataset is neither local nor can it be fetched."""


class UnsupportedSpaceError(StitchError):
    """An observation or action space is outside what stitching supports."""


class InvalidDataError(StitchError):
    """A dataset breaks its own contract (lengths, NaN, bounds, early terminations)."""


class NothingToStitchError(StitchError):
    """A valid dataset from which no pair of trajectories can be stitched."""


class LowAcceptanceError(StitchError):
    """Too few bridges pass the qualification to reach the requested amount."""


class TrainingError(StitchError):
    """The training of a network went astray."""


class StorageError(StitchError):
    """The datasets path or the run directory cannot be read or written."""


class WorkerError(StitchError):
    """A worker process died."""


class OutOfMemoryError(StitchError):
    """The work does not fit into the memory of this machine or device."""


class ConfigError(StitchError):
    """A setting has an impossible value."""


class RenderError(StitchError):
    """What was asked for cannot be drawn, or not on this machine."""


_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "Unable to allocate", "Cannot allocate")


@contextlib.contextmanager
def memory_errors() -> Iterator[None]:
    """Turn what NumPy, torch and the operating system say where memory runs out into one named error.

    Raises:
        OutOfMemoryError: Memory ran out.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not isinstance(error, MemoryError) and not any(text in str(error) for text in _NO_MEMORY):
            raise
        said = str(error).strip().partition("\n")[0][:200]
        raise OutOfMemoryError(
            f"memory ran out ({said or type(error).__name__}): use smaller networks (width, hidden), batches or "
            "chunks, fewer workers or fewer steps. What is finished is kept."
        ) from error
