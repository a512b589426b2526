"""What storing a dataset needs beside Minari: hidden folders, named errors, plain values, bounded waits."""

from __future__ import annotations

import errno
import glob
import hashlib
import io
import json
import os
import shutil
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Self, TypeVar

import numpy as np

from minari_stitch.data.locks import abandoned, held
from minari_stitch.errors import InvalidDataError, StorageError

T = TypeVar("T")

_PREFIX = ".minari-stitch-"
_ASIDE = ".aside"
_DIGEST = hashlib.sha256().digest_size
_LONGEST = 1000  # HDF5 keeps 64 KB for the attributes of an episode
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def storage_errors(path: Path, *, only_full: bool = False) -> Iterator[None]:
    """Turn what the operating system (or HDF5) says while writing to `path` into a `StorageError`.

    Args:
        path: The folder to name.
        only_full: Let other errors pass, where a network may be what failed.

    Raises:
        StorageError: It cannot be written.
    """
    try:
        yield
    except Exception as error:
        # HDF5 says that a disk is full in errors of any type.
        reason = next((os.strerror(code) for code in _FULL if os.strerror(code) in str(error)), None)
        if not reason and (only_full or not isinstance(error, OSError)):
            raise
        remedy = "Free some space there, or set" if reason else "Make it writable, or set"
        raise StorageError(
            f"Cannot write to {path} ({reason or error}). {remedy} MINARI_DATASETS_PATH elsewhere."
        ) from error


@contextmanager
def staging(root: Path) -> Iterator[Path]:
    """A hidden folder inside `root`, on the same file system, removed at the end whatever happens.

    What killed processes left there is removed as well.
    """
    with storage_errors(root):
        root.mkdir(parents=True, exist_ok=True)
    with ExitStack() as mine:
        with storage_errors(root), held(root):  # so that nobody takes what is being made for what is left
            for stale in root.glob(f"{_PREFIX}*"):
                if abandoned(stale):
                    shutil.rmtree(stale, ignore_errors=True)
            hidden = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
            mine.enter_context(held(hidden))
        try:
            yield hidden
        finally:
            shutil.rmtree(hidden, ignore_errors=True)


def sweep(folder: Path, name: str = "") -> None:
    """Remove what killed processes were writing in a folder beside a file, or beside any."""
    with held(folder):
        _sweep(folder, name)


def _sweep(folder: Path, name: str) -> None:
    for stale in folder.glob(f".{glob.escape(name)}*{_ASIDE}*"):
        if abandoned(stale):
            stale.unlink(missing_ok=True)


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A hidden file beside `path`, of which nothing is left, by a killed process neither."""
    # Of nobody else: on a disk that machines share, another one may have a process of the same number.
    aside = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:12]}{_ASIDE}{path.suffix}")
    try:
        with ExitStack() as mine:
            with held(path.parent):
                _sweep(path.parent, f"{path.stem}.")
                aside.touch()
                mine.enter_context(held(aside))
            yield aside
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path, remedy: str = "name another run directory") -> Iterator[Path]:
    """A file beside `path` to write to; at the end it takes the place of `path`, whole or not at all.

    Args:
        path: The file.
        remedy: What else to do where there is no room.

    Raises:
        StorageError: It cannot be written.
    """
    try:
        with beside(path) as aside:
            yield aside
            os.replace(aside, path)
    except OSError as error:
        raise StorageError(
            f"Cannot write {path} ({error.strerror or error}). Free some space there, or {remedy}."
        ) from error


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Name a file of the run directory that turns out to be damaged, as after a power cut.

    Raises:
        StorageError: It cannot be read.
    """
    try:
        yield
    except Exception as error:  # each format has its own
        raise StorageError(
            f"{path} cannot be read ({type(error).__name__}). Remove it and run the same again: it is made anew."
        ) from error


def save_sealed(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Write a file aside and rename it; at its end stands the digest of what `write` puts into it.

    Raises:
        StorageError: It cannot be written.
    """
    with replacing(path) as aside:
        buffer = io.BytesIO()  # not straight to the disk: what torch says of a full one does not name it
        write(buffer)
        digest = hashlib.sha256(buffer.getbuffer()).digest()
        buffer.seek(0, io.SEEK_END)
        buffer.write(digest)
        aside.write_bytes(buffer.getbuffer())


def load_sealed(path: Path) -> io.BytesIO:
    """What `save_sealed` wrote, with every bit as it was.

    Raises:
        ValueError: Some are not.
    """
    content = path.read_bytes()
    body = memoryview(content)[:-_DIGEST]
    if hashlib.sha256(body).digest() != content[-_DIGEST:]:
        raise ValueError("its digest is another")
    return io.BytesIO(body)


def check_room(path: Path, size: int) -> None:
    """Make sure that a file can grow by `size` bytes, where the system can tell; it keeps its size.

    Raises:
        OSError: There is no room.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    with path.open("rb+") as file:
        before = file.seek(0, os.SEEK_END)
        try:
            os.posix_fallocate(file.fileno(), before, size)
        except OSError as error:
            if error.errno in _FULL:  # and not that the file system does not know
                raise
        finally:
            file.truncate(before)


class Arrays:
    """Base of dataclasses whose fields are arrays with one row for each item."""

    def save(self, path: Path) -> None:
        """Write aside, with a digest, and rename."""
        save_sealed(path, lambda file: np.savez(file, **vars(self)))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        with reading(path), np.load(load_sealed(path)) as arrays:
            return cls(**arrays)

    @classmethod
    def concatenate(cls, chunks: Sequence[Self]) -> Self:
        """Join chunks end to end."""
        names = list(vars(chunks[0]))
        return cls(**{name: np.concatenate([getattr(chunk, name) for chunk in chunks]) for name in names})


def plain(value: Any) -> Any:
    """NumPy values, sets and tuples as the Python values that JSON knows; anything else as it is."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def plain_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Dataset metadata as plain JSON values, without what is None.

    Raises:
        InvalidDataError: A value has no JSON form.
    """
    values = {key: plain(value) for key, value in metadata.items() if value is not None}
    for key, value in values.items():
        try:  # before anything is written: Minari would truncate its metadata file and lose the dataset
            json.dumps(value)
        except TypeError as error:
            raise InvalidDataError(f"Metadata {key!r} cannot be stored: {error}. Use plain values.") from error
    return values


def plain_attributes(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Episode metadata as what HDF5 attributes hold: numbers, strings, and short lists of one kind of them.

    Raises:
        InvalidDataError: A value is something else, or its name belongs to Minari.
    """
    values = {key: plain(value) for key, value in metadata.items()}
    for key, value in values.items():
        items = value if isinstance(value, list) else [value]
        if key in ("id", "total_steps") or "/" in key:
            raise InvalidDataError(f"Episode metadata cannot be named {key!r}. Choose another name.")
        uniform = any(all(isinstance(item, kind) for item in items) for kind in (int | float, str))
        if not uniform or len(items) > _LONGEST:
            raise InvalidDataError(
                f"Episode metadata {key!r} is {str(value)[:80]}. Use a number, a string, or a list "
                f"of up to {_LONGEST} of them."
            )
    return values


def within(seconds: float, call: Callable[[], T]) -> T:
    """The result of `call`, in a thread that is abandoned when it takes too long.

    Raises:
        TimeoutError: There is no result yet.
    """
    outcome: Future[T] = Future()

    def work() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        return outcome.result(seconds)
    except TimeoutError as error:
        raise TimeoutError(str(error) or f"no answer within {seconds:g} seconds") from error
