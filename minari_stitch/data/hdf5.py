"""Episodes in and out of the file of Minari's HDF5 format, through h5py's low-level interface.

The groups are those that Minari makes and reads: `episode_{i}` with `id`, `total_steps` and the metadata of the
episode as attributes, a dataset for each array, and a group for each mapping of arrays. What differs is that
no dataset is chunked so that it could be extended, which costs an episode of one step 30 KB; and that h5py's
objects, which take longer to make than such an episode takes to store, stand aside.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5f, h5g, h5o, h5p, h5s, h5t  # pyright: ignore[reportAttributeAccessIssue]

from minari_stitch.data.storage import check_room

__all__ = ["BATCH", "FILE", "append", "batches", "read"]

FILE = "main_data.hdf5"
BATCH = 500
"""Episodes for each opening of the file: one is twice as slow, thousands cost memory."""
_STEPS = 100_000  # after which a batch is full, too

_VERSION = "v108"  # the oldest file format with compact headers, which every HDF5 library in use reads
_ARRAYS = ("observations", "actions", "rewards", "terminations", "truncations")
_OWN = (b"id", b"total_steps")  # attributes that are no metadata
_OBJECT = 1000  # bytes that a dataset, a group or an attribute takes at most, beside its values
_INDEX = 1_000_000  # bytes by which what finds an episode in the file may grow at once

# How objects are made.
_LINK, _GROUP, _DATASET = map(h5p.create, (h5p.LINK_CREATE, h5p.GROUP_CREATE, h5p.DATASET_CREATE))
_FILE, _ACCESS = map(h5p.create, (h5p.FILE_CREATE, h5p.FILE_ACCESS))
_FILE.set_obj_track_times(False)  # the same episodes make the same file
_ACCESS.set_libver_bounds(h5f.LIBVER_V18, h5f.LIBVER_V18)
_LINK.set_char_encoding(h5t.CSET_UTF8)
_LINK.set_create_intermediate_group(True)
_GROUP.set_obj_track_times(False)  # as h5py does for datasets
_DATASET.set_obj_track_times(False)
_GROUP.set_attr_phase_change(1000, 0)  # the index that HDF5 makes for more than 8 attributes takes 1 KB


def batches(episodes: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Lists of episodes to append together, however long or short they are."""
    batch, steps = [], 0
    for episode in episodes:
        batch.append(episode)
        steps += len(episode["rewards"])
        if len(batch) == BATCH or steps >= _STEPS:
            yield batch
            batch, steps = [], 0
    if batch:
        yield batch


def append(path: Path, episodes: Sequence[Mapping[str, Any]]) -> None:
    """Add episodes to the file.

    Args:
        path: The file, empty or of this format.
        episodes: Mappings with `id`, the next free number; `observations (T + 1, ...)` and `actions (T, ...)`,
            arrays or mappings of them; `rewards`, `terminations` and `truncations (T,)`; `infos`, a mapping
            of arrays; and `metadata`, a mapping of numbers, strings and lists of them.

    Raises:
        OSError: The file cannot be written, or there is no room.
    """
    # HDF5 cannot close a file that it failed to write, and crashes when the process ends.
    check_room(path, _INDEX + sum(map(_bytes, episodes)))
    if path.stat().st_size == 0:
        h5f.create(bytes(path), h5f.ACC_TRUNC, _FILE, _ACCESS).close()
    with h5py.File(path, "a", libver=(_VERSION, _VERSION)) as file:
        for episode in episodes:
            group = h5g.create(file.id, b"episode_%d" % episode["id"], _LINK, _GROUP)
            own = {"id": episode["id"], "total_steps": len(episode["rewards"])}
            for name, value in (own | episode["metadata"]).items():
                _describe(group, name, value)
            for name in (*_ARRAYS, "infos"):
                _put(group, name, episode[name])


def read(path: Path, ids: Iterable[int], *, extras: bool = True) -> Iterator[dict[str, Any]]:
    """Read episodes.

    Args:
        path: The file.
        ids: Which ones.
        extras: Read infos and metadata as well.

    Yields:
        Mappings as `append` takes them. `infos` are None where an episode has none; without `extras` they and
        the metadata are empty.

    Raises:
        OSError: The file cannot be read.
        KeyError: An episode, or a part of it, is missing.
    """
    with h5py.File(path, "r") as file:
        for number in ids:
            group = h5o.open(file.id, b"episode_%d" % number)
            episode: dict[str, Any] = {name: _get(group, name.encode()) for name in _ARRAYS}
            episode |= {"id": number, "infos": {}, "metadata": {}}
            if extras:
                episode["infos"] = _get(group, b"infos") if group.links.exists(b"infos") else None
                episode["metadata"] = _description(group)
            yield episode


def _bytes(value: Any) -> int:
    """What a value takes in the file, at most."""
    if isinstance(value, Mapping):
        return _OBJECT + sum(map(_bytes, value.values()))
    return _OBJECT + np.asarray(value).nbytes


@lru_cache
def _types(dtype: np.dtype) -> tuple[h5t.TypeID, h5t.TypeID]:
    """The type in the file and the one in memory."""
    return h5t.py_create(dtype, logical=True), h5t.py_create(dtype)


@lru_cache
def _dtype(encoded: bytes) -> np.dtype:
    """Invert `_types`, which takes longer than reading a short array does."""
    return h5t.decode(encoded).dtype


@lru_cache
def _space(shape: tuple[int, ...]) -> h5s.SpaceID:
    return h5s.create_simple(shape) if shape else h5s.create(h5s.SCALAR)


def _put(group: h5g.GroupID, name: str, value: Any) -> None:
    if isinstance(value, Mapping):
        inner = h5g.create(group, name.encode(), _LINK, _GROUP)
        for key, part in value.items():
            _put(inner, key, part)
    elif _is_plain((array := np.asarray(value, order="C")).dtype):
        stored, given = _types(array.dtype)
        dataset = h5d.create(group, name.encode(), stored, _space(array.shape), _DATASET, _LINK)
        dataset.write(h5s.ALL, h5s.ALL, array, given)
    else:
        h5py.Group(group).create_dataset(name, data=array)


def _get(group: h5g.GroupID, name: bytes) -> Any:
    found = h5o.open(group, name)
    if isinstance(found, h5g.GroupID):
        names: list[bytes] = []
        found.links.iterate(names.append)
        return {key.decode(): _get(found, key) for key in names}
    if (array := _room(found)) is None:
        return h5py.Dataset(found)[()]
    found.read(h5s.ALL, h5s.ALL, array, _types(array.dtype)[1])
    return array[()]


def _describe(group: h5g.GroupID, name: str, value: Any) -> None:
    if _is_plain((array := np.asarray(value)).dtype):
        stored, given = _types(array.dtype)
        h5a.create(group, name.encode(), stored, _space(array.shape)).write(array, given)
    else:
        h5py.Group(group).attrs[name] = value


def _description(group: h5g.GroupID) -> dict[str, Any]:
    """The metadata of an episode; Minari joins the keys of nested mappings by slashes."""
    names: list[bytes] = []
    h5a.iterate(group, names.append)
    values: dict[str, Any] = {}
    for name in names:
        if name in _OWN:
            continue
        *outer, last = name.decode().split("/")
        node = values
        for key in outer:
            node = node.setdefault(key, {})
        found = h5a.open(group, name)
        if (array := _room(found)) is None:
            node[last] = h5py.Group(group).attrs[name]
        else:
            found.read(array, _types(array.dtype)[1])
            node[last] = array[()]
    return values


def _room(found: Any) -> np.ndarray | None:
    """An array for the values of a dataset or an attribute, or None where they are no plain numbers."""
    dtype, shape = _dtype(found.get_type().encode()), found.shape
    return np.empty(shape, dtype) if _is_plain(dtype) and shape is not None else None


def _is_plain(dtype: np.dtype) -> bool:
    """Whether the short way knows what h5py itself would do; in metadata h5py keeps what NumPy has no dtype for."""
    return dtype.kind in "biuf" and dtype.metadata is None
