"""The commands that say what a dataset is worth: `check`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from .common import Json, Verbose, err, errors, out

if TYPE_CHECKING:
    from minari_stitch.quality.check import Checked

CHECK_EXAMPLES = (
    "[bold]Examples[/]",
    "minari-stitch check demo/hopper/medium-replay-v0",
    "minari-stitch check my/data-v0 --strict --json",
    "[dim]Exit code 1 if there is an error (with --strict: or a warning). Any Minari dataset can be checked, of any "
    "size.[/]",
)


def check(
    dataset_id: Annotated[str, typer.Argument(metavar="ID", help="Any Minari dataset.")],
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail too.")] = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Is a dataset sound? Spaces, lengths, totals, ends, NaN, duplicates, metadata, goals and rewards."""
    with errors(verbose):
        from minari_stitch.inspect import check
        from minari_stitch.progress import Bars

        with Bars(err) as progress:
            found = check(dataset_id, progress=progress)
        if as_json:
            print(json.dumps(found.to_dict()))
        else:
            _print_findings(found)
        if not found.ok or (strict and found.findings):
            raise typer.Exit(1)


def _print_findings(found: Checked) -> None:
    colours = {"error": "red", "warning": "yellow"}
    for finding in found.findings:
        out.print(f"[{colours[finding.level]}]{finding.level}[/] [bold]{finding.kind}[/]: ", end="")
        out.print(finding.what, markup=False, highlight=False, soft_wrap=True)
        for place in finding.where:
            out.print(f"  {place}", markup=False, highlight=False, soft_wrap=True, style="dim")
    worst = [sum(finding.level == level for finding in found.findings) for level in colours]
    verdict = "[green]sound[/]" if found.ok else "[red]not sound[/]"
    out.print(
        f"[cyan]{found.dataset_id}[/] is {verdict}: {found.n_episodes:,} episodes, {found.n_steps:,} steps, "
        f"{worst[0]} errors, {worst[1]} warnings",
        highlight=False,
        soft_wrap=True,
    )
