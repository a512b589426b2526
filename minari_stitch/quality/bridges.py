"""Where the generated steps of a dataset are: runs of them, each a bridge or a rollout."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minari_stitch.data.episodes import Episodes


@dataclass(frozen=True, kw_only=True, eq=False)
class Bridges:
    """Runs of generated steps, `B` in all.

    Attributes:
        first: `(B,)` first step of each.
        stop: `(B,)` the step after its last.
        synthetic: `(N,)` bool of all steps.
    """

    first: np.ndarray
    stop: np.ndarray
    synthetic: np.ndarray

    @classmethod
    def of(cls, episodes: Episodes) -> Bridges:
        """By the infos that `augment` writes; a dataset without them holds no generated step."""
        marks = episodes.infos.get("synthetic")
        if marks is None:
            synthetic = np.zeros(episodes.n_steps, bool)
        else:
            synthetic = marks.reshape(len(marks), -1)[episodes.step_state, 0].astype(bool)
        begins = np.ones(episodes.n_steps, bool)
        begins[1:] = ~synthetic[:-1]
        begins[episodes.offsets[:-1]] = True
        ends = np.roll(begins | ~synthetic, -1)
        ends[-1] = True
        return cls(
            first=np.flatnonzero(synthetic & begins), stop=np.flatnonzero(synthetic & ends) + 1, synthetic=synthetic
        )

    def __len__(self) -> int:
        """Number of runs B."""
        return len(self.first)

    @property
    def lengths(self) -> np.ndarray:
        """`(B,)` steps of each."""
        return self.stop - self.first

    def rows(self, chosen: np.ndarray) -> np.ndarray:
        """Steps of the `chosen` runs, one run after the other."""
        lengths = self.lengths[chosen]
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return np.repeat(self.first[chosen], lengths) + within

    def some(self, most: int | None, rng: np.random.Generator) -> np.ndarray:
        """Whole runs at random with about so many steps in all, in order; None takes all."""
        if most is None or self.lengths.sum() <= most:
            return np.arange(len(self))
        order = rng.permutation(len(self))
        count = int(np.searchsorted(np.cumsum(self.lengths[order]), most)) + 1
        return np.sort(order[:count])
