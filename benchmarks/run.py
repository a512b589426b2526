"""Does it help? Train learners on a dataset and on its mix with a stitched one, play, and compare by seed.

    python benchmarks/run.py --algo dt
    python benchmarks/run.py --algo all --dataset demo/walker2d/medium-v0 --budget medium --seeds 5
    python benchmarks/run.py --suite table1 --executor ray

Finished cells are kept in benchmarks/results/ and not run again, so that a killed run goes on with the same command.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Optional, get_args

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import board, experiment, prepare
from benchmarks.batches import parse_ratio
from benchmarks.budgets import ALGORITHMS, BUDGETS, Budget
from benchmarks.comparison import COLUMNS, captions, compare, diverged, rows, summary
from benchmarks.data import check_kind
from benchmarks.executors import execute
from benchmarks.results import DEFAULT_FOLDER, Cell, Results
from benchmarks.suites import DEFAULT_DATASET, MIXES, RECOMMENDED, SUITES, Experiment, Family, Mix, choose
from minari_stitch.errors import ConfigError, DatasetNotFoundError, StitchError
from minari_stitch.executor import Executor

app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
err = Console(stderr=True)


@app.command()
def main(
    algo: Annotated[str, typer.Option(help=f"{', '.join(ALGORITHMS)} or all.")] = "dt",
    dataset: Annotated[str, typer.Option(metavar="ID", help="Original dataset.")] = DEFAULT_DATASET,
    augmented_dataset: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="ID", help="Augmented dataset \\[default: what suits the learner, made if missing]."),
    ] = None,
    ratio: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Original : augmented in every batch \\[default: what suits the learner]."),
    ] = None,
    augmented: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="Draw the augmented side from bridges (synthetic steps) or whole episodes "
            "\\[default: what suits the learner]."
        ),
    ] = None,
    seeds: Annotated[Optional[int], typer.Option(help="Seeds 0, 1, ... \\[default: the budget's].")] = None,  # noqa: UP045
    budget: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help=f"{', '.join(BUDGETS)} \\[default: small, or the suite's]."),
    ] = None,
    steps: Annotated[Optional[int], typer.Option(help="Gradient steps \\[default: the budget's].")] = None,  # noqa: UP045
    episodes: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Episodes of an evaluation \\[default: the budget's]; 100 for a final table."),
    ] = None,
    last: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Score the mean of the last n evaluations \\[default: the budget's]."),
    ] = None,
    suite: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help=f"Instead of --algo and --dataset: {'; '.join(f'{n}: {s.what}' for n, s in SUITES.items())}."
        ),
    ] = None,
    family: Annotated[
        Family, typer.Option(help="Datasets of a suite: demo recipes, or what `minari-stitch import-d4rl` wrote.")
    ] = "demo",
    executor: Annotated[str, typer.Option(help="local, or ray (a cluster at RAY_ADDRESS).")] = "local",
    workers: Annotated[Optional[int], typer.Option(help="Processes \\[default: one a core].")] = None,  # noqa: UP045
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    precision: Annotated[str, typer.Option(help="fp32, tf32 or bf16.")] = "fp32",
    results: Annotated[Path, typer.Option(help="Folder of the results.")] = DEFAULT_FOLDER,
    as_json: Annotated[
        bool, typer.Option("--json", help="End with a line of JSON: learner, data, [mean, low, high] at 95 %.")
    ] = False,
    tensorboard: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="FOLDER", help="Write curves and losses for TensorBoard too (extra `tensorboard`)."),
    ] = None,
) -> None:
    """Train on original and augmented data, evaluate, and print one table."""
    with _errors():
        device = _device(device)
        if tensorboard is not None:
            board.check_installed()
        on = choose("executor", executor, {name: name for name in get_args(Executor)})
        if ratio is not None:
            parse_ratio(ratio)
        if augmented is not None:
            check_kind(augmented)
        collection = choose("suite", suite, SUITES) if suite else None
        plan = choose("budget", budget or (collection.budget if collection else "small"), BUDGETS)
        plan = _adapted(plan, steps=steps, episodes=episodes, last=last)
        count = _positive("seeds", plan.seeds if seeds is None else seeds)
        processes = _positive("workers", (os.cpu_count() or 1) if workers is None else workers)
        if collection:
            experiments: Sequence[Experiment] = collection.experiments(family)
        else:
            names = ALGORITHMS if algo == "all" else (algo,)
            for name in names:
                experiment.algorithm(name)
            experiments = [_recommended(name, dataset, augmented_dataset, augmented, ratio) for name in names]
        kept = Results(results)
        wanted, missing = [], {}
        for item in experiments:
            try:
                mix = prepare.find(item, lambda text: err.print(text, markup=False))
            except DatasetNotFoundError as error:
                if collection is None:
                    raise
                missing[item.dataset] = str(error)
                continue
            wanted += experiment.cells(
                item.algo,
                item.dataset,
                mix,
                kind=item.kind or augmented or Mix().kind,
                ratio=item.ratio or ratio or Mix().ratio,
                seeds=range(count),
                budget=plan,
            )
        wanted = list(dict.fromkeys(wanted))
        finished = kept.finished()
        pending = [cell for cell in wanted if cell not in finished]
        err.print(
            f"Budget [bold]{plan.name}[/], device {device}. A score is {plan.protocol} (of {plan.evaluations}). "
            f"{len(wanted)} cells, {len(wanted) - len(pending)} of them finished before."
        )
        units = experiment.work_units(pending, plan, device=device, precision=precision)  # pyright: ignore[reportArgumentType]
        with _progress(len(pending)) as (advance, show):
            for done in execute(units, results, on=on, workers=processes, progress=show):
                advance(done)
        finished = kept.finished()
        shown = {cell: finished[cell] for cell in wanted if cell in finished}
        _print(shown, missing)
        if as_json:
            print(json.dumps(summary(shown)))
        if tensorboard is not None:
            err.print(f"{board.write(shown, tensorboard)} runs in {tensorboard}: tensorboard --logdir {tensorboard}")


def _recommended(algo: str, dataset: str, augmented_id: str | None, kind: Any | None, ratio: str | None) -> Experiment:
    """The experiment of a learner with what suits it, but for what the command line asks for."""
    mix = RECOMMENDED[algo] if kind is None else MIXES[kind]
    return Experiment(
        algo=algo,
        dataset=dataset,
        variant=mix.variant,
        ratio=ratio or mix.ratio,
        kind=mix.kind,
        augmented=augmented_id,
    )


def _adapted(budget: Budget, *, steps: int | None, episodes: int | None, last: int | None) -> Budget:
    """A budget with options of the command line."""
    if steps is not None:
        budget = dataclasses.replace(budget, steps=dict.fromkeys(ALGORITHMS, _positive("steps", steps)))
    if episodes is not None:
        budget = dataclasses.replace(budget, episodes=_positive("episodes", episodes))
    if last is not None:
        if not 1 <= last <= budget.evaluations:
            raise ConfigError(f"--last {last} is not possible: there are {budget.evaluations} evaluations")
        budget = dataclasses.replace(budget, last=last)
    return budget


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.partition(":")[0] not in ("cpu", "cuda"):
        raise ConfigError(f"--device {name} is not possible: use auto, cpu or cuda")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"--device {name} is not there: torch sees no CUDA device; use --device cpu")
    return name


def _positive(name: str, value: int) -> int:
    if value < 1:
        raise ConfigError(f"--{name} {value} is not possible: give at least 1")
    return value


def _print(finished: dict[Cell, dict], missing: dict[str, str]) -> None:
    """The one table."""
    out = Console(width=None if sys.stdout.isatty() else 160)
    comparisons = compare(finished)
    table = Table(title="Original against augmented")
    for name in COLUMNS:
        table.add_column(name, style="cyan" if name == "Dataset" else "", overflow="fold")
    for row in rows(comparisons):
        table.add_row(*row)
    if comparisons:
        out.print(table)
        for line in captions(comparisons):
            out.print(line, highlight=False)
    for line in diverged(finished):
        out.print(f"[yellow]Diverged:[/] {line}", highlight=False, soft_wrap=True)
    for why in missing.values():
        out.print(f"[yellow]Missing:[/] {why}", highlight=False, soft_wrap=True)


@contextlib.contextmanager
def _progress(cells: int) -> Iterator[tuple[Callable[[int], None], Callable[[str, int, int], None]]]:
    """Bars for all cells and each unit under way: functions to call when cells are finished, and when one goes on."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=err, disable=not err.is_terminal) as bars:
        everything = bars.add_task("cells", total=cells)
        tasks: dict = {}

        def show(label: str, done: int, total: int) -> None:
            if label not in tasks:
                tasks[label] = bars.add_task(label, total=total)
            bars.update(tasks[label], completed=done, total=total, visible=done < total)

        yield lambda done: bars.advance(everything, done), show


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except StitchError as error:
        err.print(f"[red]{type(error).__name__}[/]", end=": ")
        err.print(str(error), markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        err.print("Stopped. The same command goes on from here.")
        raise typer.Exit(130) from None


if __name__ == "__main__":
    app()
