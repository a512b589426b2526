"""Offline learners, one file each. They share data, evaluation and logging, and nothing else.

Shape letters: `K` runs (a run is one seed on one mix of data), `B` batch, `N` environments, `S` state width,
`A` action width.

`Algorithm` says what a module of this package offers. Everything that is random comes from one generator for each
run, drawn outside of `update`; everything in `update`, Adam and targets included, is one function without side
effects other than on `state`, so that it can be compiled and captured as a whole. No run may influence another.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Protocol

from torch import Generator, Tensor

from benchmarks.batches import Ratio, Sampler, Sizes
from benchmarks.data import LearnerData

State = dict[str, Any]
"""Nested dict of tensors, each with a leading dimension K (`step`, the count of updates, is a scalar tensor)."""
Info = dict[str, Tensor]
"""Name -> `(K,)`, detached."""


class Config(Protocol):
    """What the flat, frozen, keyword-only settings of every learner have; the rest is each learner's own.

    Attributes:
        steps: Gradient steps, which schedules depend on: `dataclasses.replace(config, steps=...)` for a budget.
        batch_size: B.
    """

    @property
    def steps(self) -> int:
        """Gradient steps."""
        ...

    @property
    def batch_size(self) -> int:
        """Batch size B."""
        ...

    @classmethod
    def for_dataset(cls, dataset_id: str) -> Config:
        """CORL's settings for the environment and quality that an id names; the defaults for any other."""
        ...


class Algorithm(Protocol):
    """A module of this package.

    Attributes:
        BLOCK: Steps whose indices and noise are drawn at once.
        Config: Its settings, a frozen keyword-only dataclass.
    """

    BLOCK: int
    Config: type

    def sampler(
        self, config: Any, data: LearnerData, ratios: Sequence[Ratio], generators: Sequence[Generator]
    ) -> Sampler:
        """What the learner trains on: `data.transitions(...)`, or sequences of its own."""
        ...

    def init(self, config: Any, sizes: Sizes, generators: Sequence[Generator]) -> State:
        """Fresh parameters, targets and moments, on the device of the generators (one for each run)."""
        ...

    def noise(
        self, config: Any, sizes: Sizes, generators: Sequence[Generator], batch_size: int, steps: int
    ) -> dict[str, Tensor]:
        """What else is random in the next `steps` updates: name -> `(steps, K, ...)`; `no_noise` where nothing is."""
        ...

    def policy_frequency(self, config: Any) -> int:
        """Updates for each update of the policy: 2 where it learns in every second one, as in TD3; `every_update`."""
        ...

    def update(
        self, config: Any, state: State, batch: dict[str, Tensor], noise: dict[str, Tensor], update_policy: bool
    ) -> Info:
        """One gradient step of all runs, in place; `update_policy` in the last of every `policy_frequency` updates."""
        ...

    def act(self, config: Any, state: State, observations: Any) -> Tensor:
        """The greedy policy.

        Args:
            config: Settings.
            state: Parameters.
            observations: `(K, N, S)`, normalised by the data's mean and std; of learners of sequences,
                whatever mapping of windows they document.

        Returns:
            `(K, N, A)` in [-1, 1].
        """
        ...


def no_noise(
    config: Any, sizes: Sizes, generators: Sequence[Generator], batch_size: int, steps: int
) -> dict[str, Tensor]:
    """The `noise` of learners of whose updates nothing else is random."""
    return {}


def every_update(config: Any) -> int:
    """The `policy_frequency` of learners whose policy learns in every update."""
    return 1


def history(config: Any) -> int:
    """Steps of the windows that `act` reads, the `context` of learners of sequences; 0 for learners of transitions."""
    return getattr(config, "context", 0)


def task(dataset_id: str) -> tuple[str, str]:
    """Environment and quality that a dataset id names, for settings that depend on them.

    `demo/hopper/medium-replay-v0` -> `("hopper", "medium-replay")`; empty where an id says neither.
    """
    qualities = "medium-replay|medium-expert|medium|expert|random|simple|human|cloned"
    environment = re.search(r"(?:^|[/-])(hopper|halfcheetah|walker2d|pen)(?=[/-])", dataset_id)
    quality = re.search(rf"[/-]({qualities})(?=-|$)", dataset_id)
    return environment.group(1) if environment else "", quality.group(1) if quality else ""
