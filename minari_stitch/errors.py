"""Named errors. Every message names the offending value and the remedy."""


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


class ConfigError(StitchError):
    """A setting has an impossible value."""


class RenderError(StitchError):
    """What was asked for cannot be drawn, or not on this machine."""
