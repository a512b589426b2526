"""Units of work, run in processes of this machine or on Ray, and their results as they come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import experiment
from benchmarks.experiment import Progress, WorkUnit
from benchmarks.results import Results
from minari_stitch.data.ids import datasets_path
from minari_stitch.executor import Executor, executor


def execute(
    units: Sequence[WorkUnit], folder: Path, *, on: Executor = "local", workers: int, progress: Progress | None = None
) -> Iterator[int]:
    """Run units and append what they find, as soon as each is done: a kill loses only those under way.

    On a CPU each has a thread of its own. On Ray, nodes need the same environment, this repository at the same path,
    and the datasets.

    Args:
        units: What to run.
        folder: Of the results.
        on: Which executor.
        workers: Processes, or cores of a Ray that is started here.
        progress: Called as `progress(label, done, total)`.

    Yields:
        Cells finished by each unit.

    Raises:
        StitchError: Whatever a unit has to say, or that a worker died.
    """
    device = units[0].device if units else "cpu"
    where = executor(
        on,
        workers=max(1, min(workers, len(units))),
        threads=1 if device == "cpu" or on == "ray" else workers,
        device=device,
        folder=datasets_path(),
        variables=("MINARI_DATASETS_PATH",),
        progress=progress,
    )
    for finished in where.map(experiment.run, ((unit,) for unit in units), ordered=False):
        for cell, record in finished:
            Results(folder).append(cell, record)
        yield len(finished)
