"""The proposals of a run before the simulator: rejected bridges too, and real windows as the floor.

Only they say what delta is worth: of the bridges that were written, all were accepted.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from minari_stitch.data.dataset import Dataset
from minari_stitch.data.provenance import stitch_record
from minari_stitch.diffstitch.proposals import Proposals
from minari_stitch.diffstitch.stitch import Outcome, doubt, qualify
from minari_stitch.diffstitch.transform import DiffStitch, FittedDiffStitch
from minari_stitch.errors import ConfigError, InvalidDataError
from minari_stitch.pipeline import default_run_directory
from minari_stitch.progress import Progress
from minari_stitch.run import Run
from minari_stitch.sim.oracle import simulator_of
from minari_stitch.sim.paths import agreement, crossed, largest, oracle_errors, quantile, real_paths
from minari_stitch.transforms.registry import from_record

DELTAS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0)


def found_run(
    dataset: Dataset, source: Dataset, *, run_dir: Path | None = None, progress: Progress | None = None
) -> FittedDiffStitch | None:
    """The run that made a dataset; None where it is gone, another method made it, or settings of another version.

    Raises:
        InvalidDataError: The source has changed.
    """
    record = stitch_record(dataset.dataset_id, dataset.metadata)
    if source.fingerprint != record["source_fingerprint"]:
        raise InvalidDataError(f"{record['source']} is no longer what {dataset.dataset_id} was made from")
    try:
        transform = from_record(record)
        run = Run(
            directory=run_dir or default_run_directory(source),
            seed=record["seed"],
            device=record["device"],
            precision=record["precision"],
            workers=1,
            threads=record["threads"],
            progress=progress,
        )
    except ConfigError:
        return None
    if not isinstance(transform, DiffStitch):
        return None
    if not transform.networks(source, replace(run, dry=True)).is_dir():  # and so none is made
        return None
    return transform.found(source, run)


def some_proposals(fitted: FittedDiffStitch, pairs: int) -> Proposals:
    """At least so many pairs, from the first chunk on; chunks that are not there are made."""
    chunks: list[Proposals] = []
    for proposals in fitted.proposals():
        chunks.append(proposals)
        if sum(map(len, chunks)) >= pairs:
            break
    return Proposals.concatenate(chunks)


def judge_proposals(
    fitted: FittedDiffStitch, proposals: Proposals, *, seed: int = 0, progress: Progress | None = None
) -> dict[str, Any]:
    """Put proposals to the simulator, and real windows as long as they are.

    Args:
        fitted: The run they are from.
        proposals: As `some_proposals` gives them.
        seed: Chooses the real windows.
        progress: Hears of the stage `simulate`.

    Returns:
        `pairs`, `delta`, `accepted_median`, `floor_median`; `paths`: for accepted and rejected bridges and for real
        windows how large errors are and where, and in a maze how many go through walls; `agreement`: for each delta the
        share accepted and true, precision and recall, and the median error of what is accepted.

    Raises:
        InvalidDataError: There is no simulator to ask.
    """
    source, transform = fitted.dataset, fitted.transform
    simulator = simulator_of(source)
    if simulator is None:
        raise InvalidDataError(f"{source.dataset_id} has no simulator that can be put where its observations say")
    scale = fitted.job.scales.state.scale.cpu().numpy()
    states, recorded, inverse, steps = real_paths(fitted.job.episodes, fitted.job.models.act, proposals.steps, seed)
    jobs: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {
        "bridges": (proposals.states, proposals.actions, proposals.steps),
        "real windows": (states, recorded, steps),
        "real windows, inverse model's actions": (states, inverse, steps),
    }
    errors: dict[str, np.ndarray] = {}
    for done, (name, job) in enumerate(jobs.items(), start=1):
        errors[name] = oracle_errors(simulator, *job, scale)
        if progress is not None:
            progress("proposals", done, len(jobs))
    accepted = qualify(proposals, transform.qualify) == Outcome.ACCEPTED
    bridges = errors.pop("bridges")
    rows = {
        "bridges accepted": summary(bridges[accepted], proposals.steps[accepted]),
        "bridges rejected": summary(bridges[~accepted], proposals.steps[~accepted]),
        **{name: summary(values, steps) for name, values in errors.items()},
    }
    walls = crossed(simulator, proposals.states, proposals.steps)
    real = crossed(simulator, states, steps)
    if walls is not None and real is not None:
        through = {"bridges accepted": walls[accepted], "bridges rejected": walls[~accepted], "real windows": real}
        for name, paths in through.items():
            rows[name]["through_walls"] = int(paths.sum())
    return {
        "pairs": len(proposals),
        "delta": transform.qualify.delta,
        "accepted_median": rows["bridges accepted"]["median"],
        "floor_median": rows["real windows, inverse model's actions"]["median"],
        "paths": rows,
        "agreement": agreement(doubt(proposals, transform.qualify), bridges, DELTAS),
    }


def summary(errors: np.ndarray, steps: np.ndarray) -> dict[str, Any]:
    """Where the error of paths sits: largest of a path, and by position.

    Args:
        errors: `(B, L + 1)` of each transition; NaN where the simulator cannot tell.
        steps: `(B,)` generated states of each.
    """
    if len(errors) == 0:
        return {"n": 0} | dict.fromkeys(("median", "q90", "first", "inner", "last", "judged"), float("nan"))
    position, worst = np.arange(errors.shape[1]), largest(errors)
    inner = (position > 0) & (position < steps[:, None])
    return {
        "n": len(errors),
        "median": quantile(worst),
        "q90": quantile(worst, 0.9),
        "first": quantile(errors[:, 0]),
        "inner": quantile(errors[inner]),
        "last": quantile(errors[np.arange(len(errors)), steps]),
        "judged": float(1 - np.isnan(errors[position <= steps[:, None]]).mean()),
    }
