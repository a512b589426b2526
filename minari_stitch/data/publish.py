"""The moment at which a dataset that was written elsewhere appears where Minari finds it."""

from __future__ import annotations

import errno
from pathlib import Path

from minari.namespace import create_namespace, list_local_namespaces

from minari_stitch.data.card import write_card
from minari_stitch.data.digests import seal
from minari_stitch.data.ids import check_output_id, datasets_path, next_id, parse_id
from minari_stitch.data.storage import storage_errors
from minari_stitch.errors import DatasetIdError


def publish(folder: Path, dataset_id: str, *, automatic: bool = False) -> Path:
    """Move a complete dataset to its place.

    Args:
        folder: Where it is.
        dataset_id: What it shall be called.
        automatic: Where that id has been taken meanwhile, the next free version of it will do.

    Returns:
        Where it is now.

    Raises:
        DatasetIdError: The id is taken.
        StorageError: The datasets path cannot be written.
    """
    while True:
        try:
            return _move(folder, dataset_id)
        except DatasetIdError:
            if not automatic:
                raise
        dataset_id = next_id(dataset_id, suffix="")
        with storage_errors(folder):
            seal(folder, {"dataset_id": dataset_id})  # Minari's own update refuses to change an id
            write_card(folder, renew=True)


def _move(folder: Path, dataset_id: str) -> Path:
    check_output_id(dataset_id)
    namespace, _ = parse_id(dataset_id)
    target = datasets_path() / dataset_id
    with storage_errors(target.parent):
        if namespace and namespace not in list_local_namespaces():
            create_namespace(namespace)
        try:
            folder.rename(target)
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
                check_output_id(dataset_id)  # taken since the last look
            raise
    return target
