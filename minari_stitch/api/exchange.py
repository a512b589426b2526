"""What a script calls to exchange datasets with other benchmarks."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minari_stitch.api.datasets import AnyDataset, Reporting, check_output_id, read, reports
from minari_stitch.config import checked
from minari_stitch.data.written import check_writable
from minari_stitch.sim import d4rl, ogbench
from minari_stitch.sim.d4rl import Imported
from minari_stitch.sim.ogbench import Exported, ImportedOGBench

if not TYPE_CHECKING:
    AnyDataset = Reporting = Any


@checked
def import_d4rl(file: str | Path, *, env: str, dataset_id: str | None = None, progress: Reporting = None) -> Imported:
    """Write an HDF5 file of D4RL (v0 to v2) as a Minari dataset, with the environment that has its physics.

    Args:
        file: The HDF5 file.
        env: `hopper`, `halfcheetah`, `walker2d`, `pen`, or a Gymnasium id of an environment with Box observations.
        dataset_id: Id of the new dataset; by default by the file's name.
        progress: See `augment`.

    Returns:
        What was written.

    Raises:
        StitchError: One of its kinds, each with a remedy.

    Example:
        >>> import minari_stitch as ms
        >>> ms.import_d4rl("missing.hdf5", env="hopper")
        Traceback (most recent call last):
        minari_stitch.errors.DatasetNotFoundError: There is no file missing.hdf5. Check the path.
    """
    if dataset_id is not None:
        check_output_id(dataset_id)
    check_writable()
    with reports(progress) as report:
        write = report and partial(report, "write")
        return d4rl.import_d4rl(Path(file), env=env, dataset_id=dataset_id, progress=write)


@checked
def import_ogbench(
    file: str | Path,
    val: str | Path | None = None,
    *,
    task: int | None = None,
    dataset_id: str | None = None,
    progress: Reporting = None,
) -> ImportedOGBench:
    """Write an npz file of OGBench's as a Minari dataset, and its validation file as another.

    Args:
        file: The npz file, under OGBench's name, which says what it holds.
        val: The file for validation (`...-val.npz`).
        task: Of a maze, the task (1 to 5) whose rewards are written; by default all rewards are 0.
        dataset_id: Id of the new dataset; by default by the file's name.
        progress: See `augment`.

    Returns:
        What was written.

    Raises:
        StitchError: One of its kinds, each with a remedy.

    Example:
        >>> import minari_stitch as ms
        >>> ms.import_ogbench("missing.npz")
        Traceback (most recent call last):
        minari_stitch.errors.DatasetNotFoundError: There is no file missing.npz. Check the path.
    """
    check_writable()
    with reports(progress) as report:
        return ogbench.import_ogbench(
            Path(file),
            val=None if val is None else Path(val),
            task=task,
            dataset_id=dataset_id,
            progress=report and partial(report, "write"),
        )


@checked
def export_ogbench(dataset: AnyDataset, file: str | Path, *, val: AnyDataset | None = None) -> Exported:
    """Write a dataset as the npz files that OGBench's own loader reads (`dataset_path=`).

    Args:
        dataset: Minari dataset id, an open `minari.MinariDataset`, or what `augment` returned.
        file: The new file, ending in .npz; that for validation has `-val` before the ending.
        val: Dataset that validates; by default every tenth episode, which is not trained on then.

    Returns:
        What was written.

    Raises:
        StitchError: One of its kinds, each with a remedy.

    Example:
        >>> import minari_stitch as ms
        >>> ms.export_ogbench("toy/walk-v0", "walk.txt")
        Traceback (most recent call last):
        minari_stitch.errors.ConfigError: walk.txt is not possible: OGBench's loader wants a path that has .npz once...
    """
    source = read(dataset, keep_infos=True)
    return ogbench.export_ogbench(source, Path(file), val=None if val is None else read(val, keep_infos=True))
