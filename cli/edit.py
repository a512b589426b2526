"""The commands that make a dataset of parts of another one: `filter`."""

from __future__ import annotations

import json
import os
import time
from typing import Annotated, Optional

import typer

from minari_stitch.progress import Bars

from . import view
from .common import Json, OutputId, Verbose, Workers, err, errors, out

FILTER_EXAMPLES = (
    "[bold]Examples[/]",
    "minari-stitch filter demo/hopper/medium-replay-stitched-v0 --delta 0.25",
    "minari-stitch filter demo/hopper/medium-replay-stitched-v0 --verified",
    "[dim]--verified asks the simulator about every generated step. What it keeps was not chosen by the data "
    "alone, and its metadata say so.[/]",
)


def filter(  # noqa: A001 - the command's name
    dataset_id: Annotated[str, typer.Argument(metavar="ID", help="A dataset that augment wrote.")],
    delta: Annotated[Optional[float], typer.Option(help="The smaller threshold.")] = None,  # noqa: UP045
    verified: Annotated[
        bool, typer.Option("--verified", help="Keep what the simulator confirms at delta \\[default: the dataset's].")
    ] = False,
    output_id: OutputId = None,
    workers: Workers = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Write the part of a stitched dataset that qualifies at a smaller delta, or that the simulator confirms."""
    with errors(verbose):
        from minari_stitch import edit

        begin = time.monotonic()
        with Bars(err) as progress:
            result = edit.filter(
                dataset_id,
                delta=delta,
                verified=verified,
                output_id=output_id,
                workers=(os.cpu_count() or 1) if workers is None else workers,
                progress=progress,
            )
        if as_json:
            print(json.dumps(view.result_json(result, time.monotonic() - begin)))
            return
        how = [f"qualify at delta {delta:g}"] if delta is not None else []
        how += ["are confirmed by the simulator"] if verified else []
        out.print(
            f"[green]{result.n_episodes:,}[/] stitched episodes ({result.n_steps:,} steps) {' and '.join(how)}: "
            f"[cyan]{result.dataset_id}[/]"
        )
        view.print_next(out, result.dataset_id)
