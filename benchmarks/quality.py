"""The oracle's word on a stitched dataset: bridges against the real simulator, accepted and rejected ones.

    python benchmarks/quality.py demo/hopper/medium-replay-stitched-v0

Rebuilds the proposals of the run from its directory (or anew where that is gone), so that rejected bridges are
judged too, sets each of their states in MuJoCo, and compares. Errors are squared distances in standardised state
space, summed over dimensions. The result is kept in the dataset's metadata, where `minari-stitch show` finds it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from minari_stitch.data import minari_io
from minari_stitch.data.provenance import ORACLE_KEY
from minari_stitch.diffstitch.proposals import Proposals
from minari_stitch.diffstitch.stitch import Outcome, doubt, qualify
from minari_stitch.diffstitch.transform import DiffStitch
from minari_stitch.errors import InvalidDataError, StitchError
from minari_stitch.pipeline import default_run_directory, stitch_record
from minari_stitch.registry import from_record
from minari_stitch.run import Run
from minari_stitch.sim.oracle import MujocoLocomotion, agreement, largest, oracle_errors, real_paths

DELTAS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0)


def main(
    dataset_id: Annotated[str, typer.Argument(metavar="ID", help="A dataset that `minari-stitch augment` wrote.")],
    pairs: Annotated[int, typer.Option(help="Proposed pairs to judge.")] = 512,
    run_dir: Annotated[Path | None, typer.Option(help="Run directory of the augmentation.")] = None,
    seed: Annotated[int, typer.Option(help="Chooses the real windows.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Judge a stitched dataset by the real simulator."""
    try:
        result = measure(dataset_id, pairs, run_dir, seed)
    except StitchError as error:
        Console(stderr=True).print(f"{type(error).__name__}: {error}", style="red", markup=False)
        raise typer.Exit(1) from None
    if as_json:
        print(json.dumps(result))
    else:
        _print(dataset_id, result)


def measure(dataset_id: str, pairs: int, run_dir: Path | None, seed: int) -> dict[str, Any]:
    """Judge at least `pairs` proposals and keep the result in the dataset's metadata.

    Raises:
        StitchError: The dataset or its source is missing or changed, or there is no oracle for its environment.
    """
    dataset = minari_io.read(dataset_id, download=False, keep_infos=True)
    record = stitch_record(dataset)
    source = minari_io.read(record["source"])
    if source.fingerprint != record["source_fingerprint"]:
        raise InvalidDataError(f"{record['source']} is no longer the dataset that {dataset_id} was made from")
    if source.env_spec is None:
        raise InvalidDataError(f"{record['source']} names no environment, so there is no simulator to ask")
    simulator = MujocoLocomotion(source.env_spec.id)
    run = Run(
        directory=run_dir or default_run_directory(source),
        seed=record["seed"],
        device=record["device"],
        precision=record["precision"],
        threads=record["threads"],
    )
    transform = from_record(record)
    if not isinstance(transform, DiffStitch):
        raise InvalidDataError(f"{dataset_id!r} was made by {transform.name}, which makes no bridges to judge")
    fitted = transform.fit(source, run)
    chunks: list[Proposals] = []
    for proposals in fitted.proposals():
        chunks.append(proposals)
        if sum(map(len, chunks)) >= pairs:
            break
    scale = fitted.job.scales.state.scale.cpu().numpy()
    errors = np.concatenate([oracle_errors(simulator, c.states, c.actions, c.steps, scale) for c in chunks])
    joined = Proposals.concatenate(chunks)
    states, recorded, inverse, steps = real_paths(source.episodes, fitted.job.models.act, joined.steps, seed)
    floors = {
        "real windows": oracle_errors(simulator, states, recorded, steps, scale),
        "real windows, inverse model's actions": oracle_errors(simulator, states, inverse, steps, scale),
    }
    accepted = qualify(joined, transform.qualify) == Outcome.ACCEPTED
    rows = {
        "bridges accepted": _summary(errors[accepted], joined.steps[accepted]),
        "bridges rejected": _summary(errors[~accepted], joined.steps[~accepted]),
        **{name: _summary(values, steps) for name, values in floors.items()},
    }
    result = {
        "pairs": len(joined),
        "delta": transform.qualify.delta,
        "accepted_median": rows["bridges accepted"]["median"],
        "floor_median": rows["real windows, inverse model's actions"]["median"],
        "paths": rows,
        "agreement": agreement(doubt(joined, transform.qualify), errors, DELTAS),
    }
    minari_io.annotate(dataset_id, {ORACLE_KEY: result})
    return result


def _summary(errors: np.ndarray, steps: np.ndarray) -> dict[str, Any]:
    """Where the error of paths sits: largest of a path, and by position."""
    if len(errors) == 0:
        return {"n": 0} | dict.fromkeys(("median", "q90", "first", "inner", "last", "judged"), float("nan"))
    position, worst = np.arange(errors.shape[1]), largest(errors)
    inner = (position > 0) & (position < steps[:, None])
    return {
        "n": len(errors),
        "median": float(np.nanmedian(worst)),
        "q90": float(np.nanquantile(worst, 0.9)),
        "first": float(np.nanmedian(errors[:, 0])),
        "inner": float(np.nanmedian(errors[inner])),
        "last": float(np.nanmedian(errors[np.arange(len(errors)), steps])),
        "judged": float(1 - np.isnan(errors[position <= steps[:, None]]).mean()),
    }


def _print(dataset_id: str, result: dict[str, Any]) -> None:
    console = Console()
    table = Table("Paths", "n", "max: median", "max: 90 %", "first step", "inner steps", "last step", "judged")
    for name, row in result["paths"].items():
        errors = (f"{row[k]:.3g}" for k in ("median", "q90", "first", "inner", "last"))
        table.add_row(name, str(row["n"]), *errors, f"{row['judged']:.1%}")
    table.title = f"{dataset_id}: error against the simulator, standardised and squared"
    console.print(table)
    table = Table("delta", "accepted", "true", "precision", "recall", "oracle median of accepted")
    for row in result["agreement"]:
        shares = (f"{row[k]:.1%}" for k in ("accepted", "true", "precision", "recall"))
        table.add_row(f"{row['delta']:g}", *shares, f"{row['median_accepted']:.3g}")
    table.title = "Qualification by the networks against the simulator at the same delta"
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
