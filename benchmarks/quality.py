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

from minari_stitch import minari_io
from minari_stitch.augment import ORACLE_KEY, default_run_directory, stitch_record
from minari_stitch.presets import from_dict
from minari_stitch.proposals import Outcome, Proposals
from minari_stitch.quality import MujocoLocomotion, agreement, oracle_errors, real_paths
from minari_stitch.run import Run

DELTAS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0)


def main(
    dataset_id: Annotated[str, typer.Argument(metavar="ID", help="A dataset that `minari-stitch augment` wrote.")],
    pairs: Annotated[int, typer.Option(help="Proposed pairs to judge.")] = 512,
    run_dir: Annotated[Path | None, typer.Option(help="Run directory of the augmentation.")] = None,
    seed: Annotated[int, typer.Option(help="Chooses the real windows.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Judge a stitched dataset by the real simulator."""
    dataset = minari_io.read(dataset_id, download=False, keep_infos=True)
    record = stitch_record(dataset)
    source = minari_io.read(record["source"])
    if source.fingerprint != record["source_fingerprint"]:
        raise typer.BadParameter(f"{record['source']} is no longer the dataset that {dataset_id} was made from")
    assert source.env_spec is not None
    simulator = MujocoLocomotion(source.env_spec.id)
    run = Run(
        directory=run_dir or default_run_directory(source),
        seed=record["seed"],
        device=record["device"],
        precision=record["precision"],
        threads=record["threads"],
    )
    fitted = from_dict(record["config"]).fit(source, run)
    chunks: list[Proposals] = []
    for proposals in fitted.proposals():
        chunks.append(proposals)
        if sum(map(len, chunks)) >= pairs:
            break
    scale = fitted.models.scales.state.scale.cpu().numpy()
    errors = np.concatenate([oracle_errors(simulator, c.states, c.actions, c.steps, scale) for c in chunks])
    joined = Proposals.concatenate(chunks)
    states, recorded, inverse, steps = real_paths(source.episodes, fitted.models, joined.steps, seed)
    floors = {
        "real windows": oracle_errors(simulator, states, recorded, steps, scale),
        "real windows, inverse model's actions": oracle_errors(simulator, states, inverse, steps, scale),
    }
    accepted = joined.outcomes(fitted.transform.qualify) == Outcome.ACCEPTED
    rows = {
        "bridges accepted": _summary(errors[accepted], joined.steps[accepted]),
        "bridges rejected": _summary(errors[~accepted], joined.steps[~accepted]),
        **{name: _summary(values, steps) for name, values in floors.items()},
    }
    result = {
        "pairs": len(joined),
        "delta": fitted.transform.qualify.delta,
        "accepted_median": rows["bridges accepted"]["median"],
        "floor_median": rows["real windows, inverse model's actions"]["median"],
        "paths": rows,
        "agreement": agreement(joined, errors, DELTAS),
    }
    minari_io.annotate(dataset_id, {ORACLE_KEY: result})
    if as_json:
        print(json.dumps(result))
    else:
        _print(dataset_id, result)


def _summary(errors: np.ndarray, steps: np.ndarray) -> dict[str, Any]:
    """Where the error of paths sits: largest of a path, and by position."""
    if len(errors) == 0:
        return {"n": 0} | dict.fromkeys(("median", "q90", "first", "inner", "last"), float("nan"))
    inner = (np.arange(errors.shape[1]) > 0) & (np.arange(errors.shape[1]) < steps[:, None])
    return {
        "n": len(errors),
        "median": float(np.median(errors.max(1))),
        "q90": float(np.quantile(errors.max(1), 0.9)),
        "first": float(np.median(errors[:, 0])),
        "inner": float(np.median(errors[inner])),
        "last": float(np.median(errors[np.arange(len(errors)), steps])),
    }


def _print(dataset_id: str, result: dict[str, Any]) -> None:
    console = Console()
    table = Table("Paths", "n", "max: median", "max: 90 %", "first step", "inner steps", "last step")
    for name, row in result["paths"].items():
        table.add_row(name, str(row["n"]), *(f"{row[k]:.3g}" for k in ("median", "q90", "first", "inner", "last")))
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
