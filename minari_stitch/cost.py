"""What an augmentation will take, about: work that was counted, at the rates of this machine, and the room it needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from minari_stitch.data.dataset import Dataset
from minari_stitch.data.ids import datasets_path
from minari_stitch.data.room import EPISODE, in_words, require_room
from minari_stitch.run import Run
from minari_stitch.transforms.work import Expected, Work

_PROCESS = 2.5e8
"""Bytes of memory of a process that has loaded torch and done nothing."""
_TRAIN = "train "
"""What the names of stages begin with that are the fit of a network."""
_TRAINING = 24
"""Bytes for each parameter: weights, gradient, two moments, an average, and the best of it."""
_START = 5.0
"""Seconds that processes take to start, once to train and once to sample: each imports torch."""
_WRITTEN = 5e-4, 2e-6
"""Seconds of a core that writing takes for an episode, and for each of its steps."""
_STATE, _STEP = 41, 10
"""Bytes of the infos of a state, and of the reward and the ends of a step."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What `augment` will do and take, about; nothing of it was done.

    Attributes:
        dataset_id: Of the new dataset.
        source: Id of the source.
        method: Name of the method.
        n_steps: Steps to make.
        existing: Whether the same is there already, so that nothing would be done.
        work: Stages; what is in the run directory already is left out.
        processes: That share what can be shared; networks are trained side by side.
        threads: Of each process that trains.
        device: Torch device.
        disk: Bytes of the new dataset.
        kept: Bytes of the run directory in the end.
        memory: Bytes that all processes hold at least.
        directory: The run directory.

    Example:
        >>> import minari_stitch as ms
        >>> ahead = ms.estimate("toy/walk-v0", ms.Resample(), n_steps=1000)
        >>> ahead.dataset_id, ahead.seconds < 60, ahead.disk < 1_000_000
        ('toy/walk-resampled-v0', True, True)
    """

    dataset_id: str
    source: str
    method: str
    n_steps: int
    existing: bool
    work: Sequence[Work]
    processes: int
    threads: int
    device: str
    disk: float
    kept: float
    memory: float
    directory: Path

    @property
    def stages(self) -> dict[str, float]:
        """Stage -> seconds, about; each is tried for a moment when first asked for."""
        return {part.stage: part.takes(self.processes) for part in self.work if part.count}

    @property
    def seconds(self) -> float:
        """In all, about: more where other programs are at work, less where a training stops early."""
        fits = [seconds for stage, seconds in self.stages.items() if stage.startswith(_TRAIN)]
        side_by_side = max([*fits, sum(fits) / self.processes]) if fits else 0.0
        return sum(self.stages.values()) - sum(fits) + side_by_side

    def worthwhile(self) -> Estimate:
        """With one process where more would not save as much time as they take to start; as it is if nobody can say."""
        if not any(part.shared or part.stage.startswith(_TRAIN) for part in self.work):
            return self
        alone = replace(self, processes=1)
        return self if alone.seconds - self.seconds > _START else alone

    def require_room(self) -> None:
        """Refuse what cannot fit.

        Raises:
            StorageError: The disk is too small.
            OutOfMemoryError: The memory is.
        """
        root = datasets_path()
        beside = self.directory.absolute().is_relative_to(root.absolute())
        what, remedy = f"n_steps={self.n_steps}", "ask for fewer steps or smaller networks"
        both = self.disk + (self.kept if beside else 0)
        require_room(what, disk=both, memory=self.memory, folder=root, remedy=remedy)
        if not beside:
            require_room(
                what, disk=self.kept, memory=0, folder=self.directory, remedy=f"{remedy}, name another run_dir"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        plain = {name: value for name, value in vars(self).items() if name not in ("work", "directory")}
        return plain | {"seconds": self.seconds, "stages": self.stages, "directory": str(self.directory)}

    def __str__(self) -> str:
        """One line."""
        room = f"{in_words(self.disk)} for the dataset, {in_words(self.kept)} in the run directory"
        return f"about {duration(self.seconds)}; {room}, {in_words(self.memory)} of memory"


def duration(seconds: float) -> str:
    """As people say it."""
    for size, name in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {name}" if seconds < 9.5 * size else f"{seconds / size:.0f} {name}"
    return f"{max(1, round(seconds))} seconds" if seconds >= 1.5 else "a second"


def written(dataset: Dataset, expected: Expected, n_steps: int, *, include_original: bool) -> Work:
    """The last stage of all methods."""
    own = len(dataset.episodes) if include_original else 0
    per_episode, per_step = _WRITTEN
    return Work(
        stage="write",
        count=math.ceil(n_steps / expected.episode) + own,
        unit="episodes",
        each=lambda: per_episode + expected.episode * per_step,
    )


def room(dataset: Dataset, expected: Expected, n_steps: int, run: Run, *, include_original: bool) -> dict[str, float]:
    """`disk`, `kept` and `memory` of `Estimate`."""
    episodes = dataset.episodes
    state = episodes.observations.itemsize * episodes.observations.shape[1] + _STATE
    step = episodes.actions.itemsize * episodes.actions.shape[1] + _STEP
    rows = [(n_steps, n_steps / expected.episode)]
    rows += [(episodes.n_steps, len(episodes))] if include_original else []
    source = sum(array.nbytes for array in (episodes.observations, episodes.actions, episodes.rewards))
    processes = 1 + (run.workers if run.workers > 1 else 0)
    return {
        "disk": sum(steps * (state + step) + count * (state + EPISODE) for steps, count in rows),
        "kept": (source if expected.parameters else 0) + expected.kept,
        "memory": processes * _PROCESS + 2 * source + _TRAINING * expected.parameters + expected.held,
    }
