"""OGBench's npz files as Minari datasets and back: id, environment, rewards and metadata. Its package is not needed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from minari_stitch.data import minari_io
from minari_stitch.data.dataset import Dataset
from minari_stitch.data.ogbench_rows import STATES, Rows, Spans, episodes, read_rows, save
from minari_stitch.data.spaces import FlatSpace
from minari_stitch.data.written import Written
from minari_stitch.errors import (
    ConfigError,
    DatasetIdError,
    DatasetNotFoundError,
    InvalidDataError,
    StorageError,
    UnsupportedSpaceError,
)
from minari_stitch.sim.ogbench_tasks import env_spec, successes

OGBENCH_KEY = "ogbench"
"""Key, in the dataset's metadata, of what became of the file's rows."""

_NAME = re.compile(
    r"(?P<env>(?:visual-)?[a-z]+(?:-[a-z0-9]+)?)-(?P<kind>[a-z]+)(?P<val>-val)?-v(?P<version>\d+)(?P<val2>-val)?"
)
_HELD_OUT = 10  # one in so many episodes validates, where no dataset is named for it


@dataclass(frozen=True, kw_only=True)
class ImportedOGBench(Written):
    """What an import wrote.

    Attributes:
        env_id: Gymnasium id of its environment, or empty.
        record: What became of the file's rows, as kept in the metadata.
        validation: What became of the validation file, where one was given.
    """

    env_id: str
    record: Mapping[str, Any]
    validation: ImportedOGBench | None = None


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an export wrote.

    Attributes:
        path: The file to train on.
        validation_path: The file beside it that OGBench's loader reads too.
        name: Name of the dataset for OGBench's loader, which decides about the environment.
        n_steps: Steps to train on.
        n_episodes: Episodes to train on.
        n_validation: Episodes in the validation file.
    """

    path: Path
    validation_path: Path
    name: str
    n_steps: int
    n_episodes: int
    n_validation: int


def import_ogbench(
    path: Path,
    *,
    val: Path | None = None,
    task: int | None = None,
    dataset_id: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ImportedOGBench:
    """Write a file of OGBench's as a new Minari dataset, and its validation file as another.

    Args:
        path: The npz file, under OGBench's name.
        val: The file for validation, whose dataset has `-val` in its name.
        task: Of a maze, the task (1 to 5) whose rewards are written: 0 for a step taken in the goal, with which an
            episode terminates, and -1 for all others. Rewards are 0 without it.
        dataset_id: Id of the new dataset; by default what `default_id` makes of the file's name.
        progress: Called with (episodes written, episodes in all).

    Returns:
        What was written.

    Raises:
        DatasetNotFoundError: There is no such file.
        ConfigError: There is no such task.
        DatasetIdError: An id is malformed or taken, or the file's name does not give one.
        UnsupportedSpaceError: Observations are images, or actions are discrete.
        InvalidDataError: A file is no npz, not OGBench's, or holds invalid data.
        StorageError: The datasets path cannot be written, or is full.
    """
    files = [path, *([val] if val else [])]
    for file in files:
        if not file.is_file():
            raise DatasetNotFoundError(f"There is no file {file}. Check the path.")
    env = _env_name(path, task)
    dataset_id = dataset_id or default_id(path, task)
    ids = [dataset_id, *([re.sub(r"(-v\d+)$", r"-val\1", dataset_id)] if val else [])]
    for name in ids:
        minari_io.check_output_id(name)
    sources = [read_rows(file) for file in files]
    widths = [(rows.observations.shape[1], rows.actions.shape[1]) for rows in sources]
    if len(set(widths)) > 1:
        raise InvalidDataError(
            f"{path} has observations and actions of widths {widths[0]}, but {val} of {widths[1]}. Give the two files "
            "of one dataset."
        )
    made = [_write(rows, file, name, env, task, progress) for rows, file, name in zip(sources, files, ids, strict=True)]
    if len(made) == 1:
        return made[0]
    return replace(made[0], validation=made[1])


def export_ogbench(dataset: Dataset, path: Path, *, val: Dataset | None = None) -> Exported:
    """Write a dataset as the two npz files that OGBench's own loader reads.

    Written are observations, actions, where trajectories end, and, where there are any, the infos that say where a
    state stood in the simulator (`qpos`, `qvel`, `button_states`) and which steps were generated (`synthetic`). Of
    point and ant mazes `qpos` follows from the observation. Rewards are not: OGBench computes them.

    Args:
        dataset: Read with its infos.
        path: The new file, ending in .npz; that for validation has `-val` before the ending.
        val: What validates; by default every tenth episode, which is not trained on then.

    Returns:
        What was written.

    Raises:
        ConfigError: The file's name does not end in .npz, or the loader could not find the validation file by it.
        UnsupportedSpaceError: Observations are neither vectors nor have an `observation` that is one.
        InvalidDataError: There are too few episodes, or the two datasets differ in kind.
        StorageError: A file is there already or cannot be written.
    """
    if path.suffix != ".npz" or str(path).count(".npz") > 1:
        raise ConfigError(f"{path} is not possible: OGBench's loader wants a path that has .npz once, at its end.")
    beside = path.with_name(f"{path.stem}-val.npz")
    for file in (path, beside):
        if file.exists():
            raise StorageError(f"{file} is there already. Remove it, or name another file.")
    if val is None:
        if len(dataset.episodes) < 2:
            raise InvalidDataError(f"{dataset.dataset_id!r} has one episode: name another dataset as val.")
        numbers = np.arange(len(dataset.episodes))
        held = numbers % _HELD_OUT == _HELD_OUT - 1 if len(numbers) >= _HELD_OUT else numbers == numbers[-1]
        chosen = [(dataset, numbers[~held]), (dataset, numbers[held])]
    else:
        if (val.observation_space, val.action_space) != (dataset.observation_space, dataset.action_space):
            raise InvalidDataError(
                f"{val.dataset_id!r} has other spaces than {dataset.dataset_id!r}: give what validates it."
            )
        chosen = [(which, np.arange(len(which.episodes))) for which in (dataset, val)]
    for (which, numbers), file in zip(reversed(chosen), (beside, path), strict=True):  # so that a path is never alone
        parts = map(_state_columns(which), map(which.episodes.episode, numbers.tolist()))
        try:
            save(file, parts, _tables(which))
        except StorageError:
            if file == path:
                beside.unlink(missing_ok=True)
            raise
    lengths = dataset.episodes.lengths[chosen[0][1]]
    return Exported(
        path=path,
        validation_path=beside,
        name=_loader_name(dataset),
        n_steps=int(lengths.sum()),
        n_episodes=len(lengths),
        n_validation=len(chosen[1][1]),
    )


def default_id(path: Path, task: int | None = None) -> str:
    """Id of the dataset by the file's name.

    `pointmaze-medium-stitch-v0.npz` is `ogbench/pointmaze-medium-stitch-v0`; of its second task
    `ogbench/pointmaze-medium-stitch-task2-v0`.

    Raises:
        DatasetIdError: The name does not have that form.
    """
    if not (match := _NAME.fullmatch(path.stem)):
        raise DatasetIdError(
            f"The file name {path.name!r} does not say what it holds. Choose a dataset id, for example "
            "ogbench/pointmaze-medium-stitch-v0, or give the file the name that it has in OGBench."
        )
    extra = "-val" * bool(match["val"] or match["val2"]) + (f"-task{task}" if task else "")
    return f"ogbench/{match['env']}-{match['kind']}{extra}-v{match['version']}"


def _env_name(path: Path, task: int | None) -> str:
    match = _NAME.fullmatch(path.stem)
    if task is not None:
        if match is None:
            raise ConfigError(f"task={task} is not possible: the file name {path.name!r} names no maze of OGBench's.")
        successes(match["env"], task, np.zeros((0, 2)))
    return match["env"] if match else ""


def _write(
    rows: Rows,
    path: Path,
    dataset_id: str,
    env: str,
    task: int | None,
    progress: Callable[[int, int], None] | None,
) -> ImportedOGBench:
    if task is None:
        spans, rewards = Spans.of(rows.last), np.zeros(len(rows.last))
    else:
        if "qpos" not in rows.states:
            raise InvalidDataError(f"{path} has no qpos, from which task {task}'s rewards follow. Get the file again.")
        success = successes(env, task, rows.states["qpos"][:, :2])
        spans, rewards = Spans.of_task(rows.last, success), success - 1.0
    spec = env_spec(env, task) if env else None
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    record = {
        "file": path.name,
        "sha256": digest,
        "rows": len(rows.last),
        "trajectories": int(rows.last.sum()),
        "rewards": f"task {task}" if task else "none (zeros)",
        "steps_after_success": spans.dropped,
        "tables": ["observations", "actions", "terminals", *rows.states],
    }
    n_episodes, n_steps = len(spans.ends), int(spans.lengths.sum())
    written = minari_io.write(
        episodes(rows, spans, rewards),
        dataset_id=dataset_id,
        observation_space=spaces.Box(-np.inf, np.inf, rows.observations.shape[1:], rows.observations.dtype.type),
        action_space=spaces.Box(-1, 1, rows.actions.shape[1:], rows.actions.dtype.type),
        env_spec=spec,
        metadata={
            "description": _description(record, task, n_episodes, n_steps),
            "author": {"OGBench"},
            "requirements": ["ogbench"],
            OGBENCH_KEY: record | {"environment": env},
        },
        progress=progress and (lambda done: progress(done, n_episodes)),
    )
    return ImportedOGBench(
        dataset_id=dataset_id,
        path=written,
        env_id=spec.id if spec else "",
        n_episodes=n_episodes,
        n_steps=n_steps,
        record=record,
    )


def _description(record: Mapping[str, Any], task: int | None, n_episodes: int, n_steps: int) -> str:
    text = f"OGBench's {record['file']}: {n_episodes:,} episodes, {n_steps:,} steps. "
    if task is None:
        return text + "It has no rewards: all are 0 here."
    return text + (
        f"Rewards are those of task {task}: 0 for a step taken in the goal, with which an episode terminates, and -1 "
        f"for all others. Steps taken in the goal after such an end were dropped: {record['steps_after_success']:,}."
    )


def _tables(dataset: Dataset) -> list[str]:
    """Infos to export."""
    names = [name for name in (*STATES, "synthetic") if name in dataset.episodes.infos]
    return names if "qpos" in names or not _position_width(dataset) else ["qpos", *names]


def _state_columns(dataset: Dataset) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What gives an episode the observations and tables that are exported."""
    slices = FlatSpace(dataset.observation_space).slices
    columns = slices.get("", slices.get("observation"))
    if columns is None:
        raise UnsupportedSpaceError(
            f"{dataset.dataset_id!r} has observations with the parts {', '.join(slices)}, but OGBench's are one "
            "vector. Choose a dataset of vectors, or of goals, which has an `observation`."
        )
    width = _position_width(dataset)

    def changed(part: dict[str, Any]) -> dict[str, Any]:
        observations = part["observations"][:, columns]
        implied = {"qpos": observations[:, :width]} if width else {}
        return part | {"observations": observations, "infos": implied | part["infos"]}

    return changed


def _position_width(dataset: Dataset) -> int:
    """How many of the first observations are `qpos`, where the environment is known to observe it; else 0."""
    name = dataset.env_spec.id if dataset.env_spec else ""
    return 2 if name.startswith("pointmaze-") else 15 if name.startswith("antmaze-") else 0


def _loader_name(dataset: Dataset) -> str:
    """What OGBench's loader takes for the environment of a dataset."""
    if dataset.env_spec is None or not (
        match := re.fullmatch(r"([a-z]+-\w+?)(-singletask.*)?-v0", dataset.env_spec.id)
    ):
        return "ENVIRONMENT-stitch-v0"
    return f"{match[1]}-stitch{match[2] or ''}-v0"
