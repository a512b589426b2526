"""The commands that make datasets without a model: `import-d4rl` and `mix`."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.console import Console

from minari_stitch.progress import Bars

from .common import Json, Verbose, err, errors, id_argument, out

IMPORT_EXAMPLES = (
    "[bold]Examples[/]",
    "minari-stitch import-d4rl hopper_medium_replay-v2.hdf5 --env hopper",
    "minari-stitch import-d4rl pen-human-v1.hdf5 --env pen --dataset-id my/pen-v0",
    "[dim]Episodes end at terminals, timeouts, breaks in the next observations and the environment's time limit. "
    "Reference scores are D4RL's.[/]",
)
MIX_EXAMPLES = (
    "[bold]Examples[/]",
    "minari-stitch mix demo/hopper/medium-v0 demo/hopper/medium-replay-v0 --dataset-id mixed/hopper-v0",
    "minari-stitch mix demo/hopper/medium-replay-v0 --fraction 0.2",
    "[dim]Environment, infos that all share, episode metadata and reference scores are kept.[/]",
)


def import_d4rl(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="HDF5 file of D4RL, v0 to v2.")],
    env: Annotated[str, typer.Option(help="hopper, halfcheetah, walker2d, pen, or a Gymnasium id such as Hopper-v5.")],
    dataset_id: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="ID", help="Id of the new dataset \\[default: by the file's name]."),
    ] = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Write a D4RL file as a Minari dataset."""
    with errors(verbose):
        from minari_stitch.api import exchange as api

        begin = time.monotonic()
        with Bars(err) as progress:
            result = api.import_d4rl(file, env=env, dataset_id=dataset_id, progress=progress)
        seconds = time.monotonic() - begin
        if as_json:
            print(json.dumps(dataclasses.asdict(result) | {"path": str(result.path), "seconds": round(seconds, 2)}))
            return
        _print_made(out, result.dataset_id, result.n_episodes, result.n_steps, f"of {result.env_id}, {seconds:.0f} s")
        ends = ", ".join(f"{count:,} by {kind}" for kind, count in result.record["ends"].items() if count)
        out.print(f"Episodes ended: {ends}", highlight=False)
        for name in ("dropped_steps", "repeated_observations", "clipped_actions"):
            if count := result.record[name]:
                out.print(f"[yellow]{name.replace('_', ' ').capitalize()}[/]: {count:,}", highlight=False)
        _print_next(out, result.dataset_id)


def mix(
    dataset_ids: Annotated[list[str], id_argument(help="Minari dataset ids, or demo/ ids.")],
    output_id: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--dataset-id", metavar="ID", help="Id of the new dataset \\[default for a share of one: NAME-20pct-v0]."
        ),
    ] = None,
    fraction: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Of each dataset, take whole episodes at random with this share of its steps."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of that choice.")] = 0,
    scores_of: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="ID", help="Dataset whose reference scores count, where they differ."),
    ] = None,
    skip_invalid: Annotated[
        bool,
        typer.Option("--skip-invalid", help="Leave invalid episodes out instead of refusing a dataset."),
    ] = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Write the episodes of several datasets, or a share of each, as a new one."""
    with errors(verbose):
        from minari_stitch.api import datasets as api

        begin = time.monotonic()
        with Bars(err) as progress:
            result = api.mix(
                dataset_ids,
                output_id,
                fraction=fraction,
                seed=seed,
                scores_of=scores_of,
                skip_invalid=skip_invalid,
                progress=progress,
            )
        if as_json:
            seconds = round(time.monotonic() - begin, 2)
            print(json.dumps(dataclasses.asdict(result) | {"path": str(result.path), "seconds": seconds}))
            return
        _print_made(out, result.dataset_id, result.n_episodes, result.n_steps, "from")
        for source in result.sources:
            out.print(
                f"  {source['n_episodes']:,} of {source['of_episodes']:,} episodes ({source['n_steps']:,} of "
                f"{source['of_steps']:,} steps) of [cyan]{source['dataset_id']}[/]",
                highlight=False,
                soft_wrap=True,
            )
        _print_next(out, result.dataset_id)


def _print_made(console: Console, dataset_id: str, n_episodes: int, n_steps: int, rest: str) -> None:
    console.print(
        f"[cyan]{dataset_id}[/]: [green]{n_episodes:,}[/] episodes, [green]{n_steps:,}[/] steps {rest}",
        highlight=False,
        soft_wrap=True,
    )


def _print_next(console: Console, dataset_id: str) -> None:
    console.print(f"\nNext:  minari-stitch augment {dataset_id} --delta 2", highlight=False, soft_wrap=True)
