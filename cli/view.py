"""What the commands print: tables of results, reports and recipes, and the same as plain values."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from .clients import CLIENTS, lines

if TYPE_CHECKING:
    from minari_stitch.config import Setting
    from minari_stitch.cost import Estimate
    from minari_stitch.data.minari_io import Dataset
    from minari_stitch.pipeline import Augmented

_OUTCOMES = {
    "accepted": "accepted",
    "unreachable": "no target the dream reaches that raises the return",
    "terminated": "a predicted end of the episode inside the bridge",
    "inconsistent": "a transition off the dynamics by delta or more",
    "adrift": "errors add up towards the target: no action leads there in time",
    "far": "a state, or the whole way, far from all data",
    "bent": "the way leaves the straight one by more than qualify.bend",
    "not_better": "the return of the bridge's start would not rise",
    "broken": "an earlier bridge of the same chain does not qualify",
}
_QUANTILES = (0.05, 0.5, 0.95)


def new_table(title: str | None, *columns: str) -> Table:
    """A table whose first column is a name, and the others numbers."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for index, column in enumerate(columns):
        if index == 0:
            table.add_column(column, style="cyan", no_wrap=True)  # A name that is cut short cannot be typed.
        else:
            table.add_column(column, justify="right", overflow="fold")  # a number that is cut short is another one
    return table


def print_result(console: Console, source: Dataset, result: Augmented, seconds: float, form: str | None) -> None:
    """Print the summary of an augmentation, of bridges in a `form`, and what to type next."""
    from gymnasium.spaces import Box

    table = new_table(None, "Dataset", "# Episodes", "# Steps", "# Synthetic")
    table.add_row(source.dataset_id, f"{len(source.episodes):,}", f"{source.episodes.n_steps:,}", "")
    made = (f"[green]{count:,}[/]" for count in (result.n_episodes, result.n_steps, result.n_synthetic))
    table.add_row(result.dataset_id, *made)
    console.print(table)
    _print_outcomes(console, result.report)
    minutes, rest = divmod(round(seconds), 60)
    took = f"{minutes} min {rest} s" if minutes else f"{rest} s"
    console.print(f"Done in {took}. Written to {result.path}", highlight=False, soft_wrap=True)
    _print_share(console, result.n_synthetic, result.n_steps)
    print_next(console, result.dataset_id)
    if not np.ptp(source.episodes.rewards):
        console.print(
            "       Its rewards are all alike: it is for learners that pursue goals in hindsight, as OGBench's do "
            "(docs/howto/ogbench.md)",
            highlight=False,
            soft_wrap=True,
        )
        return
    learner = {"full": "dt", "onward": "dt", "bridge": "td3_bc", "transitions": "td3_bc"}.get(form or "")
    if learner is not None:
        console.print(
            f"       python benchmarks/run.py --algo {learner} --dataset {source.dataset_id} --augmented-dataset "
            f"{result.dataset_id}   # does it help?",
            highlight=False,
            soft_wrap=True,
        )
    if isinstance(source.observation_space, Box):
        for number, library in enumerate(CLIENTS):
            code = "".join(f"    {line}\n" for line in lines(library, result.dataset_id))
            said = f"or with {library}:" if number else f"\nTrain on it with {library}:"
            console.print(f"{said}\n{code.rstrip()}", markup=False, highlight=False, soft_wrap=True)


_ANNOUNCED = 10.0  # seconds: less is not worth a line


def announce(console: Console, ahead: Estimate) -> None:
    """Say before long work what it will take."""
    if not ahead.existing and ahead.seconds >= _ANNOUNCED:
        console.print(f"Ahead: {ahead}", highlight=False, soft_wrap=True)


def print_estimate(console: Console, ahead: Estimate, as_json: bool) -> None:
    """Print what an augmentation would take."""
    from minari_stitch.cost import duration

    if as_json:
        print(json.dumps(ahead.to_dict()))
        return
    console.print(f"[cyan]{ahead.dataset_id}[/]: {ahead.n_steps:,} steps by {ahead.method} of {ahead.source}")
    if ahead.existing:
        console.print("It is what this command writes, and is there already: nothing would be written.")
    table = new_table(None, "Stage", "#", "About")
    for part in ahead.work:
        if part.count:
            table.add_row(part.stage, f"{part.count:,} {part.unit}", duration(ahead.stages[part.stage]))
    if table.rows:
        console.print(table)
    console.print(f"In all {ahead}.", highlight=False, soft_wrap=True)
    console.print("Nothing was written: without --dry-run it will be.", style="dim")


def _print_share(console: Console, n_synthetic: int, n_steps: int) -> None:
    """Say what a learner sees of a model's work."""
    if n_synthetic:
        console.print(
            f"{n_synthetic:,} of {n_steps:,} steps are synthetic. Mixed with original data 4:1 they are "
            f"{n_synthetic / n_steps / 5:.1%} of a batch, or 20 % where only they are drawn (bridges).",
            highlight=False,
            soft_wrap=True,
        )


def print_existing(console: Console, result: Augmented) -> None:
    """Say that the same is there already."""
    console.print(
        f"[cyan]{result.dataset_id}[/] is what this command writes, and is there already: nothing was written. Use "
        "--force to write it once more, or --dataset-id to write it elsewhere.",
        highlight=False,
        soft_wrap=True,
    )
    print_next(console, result.dataset_id)


def print_mix(console: Console, dataset: Dataset) -> None:
    """Print what a mix consists of, and how much of it is synthetic."""
    report = report_json(dataset)
    console.print(f"[cyan]{dataset.dataset_id}[/]: a mix of {len(report['sources'])} datasets", highlight=False)
    table = new_table(None, "Dataset", "# Episodes", "# Steps", "Made by")
    for part in report["sources"]:
        made = part["metadata"].get("minari_stitch", {})
        how = f"{made['method']} of {made['source']}" if made else ""
        table.add_row(part["dataset_id"], f"{part['n_episodes']:,}", f"{part['n_steps']:,}", how)
    console.print(table)
    n_steps = dataset.episodes.n_steps
    console.print(f"{report['n_synthetic']:,} of {n_steps:,} steps are synthetic", highlight=False)


def print_next(console: Console, dataset_id: str) -> None:
    """Print the commands that make sense now."""
    console.print(f"\nNext:  minari-stitch show {dataset_id}", highlight=False, soft_wrap=True)
    console.print(
        f"       python -c \"import minari; print(minari.load_dataset('{dataset_id}'))\"",
        highlight=False,
        soft_wrap=True,
    )


def result_json(result: Augmented, seconds: float) -> dict[str, Any]:
    """The result of an augmentation as plain values."""
    return {
        "dataset_id": result.dataset_id,
        "path": str(result.path),
        "n_episodes": result.n_episodes,
        "n_steps": result.n_steps,
        "n_synthetic": result.n_synthetic,
        "seconds": round(seconds, 2),
        "existing": result.existing,
        "report": dict(result.report),
    }


def report_json(dataset: Dataset) -> dict[str, Any]:
    """The report of a stitched dataset as plain values."""
    from minari_stitch.data.provenance import MIX_KEY, RECORD_KEY, stitch_record

    if MIX_KEY in dataset.metadata and RECORD_KEY not in dataset.metadata:
        episodes = dataset.episodes
        synthetic = episodes.infos["synthetic"][episodes.step_state] if "synthetic" in episodes.infos else np.zeros(1)
        return {"dataset_id": dataset.dataset_id, **dataset.metadata[MIX_KEY], "n_synthetic": int(synthetic.sum())}
    record = stitch_record(dataset.dataset_id, dataset.metadata)
    return {"dataset_id": dataset.dataset_id, **record, "bridges": _bridges(dataset)}


def print_report(console: Console, dataset: Dataset) -> None:
    """Print the report of a stitched dataset."""
    from minari_stitch.data.provenance import MIX_KEY, ORACLE_KEY, RECORD_KEY, stitch_record

    if MIX_KEY in dataset.metadata and RECORD_KEY not in dataset.metadata:
        print_mix(console, dataset)
        return
    record = stitch_record(dataset.dataset_id, dataset.metadata)
    made = f"[cyan]{dataset.dataset_id}[/]: {record['method']} of {record['source']}, seed {record['seed']}"
    console.print(made, highlight=False)
    console.print(
        f"{record['n_episodes']:,} episodes made, {record['n_steps']:,} steps"
        + ("" if record.get("n_synthetic", 1) else ", none of them synthetic")
        + (
            f"; {len(dataset.episodes) - record['n_episodes']:,} original episodes"
            if record["include_original"]
            else ""
        ),
        highlight=False,
    )
    _print_share(console, record.get("n_synthetic", 0), record["n_steps"])
    if "filtered_from" in record:
        console.print(f"filtered from {record['filtered_from']}; the outcomes below are those of the first run")
    _print_outcomes(console, record["report"])
    bridges = _bridges(dataset)
    if bridges:
        table = new_table("Bridges", "", *(f"{q:.0%}" for q in _QUANTILES), "mean")
        for name, row in bridges.items():
            table.add_row(name, *(f"{row[f'q{q:g}']:,.3g}" for q in _QUANTILES), f"{row['mean']:,.3g}")
        console.print(table)
    oracle = dataset.metadata.get(ORACLE_KEY)
    if oracle is None:
        console.print(
            f"Oracle error: not measured (minari-stitch verify {dataset.dataset_id})",
            highlight=False,
            soft_wrap=True,
        )
    elif oracle.get("bridges", {}).get("n"):
        console.print(
            f"Error of bridges against {oracle['judge']} (largest of each, median): "
            f"[green]{oracle['bridges']['median']:.3g}[/]; {oracle['bridges']['confirmed']:.1%} are within delta "
            f"{oracle['delta']:g}",
            highlight=False,
            soft_wrap=True,
        )


def print_settings(console: Console, rows: Iterable[Setting]) -> None:
    """Print settings with what they take, their values and what they are."""
    for row in rows:
        console.print(
            f"[cyan]{row.name}[/] = [green]{escape(str(row.value))}[/]  [dim]{escape(row.kind)}[/]", highlight=False
        )
        console.print(Padding(row.about, (0, 0, 0, 4)), highlight=False, markup=False)


def print_recipes(console: Console, recipes: Iterable[Any], exists: Callable[[str], bool]) -> None:
    """Print the demo datasets by environment, in lines that any terminal is wide enough for."""
    for env_id, group in itertools.groupby(recipes, key=lambda recipe: recipe.env_id):
        console.print(env_id, style="bold", highlight=False)
        for recipe in group:
            bounds = {f"{extreme(recipe.actor_returns):,.0f}": None for extreme in (min, max) if recipe.actor_returns}
            returns = f"; returns {' to '.join(bounds)}" if bounds else ""
            local = "  [green]local[/]" if exists(recipe.dataset_id) else ""
            console.print(f"  [cyan]{recipe.dataset_id}[/]{local}", highlight=False)
            console.print(Padding(f"{recipe.description}{returns}", (0, 0, 0, 6)), highlight=False, markup=False)
        console.print()
    console.print("Next:  minari-stitch augment demo/hopper/medium-replay-v0 --delta 2", highlight=False)


def _print_outcomes(console: Console, report: Any) -> None:
    if "proposed" in report:
        _print_pairs(console, report)
    else:
        _print_counts(console, report)
    if report.get("goal_dimensions"):
        console.print(
            f"[yellow]{report['goal_dimensions']} observations never change within an episode, as a goal does not: "
            "bridges move them from the source to the target, and part of the raised return may be an easier goal."
            "[/]",
            soft_wrap=True,
        )
    if "acceptance" in report:
        shares = ", ".join(f"{share:.1%} at {delta}" for delta, share in report["acceptance"].items())
        console.print(
            f"[bold]Acceptance by delta[/] (squared distance in standardised state space): {shares}", highlight=False
        )
    if "calibration" in report:
        calibration = report["calibration"]
        console.print(
            f"Delta is calibrated on {calibration['windows']:,} real windows that no network learned from: "
            f"{calibration['coverage']:.0%} of the accepted bridges should be that near to the truth.",
            highlight=False,
            soft_wrap=True,
        )


def _print_counts(console: Console, report: Any) -> None:
    """What a method without pairs has to say: numbers, and counts by end or length."""
    table = new_table(None, "Report", "")
    table.columns[1].justify = "left"
    for name, value in report.items():
        if name == "acceptance":
            continue
        counts = value.items() if isinstance(value, dict) else [("", value)]
        words = ", ".join(f"{key} {number:,.6g}".strip() for key, number in counts if number or key == "")
        table.add_row(name.replace("_", " "), words)
    console.print(table)


def _print_pairs(console: Console, report: Any) -> None:
    table = new_table("Proposed pairs", "Outcome", "# Pairs", "Share", "Why")
    for name, why in _OUTCOMES.items():
        count = report.get(name, 0)
        if name in ("bent", "broken") and not count:  # what was not asked, or of chains where none is
            continue
        style = "green" if name == "accepted" else ""
        table.add_row(name.replace("_", " "), f"{count:,}", f"{count / report['proposed']:.1%}", why, style=style)
    table.columns[3].justify = "left"
    table.add_row("proposed", f"{report['proposed']:,}", "100%", "")
    console.print(table)


def _bridges(dataset: Dataset) -> dict[str, dict[str, float]]:
    """Quantiles and mean over stitched episodes."""
    rows = [metadata for metadata in dataset.episodes.metadata if metadata.get("augmented")]
    if not rows or "bridge_states" not in rows[0]:
        return {}
    columns = {
        "generated states": np.array([row["bridge_states"] for row in rows], float),
        "dynamics error": np.array([row["dynamics_error"] for row in rows]),
        "bound on the error": np.array([row["error_bound"] for row in rows]),
        "drift": np.array([row["drift"] for row in rows]),
        "support": np.array([row["support"] for row in rows]),
        "return before": np.array([row["return_before"] for row in rows]),
        "return after": np.array([row["return_after"] for row in rows]),
    }
    columns["return raised by"] = columns["return after"] - columns["return before"]
    return {
        name: {f"q{q:g}": float(np.quantile(values, q)) for q in _QUANTILES} | {"mean": float(values.mean())}
        for name, values in columns.items()
    }
