"""Dataset transforms: each learns from a dataset and then yields as many synthetic steps as are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from minari_stitch.data.minari_io import Dataset
from minari_stitch.run import Run


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Synthetic episodes that are ready to be written.

    Attributes:
        report: What the transform has to say about them, as plain values.
        n_steps: Steps in all.
        n_episodes: Episodes in all.
        parts: Yields the episodes, as `Episodes.from_list` takes them, from the start at each call.
    """

    report: Mapping[str, Any]
    n_steps: int
    n_episodes: int
    parts: Callable[[], Iterator[dict[str, Any]]]


class Fitted(Protocol):
    """A transform that has learned from a dataset."""

    def sample(self, n_steps: int) -> Sample:
        """At least `n_steps` synthetic steps in whole episodes; the same each time."""
        ...


class Transform(Protocol):
    """A way to augment a dataset. It is also its own configuration."""

    @property
    def name(self) -> str:
        """Name of the method, for metadata."""
        ...

    @property
    def suffix(self) -> str:
        """What the name of the augmented dataset ends with."""
        ...

    @property
    def discount(self) -> float:
        """Gamma of the returns-to-go that are written."""
        ...

    def fit(self, dataset: Dataset, run: Run) -> Fitted:
        """Learn from a dataset; what is already in the run directory is not learned again."""
        ...
