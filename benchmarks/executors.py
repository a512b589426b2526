"""Where units of work run: processes of this machine, or Ray tasks on one or a cluster. The results are the same."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.experiment import Progress, WorkUnit, run, run_and_keep
from benchmarks.results import Results
from minari_stitch.errors import StitchError, WorkerError
from minari_stitch.pool import Pool

_ROOT = Path(__file__).resolve().parents[1]
_RETRIES = 3


class ExecutorError(StitchError):
    """Units of work cannot be run where they were asked to run."""


def local(units: Sequence[WorkUnit], folder: Path, *, workers: int, progress: Progress | None = None) -> Iterator[int]:
    """Run units in `workers` processes of one thread each, or one after the other here on a GPU.

    Every process appends its own results, so that a kill loses only the units under way.

    Args:
        units: What to run.
        folder: Of the results.
        workers: Processes.
        progress: Called as `progress(label, done, total)`.

    Yields:
        Cells finished by each unit.

    Raises:
        ExecutorError: A process died.
        StitchError: Whatever a unit has to say.
    """
    device = units[0].device if units else "cpu"
    processes = max(1, min(workers, len(units))) if device == "cpu" else 1
    pool = Pool(workers=processes, threads=1 if device == "cpu" else workers, progress=progress)
    try:
        yield from pool.map(run_and_keep, [(unit, folder) for unit in units])
    except WorkerError as error:
        raise ExecutorError(
            "a worker process died, perhaps for lack of memory: run the same command again, with fewer --workers; "
            "finished cells are kept"
        ) from error


def on_ray(units: Sequence[WorkUnit], folder: Path, *, workers: int, progress: Progress | None = None) -> Iterator[int]:
    """Run each unit as a Ray task, on the cluster at RAY_ADDRESS or else on this machine.

    A dead worker's task is run again by Ray. Nodes need the same environment, this repository at the same path, and
    the datasets. Results are appended here, as they come.

    Args:
        units: What to run.
        folder: Of the results.
        workers: Cores of a Ray that is started here.
        progress: Called once for each finished unit.

    Yields:
        Cells finished by each unit.

    Raises:
        ExecutorError: Ray is not installed, or gave a unit up.
        StitchError: Whatever a unit has to say.
    """
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ExecutorError(
            f"--executor ray needs Ray, which cannot be imported ({error}): run `pip install ray`, or use "
            "--executor local"
        ) from error
    names = [name for name in ("MINARI_DATASETS_PATH",) if name in os.environ]
    path = os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    variables = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", **{name: os.environ[name] for name in names}}
    address = os.environ.get("RAY_ADDRESS")
    amount: dict[str, Any] = {} if address else {"num_cpus": workers, "include_dashboard": False}
    begun = not ray.is_initialized()
    if begun:
        ray.init(address=address, runtime_env={"env_vars": variables}, log_to_driver=False, **amount)
    try:
        gpus = 0 if not units or units[0].device == "cpu" else 1
        task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=_RETRIES)(run)
        pending = {task.remote(unit): unit for unit in units}
        while pending:
            (ready,), _ = ray.wait(list(pending), num_returns=1)
            unit = pending.pop(ready)
            try:
                finished = ray.get(ready)
            except ray.exceptions.RayTaskError as error:
                raise error.cause if isinstance(error.cause, StitchError) else error from None
            except ray.exceptions.RayError as error:
                raise ExecutorError(
                    f"Ray gave up on {unit.label} ({type(error).__name__}): run the same command again; finished "
                    "cells are kept"
                ) from error
            for cell, record in finished:
                Results(folder).append(cell, record)
            if progress:
                progress(unit.label, 1, 1)
            yield len(finished)
    finally:
        if begun:
            ray.shutdown()


EXECUTORS = {"local": local, "ray": on_ray}
