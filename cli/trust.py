"""The commands that say what a dataset is worth: `check`, `verify`, `report` and `card`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from .common import Json, Verbose, Workers, err, errors, id_argument, out, processes
from .view import new_table

if TYPE_CHECKING:
    from minari_stitch.quality.check import Checked, Finding
    from minari_stitch.quality.verify import Verified

CHECK_EXAMPLES = (
    "[bold]Examples[/]",
    "minari-stitch check demo/hopper/medium-replay-v0",
    "minari-stitch check my/data-v0 --strict --json",
    "[dim]Exit code 1 if there is an error (with --strict: or a warning). Any Minari dataset can be checked, of any "
    "size.[/]",
)
VERIFY_EXAMPLES = (
    "[bold]Examples[/]",
    "minari-stitch verify demo/hopper/medium-replay-stitched-v0",
    "minari-stitch verify demo/hopper/medium-replay-stitched-v0 --steps 5000 --pairs 0 --json",
    "[dim]Exit code 1 if the dataset is not true. Hopper, Walker2d, HalfCheetah, point and ant mazes, Adroit's pen, "
    "and whatever holds qpos and qvel in its infos; elsewhere learned errors stand, and the result says so.[/]",
)
REPORT_EXAMPLES = (
    "[bold]Examples[/]",
    "minari-stitch report demo/hopper/medium-replay-stitched-v0",
    "minari-stitch report demo/hopper/medium-replay-stitched-v0 demo/hopper/medium-replay-ser-v0 --output both.html",
    "[dim]One HTML page that needs no network: is the dataset valid, true, new, useful; what it looks like; where it "
    "comes from. Robots are drawn where there is OpenGL (libegl1 or libosmesa6).[/]",
)
CARD_EXAMPLES = (
    "[bold]Examples[/]",
    "minari-stitch card demo/hopper/medium-replay-stitched-v0",
    "minari-stitch card my/data-v0 --license cc-by-4.0",
    "[dim]Datasets that this package writes have a card from the start, and verify renews it. `minari upload` pushes "
    "it with the data.[/]",
)


def check(
    dataset_id: Annotated[str, id_argument(help="Any Minari dataset.")],
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail too.")] = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Is a dataset sound? Spaces, lengths, totals, ends, NaN, duplicates, metadata, goals and rewards."""
    with errors(verbose):
        from minari_stitch.api.trust import check
        from minari_stitch.progress import Bars

        with Bars(err) as progress:
            found = check(dataset_id, progress=progress)
        if as_json:
            print(json.dumps(found.to_dict()))
        else:
            _print_checked(found)
        if not found.ok or (strict and found.findings):
            raise typer.Exit(1)


def verify(
    dataset_id: Annotated[str, id_argument(help="A dataset that augment wrote, or any other.")],
    delta: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Threshold in standardised state space \\[default: the dataset's]."),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, metavar="N", help="Generated steps to judge at most.")] = 50_000,
    pairs: Annotated[
        int, typer.Option(min=0, metavar="N", help="Proposals to judge, if their run is still there.")
    ] = 512,
    run_dir: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Run directory of the augmentation \\[default: beside the datasets]."),
    ] = None,
    workers: Workers = None,
    seed: Annotated[int, typer.Option(help="Chooses steps.")] = 0,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Is a dataset true? The simulator's word on generated and real steps, rewards and ends."""
    with errors(verbose):
        from minari_stitch.api.trust import verify
        from minari_stitch.progress import Bars

        with Bars(err) as progress:
            found = verify(
                dataset_id,
                delta=delta,
                n_steps=steps,
                pairs=pairs,
                run_dir=run_dir,
                workers=processes(workers),
                seed=seed,
                progress=progress,
            )
        if as_json:
            print(json.dumps(found.to_dict()))
        else:
            _print_verified(found)
        if not found.ok:
            raise typer.Exit(1)


def report(
    dataset_id: Annotated[str, id_argument(help="A dataset that augment wrote, or any other.")],
    other_id: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(metavar="[OTHER]", help="A second one, to compare."),
    ] = None,
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="FILE", help="The page \\[default: NAME-report.html, in this folder]."),
    ] = None,
    steps: Annotated[
        int, typer.Option(min=1, metavar="N", help="Generated steps that the simulator judges at most.")
    ] = 20_000,
    pairs: Annotated[
        int, typer.Option(min=0, metavar="N", help="Proposals that it judges, if their run is still there.")
    ] = 512,
    run_dir: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Run directory of the augmentation \\[default: beside the datasets]."),
    ] = None,
    results: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Results of benchmarks, looked into if it is there.")
    ] = Path("benchmarks/results"),
    workers: Workers = None,
    seed: Annotated[int, typer.Option(help="Chooses steps.")] = 0,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Write one page about a dataset: is it valid, true, new, useful, and where does it come from?"""
    with errors(verbose):
        from minari_stitch.api.trust import report
        from minari_stitch.progress import Bars
        from minari_stitch.quality.report import check_output

        if output is not None:
            check_output(output)
        with Bars(err) as progress:
            page = report(
                dataset_id,
                other_id,
                n_steps=steps,
                pairs=pairs,
                run_dir=run_dir,
                results=results,
                workers=processes(workers),
                seed=seed,
                progress=progress,
            )
        if as_json and output is None:
            print(json.dumps(page.to_dict()))
            return
        stem = "-and-".join(one.dataset_id.replace("/", "-") for one in page.reports)
        path = page.save(output or f"{stem}-report.html")
        if as_json:
            print(json.dumps(page.to_dict()))
            return
        for one in page.reports:
            out.print(f"[cyan]{one.dataset_id}[/]")
            verdict, advice = one.advice
            out.print(f"  [{_VERDICTS[verdict]}]{advice}[/]", highlight=False, soft_wrap=True)
            for section, (verdict, why) in one.verdicts.items():
                out.print(f"  [{_VERDICTS[verdict]}]{section:<7}{verdict:<8}[/]", end="")
                out.print(why, markup=False, highlight=False, soft_wrap=True)
        out.print(f"Written to {path}", markup=False, highlight=False, soft_wrap=True)


def card(
    dataset_id: Annotated[str, id_argument(help="A local dataset.")],
    license: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="NAME", help="Of the data (cc-by-4.0, mit, other) \\[default: the source's]."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Replace a README.md of somebody else; take changed data as they are.")
    ] = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Write the card of a dataset: a README.md in its folder, in the form of Hugging Face."""
    with errors(verbose):
        from minari_stitch.api.trust import card
        from minari_stitch.progress import Bars

        with Bars(err) as progress:
            path = card(dataset_id, license=license, force=force, progress=progress)
        if as_json:
            print(json.dumps({"dataset_id": dataset_id, "path": str(path), "text": path.read_text(encoding="utf-8")}))
        else:
            out.print(str(path), markup=False, highlight=False, soft_wrap=True)


_VERDICTS = {"good": "green", "fair": "yellow", "bad": "red", "unknown": "dim"}


def _print_checked(found: Checked) -> None:
    _print_findings(found.findings)
    worst = [sum(finding.level == level for finding in found.findings) for level in _COLOURS]
    verdict = "[green]sound[/]" if found.ok else "[red]not sound[/]"
    out.print(
        f"[cyan]{found.dataset_id}[/] is {verdict}: {found.n_episodes:,} episodes, {found.n_steps:,} steps, "
        f"{worst[0]} errors, {worst[1]} warnings",
        highlight=False,
        soft_wrap=True,
    )


_PATHS = {
    "bridges accepted": "proposed, accepted",
    "bridges rejected": "proposed, rejected",
    "real windows": "real windows",
    "real windows, inverse model's actions": "same, inverse's actions",
}
_COLOURS = {"error": "red", "warning": "yellow"}


def _print_findings(findings: Iterable[Finding]) -> None:
    for finding in findings:
        out.print(f"[{_COLOURS[finding.level]}]{finding.level}[/] [bold]{finding.kind}[/]: ", end="")
        out.print(finding.what, markup=False, highlight=False, soft_wrap=True)
        for place in finding.where:
            out.print(f"  {place}", markup=False, highlight=False, soft_wrap=True, style="dim")


def _print_verified(found: Verified) -> None:
    columns = ("n", "median", "q90", "first", "inner", "last")
    paths: dict[str, Mapping[str, Any]] = {"generated": found.bridges, "real steps": found.real}
    for name, row in found.proposals.get("paths", {}).items():
        paths[str(_PATHS.get(name, name))] = row
    names = ("#", "median", "90 %", "first", "inner", "last")
    table = new_table(f"Error against {found.judge}: largest of each path, and by position", "", *names)
    for name, row in paths.items():
        if row.get("n"):
            table.add_row(name, *(_number(row.get(column)) for column in columns))
    out.print(table)
    if found.rewards or found.ends:
        table = new_table("Rewards and ends", "", "# Steps", "reward off", "each by", "ends agree")
        for name, row in found.rewards.items():
            agree = f"{found.ends[name]['agree']:.1%}" if name in found.ends else ""
            table.add_row(name, f"{row['n']:,}", f"{row['bias']:+.3g}", f"{row['mean_absolute']:.3g}", agree)
        out.print(table)
    agreement = {f"{row['delta']:g}": row for row in found.proposals.get("agreement", [])} or found.agreement
    if agreement:
        of = "all proposals" if found.proposals else "the bridges that were written"
        table = new_table(f"What delta is worth, of {of}", "delta", "accepted", "precision", "recall")
        for name, row in agreement.items():
            table.add_row(name, *(_share(row[column]) for column in ("accepted", "precision", "recall")))
        out.print(table)
    _print_findings(found.findings)
    share = found.bridges.get("confirmed")
    said = f": {share:.1%} of its bridges are within delta {found.delta:g}" if share is not None else ""
    if "through_walls" in found.bridges:
        said += f", {found.bridges['through_walls']:.1%} go through a wall"
    verdict = "[red]not true[/]" if not found.ok else "[green]true[/]" if found.simulated else "[yellow]not refuted[/]"
    out.print(f"[cyan]{found.dataset_id}[/] is {verdict} by {found.judge}{said}", highlight=False, soft_wrap=True)


def _number(value: Any) -> str:
    if value is None or value != value:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}" if value > 1e-9 else "0"


def _share(value: float) -> str:
    return "" if value != value else f"{value:.1%}"
