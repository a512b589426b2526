"""Whether a dataset is, bit by bit, what was written: its metadata keep digests of its data, and of themselves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from minari_stitch.data.storage import plain, replacing
from minari_stitch.errors import StorageError

DIGESTS_KEY = "minari_stitch_digests"
"""Key, in a dataset's metadata, of its digests. Others' datasets have none, and are taken as they are."""

_METADATA = "metadata.json"
_blake = partial(hashlib.blake2b, digest_size=16)


def seal(folder: Path, values: Mapping[str, Any] = {}, *, data: bool = False) -> None:  # noqa: B006 - never changed
    """Add to the metadata of a dataset, whole or not at all, and renew their digest.

    Args:
        folder: Of the dataset.
        values: What to add, with a JSON form.
        data: Take the data as they are now, too.

    Raises:
        StorageError: The folder cannot be written.
    """
    path = folder / "data" / _METADATA
    metadata = json.loads(path.read_text(encoding="utf-8")) | plain(values)
    digests = metadata.pop(DIGESTS_KEY, {})
    if data:
        digests = {file.relative_to(path.parent).as_posix(): _digest(file) for file in _files(path.parent)}
    if digests:
        metadata[DIGESTS_KEY] = digests | {_METADATA: _own_digest(metadata)}
    with replacing(path, "set MINARI_DATASETS_PATH elsewhere") as aside:
        aside.write_text(json.dumps(metadata), encoding="utf-8")


def changed(folder: Path, *, data: bool = True) -> list[str]:
    """Names of the files of a dataset that are not what was written, as far as that was kept.

    A data file of another size is no accident: Minari itself, say, has added episodes, and the digests hold no more.

    Args:
        folder: Of the dataset.
        data: Look at the data too, which takes a second for each gigabyte.

    Raises:
        Exception: The metadata are so damaged that they cannot be read.
    """
    path = folder / "data" / _METADATA
    metadata = json.loads(path.read_text(encoding="utf-8"))
    digests = metadata.pop(DIGESTS_KEY, None)
    if digests is None:
        return []
    kept = {path.parent / name: digest for name, digest in digests.items() if name != _METADATA}
    if any(not file.is_file() or _size(file) != digest.partition(":")[0] for file, digest in kept.items()):
        return []
    found = [] if digests.get(_METADATA) == _own_digest(metadata) else [_METADATA]
    return found + [file.name for file, digest in kept.items() if data and _digest(file) != digest]


class _ChangedError(Exception):
    """A file of a dataset has another digest."""


def require_unchanged(folder: Path, *, data: bool) -> None:
    """Raise what `unreadable` explains if a dataset is not what was written."""
    if names := changed(folder, data=data):
        raise _ChangedError(f"{' and '.join(names)} is not what was written")


def unreadable(dataset_id: str, folder: Path, error: Exception) -> StorageError:
    """The error to raise for a dataset that cannot be read, or may not be."""
    yours = " If you changed it yourself, make its card anew with force." if isinstance(error, _ChangedError) else ""
    said = str(error) if yours else cause(error)
    return StorageError(
        f"Dataset {dataset_id!r} in {folder} cannot be read ({said}). If it was made here, delete it with "
        f"`minari delete {dataset_id}` and make it again; else fetch it with `minari download --force {dataset_id}`."
        f"{yours}"
    )


def cause(error: Exception) -> str:
    """An error of somebody else's in one line."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _files(data: Path) -> Iterator[Path]:
    files = (path for path in sorted(data.rglob("*")) if path.is_file())
    return (path for path in files if path.name != _METADATA and not path.name.startswith("."))


def _size(path: Path) -> str:
    return str(path.stat().st_size)


def _digest(path: Path) -> str:
    """`size:digest`."""
    with path.open("rb") as file:
        return f"{_size(path)}:{hashlib.file_digest(file, _blake).hexdigest()}"


def _own_digest(metadata: Mapping[str, Any]) -> str:
    """Of what metadata say, in whatever order and spacing."""
    return _blake(json.dumps(metadata, sort_keys=True).encode()).hexdigest()
