"""The commands that exchange datasets with OGBench: `import-ogbench` and `export-ogbench`."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from .common import Json, Verbose, err, errors, id_argument, out

if TYPE_CHECKING:
    from minari_stitch.sim.ogbench import ImportedOGBench

IMPORT_EXAMPLES = (
    "[bold]Examples[/]",
    "minari-stitch import-ogbench pointmaze-medium-stitch-v0.npz --val pointmaze-medium-stitch-v0-val.npz",
    "minari-stitch import-ogbench antmaze-large-stitch-v0.npz --task 1",
    "[dim]OGBench's package is not needed; where it is installed, the datasets' environments can be built.[/]",
)
EXPORT_EXAMPLES = (
    "[bold]Example[/]",
    "minari-stitch export-ogbench ogbench/pointmaze-medium-stitch-stitched-v0 stitched.npz",
)


def import_ogbench(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="npz file, under its name in OGBench.")],
    val: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="FILE", help="Its file for validation \\[default: none]."),
    ] = None,
    task: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            help="Of a maze, the task (1 to 5) whose rewards are written: 0 in the goal, with which an episode "
            "terminates, else -1 \\[default: no rewards]."
        ),
    ] = None,
    dataset_id: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="ID", help="Id of the new dataset \\[default: by the file's name]."),
    ] = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Write a file of OGBench's as a Minari dataset."""
    with errors(verbose):
        from minari_stitch.api import exchange
        from minari_stitch.progress import Bars

        begin = time.monotonic()
        with Bars(err) as progress:
            result = exchange.import_ogbench(file, val, task=task, dataset_id=dataset_id, progress=progress)
        if as_json:
            print(json.dumps(_plain(result) | {"seconds": round(time.monotonic() - begin, 2)}))
            return
        for made in (result, *([result.validation] if result.validation else [])):
            _print_imported(made)
        pairs = "" if task else " --pairs connect"  # where there are no rewards, there are no returns to raise
        out.print(f"\nNext:  minari-stitch augment {result.dataset_id}{pairs}", highlight=False, soft_wrap=True)


def export_ogbench(
    dataset_id: Annotated[str, id_argument(help="Minari dataset id.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The new file, ending in .npz.")],
    val: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="ID", help="Dataset that validates \\[default: every tenth episode, taken out]."),
    ] = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Write a dataset as the npz files that OGBench's own loader reads."""
    with errors(verbose):
        from minari_stitch.api import exchange

        result = exchange.export_ogbench(dataset_id, file, val=val)
        if as_json:
            print(json.dumps(_plain(result)))
            return
        out.print(
            f"[cyan]{result.path}[/]: [green]{result.n_episodes:,}[/] episodes, [green]{result.n_steps:,}[/] steps; "
            f"[cyan]{result.validation_path}[/]: [green]{result.n_validation:,}[/] episodes",
            highlight=False,
            soft_wrap=True,
        )
        call = f'ogbench.make_env_and_datasets("{result.name}", dataset_path="{result.path}")'
        out.print(f"\nNext:  {call}", highlight=False, soft_wrap=True, markup=False)


def _print_imported(made: ImportedOGBench) -> None:
    of = f"of {made.env_id}" if made.env_id else "without an environment"
    out.print(
        f"[cyan]{made.dataset_id}[/]: [green]{made.n_episodes:,}[/] episodes, [green]{made.n_steps:,}[/] steps {of}; "
        f"rewards: {made.record['rewards']}",
        highlight=False,
        soft_wrap=True,
    )
    if count := made.record["steps_after_success"]:
        out.print(f"[yellow]Steps after success, dropped[/]: {count:,}", highlight=False)


def _plain(result: Any) -> dict[str, Any]:
    return json.loads(json.dumps(dataclasses.asdict(result), default=str))
