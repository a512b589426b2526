"""Dataset transforms: each learns from a dataset and then yields as many synthetic steps as are asked for.

A transform of your own is one class: a configuration that inherits from `Transform`. Name it under the entry point
`minari_stitch.transforms` of your package, and the command line, its options, `show` and the benchmarks know it:

    [project.entry-points."minari_stitch.transforms"]
    jitter = "my_package:Jitter"
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self, get_args

from minari_stitch.data.minari_io import Dataset
from minari_stitch.errors import ConfigError
from minari_stitch.run import Run
from minari_stitch.transforms.work import Expected

PATIENCE = 512
"""Proposals after which a method may give up."""
LOWEST_ACCEPTANCE = 0.01
"""Share of proposals that must qualify for it to go on."""
Size = Literal["fast", "full", "paper"]
"""`fast` takes minutes on two CPU cores, `full` is for a GPU, `paper` has the sizes of the method's own paper."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Synthetic episodes that are ready to be written.

    Attributes:
        report: What the transform has to say about them, as plain values.
        n_steps: Steps in all.
        n_episodes: Episodes in all.
        n_synthetic: Steps that a model made; None stands for all of them.
        parts: Yields the episodes, as `Episodes.from_list` takes them, from the start at each call.
    """

    report: Mapping[str, Any]
    n_steps: int
    n_episodes: int
    n_synthetic: int | None = None
    parts: Callable[[], Iterator[dict[str, Any]]]


class Fitted(Protocol):
    """A transform that has learned from a dataset."""

    def sample(self, n_steps: int) -> Sample:
        """Whole episodes of at least `n_steps` steps; the same each time. What counts as one is the method's own."""
        ...


class Transform(abc.ABC):
    """A way to augment a dataset. It is also its own configuration: a class decorated with `settings`.

    Attributes:
        name: Name of the method, for people and metadata.
        suffix: What the name of the augmented dataset ends with.
        shortcuts: Keywords of `augment` that stand for a setting -> its dotted name.
        sizes: What differs from the defaults at a size, made when asked for.

    Example:
        >>> import minari_stitch as ms
        >>> @ms.settings
        ... class Half(ms.Transform):
        ...     "The first half of the episodes once more."
        ...
        ...     share: float = 0.5
        ...     name, suffix = "half", "half"
        ...
        ...     def fit(self, dataset, run):
        ...         ...
        >>> Half(share=0.25).share
        0.25
    """

    name: ClassVar[str]
    suffix: ClassVar[str]
    shortcuts: ClassVar[Mapping[str, str]] = {}
    sizes: ClassVar[Mapping[str, Callable[[], dict[str, Any]]]] = {}

    @property
    def gamma(self) -> float:
        """Discount of the returns-to-go that are written."""
        return getattr(self, "discount", 0.99)

    @property
    def output_suffix(self) -> str:
        """What the name of a dataset made with these settings ends with."""
        return self.suffix

    @classmethod
    def preset(cls, size: Size) -> Self:
        """The method at a size: `fast`, `full` or `paper`.

        Raises:
            ConfigError: There is no such size.
        """
        if size not in get_args(Size):
            raise ConfigError(f"there is no preset {size!r}: choose one of {', '.join(get_args(Size))}")
        return cls(**cls.sizes.get(size, dict)())

    def expected(self, dataset: Dataset, run: Run, n_steps: int) -> Expected:
        """What the method is about to do, for an estimate; nothing is written. A method may leave it at this."""
        return Expected(episode=float(dataset.episodes.lengths.mean()))

    def networks(self, dataset: Dataset, run: Run) -> Path | None:
        """Folder of the networks that `fit` trains, each with its losses; None where there are none."""
        return None

    @abc.abstractmethod
    def fit(self, dataset: Dataset, run: Run) -> Fitted:
        """Learn from a dataset; what is already in the run directory is not learned again."""
