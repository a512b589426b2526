"""Where evaluated episodes lead in a plane: kept with each result, and drawn into the maze."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.comparison import Finished
from benchmarks.results import Cell
from minari_stitch.data import minari_io
from minari_stitch.data.ids import exists
from minari_stitch.sim.maze import Maze, maze_of

_FOLLOWED = 5  # episodes of each run; of OGBench's one of each task
_EVERY = 10  # steps from one place to the next
_ARRIVED, _LOST = "#0072b2", "#b3b3b3"


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
        self._episodes = np.unique(np.linspace(0, count, min(count, _FOLLOWED), endpoint=False).astype(int))
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


def draw(finished: Finished, folder: Path) -> list[Path]:
    """A picture for each dataset and budget: a row for each learner, a column for what it was trained on.

    Episodes that earned something are blue, with a star at their end; others grey, with a cross.
    """
    from matplotlib.figure import Figure

    from minari_stitch.draw import figures

    pictures: dict[tuple[str, str], dict[tuple[str, str], list[Cell]]] = defaultdict(lambda: defaultdict(list))
    for cell in sorted(finished):
        if finished[cell].get("trails") and finished[cell]["score"] is not None:  # as it is where a run diverged
            pictures[cell.dataset, cell.budget][cell.algo, _trained_on(cell)].append(cell)
    files = []
    for (dataset, budget), panels in pictures.items():
        rows, columns = (list(dict.fromkeys(names)) for names in zip(*panels, strict=True))
        figure = Figure(figsize=(2.6 * len(columns), 0.4 + 2.8 * len(rows)), layout="constrained")
        axes = figure.subplots(len(rows), len(columns), squeeze=False, sharex=True, sharey=True)
        maze = _maze(dataset)
        for (algo, data), cells in panels.items():
            axis = axes[rows.index(algo), columns.index(data)]
            if maze is not None:
                figures.walls(axis, maze)
            for cell in cells:
                record = finished[cell]
                for trail in record["trails"]:
                    path, arrived = np.array(trail["path"]), record["returns"][trail["episode"]] > 0
                    colour = _ARRIVED if arrived else _LOST
                    axis.plot(*path.T, color=colour, lw=0.6, alpha=0.7, zorder=2 if arrived else 1)
                    axis.plot(*path[-1], "*" if arrived else "x", color=colour, ms=6 if arrived else 4, zorder=3)
            score = np.mean([finished[cell]["score"] for cell in cells])
            axis.set_title(f"{algo}, {data}: {score:.0f}", fontsize=8)
            axis.set(aspect="equal", xticks=[], yticks=[])
        for axis in axes.flat:
            axis.set_visible(axis.has_data())
        figure.suptitle(f"{dataset}, budget {budget}: score, and where {_FOLLOWED} episodes a seed lead", fontsize=9)
        folder.mkdir(parents=True, exist_ok=True)
        files.append(folder / f"{dataset.replace('/', '-')}-{budget}-trails.png")
        figure.savefig(files[-1], dpi=150)
    return files


def _trained_on(cell: Cell) -> str:
    if not cell.augmented:
        return "original"
    name, source = (text.rpartition("-v")[0] for text in (cell.augmented, cell.dataset))
    return name.removeprefix(source).strip("-") + (f" {cell.ratio}" if cell.ratio != "0:1" else "")


def _maze(dataset_id: str) -> Maze | None:
    """The maze of a dataset that is here."""
    return maze_of(minari_io.load(dataset_id).env_spec) if exists(dataset_id) else None
