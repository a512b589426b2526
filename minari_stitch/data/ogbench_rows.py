"""OGBench's npz files: one row a state, cut into trajectories where `terminals` is 1, which is at their last states.

The action beside a trajectory's last state leads nowhere in the file, and is no step.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from minari_stitch.data.room import require_import
from minari_stitch.data.storage import beside
from minari_stitch.errors import InvalidDataError, StitchError, StorageError, UnsupportedSpaceError

STATES = ("qpos", "qvel", "button_states")
"""Tables of the simulator's state that a file may hold beside the three that it must."""
_TABLES = ("observations", "actions", "terminals")
_KINDS = {"observations": "f", "actions": "f", "terminals": "biuf"}
_AGAIN = "Get the file again."


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """A file: R states of all trajectories, one after the other.

    Attributes:
        observations: `(R, S)` float.
        actions: `(R, A)` float, in [-1, 1].
        last: `(R,)` bool, the last state of a trajectory.
        states: Those of `STATES` that there are, each `(R, ...)`.
    """

    observations: np.ndarray
    actions: np.ndarray
    last: np.ndarray
    states: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Spans:
    """Which states are an episode, for all episodes E.

    Attributes:
        starts: `(E,)` row of the first state of each.
        ends: `(E,)` row of the last.
        terminated: `(E,)` bool, truncated otherwise.
        dropped: Steps that belong to no episode.
    """

    starts: np.ndarray
    ends: np.ndarray
    terminated: np.ndarray
    dropped: int = 0

    @property
    def lengths(self) -> np.ndarray:
        """`(E,)` steps of each."""
        return self.ends - self.starts

    @classmethod
    def of(cls, last: np.ndarray) -> Spans:
        """Whole trajectories, none of which terminates.

        Args:
            last: `(R,)` bool, the last state of a trajectory.
        """
        ends = np.flatnonzero(last)
        return cls(starts=np.append(0, ends[:-1] + 1), ends=ends, terminated=np.zeros(len(ends), bool))

    @classmethod
    def of_task(cls, last: np.ndarray, success: np.ndarray) -> Spans:
        """Episodes that end with the first step taken in the goal.

        Steps taken there afterwards follow an end, and are dropped; what leaves the goal is an episode of its own.

        Args:
            last: `(R,)` bool, the last state of a trajectory.
            success: `(R,)` bool, a state in the goal.
        """
        follows = np.append(False, ~last[:-1])
        dropped = success & follows & np.append(False, success[:-1]) & ~last
        step = ~last & ~dropped
        starts = np.flatnonzero(step & ~np.append(False, step[:-1] & ~success[:-1]))
        steps_end = np.flatnonzero(step & (success | ~np.append(step[1:], False)))
        return cls(starts=starts, ends=steps_end + 1, terminated=success[steps_end], dropped=int(dropped.sum()))


def read_rows(path: Path) -> Rows:
    """Read and check a file.

    Raises:
        StorageError, OutOfMemoryError: There is no room for it.
        UnsupportedSpaceError: Observations are images, or actions are discrete.
        InvalidDataError: It is no npz, or not OGBench's; lengths differ, a value is not finite or out of bounds, or a
            trajectory has no step.
    """
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:  # which NumPy may leave open
            keys = sorted(file.files)
            if missing := [name for name in _TABLES if name not in keys]:
                raise InvalidDataError(
                    f"{path} is not a file of OGBench: it has no {', '.join(missing)}, only {', '.join(keys)}. Give "
                    "the file that OGBench provides, which has observations, actions and terminals."
                )
            if loaded := [name for name in ("next_observations", "valids") if name in keys]:
                raise InvalidDataError(
                    f"{path} has {', '.join(loaded)}: it holds what OGBench's loader makes of a file, without last "
                    "states or with two terminals each. Give the file itself."
                )
            require_import(path, sum(member.file_size for member in file.zip.infolist()))
            tables = {name: file[name] for name in (*_TABLES, *STATES) if name in keys}
    except StitchError:
        raise
    except Exception as error:  # zipfile, zlib, pickle and NumPy each have their own
        raise InvalidDataError(
            f"{path} is not a readable npz file without pickles ({type(error).__name__}: {error}). It is damaged, cut "
            f"off, or something else. {_AGAIN}"
        ) from error
    _check(path, tables)
    actions = tables["actions"]
    last = tables["terminals"].astype(bool)
    observations = tables["observations"]
    return Rows(
        observations=observations,
        actions=np.clip(actions, -1, 1).astype(actions.dtype),
        last=last,
        states={name: tables[name] for name in STATES if name in tables},
    )


def episodes(rows: Rows, spans: Spans, rewards: np.ndarray) -> Iterator[dict[str, Any]]:
    """Yield each episode in the form that `minari_io.write` takes.

    Args:
        rows: The file.
        spans: Its episodes.
        rewards: `(R,)` of the step taken in each state.
    """
    for start, end, terminated in zip(spans.starts, spans.ends, spans.terminated, strict=True):
        steps, states = slice(start, end), slice(start, end + 1)
        last = np.arange(end - start) == end - start - 1
        yield {
            "observations": rows.observations[states],
            "actions": rows.actions[steps],
            "rewards": rewards[steps],
            "terminations": last & terminated,
            "truncations": last & ~terminated,
            "infos": {name: table[states] for name, table in rows.states.items()},
        }


def save(path: Path, parts: Iterable[Mapping[str, Any]], infos: Iterable[str]) -> int:
    """Write episodes as a file of OGBench's, whole or not at all.

    Args:
        path: The new file.
        parts: Flat episodes as `Episodes` yields them.
        infos: Infos to write as tables of their own, `(R, ...)`.

    Returns:
        Rows, which are states.

    Raises:
        StorageError: It cannot be written.
    """
    parts = list(parts)
    tables = {
        "observations": np.concatenate([part["observations"] for part in parts], dtype=np.float32),
        # Beside a last state, an action that leads nowhere.
        "actions": np.concatenate([np.append(part["actions"], 0 * part["actions"][:1], 0) for part in parts]),
        "terminals": np.concatenate([np.arange(len(part["observations"])) == len(part["rewards"]) for part in parts]),
        **{name: np.concatenate([part["infos"][name] for part in parts]) for name in infos},
    }
    tables["actions"] = tables["actions"].astype(np.float32)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside(path) as aside:
            np.savez_compressed(aside, **tables)  # pyright: ignore[reportArgumentType]
            os.link(aside, path)  # unlike a rename never over another file
    except FileExistsError as error:
        raise StorageError(f"{path} is there already. Remove it, or name another file.") from error
    except OSError as error:
        raise StorageError(
            f"Cannot write {path} ({error.strerror or error}). Free some space there, or name another file."
        ) from error
    return len(tables["terminals"])


def _check(path: Path, tables: dict[str, np.ndarray]) -> None:
    if (observations := tables["observations"]).ndim > 2 or observations.dtype == np.uint8:
        raise UnsupportedSpaceError(
            f"{path}: observations have shape {observations.shape} and dtype {observations.dtype}, which are images "
            "and cannot be stitched. Choose a dataset of states."
        )
    if (actions := tables["actions"]).dtype.kind in "iu":
        raise UnsupportedSpaceError(
            f"{path}: actions have dtype {actions.dtype}: they are discrete and cannot be stitched. Choose another one."
        )
    for name, table in tables.items():
        wanted = 1 if name == "terminals" else 2
        if table.ndim != wanted or table.dtype.kind not in _KINDS.get(name, "biuf"):
            raise InvalidDataError(
                f"{path}: {name} have shape {table.shape} and dtype {table.dtype}, but must be "
                f"{'one row of flags' if wanted == 1 else 'rows of floats'}. {_AGAIN}"
            )
    lengths = {name: len(table) for name, table in tables.items()}
    if len(set(lengths.values())) > 1 or not lengths["terminals"]:
        raise InvalidDataError(f"{path}: all tables must have the same number of rows, but have {lengths}. {_AGAIN}")
    for name, table in tables.items():
        if not (finite := np.isfinite(table)).all():
            row, *column = (int(index) for index in np.argwhere(~finite)[0])
            raise InvalidDataError(
                f"{path}: row {row} of {name} holds {table[(row, *column)]} ({int((~finite).sum())} such values in "
                f"all). {_AGAIN}"
            )
    if (outside := np.abs(actions) > 1 + 1e-5).any():
        row, column = (int(index) for index in np.argwhere(outside)[0])
        raise InvalidDataError(
            f"{path}: row {row} of actions holds {actions[row, column]:g} ({int(outside.sum())} such values in all), "
            "but OGBench's lie in [-1, 1]. Scale them, or get the file again."
        )
    terminals = tables["terminals"]
    if (odd := ~np.isin(terminals, (0, 1))).any():
        raise InvalidDataError(
            f"{path}: row {int(odd.argmax())} of terminals holds {terminals[odd][0]}, but they are 0 or 1. {_AGAIN}"
        )
    if not terminals[-1]:
        raise InvalidDataError(
            f"{path}: the last of {len(terminals):,} rows is no terminal, so its trajectory is cut off. {_AGAIN}"
        )
    ends = np.flatnonzero(terminals)
    lone = np.flatnonzero(np.diff(ends, prepend=-1) == 1)
    if len(lone):
        raise InvalidDataError(
            f"{path}: trajectory {lone[0]} (row {ends[lone[0]]}) has one state and so no step ({len(lone)} such "
            "trajectories in all). Remove these rows; or, if each trajectory ends with two terminals, give OGBench's "
            "own file instead of what its loader returns."
        )
