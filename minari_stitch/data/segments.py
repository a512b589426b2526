"""What an episode is made of: stretches that were generated, and stretches of real episodes, as its infos say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minari_stitch.data.dataset import Dataset
from minari_stitch.errors import InvalidDataError


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Steps that belong together.

    Attributes:
        start: First step.
        stop: Step after the last.
        synthetic: Whether a model made them.
        source: Episode of the source, where they are real and that is known.
        first: Step of that episode at which they begin.
        total: Sum of their rewards.
        error: Largest recorded error, squared distance in standardised state space.
        end: How the episode ends, of its last segment.
    """

    start: int
    stop: int
    synthetic: bool
    source: int | None
    first: int | None
    total: float
    error: float | None
    end: str = ""

    @property
    def n_steps(self) -> int:
        """How many."""
        return self.stop - self.start


def segments(dataset: Dataset, episode: int) -> list[Segment]:
    """Cut an episode where its origin changes.

    Args:
        dataset: One that was read with its infos.
        episode: Number of the episode.

    Raises:
        InvalidDataError: There is no such episode.
    """
    ids = dataset.episode_ids.tolist()
    if episode not in ids:
        raise InvalidDataError(f"{dataset.dataset_id} has no episode {episode}: choose one of {ids[0]} to {ids[-1]}")
    part = dataset.episodes.episode(ids.index(episode))
    infos, count = part["infos"], len(part["rewards"])

    def column(name: str) -> np.ndarray:
        return infos[name][:count].reshape(count) if name in infos else np.full(count, -1)

    synthetic, source, step, error = (
        column(name) for name in ("synthetic", "source_episode", "source_step", "dynamics_error")
    )
    synthetic = synthetic > 0
    # A generated step may leave a real state: it belongs to what is generated.
    key = np.where(synthetic, -2, source)
    cuts = [0, *(np.flatnonzero(np.diff(key)) + 1).tolist(), count]
    end = "terminated" if part["terminations"][-1] else "truncated"
    return [
        Segment(
            start=start,
            stop=stop,
            synthetic=bool(synthetic[start]),
            source=None if synthetic[start] or source[start] < 0 else int(source[start]),
            first=None if synthetic[start] or source[start] < 0 else int(step[start]),
            total=float(part["rewards"][start:stop].sum()),
            error=float(error[start:stop].max()) if "dynamics_error" in infos else None,
            end=end if stop == count else "",
        )
        for start, stop in zip(cuts[:-1], cuts[1:], strict=True)
    ]
