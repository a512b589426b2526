"""The geometry of grid mazes as gymnasium-robotics builds them: cells, ways through them, and walls.

A cell is `(row, column)` of the map; the middle of the map is the origin, x grows with the column, y against the row.
Shape letter: `B` points.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from gymnasium.envs.registration import EnvSpec

Cell = tuple[int, int]
_SCALES = {"AntMaze": 4.0}
_SIDES = ((0, 1), (1, 0), (0, -1), (-1, 0))


def maze_of(spec: EnvSpec | None) -> Maze | None:
    """The maze of an environment of gymnasium-robotics, or None."""
    if spec is None or "maze_map" not in spec.kwargs:
        return None
    usual = _SCALES.get(spec.name.partition("_")[0], 1.0)
    return Maze(spec.kwargs["maze_map"], spec.kwargs.get("maze_size_scaling", usual))


class Maze:
    """A maze.

    Args:
        layout: Rows of the map, as `maze_map` of gymnasium-robotics: 1 is a wall, anything else is free.
        scale: Width of a cell in m.

    Attributes:
        walls: `(R, C)` bool.
        scale: Width of a cell in m.
    """

    def __init__(self, layout: Sequence[Sequence[Any]], scale: float = 1.0) -> None:
        self.walls = np.array([[cell == 1 for cell in row] for row in layout])
        self.scale = scale
        rows, columns = self.walls.shape
        self._middle = np.array([columns, rows]) / 2 * scale

    @cached_property
    def cells(self) -> list[Cell]:
        """All free cells, row by row."""
        return [(int(row), int(column)) for row, column in np.argwhere(~self.walls)]

    def centre(self, cells: Any) -> np.ndarray:
        """Places `(..., 2)` of the middles of cells `(..., 2)`."""
        return self._flip((np.asarray(cells)[..., ::-1] + 0.5) * self.scale - self._middle)

    def cell(self, places: np.ndarray) -> np.ndarray:
        """Cells `(..., 2)` that places `(..., 2)` lie in; beyond the map those of its rim, which is a wall."""
        inside = np.floor((self._flip(places) + self._middle) / self.scale).astype(int)[..., ::-1]
        return inside.clip(0, np.array(self.walls.shape) - 1)

    def blocked(self, places: np.ndarray, margin: float = 0.0) -> np.ndarray:
        """`(...)` whether places `(..., 2)` lie in a wall, or within `margin` of one along an axis or both."""
        aside = np.stack(np.meshgrid([-margin, 0, margin], [-margin, 0, margin]), -1).reshape(-1, 2)
        row, column = np.moveaxis(self.cell(places[..., None, :] + aside), -1, 0)
        return np.any(self.walls[row, column], axis=-1)

    def crosses_wall(self, before: np.ndarray, after: np.ndarray, margin: float = 0.0, pieces: int = 10) -> np.ndarray:
        """`(B,)` whether straight ways from `before (B, 2)` to `after (B, 2)` enter a wall, at `pieces` + 1 points."""
        share = np.linspace(0, 1, pieces + 1)[:, None, None]
        return np.any(self.blocked(before + share * (after - before), margin), axis=0)

    def neighbours(self, cell: Cell) -> list[Cell]:
        """Free cells beside a cell."""
        beside = [(cell[0] + row, cell[1] + column) for row, column in _SIDES]
        rows, columns = self.walls.shape
        return [(r, c) for r, c in beside if 0 <= r < rows and 0 <= c < columns and not self.walls[r, c]]

    def distances(self, goal: Cell) -> np.ndarray:
        """`(R, C)` steps from cell to cell that lead to a cell, by breadth-first search; inf where none do."""
        found = np.full(self.walls.shape, np.inf)
        found[goal] = 0
        queue = deque([goal])
        while queue:
            here = queue.popleft()
            for other in self.neighbours(here):
                if found[other] == np.inf:
                    found[other] = found[here] + 1
                    queue.append(other)
        return found

    def route(self, start: Cell, goal: Cell, rng: np.random.Generator | None = None) -> list[Cell]:
        """Cells of a shortest way, both ends included; among equal ones the first, or one drawn with `rng`.

        The goal must be reachable.
        """
        distance, way = self.distances(goal), [start]
        while way[-1] != goal:
            nearer = [cell for cell in self.neighbours(way[-1]) if distance[cell] < distance[way[-1]]]
            way.append(nearer[0] if rng is None else nearer[rng.integers(len(nearer))])
        return way

    def stretch(self, start: Cell, goal: Cell) -> tuple[Sequence[int], Sequence[int]]:
        """The longest straight stretch of a shortest way, of equal ones the most central: index of its end cells."""
        way = np.array(self.route(start, goal))
        turns = np.flatnonzero(np.any(np.diff(way, 2, axis=0), axis=1)) + 1
        ends = np.stack([np.r_[0, turns], np.r_[turns, len(way) - 1]], 1)
        off_centre = np.abs(ends.mean(1) - (len(way) - 1) / 2)
        first, last = ends[np.lexsort([off_centre, -np.diff(ends)[:, 0]])[0]]
        rows, columns = way[[first, last]].T
        return rows.tolist(), columns.tolist()

    def depth(self, places: np.ndarray, distance: np.ndarray) -> np.ndarray:
        """`(B,)` how far free places are from a goal, in cells along the corridors.

        Args:
            places: `(B, 2)`.
            distance: `(R, C)` of the goal, see `distances`.
        """
        row, column = self.cell(places).T
        rows, columns = self.walls.shape
        best = np.full(len(places), np.inf)
        for down, right in ((0, 0), *_SIDES):
            r, c = (row + down).clip(0, rows - 1), (column + right).clip(0, columns - 1)
            aside = np.abs(places - self.centre(np.stack([r, c], 1))).sum(1) / self.scale
            best = np.minimum(best, distance[r, c] + aside)
        return best

    def farthest(self) -> tuple[Cell, Cell]:
        """The two cells between which the shortest way is longest."""
        ways = {(a, b): d for a in self.cells for b, d in np.ndenumerate(self.distances(a)) if np.isfinite(d)}
        return max(ways, key=lambda pair: ways[pair])

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Least and greatest x, then y."""
        across, along = self._middle.tolist()
        return -across, across, -along, along

    @staticmethod
    def _flip(places: np.ndarray) -> np.ndarray:
        return places * np.array([1, -1])
