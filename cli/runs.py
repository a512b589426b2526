"""`minari-stitch runs`: what augmentations keep to be reused, and how to be rid of it."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated, Optional

import typer
from rich.table import Table

from .common import Json, errors, out

_LIST_EXAMPLE = "[bold]Example[/]\n\n  minari-stitch runs list"
_CLEAN_EXAMPLES = (
    "[bold]Examples[/]\n\n  minari-stitch runs clean demo-hopper --yes\n\n  minari-stitch runs clean --older-than 30"
)
runs_app = typer.Typer(help="Models and proposals kept for later runs.", no_args_is_help=True, epilog=_LIST_EXAMPLE)
_DAY = 86_400


def _megabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.1f} MB"


@runs_app.command("list", epilog=_LIST_EXAMPLE)
def list_runs(as_json: Json = False) -> None:
    """List run directories beside the datasets, the largest first."""
    with errors(verbose=False):
        from minari_stitch.data.kept import kept_runs, runs_path

        kept = kept_runs()
        if as_json:
            print(json.dumps([dataclasses.asdict(run) | {"path": str(run.path)} for run in kept]))
            return
        table = Table("Run of", "Size", "Models", "Chunks", "Last used")
        table.columns[0].overflow = "fold"  # `runs clean` takes the whole name
        for run in kept:
            row = (_megabytes(run.n_bytes), f"{run.models}", f"{run.chunks}", f"{run.age / _DAY:.1f} days ago")
            table.add_row(run.name, *row)
        out.print(table)
        out.print(f"{_megabytes(sum(run.n_bytes for run in kept))} in {runs_path()}", highlight=False, soft_wrap=True)


@runs_app.command(epilog=_CLEAN_EXAMPLES)
def clean(
    name: Annotated[Optional[str], typer.Argument(help="Only runs whose name begins so.")] = None,  # noqa: UP045
    older_than: Annotated[float, typer.Option(min=0, metavar="DAYS", help="Only runs not used for so long.")] = 0.0,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete run directories. Datasets stay; another augmentation of the same source trains anew."""
    with errors(verbose=False):
        from minari_stitch.data.kept import kept_runs, remove

        found = [run for run in kept_runs() if run.name.startswith(name or "") and run.age >= older_than * _DAY]
        for run in found:
            out.print(f"{run.name}  {_megabytes(run.n_bytes)}", highlight=False, soft_wrap=True)
        if not found:
            out.print("There is no such run: minari-stitch runs list shows all.")
        elif yes or typer.confirm(f"Delete {len(found)} of them?"):
            out.print(f"Freed {_megabytes(remove(found))}.", highlight=False)
