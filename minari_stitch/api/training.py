"""How the networks behind a dataset were trained: the losses that their files in the run directory keep."""

from __future__ import annotations

from pathlib import Path

from minari_stitch.data import minari_io
from minari_stitch.data.dataset import Dataset
from minari_stitch.data.provenance import stitch_record
from minari_stitch.errors import InvalidDataError
from minari_stitch.learn.loop import FitResult, fits
from minari_stitch.pipeline import default_run_directory
from minari_stitch.run import Run
from minari_stitch.transforms.registry import from_record


def fits_of(dataset: Dataset, run_dir: Path | None = None) -> dict[str, FitResult]:
    """Network -> its training.

    Args:
        dataset: One that `augment` wrote.
        run_dir: Run directory of the augmentation; by default where `augment` puts it.

    Raises:
        InvalidDataError: Its method has no networks, or the run directory or the source is gone.
        StorageError: A file of the run directory is damaged.
    """
    record = stitch_record(dataset.dataset_id, dataset.metadata)
    again = "augment again, which trains them anew" if run_dir is None else "name the one of the augmentation"
    if not minari_io.exists(record["source"]):
        raise InvalidDataError(
            f"the source {record['source']!r} of {dataset.dataset_id!r} is not local, and so its networks are not "
            "found: fetch or make it"
        )
    source = minari_io.read(record["source"], download=False, skip_invalid=True)
    run = Run(
        directory=default_run_directory(source) if run_dir is None else run_dir,
        seed=record["seed"],
        device=record["device"],
        precision=record["precision"],
        dry=True,
    )
    transform = from_record(record)
    folder = transform.networks(source, run)
    found = fits(folder) if folder is not None and folder.is_dir() else {}
    if folder is None:
        raise InvalidDataError(f"{dataset.dataset_id!r} was made by {record['method']}: it has no networks to show")
    if not found:
        raise InvalidDataError(f"the networks of {dataset.dataset_id!r} are not in {folder}: {again}")
    return found
