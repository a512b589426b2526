"""Episodes that come one after the other, gathered in arrays that have room for all: no step is in memory twice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from minari_stitch.data.episodes import STEP_FIELDS, Episodes


class Gathered:
    """Grows by an episode at a time.

    Args:
        steps: As many as there will be at most, where that is known; what is not used costs no memory.
        episodes: Likewise.
        extras: Keep the metadata, and the infos that all episodes have in one shape.
    """

    def __init__(self, steps: int, episodes: int, *, extras: bool = False) -> None:
        self._steps, self._states = Rows(steps), Rows(steps + episodes)
        self._extras = extras
        self._offsets, self._metadata = [0], []

    def __len__(self) -> int:
        """Number of episodes so far."""
        return len(self._offsets) - 1

    def add(self, part: Mapping[str, Any]) -> None:
        """Take an episode, as `Episodes.from_list` takes it."""
        states = {"": part["observations"], **(part["infos"] if self._extras else {})}
        self._states.add(states, len(part["observations"]))
        self._steps.add({name: part[name] for name in STEP_FIELDS}, len(part["rewards"]))
        self._offsets.append(self._offsets[-1] + len(part["rewards"]))
        self._metadata.append(part["metadata"] if self._extras else {})

    def episodes(self) -> Episodes:
        """All of them; nothing can be added any more."""
        infos = self._states.arrays()
        return Episodes(
            observations=infos.pop(""),
            **self._steps.arrays(),
            offsets=np.array(self._offsets, dtype=np.int64),
            infos=dict(sorted(infos.items())),
            metadata=self._metadata,
        )


class Rows:
    """Arrays of one length, by name; a name that is missing once, or has another shape, is left out from then on."""

    def __init__(self, room: int) -> None:
        self._room, self._count = max(1, room), 0
        self._arrays: dict[str, np.ndarray] | None = None

    def add(self, parts: Mapping[str, np.ndarray], count: int) -> None:
        """Append `count` rows to each."""
        arrays = self._arrays
        if arrays is None:
            arrays = {name: np.empty((self._room, *part.shape[1:]), part.dtype) for name, part in parts.items()}
        while self._count + count > self._room:  # more than was known of
            self._room *= 2
            arrays = {name: self._moved(array, array.dtype) for name, array in arrays.items()}
        kept: dict[str, np.ndarray] = {}
        for name, array in arrays.items():
            if name not in parts or parts[name].shape[1:] != array.shape[1:]:
                continue
            if (dtype := np.result_type(array, parts[name])) != array.dtype:
                array = self._moved(array, dtype)
            array[self._count : self._count + count] = parts[name]
            kept[name] = array
        self._arrays, self._count = kept, self._count + count

    def arrays(self) -> dict[str, np.ndarray]:
        """Views of what was added."""
        return {name: array[: self._count] for name, array in (self._arrays or {}).items()}

    def _moved(self, array: np.ndarray, dtype: np.dtype) -> np.ndarray:
        larger = np.empty((self._room, *array.shape[1:]), dtype)
        larger[: self._count] = array[: self._count]
        return larger
