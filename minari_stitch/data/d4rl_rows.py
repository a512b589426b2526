"""D4RL's HDF5 files: one table of transitions, cut into episodes.

Where an episode ends, the first that applies to a row:

1. a terminal: the episode ends with a termination, even if a timeout is marked too;
2. a timeout: with a truncation, as do all ends that follow;
3. a next observation that is not the observation of the next row;
4. the environment's time limit, counted from the last end of the kinds above;
5. the end of the file.

The state after an episode's last step comes from `next_observations`. In a file without them it is lost (even where
4 cuts and the next row may go on: D4RL does not mark each reset as a timeout), and what is lost is not made up:

- after a truncation, the last step is dropped, and its observation becomes the episode's final one;
- after a termination, the step must stay, for its termination and reward are what it is there for. Its own
  observation is repeated as the final one, from which no learner bootstraps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from minari_stitch.data.room import require_import
from minari_stitch.errors import InvalidDataError

ROUNDING = 1e-5
"""What two values may differ by and still be the same in float32; the state after a reset is much further away."""

_TABLES = ("observations", "actions", "rewards", "terminals")
_OPTIONAL = ("timeouts", "next_observations")
_VECTORS = ("observations", "actions", "next_observations")
_ENDS = ("terminal", "timeout", "break", "time limit", "end of file")


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """The table of a D4RL file: one transition a row.

    Attributes:
        observations: `(N, S)`.
        actions: `(N, A)`.
        rewards: `(N,)` float64.
        terminals: `(N,)` bool.
        timeouts: `(N,)` bool, where the file has them.
        next_observations: `(N, S)`, where the file has them.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminals: np.ndarray
    timeouts: np.ndarray | None = None
    next_observations: np.ndarray | None = None

    @property
    def layout(self) -> list[str]:
        """Names of the tables that there are."""
        return [name for name in (*_TABLES, *_OPTIONAL) if getattr(self, name) is not None]


def read_rows(path: Path) -> Rows:
    """Read and check the table of a D4RL file.

    Raises:
        StorageError, OutOfMemoryError: There is no room for it.
        InvalidDataError: It is not HDF5, or not D4RL; lengths differ, a value is not finite, or there is no row.
    """
    try:
        with h5py.File(path, "r") as file:
            found = {name: file[name] for name in (*_TABLES, *_OPTIONAL) if name in file}
            there = {name: table for name, table in found.items() if isinstance(table, h5py.Dataset)}
            require_import(path, sum(table.nbytes for table in there.values()))
            tables = {name: np.asarray(table[()]) for name, table in there.items()}
            keys = sorted(file)
    except OSError as error:  # which is all that h5py says about a damaged file
        raise InvalidDataError(f"{path} is not a readable HDF5 file ({error}). Get the file again.") from error
    if missing := [name for name in _TABLES if name not in tables]:
        raise InvalidDataError(
            f"{path} is not a D4RL file: it has no {', '.join(missing)}, only {', '.join(keys) or 'nothing'}."
        )
    for name, table in tables.items():
        tables[name] = table = table.reshape(-1) if name not in _VECTORS and table.shape[1:] == (1,) else table
        if table.ndim != (2 if name in _VECTORS else 1) or table.dtype.kind not in "fiub":
            raise InvalidDataError(
                f"{path}: {name} have shape {table.shape} and dtype {table.dtype}. Get the file again."
            )
        if not (finite := np.isfinite(table)).all():
            row, *column = (int(index) for index in np.argwhere(~finite)[0])
            raise InvalidDataError(
                f"{path}: row {row} of {name} holds {table[(row, *column)]} ({int((~finite).sum())} such values in "
                "all). Remove such rows, or get the file again."
            )
    lengths = {name: len(table) for name, table in tables.items()}
    if len(set(lengths.values())) > 1 or not lengths["rewards"]:
        raise InvalidDataError(f"{path}: the tables must have the same number of rows, but have {lengths}.")
    shape, following = (tables.get(name, tables["observations"]).shape for name in ("observations", _OPTIONAL[1]))
    if shape != following:
        raise InvalidDataError(
            f"{path}: next_observations have shape {following}, and observations {shape}. Get the file again."
        )
    flags = {name: tables[name].astype(bool) for name in ("terminals", "timeouts") if name in tables}
    return Rows(**(tables | flags | {"rewards": tables["rewards"].astype(np.float64)}))


@dataclass(frozen=True, kw_only=True, eq=False)
class Cut:
    """Which rows are an episode, for all episodes E.

    Attributes:
        starts: `(E,)` first row of each.
        stops: `(E,)` row after the last.
        terminated: `(E,)` bool, truncated otherwise.
        drops: `(E,)` bool: the last row is dropped, and only gives the final observation.
        repeats: `(E,)` bool: the final observation is that of the last row.
        counts: Number of ends of each kind.
    """

    starts: np.ndarray
    stops: np.ndarray
    terminated: np.ndarray
    drops: np.ndarray
    repeats: np.ndarray
    counts: Mapping[str, int]

    @property
    def lengths(self) -> np.ndarray:
        """`(E,)` steps of each, 0 where the only row is dropped."""
        return self.stops - self.starts - self.drops

    @classmethod
    def of(cls, rows: Rows, limit: int | None) -> Cut:
        """Find the episodes, by the rules that this module states.

        Args:
            rows: The table.
            limit: Time limit of the environment in steps.
        """
        n = len(rows.rewards)
        ends = np.zeros(n, np.int8)  # 1 + index into _ENDS; the strongest reason is written last
        ends[-1] = 5
        if rows.next_observations is not None:
            ends[:-1][_breaks(rows.next_observations[:-1], rows.observations[1:])] = 3
        if rows.timeouts is not None:
            ends[rows.timeouts] = 2
        ends[rows.terminals] = 1
        if limit:
            starts, stops = _spans(ends)
            age = np.arange(n) - np.repeat(starts, stops - starts)
            ends[(ends == 0) & (age % limit == limit - 1)] = 4
        starts, stops = _spans(ends)
        kinds = ends[stops - 1]
        terminated = kinds == 1
        lost = rows.next_observations is None
        return cls(
            starts=starts,
            stops=stops,
            terminated=terminated,
            drops=lost & ~terminated,
            repeats=lost & terminated,
            counts={name: int((kinds == kind).sum()) for kind, name in enumerate(_ENDS, start=1)},
        )


def episodes(rows: Rows, cut: Cut) -> Iterator[dict[str, Any]]:
    """Yield each episode with steps, in the form that `minari_io.write` takes."""
    for start, length, terminated, repeats in zip(cut.starts, cut.lengths, cut.terminated, cut.repeats, strict=True):
        if not length:
            continue
        stop = start + length
        if rows.next_observations is not None:
            final = rows.next_observations[stop - 1]
        else:  # of the dropped row, or once more of the last one
            final = rows.observations[stop - repeats]
        last = np.arange(length) == length - 1
        yield {
            "observations": np.concatenate([rows.observations[start:stop], final[None]]),
            "actions": rows.actions[start:stop],
            "rewards": rows.rewards[start:stop],
            "terminations": last & terminated,
            "truncations": last & ~terminated,
        }


def _spans(ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    stops = np.flatnonzero(ends) + 1
    return np.concatenate([[0], stops[:-1]]), stops


def _breaks(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """`(N,)` where `(N, S)` observations differ by more than the rounding of float32."""
    return np.any(np.abs(left - right) > ROUNDING * (1 + np.abs(right)), axis=1)
