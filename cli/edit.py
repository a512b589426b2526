"""The commands that make a dataset of parts of another one: `filter`, `trim` and `select`; and `scores`."""

from __future__ import annotations

import dataclasses
import json
import time
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

from minari_stitch.progress import Bars

from . import view
from .common import Force, Json, OutputId, Verbose, Workers, err, errors, id_argument, out, processes

if TYPE_CHECKING:
    from minari_stitch.data.written import Written

TRIM_EXAMPLES = (
    "[bold]Examples[/]",
    "minari-stitch trim D4RL/antmaze/umaze-v1",
    "minari-stitch trim my/data-v0 --at still --tolerance 0.01 --extra 5",
)
SELECT_EXAMPLES = (
    "[bold]Examples[/]",
    "minari-stitch select demo/hopper/medium-replay-v0 --top 0.1",
    "minari-stitch select my/data-v0 --min-return 100 --max-length 500 --dataset-id my/good-v0",
)
SCORES_EXAMPLES = (
    "[bold]Examples[/]",
    "minari-stitch scores mujoco/hopper/medium-v0 --d4rl hopper",
    "minari-stitch scores my/data-v0 --random 100 --high 3000",
)
FILTER_EXAMPLES = (
    "[bold]Examples[/]",
    "minari-stitch filter demo/hopper/medium-replay-stitched-v0 --delta 0.25",
    "minari-stitch filter demo/hopper/medium-replay-stitched-v0 --verified",
    "[dim]--verified asks the simulator about every generated step. What it keeps was not chosen by the data "
    "alone, and its metadata say so.[/]",
)


def filter(  # noqa: A001 - the command's name
    dataset_id: Annotated[str, id_argument(help="A dataset that augment wrote.")],
    delta: Annotated[Optional[float], typer.Option(help="The smaller threshold.")] = None,  # noqa: UP045
    verified: Annotated[
        bool, typer.Option("--verified", help="Keep what the simulator confirms at delta \\[default: the dataset's].")
    ] = False,
    output_id: OutputId = None,
    workers: Workers = None,
    force: Force = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Write the part of a stitched dataset that qualifies at a smaller delta, or that the simulator confirms."""
    with errors(verbose):
        from minari_stitch.api import edit

        begin = time.monotonic()
        with Bars(err) as progress:
            result = edit.filter(
                dataset_id,
                delta=delta,
                verified=verified,
                output_id=output_id,
                workers=processes(workers),
                force=force,
                progress=progress,
            )
        if as_json:
            print(json.dumps(view.result_json(result, time.monotonic() - begin)))
            return
        if result.existing:
            view.print_existing(out, result)
            return
        how = [f"qualify at delta {delta:g}"] if delta is not None else []
        how += ["are confirmed by the simulator"] if verified else []
        out.print(
            f"[green]{result.n_episodes:,}[/] stitched episodes ({result.n_steps:,} steps) {' and '.join(how)}: "
            f"[cyan]{result.dataset_id}[/]"
        )
        view.print_next(out, result.dataset_id)


AnyId = Annotated[str, id_argument(help="Any Minari dataset, or a demo/ id.")]
Within = Annotated[float, typer.Option(help="How near to its goal counts as reached.")]


def trim(
    dataset_id: AnyId,
    at: Annotated[
        Literal["goal", "still"], typer.Option(help="Cut where the goal is reached, or where nothing moves any more.")
    ] = "goal",
    within: Within = 0.45,
    tolerance: Annotated[
        float, typer.Option(help="What counts as a change, as a share of an observation's standard deviation.")
    ] = 1e-3,
    extra: Annotated[int, typer.Option(help="Steps to keep after that.")] = 0,
    output_id: OutputId = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Write a dataset whose episodes are cut where their goal is reached, or where nothing moves any more."""
    with errors(verbose):
        from minari_stitch.api import edit

        with Bars(err) as bars:
            made = edit.trim(
                dataset_id, output_id, at=at, within=within, tolerance=tolerance, extra=extra, progress=bars
            )
        _print_written(made, as_json)


def select(
    dataset_id: AnyId,
    min_return: Annotated[Optional[float], typer.Option(help="Least return.")] = None,  # noqa: UP045
    max_return: Annotated[Optional[float], typer.Option(help="Greatest return.")] = None,  # noqa: UP045
    top: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Of what is left, the share with the highest returns."),
    ] = None,
    min_length: Annotated[Optional[int], typer.Option(help="Fewest steps.")] = None,  # noqa: UP045
    max_length: Annotated[Optional[int], typer.Option(help="Most steps.")] = None,  # noqa: UP045
    success: Annotated[
        Optional[bool],  # noqa: UP045
        typer.Option("--success/--failure", help="Whether the goal is reached at some step."),
    ] = None,
    within: Within = 0.45,
    output_id: OutputId = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Write the episodes of a dataset that meet all conditions."""
    with errors(verbose):
        from minari_stitch.api import edit

        with Bars(err) as bars:
            made = edit.select(
                dataset_id,
                output_id,
                min_return=min_return,
                max_return=max_return,
                top=top,
                min_length=min_length,
                max_length=max_length,
                success=success,
                within=within,
                progress=bars,
            )
        _print_written(made, as_json)


def scores(
    dataset_id: Annotated[str, id_argument(help="A local dataset.")],
    low: Annotated[Optional[float], typer.Option(help="Return of random actions.")] = None,  # noqa: UP045
    high: Annotated[Optional[float], typer.Option(help="Return of an expert.")] = None,  # noqa: UP045
    d4rl: Annotated[
        Optional[Literal["hopper", "halfcheetah", "walker2d", "pen"]],  # noqa: UP045
        typer.Option(metavar="NAME", help="Take D4RL's, of hopper, halfcheetah, walker2d or pen."),
    ] = None,
    like: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="ID", help="Take those of another local dataset."),
    ] = None,
    random: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, metavar="N", help="Measure the low one over N episodes of random actions."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of these episodes.")] = 0,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Set the reference scores of a dataset, by which returns are normalised."""
    with errors(verbose):
        from minari_stitch.api import edit

        found = edit.scores(dataset_id, low=low, high=high, d4rl=d4rl, like=like, random=random, seed=seed)
        if as_json:
            print(json.dumps({"dataset_id": dataset_id, "ref_min_score": found[0], "ref_max_score": found[1]}))
        else:
            out.print(f"[cyan]{dataset_id}[/]: reference scores {found[0]:,.6g} to {found[1]:,.6g}", highlight=False)


def _print_written(made: Written, as_json: bool) -> None:
    if as_json:
        print(json.dumps(dataclasses.asdict(made) | {"path": str(made.path)}))
        return
    out.print(
        f"[cyan]{made.dataset_id}[/]: [green]{made.n_episodes:,}[/] episodes, [green]{made.n_steps:,}[/] steps",
        highlight=False,
        soft_wrap=True,
    )
