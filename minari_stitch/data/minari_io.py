"""Minari datasets in and out: with `publish`, the only module that imports minari."""

from __future__ import annotations

import collections
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import minari
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from minari import MinariDataset
from minari.dataset.minari_storage import MinariStorage
from minari.storage.remotes import DEFAULT_REMOTE, get_cloud_storage

from minari_stitch.data import hdf5
from minari_stitch.data.card import FIGURES_KEY, Tally, with_license, write_card
from minari_stitch.data.dataset import Dataset
from minari_stitch.data.digests import DIGESTS_KEY, cause, require_unchanged, seal, unreadable
from minari_stitch.data.gather import Gathered
from minari_stitch.data.ids import check_output_id, datasets_path, exists, next_id, parse_id
from minari_stitch.data.publish import publish
from minari_stitch.data.spaces import FlatSpace
from minari_stitch.data.storage import plain, plain_metadata, staging, storage_errors, within
from minari_stitch.data.validation import (
    Problem,
    ValidationReport,
    closed,
    find_problems,
    find_stored_problems,
    flatten_episode,
    stored_form,
    usable_infos,
)
from minari_stitch.errors import ConfigError, DatasetNotFoundError, InvalidDataError, StitchError

# fmt: off
__all__ = [
    "Dataset", "annotate", "check", "check_output_id", "exists", "load", "local_ids", "metadata", "next_id", "opened",
    "read", "stored_episodes", "write",
]
# fmt: on

_PATIENCE = 8.0  # seconds for a remote's first answer; offline, Minari's default one retries for 23
_STRUCTURE = {  # what describes the stored arrays, and so never travels to another dataset
    *("dataset_id", "total_episodes", "total_steps", "dataset_size", "data_format", "jpeg_encoding"),
    *("observation_space", "action_space", "env_spec", "minari_version", "combined_datasets", FIGURES_KEY, DIGESTS_KEY),
}
_EPISODE_STRUCTURE = {"id", "total_steps", "options"}


def read(
    dataset: str | MinariDataset,
    *,
    skip_invalid: bool = False,
    download: bool = True,
    keep_infos: bool = False,
) -> Dataset:
    """Read a local dataset, fetch it through Minari's remote first, or take one that is open.

    A last step that is neither terminated nor truncated counts as truncated.

    Args:
        dataset: `namespace/name-v0`; or a dataset of Minari's, wherever it is stored, of which the episodes in
            `episode_indices` are read: a view, as `filter_episodes` gives, stays one.
        skip_invalid: Leave invalid episodes out instead of refusing the dataset.
        download: Fetch an id that is not local.
        keep_infos: Keep episode metadata, and the numeric infos that have T + 1 rows of one shape in every
            episode. Real datasets break that rule, so it is meant for datasets that this package wrote.

    Raises:
        ConfigError: It is neither an id nor a dataset of Minari's.
        DatasetIdError: The id is malformed.
        DatasetNotFoundError: The dataset is not local and cannot be fetched, or its folder is gone.
        StorageError: What is stored cannot be read.
        UnsupportedSpaceError: Its spaces cannot be stitched.
        InvalidDataError: There is no episode, some are invalid, or with `skip_invalid` all are.
    """
    source = opened(dataset, download=download)
    flat, about = _flat_spaces(source.observation_space, source.action_space), metadata(source)
    gathered = Gathered(source.total_steps, source.total_episodes, extras=keep_infos)
    ids: list[int] = []
    problems: list[Problem] = []
    for raw in stored_episodes(source, extras=keep_infos):
        try:
            part: dict[str, Any] = flatten_episode(raw, **flat)
            found = find_problems(part, episode=raw["id"], **flat)
        except InvalidDataError as error:
            part, found = {}, [Problem(raw["id"], None, str(error))]
        problems += found
        if not found:
            part["truncations"] = closed(part["terminations"], part["truncations"])
            gathered.add(part | _extras(raw) if keep_infos else part)
            ids.append(raw["id"])
    report = ValidationReport(source.total_episodes, problems)
    if problems and not skip_invalid:
        raise InvalidDataError(f"Dataset {source.id!r}: {report}\nLeave them out with skip_invalid.")
    if not ids:
        found = f"nothing valid: {report}\n" if problems else "no episode, or this view of it holds none. "
        raise InvalidDataError(f"Dataset {source.id!r} holds {found}Choose another one.")
    return Dataset(
        dataset_id=source.id,
        episodes=gathered.episodes(),
        observation_space=source.observation_space,
        action_space=source.action_space,
        env_spec=source.env_spec,
        metadata={key: plain(value) for key, value in about.items() if key not in _STRUCTURE},
        episode_ids=np.array(ids),
        skipped=report,
    )


def load(dataset_id: str) -> MinariDataset:
    """Open a local dataset as Minari's own object, to take a view of it or to build its environment.

    Args:
        dataset_id: `namespace/name-v0`.

    Raises:
        DatasetIdError: The id is malformed.
        DatasetNotFoundError: The dataset is not local.
        StorageError: It cannot be read.
    """
    return opened(dataset_id, download=False)


def write(
    parts: Iterable[Mapping[str, Any]],
    *,
    dataset_id: str,
    observation_space: spaces.Space,
    action_space: spaces.Space,
    env_spec: EnvSpec | None = None,
    metadata: Mapping[str, Any] | None = None,
    progress: Callable[[int], None] | None = None,
    automatic: bool = False,
) -> Path:
    """Write a new local dataset: it appears whole, or not at all.

    Args:
        parts: Flat episodes as `Episodes` yields them, consumed once, in batches. Infos of shape `(T + 1,)`
            are stored as `(T + 1, 1)`; episode metadata may hold numbers, strings and short lists of them.
        dataset_id: A free id, see `next_id`.
        observation_space: Space to store the observations in, with its structure and dtypes.
        action_space: Space to store the actions in.
        env_spec: How to build the environment.
        metadata: Dataset metadata: description, algorithm_name, author, ref_min_score, custom keys, ...
            What describes the arrays of a dataset (totals, spaces, versions) is written anew.
        progress: Called with the number of episodes written so far.
        automatic: If the id is taken when all is written, the next free version of it will do.

    Returns:
        The folder of the dataset, of which `ids.id_of` knows the id.

    Raises:
        DatasetIdError: The id is malformed or taken.
        UnsupportedSpaceError: The spaces cannot be stitched.
        InvalidDataError: An episode is invalid, there is none, or metadata cannot be stored.
        StorageError: The datasets path cannot be written, or is full.
    """
    check_output_id(dataset_id)
    stored = plain_metadata({k: v for k, v in (metadata or {}).items() if k not in _STRUCTURE})
    stored |= {"dataset_id": dataset_id, "minari_version": minari.__version__}
    for key in {"author", "author_email"} & stored.keys():  # which Minari wants as sets
        stored[key] = {stored[key]} if isinstance(stored[key], str) else set(stored[key])
    flat = _flat_spaces(observation_space, action_space)
    root = datasets_path()
    with staging(root) as hidden:
        folder = hidden / "dataset"
        with storage_errors(root):
            folder.mkdir()
            storage = MinariStorage.new(folder / "data", observation_space, action_space, env_spec)
            storage.update_metadata(stored)
        written, steps, tally = 0, 0, Tally()
        for batch in hdf5.batches(stored_form(part, episode=number, **flat) for number, part in enumerate(parts)):
            with storage_errors(root):
                hdf5.append(storage.data_path / hdf5.FILE, batch)
            written, steps = written + len(batch), steps + sum(len(episode["rewards"]) for episode in batch)
            collections.deque(map(tally.add, batch), maxlen=0)
            if progress:
                progress(written)
        if not written:
            raise InvalidDataError(f"There is no episode to write to {dataset_id!r}.")
        with storage_errors(root):
            totals = {"total_episodes": written, "total_steps": steps, "dataset_size": storage.get_size()}
            storage.update_metadata(totals | {FIGURES_KEY: tally.figures()})
            seal(folder, data=True)
            write_card(folder)
        return publish(folder, dataset_id, automatic=automatic)


def check(dataset_id: str) -> None:
    """Check every array of a local dataset against its spaces, and the totals against the data.

    Raises:
        InvalidDataError: Something is wrong.
        StorageError: It cannot be read.
    """
    source = _open(dataset_id, datasets_path() / dataset_id)
    flat = _flat_spaces(source.observation_space, source.action_space)
    problems, episodes, steps = [], 0, 0
    for raw in stored_episodes(source):
        problems += find_stored_problems(raw, **flat)
        episodes, steps = episodes + 1, steps + len(raw["rewards"])
    if problems:
        raise InvalidDataError(f"Dataset {dataset_id!r}: {ValidationReport(episodes, problems)}")
    if (episodes, steps) != (source.total_episodes, source.total_steps):
        raise InvalidDataError(
            f"Dataset {dataset_id!r} holds {episodes} episodes and {steps} steps, but its metadata say "
            f"{source.total_episodes} and {source.total_steps}."
        )


def annotate(dataset_id: str, values: Mapping[str, Any], *, accept: bool = False) -> None:
    """Add to the metadata of a local dataset, whole or not at all; `accept` what somebody else changed as it is now.

    Raises:
        InvalidDataError: A value has no JSON form.
        StorageError: The dataset cannot be read or written.
    """
    folder = datasets_path() / dataset_id
    stored = plain_metadata(values)
    with storage_errors(folder):
        ours = DIGESTS_KEY in _open(dataset_id, folder, changed=accept).storage.metadata
        seal(folder, stored, data=accept and ours)
        write_card(folder, renew=True)


def local_ids() -> list[str]:
    """Ids of all local datasets."""
    return list(minari.list_local_datasets())


def _flat_spaces(observation_space: spaces.Space, action_space: spaces.Space) -> dict[str, FlatSpace]:
    return {
        "observation_space": FlatSpace(observation_space, "observation"),
        "action_space": FlatSpace(action_space, "action"),
    }


def opened(dataset: str | MinariDataset, *, download: bool, changed: bool = False) -> MinariDataset:
    """Open what an id names, or check that what is open has its folder; also if it was `changed`. Errors: `read`."""
    if isinstance(dataset, str):
        parse_id(dataset)
        if not exists(dataset):
            _download(dataset) if download else _refuse(dataset)
        return _open(dataset, datasets_path() / dataset, changed=changed)
    if not isinstance(dataset, MinariDataset):
        raise ConfigError(
            f"An object of type {type(dataset).__name__} is no dataset: give a Minari dataset id or a "
            "minari.MinariDataset."
        )
    parse_id(dataset.id)
    if not (folder := dataset.storage.data_path).is_dir():
        raise DatasetNotFoundError(
            f"Dataset {dataset.id!r} was opened in {folder}, which is gone. Open it anew from where it is now, or give "
            "the id of a local one."
        )
    return dataset


def _open(dataset_id: str, path: Path, *, changed: bool = False) -> MinariDataset:
    try:
        found = MinariDataset(path / "data")
        if not changed:
            require_unchanged(path, data=False)
        return found
    except Exception as error:  # whatever Minari, Gymnasium or a storage format has to say about it
        raise unreadable(dataset_id, path, error) from error


def metadata(source: MinariDataset) -> dict[str, Any]:
    """The metadata of an open dataset, as Minari keeps them, and the licence that its card says.

    Raises:
        StorageError: They cannot be read.
    """
    try:
        return with_license(source.storage.metadata, source.storage.data_path.parent)
    except Exception as error:
        raise unreadable(source.id, source.storage.data_path.parent, error) from error


def stored_episodes(source: MinariDataset, *, extras: bool = True, changed: bool = False) -> Iterator[dict[str, Any]]:
    """Yield what `hdf5.read` yields of the episodes in view; also if data are not what was written, with `changed`."""
    storage, shown = source.storage, np.asarray(source.episode_indices, dtype=int).tolist()
    try:
        if not changed:
            require_unchanged(storage.data_path.parent, data=True)
        for first in range(0, len(shown), hdf5.BATCH):  # HDF5 keeps memory for all it has opened
            ids = shown[first : first + hdf5.BATCH]
            if storage.FORMAT == "hdf5":
                yield from hdf5.read(storage.data_path / hdf5.FILE, ids, extras=extras)
            else:
                for raw, metadata in zip(storage.get_episodes(ids), storage.get_episode_metadata(ids), strict=True):
                    yield {**raw, "metadata": metadata}
    except Exception as error:
        raise unreadable(source.id, storage.data_path.parent, error) from error


def _extras(raw: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    metadata = {key: plain(value) for key, value in raw["metadata"].items() if key not in _EPISODE_STRUCTURE}
    return {"infos": usable_infos(raw), "metadata": metadata}


def _download(dataset_id: str) -> None:
    """Fetch into a hidden folder first, so that a failure leaves nothing behind."""

    def reach():
        cloud = get_cloud_storage()
        cloud.get_dataset_metadata(dataset_id)
        return cloud

    root = datasets_path()
    try:
        cloud = within(_PATIENCE, reach)
        with staging(root) as hidden, storage_errors(root, only_full=True):
            cloud.download_dataset(dataset_id, hidden)
            _open(dataset_id, hidden / dataset_id)
            publish(hidden / dataset_id, dataset_id)
    except StitchError:
        raise
    except Exception as error:  # each remote has its own
        _refuse(dataset_id, error)


def _refuse(dataset_id: str, error: Exception | None = None) -> None:
    remote = os.environ.get("MINARI_REMOTE", DEFAULT_REMOTE)
    tried = f"the remote {remote} did not provide it ({cause(error)})" if error else "downloading is off"
    raise DatasetNotFoundError(
        f"Dataset {dataset_id!r} is not in {datasets_path()}, and {tried}. There are two ways on: run "
        f"`minari download {dataset_id}` on a connected machine and copy its datasets folder here, or point "
        "MINARI_DATASETS_PATH at it; or use a demo/ id, which needs no network (`minari-stitch demo list`)."
    ) from error
