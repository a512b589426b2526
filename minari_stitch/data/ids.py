"""Dataset ids: what they look like, where they live, and which are free."""

from __future__ import annotations

import os
import re
from itertools import count
from pathlib import Path, PurePosixPath

from minari_stitch.errors import DatasetIdError

# Minari's own pattern, but with the version required and no empty namespace levels.
_ID = re.compile(r"(?:(?P<namespace>[-\w](?:/?[-\w])*[-\w])/)?(?P<name>[-\w]+?)-v\d+")
_LONGEST = 200  # bytes; a file system takes 255, and suffixes follow


def parse_id(dataset_id: str) -> tuple[str | None, str]:
    """Namespace and name of a dataset id. Touches no disk.

    Raises:
        DatasetIdError: The id is malformed, or has no version.
    """
    longest = max(dataset_id.split("/"), key=len)
    if len(longest.encode()) > _LONGEST or len(dataset_id.encode()) > 3 * _LONGEST:
        raise DatasetIdError(
            f"Dataset id {dataset_id[:60]!r}... is too long: use at most {_LONGEST} bytes for a name, and for a "
            "namespace."
        )
    if match := _ID.fullmatch(dataset_id):
        return match["namespace"], match["name"]
    if _ID.fullmatch(f"{dataset_id}-v0"):
        raise DatasetIdError(f"Dataset id {dataset_id!r} has no version: write for example {dataset_id}-v0.")
    raise DatasetIdError(
        f"Malformed dataset id {dataset_id!r}: write namespace/name-v0, with letters, digits, '-' and '_', "
        "and at least two characters in the namespace."
    )


def datasets_path() -> Path:
    """Where Minari keeps the local datasets: `MINARI_DATASETS_PATH`, or a folder of the user."""
    return Path(os.environ.get("MINARI_DATASETS_PATH") or Path.home() / ".minari" / "datasets")


def exists(dataset_id: str) -> bool:
    """Whether a dataset is local."""
    return (datasets_path() / dataset_id / "data").is_dir()


def id_of(path: Path) -> str:
    """The id of a local dataset, from its folder."""
    return path.relative_to(datasets_path()).as_posix()


def next_id(source_id: str, suffix: str = "stitched") -> str:
    """The first free version of `<source name>-<suffix>` (of the name itself without a suffix), in its namespace.

    Raises:
        DatasetIdError: The source id is malformed.
    """
    namespace, name = parse_id(source_id)
    return _first_free(namespace, f"{name}-{suffix}" if suffix else name)


def versions(dataset_id: str) -> list[str]:
    """Ids of the local datasets that are versions of the same name, the oldest first."""
    namespace, name = parse_id(dataset_id)
    stem = f"{namespace}/{name}" if namespace else name
    folders = (datasets_path() / stem).parent.glob(f"{name}-v*")
    found = [id_of(folder) for folder in folders if folder.name.removeprefix(f"{name}-v").isdecimal()]
    return sorted((each for each in found if exists(each)), key=lambda each: int(each.rpartition("-v")[2]))


def check_output_id(dataset_id: str) -> None:
    """Check that a new dataset can have this id.

    Raises:
        DatasetIdError: The id is malformed or taken, or would lie inside another dataset.
    """
    namespace, name = parse_id(dataset_id)
    for parent in PurePosixPath(dataset_id).parents:
        if parent.name == "data" or (parent.name and exists(str(parent))):
            raise DatasetIdError(
                f"Dataset id {dataset_id!r} has the namespace {str(parent)!r}, which Minari would take for a "
                "dataset. Choose another dataset id."
            )
    if (path := datasets_path() / dataset_id).exists():
        raise DatasetIdError(
            f"Dataset id {dataset_id!r} is taken, by {path}. Choose another dataset id, say "
            f"{_first_free(namespace, name)}, or remove it with `minari delete {dataset_id}`."
        )


def _first_free(namespace: str | None, name: str) -> str:
    stem = f"{namespace}/{name}" if namespace else name
    return next(free for n in count() if not (datasets_path() / (free := f"{stem}-v{n}")).exists())
