"""What a dataset was made from, and by what measure: its source, its threshold, and the unit of each dimension."""

from __future__ import annotations

import numpy as np

from minari_stitch.data import minari_io
from minari_stitch.data.dataset import Dataset
from minari_stitch.data.provenance import RECORD_KEY
from minari_stitch.quality.bridges import Bridges

DELTA = 2.0
"""Threshold where a dataset was made without one."""
_BLOCK = 100_000


def own_delta(dataset: Dataset) -> float:
    """The threshold that a dataset was made with."""
    record = dataset.metadata.get(RECORD_KEY) or {}
    return float(record.get("config", {}).get("qualify", {}).get("delta", DELTA))


def source_of(dataset: Dataset) -> Dataset | None:
    """The dataset that one was made from, if it is local and still the same."""
    record = dataset.metadata.get(RECORD_KEY) or {}
    origin = record.get("source")
    if not isinstance(origin, str) or not minari_io.exists(origin):
        return None
    # The pen's positions and velocities, where they are recorded, are where its episodes are played from.
    infos = dataset.env_spec is not None and dataset.env_spec.id.startswith("AdroitHandPen")
    source = minari_io.read(origin, download=False, skip_invalid=True, keep_infos=infos)
    return source if source.fingerprint == record.get("source_fingerprint") else None


def unit(dataset: Dataset, source: Dataset | None = None) -> np.ndarray:
    """`(S,)` what errors are measured in: the standard deviation in the source, or where it is gone in what is real."""
    source = source or source_of(dataset)
    if source is not None:
        return spread(source.episodes.observations)
    real = ~Bridges.of(dataset.episodes).synthetic
    observations = dataset.episodes.observations
    return spread(observations[dataset.episodes.step_state[real]] if real.any() else observations)


def spread(observations: np.ndarray) -> np.ndarray:
    """`(S,)` standard deviation of `(N, S)`, 1 where nothing varies; a part at a time, since there may be millions."""
    mean = observations.mean(0, dtype=np.float64)
    parts = (observations[start : start + _BLOCK] - mean for start in range(0, len(observations), _BLOCK))
    scale = np.sqrt(sum((part**2).sum(0) for part in parts) / len(observations))
    return np.where(scale > 0, scale, 1.0)
