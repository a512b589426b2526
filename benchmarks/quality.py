"""The oracle's word on a stitched dataset: bridges against the real simulator, accepted and rejected ones.

    python benchmarks/quality.py demo/hopper/medium-replay-stitched-v0

Rebuilds the proposals of the run from its directory (or anew where that is gone), so that rejected bridges are
judged too, sets each of their states in MuJoCo, and compares. Errors are squared distances in standardised state
space, summed over dimensions. `minari-stitch verify` does the same with what is there, and judges what was written.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from minari_stitch.data import minari_io
from minari_stitch.data.provenance import ORACLE_KEY, stitch_record
from minari_stitch.errors import InvalidDataError, StitchError
from minari_stitch.quality.proposals import found_run, judge_proposals, some_proposals


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
    source = minari_io.read(stitch_record(dataset.dataset_id, dataset.metadata)["source"])
    found = found_run(dataset, source, run_dir=run_dir)
    if found is None:
        raise InvalidDataError(
            f"{dataset_id!r} was not made by DiffStitch, or by a run of other settings: nothing to judge"
        )
    fitted = found.transform.fit(source, found.run)  # anew where it is gone
    result = judge_proposals(fitted, some_proposals(fitted, pairs), seed=seed)
    known = dataset.metadata.get(ORACLE_KEY) or {}
    minari_io.annotate(dataset_id, {ORACLE_KEY: known | {"proposals": result}})
    return result


def _print(dataset_id: str, result: dict[str, Any]) -> None:
    console = Console()
    columns = ("Paths", "n", "max: median", "max: 90 %", "first step", "inner steps", "last step", "judged")
    walls = any("through_walls" in row for row in result["paths"].values())
    table = Table(*columns, *(["through walls"] if walls else []))
    for name, row in result["paths"].items():
        errors = (f"{row[k]:.3g}" for k in ("median", "q90", "first", "inner", "last"))
        through = [str(row.get("through_walls", ""))] if walls else []
        table.add_row(name, str(row["n"]), *errors, f"{row['judged']:.1%}", *through)
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
