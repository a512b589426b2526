"""Where evaluated episodes lead in a plane: kept with each result, and drawn by `benchmarks.report`."""

from __future__ import annotations

from typing import Any

import numpy as np

FOLLOWED = 5  # episodes of each run; of OGBench's one of each task
_EVERY = 10  # steps from one place to the next


class Trails:
    """Follows some episodes of each run while they are played: an evaluator calls it before each step and at the end.

    Args:
        columns: Of an observation, which are the place.
    """

    def __init__(self, columns: slice) -> None:
        self._columns = columns
        self._seen: list[tuple[np.ndarray, np.ndarray]] = []
        self._calls = 0

    def __call__(self, observations: np.ndarray, live: np.ndarray) -> None:
        """Look where episodes are.

        Args:
            observations: `(K, N, S)`, the last one of an episode that is over.
            live: `(K, N)` which are not over.
        """
        count = live.shape[1]
        self._episodes = np.unique(np.linspace(0, count, min(count, FOLLOWED), endpoint=False).astype(int))
        self._last = observations[:, self._episodes, self._columns].copy()
        if self._calls % _EVERY == 0:
            self._seen.append((self._last, live[:, self._episodes].copy()))
        self._calls += 1

    def of(self, run: int) -> list[dict[str, Any]]:
        """`episode` and `path`, places to a hundredth, of the episodes of a run that were followed."""
        found = []
        for column, episode in enumerate(self._episodes.tolist()):
            places = [place[run, column] for place, live in self._seen if live[run, column]]
            path = np.stack([*places, self._last[run, column]]).astype(float).round(2)
            found.append({"episode": episode, "path": path.tolist()})
        return found
