"""Make OGBench's `pointmaze-*-stitch-v0` anew, offline and seeded: short trajectories to goals 4 cells away.

    python benchmarks/ogbench/generate.py --maze medium            5,000 episodes and 500 for validation
    python benchmarks/ogbench/generate.py --maze giant --episodes 1000 --folder small/

The environments are those of OGBench's package, and the recipe is its own: start in any free cell, go to the middle of
a cell that is 4 cells away and stay there, along the shortest way, with Gaussian noise of 0.5 on unit steps. What is
drawn from NumPy's global generator there comes from one for each episode here, so that the first 1,000 of 5,000
episodes are those that `--episodes 1000` makes. Import them with `minari-stitch import-ogbench`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import gymnasium as gym
import numpy as np
import typer
from rich.console import Console

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # instead of this folder, whose name the package has

from minari_stitch.data.ogbench_rows import save
from minari_stitch.errors import StitchError
from minari_stitch.progress import Bars

Maze = Literal["medium", "large", "giant"]
STATES = 201
"""States of an episode."""
NOISE = 0.5
"""Standard deviation of the noise on actions, which are unit vectors without it."""
REACH = 4
"""Cells between start and goal."""
_VALIDATION = 10  # an episode for validation for so many to train on
_NEIGHBOURS = ((-1, 0), (0, -1), (1, 0), (0, 1))

Cell = tuple[int, int]


class PackageError(StitchError):
    """OGBench's package is not installed."""


def make(env_id: str, **settings: Any) -> gym.Env:
    """An environment of OGBench's.

    Raises:
        PackageError: The package is not installed.
    """
    try:
        import ogbench  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise PackageError(
            f"{env_id} needs OGBench's package, which cannot be imported ({error}): pip install ogbench==1.2.2"
        ) from error
    return gym.make(env_id, disable_env_checker=True, **settings)


class Guide:
    """The shortest ways through a maze.

    Attributes:
        free: Cells that are no walls, in the order of the map.
    """

    def __init__(self, walls: np.ndarray) -> None:
        """Read the map.

        Args:
            walls: `(I, J)`, 1 where there is a wall.
        """
        self._open = walls == 0
        self.free: list[Cell] = [(int(i), int(j)) for i, j in np.argwhere(self._open)]
        self._distances = {cell: self._from(cell) for cell in self.free}

    def goals(self, start: Cell) -> list[Cell]:
        """Cells that are `REACH` cells from `start`; `start` itself where there are none."""
        found = [cell for cell in self.free if self._distances[start][cell] == REACH]
        return found or [start]

    def following(self, cell: Cell, goal: Cell) -> Cell:
        """The next cell on the way to `goal`; `cell` itself where it is the goal, or a wall that is touched."""
        distances = self._distances[goal]
        if not self._open[cell]:
            return cell
        around = [(cell[0] + i, cell[1] + j) for i, j in _NEIGHBOURS]
        return min([cell, *(c for c in around if self._open[c])], key=lambda c: distances[c])

    def _from(self, cell: Cell) -> np.ndarray:
        """`(I, J)` cells from one, a large number in walls."""
        distances = np.full(self._open.shape, np.iinfo(np.int64).max)
        reached, steps = np.zeros_like(self._open), 0
        edge = reached.copy()
        edge[cell] = True
        while edge.any():
            distances[edge] = steps
            reached |= edge
            wider = edge.copy()
            for axis in (0, 1):
                wider |= np.roll(edge, 1, axis) | np.roll(edge, -1, axis)  # walls stand all around
            edge, steps = wider & self._open & ~reached, steps + 1
        return distances


def episodes(maze: Maze, numbers: range, seed: int) -> Iterator[dict[str, Any]]:
    """Play episodes, each with a generator of its own.

    Args:
        maze: Which.
        numbers: Of the episodes.
        seed: Seed of the dataset.

    Yields:
        Mappings in the form that `Episodes.from_list` takes, with infos `qpos` and `qvel`.

    Raises:
        PackageError: OGBench's package is not installed.
    """
    env: Any = make(f"pointmaze-{maze}-v0", terminate_at_goal=False)
    Path(env.unwrapped.fullpath).unlink(missing_ok=True)  # of the maze, which would stay for ever
    env.reset(seed=seed)
    inner = env.unwrapped
    guide = Guide(inner.maze_map)
    middle = {cell: np.array(inner.ij_to_xy(cell), float) for cell in np.ndindex(inner.maze_map.shape)}
    half = float(middle[0, 1][0] - middle[0, 0][0]) / 4  # starts lie in the inner half of a cell
    for number in numbers:
        rng = np.random.default_rng([seed, number])
        start = guide.free[rng.integers(len(guide.free))]
        goals = guide.goals(start)
        goal = goals[rng.integers(len(goals))]
        inner.reset_model()
        inner.set_state(middle[start] + rng.uniform(-half, half, 2), np.zeros(2))
        noise = rng.normal(0, NOISE, (STATES - 1, 2))
        positions, velocities = np.empty((STATES, 2)), np.empty((STATES, 2))
        actions = np.empty((STATES - 1, 2), np.float32)
        for step in range(STATES):
            positions[step], velocities[step] = inner.data.qpos, inner.data.qvel
            if step < STATES - 1:
                wanted = middle[guide.following(inner.xy_to_ij(positions[step]), goal)] - positions[step]
                wanted /= np.linalg.norm(wanted) + 1e-6
                actions[step] = np.clip(wanted + noise[step], -1, 1)
                inner.step(actions[step])
        ends = np.arange(STATES - 1) == STATES - 2
        yield {
            "observations": positions.astype(np.float32),
            "actions": actions,
            "rewards": np.zeros(STATES - 1),
            "terminations": np.zeros(STATES - 1, bool),
            "truncations": ends,
            "infos": {"qpos": positions.astype(np.float32), "qvel": velocities.astype(np.float32)},
        }
    env.close()


def generate(
    maze: Maze,
    folder: Path,
    *,
    n_episodes: int = 5000,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Path, Path]:
    """Write the file of a dataset and that for validation, with a tenth as many episodes.

    Returns:
        Their paths.

    Raises:
        PackageError: OGBench's package is not installed.
        StorageError: A file is there already, or cannot be written.
    """
    held = max(1, n_episodes // _VALIDATION)
    # Of other numbers, so that fewer or more episodes to train on leave them as they are.
    parts = [range(n_episodes), range(10**9, 10**9 + held)]
    paths = [folder / f"pointmaze-{maze}-stitch-v0{suffix}.npz" for suffix in ("", "-val")]
    done = 0

    def counted(numbers: range) -> Iterator[dict[str, Any]]:
        nonlocal done
        for episode in episodes(maze, numbers, seed):
            yield episode
            done += 1
            if progress and (done % 10 == 0 or done == n_episodes + held):
                progress(done, n_episodes + held)

    for path, numbers in zip(paths, parts, strict=True):
        save(path, counted(numbers), ("qpos", "qvel"))
    return paths[0], paths[1]


def main(
    maze: Annotated[Maze, typer.Option(help="Which maze.")] = "medium",
    n_episodes: Annotated[int, typer.Option("--episodes", min=1, help="To train on; a tenth as many validate.")] = 5000,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    folder: Annotated[Path, typer.Option(help="For the two files.")] = Path(),
) -> None:
    """Make a point maze's data anew."""
    try:
        with Bars(Console(stderr=True)) as bars:
            paths = generate(
                maze,
                folder,
                n_episodes=n_episodes,
                seed=seed,
                progress=lambda *done: bars("roll out", *done),
            )
    except StitchError as error:
        Console(stderr=True).print(f"[red]{type(error).__name__}[/]: {error}", soft_wrap=True, highlight=False)
        raise typer.Exit(1) from None
    print(f"Next:  minari-stitch import-ogbench {paths[0]} --val {paths[1]}")


if __name__ == "__main__":
    typer.run(main)
