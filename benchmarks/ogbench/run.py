"""Learners for goals on OGBench's point mazes: GCBC, GCIVL and GCIQL, played on the five tasks of a maze.

    python benchmarks/ogbench/run.py                                 the medium maze, made anew where it is missing
    python benchmarks/ogbench/run.py --maze large --algo gcivl --seeds 4 --alone
    python benchmarks/ogbench/run.py --maze giant --algo gcbc --budget wide --ratio 0:1
    python benchmarks/ogbench/run.py --augmented my/stitched-v0 --augmented my/chained-v0 --ratio 1:1

Unless it is told otherwise it also trains on mixes with what DiffStitch makes of the data, and with the control that
needs no model: one trajectory goes on in another from where they share a cluster. Both are made where they are missing.

Finished cells are kept in benchmarks/results/ and not run again, so that a killed run goes on with the same command.
The last line is JSON: {learner: {dataset: [mean success, low, high]}}, in percent, with a 95 % interval over seeds.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Optional

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # instead of this folder, whose name the package has

from benchmarks import experiment, prepare
from benchmarks.batches import parse_ratio
from benchmarks.budgets import GOAL_ALGORITHMS, Budget
from benchmarks.comparison import Finished, compare, diverged, interval, spread
from benchmarks.executors import execute
from benchmarks.ogbench.generate import Maze, generate
from benchmarks.results import DEFAULT_FOLDER, Cell, Results
from benchmarks.suites import Variant, choose
from minari_stitch.api import exchange
from minari_stitch.data.ids import exists
from minari_stitch.errors import StitchError
from minari_stitch.progress import Bars

PUBLISHED = {
    "medium": {"gcbc": "23 ± 18", "gcivl": "70 ± 14", "gciql": "21 ± 9"},
    "large": {"gcbc": "7", "gcivl": "12", "gciql": "31"},
    "giant": {"gcbc": "0", "gcivl": "0", "gciql": "0"},
}
"""Success on `pointmaze-*-stitch-v0` in percent, over 8 seeds (Park et al., 2025, "OGBench")."""
_TASKS = 5  # of each maze
_SMALL = {"hidden": 64, "batch_size": 128, "learning_rate": 1e-3}
_WIDE = {"hidden": 256, "batch_size": 256, "learning_rate": 1e-3}
# Values travel back from goals as fast as targets move: at OGBench's 0.005, 20,000 steps did not carry them across.
_VALUED = _SMALL | {"target_rate": 0.05}
_NARROW: dict[str, dict[str, Any]] = {
    "gcbc": _SMALL,
    # With OGBench's 0.5 policies are asked for goals to which no trajectory shows the way. An alpha of 0.003, which is
    # OGBench's, leaves them to values that are not right yet (docs/EXPERIMENTS.md, 24, 28, 38 and 45).
    "gcivl": _VALUED | {"actor_trajectory": 1.0},
    "gciql": _VALUED | {"alpha": 0.3, "actor_trajectory": 1.0},
}
_ALPHAS: dict[Maze, float] = {"large": 0.1}
"""Of GCIQL: where there is further to go, imitation leads nowhere (OGBench has one for each kind of environment)."""
_CHAINS: dict[Maze, tuple[int, int]] = {"medium": (8, 0), "large": (8, 0), "giant": (16, 400_000)}
"""Bridges of a chain at most, and steps that are made; 0: as many as the source has."""
# Small networks and large steps: some minute a run on one core.
_MAZES = Budget(
    name="mazes",
    seeds=8,
    evaluations=4,
    last=2,
    episodes=50,
    lanes=8,
    steps=dict.fromkeys(GOAL_ALGORITHMS, 10_000),
    settings=_NARROW,
)
BUDGETS = {
    budget.name: budget
    for budget in (
        Budget(
            name="smoke",
            seeds=1,
            evaluations=1,
            episodes=5,
            steps=dict.fromkeys(GOAL_ALGORITHMS, 20),
            settings=_NARROW,
        ),
        _MAZES,
        # Four times as long, by which learners with values lose (docs/EXPERIMENTS.md, 45).
        dataclasses.replace(_MAZES, name="long", steps=dict.fromkeys(GOAL_ALGORITHMS, 40_000)),
        # For the giant maze, in which narrow networks reach nothing: two minutes a run. Without a rate that decays a
        # clone reaches 58 at one evaluation and 20 at the next.
        Budget(
            name="wide",
            seeds=8,
            evaluations=2,
            episodes=50,
            lanes=4,
            steps=dict.fromkeys(GOAL_ALGORITHMS, 16_000),
            settings={name: _WIDE | ({"decay": True} if name == "gcbc" else {}) for name in GOAL_ALGORITHMS},
        ),
        Budget(name="published", seeds=8, evaluations=10, last=3, episodes=250),
    )
}


def tuned(plan: Budget, maze: Maze) -> Budget:
    """With the alpha that suits a maze, in budgets that do not leave OGBench's."""
    gciql = plan.settings.get("gciql", {})
    if "alpha" not in gciql or maze not in _ALPHAS:
        return plan
    return dataclasses.replace(plan, settings={**plan.settings, "gciql": {**gciql, "alpha": _ALPHAS[maze]}})


def variants(maze: Maze) -> tuple[Variant, ...]:
    """What is compared with the original data: chains of bridges, and the control without a model."""
    hops, steps = _CHAINS[maze]
    chained = (("stitch.pairs", "connect"), ("stitch.hops", hops))
    return Variant(label="chained", settings=chained, steps=steps), Variant(method="relabel")


def ensure(maze: Maze, n_episodes: int, seed: int, err: Console) -> str:
    """Id of a maze's dataset, made and imported where it is missing.

    Raises:
        StitchError: It cannot be made.
    """
    other = f"-{n_episodes}" * (n_episodes != 5000) + f"-seed{seed}" * (seed != 0)
    dataset_id = f"ogbench/pointmaze-{maze}-stitch{other}-v0"
    if not exists(dataset_id):
        err.print(f"Making {dataset_id}, once.", highlight=False)
        with tempfile.TemporaryDirectory() as folder, Bars(err) as bars:
            path, _ = generate(
                maze, Path(folder), n_episodes=n_episodes, seed=seed, progress=lambda *done: bars("roll out", *done)
            )
            exchange.import_ogbench(path, dataset_id=dataset_id, progress=bars)
    return dataset_id


def summary(finished: Finished) -> dict[str, dict[str, list[float]]]:
    """Mean success and its 95 % interval over seeds, of each learner on each dataset or mix."""
    scores: dict[tuple[str, str], list[float]] = defaultdict(list)
    for cell, record in sorted(finished.items()):
        if record["score"] is not None:
            name = f"{cell.augmented} {cell.ratio} {cell.kind}" if cell.augmented else cell.dataset
            scores[cell.algo, name].append(record["score"])
    found: dict[str, dict[str, list[float]]] = defaultdict(dict)
    for (algo, name), values in scores.items():
        mean, half = interval(np.array(values))
        found[algo][name] = [round(x, 1) for x in (mean, mean - half, mean + half) if not math.isnan(x)]
    return dict(found)


def rows(finished: Finished, maze: str) -> list[tuple[str, ...]]:
    """A line for each learner and dataset: success, its spread and interval, each task's, and what was published."""
    groups: dict[tuple, list[tuple[Cell, Mapping[str, Any]]]] = defaultdict(list)
    for cell, record in sorted(finished.items()):
        if record["score"] is not None:
            groups[cell.group].append((cell, record))
    lines = []
    for members in groups.values():
        cell, scores = members[0][0], [record["score"] for _, record in members]
        mean, half = interval(np.array(scores))
        played = np.array([record["returns"] for _, record in members]).reshape(len(members), _TASKS, -1)
        lines.append(
            (
                cell.algo,
                f"{cell.augmented} {cell.ratio} ({cell.kind})" if cell.augmented else cell.dataset,
                f"{mean:.1f} ± {spread(scores):.1f}",
                "unknown (n = 1)" if math.isnan(half) else f"[{mean - half:.1f}, {mean + half:.1f}]",
                " ".join(f"{100 * task:.0f}" for task in played.mean((0, 2))),
                "" if cell.augmented else PUBLISHED[maze][cell.algo],
                str(len(scores)),
            )
        )
    return lines


def main(
    maze: Annotated[Maze, typer.Option(help="Which maze.")] = "medium",
    algo: Annotated[str, typer.Option(help=f"{', '.join(GOAL_ALGORITHMS)} or all.")] = "all",
    budget: Annotated[str, typer.Option(help=f"{', '.join(BUDGETS)}.")] = "mazes",
    seeds: Annotated[Optional[int], typer.Option(min=1, help="Seeds 0, 1, ... \\[default: the budget's].")] = None,  # noqa: UP045
    steps: Annotated[Optional[int], typer.Option(min=1, help="Gradient steps \\[default: the budget's].")] = None,  # noqa: UP045
    augmented: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            metavar="ID",
            help="Also a mix with what was made of it; repeatable \\[default: stitched and relabelled, made here].",
        ),
    ] = None,
    alone: Annotated[bool, typer.Option("--alone", help="Only the original data.")] = False,
    ratio: Annotated[str, typer.Option(help="Original : augmented in every batch of the mix.")] = "1:1",
    n_episodes: Annotated[int, typer.Option("--episodes", min=1, help="Of the data, where they are made.")] = 5000,
    data_seed: Annotated[int, typer.Option(min=0, help="Seed of the data, where they are made.")] = 0,
    workers: Annotated[Optional[int], typer.Option(min=1, help="Processes \\[default: one a core].")] = None,  # noqa: UP045
    results: Annotated[Path, typer.Option(help="Folder of the results.")] = DEFAULT_FOLDER,
) -> None:
    """Train learners for goals on a point maze, play its tasks, and compare with what OGBench published."""
    err = Console(stderr=True)
    try:
        plan = tuned(choose("budget", budget, BUDGETS), maze)
        if steps is not None:
            plan = dataclasses.replace(plan, steps=dict.fromkeys(GOAL_ALGORITHMS, steps))
        names = GOAL_ALGORITHMS if algo == "all" else (algo,)
        for name in names:
            choose("learner for goals", name, dict.fromkeys(GOAL_ALGORITHMS))
        parse_ratio(ratio)
        dataset_id = ensure(maze, n_episodes, data_seed, err)
        made = [] if alone else augmented or [_made(dataset_id, variant, err) for variant in variants(maze)]
        wanted = list(dict.fromkeys(_cells(names, dataset_id, made, ratio, range(seeds or plan.seeds), plan)))
        kept = Results(results)
        finished = kept.finished()
        pending = [cell for cell in wanted if cell not in finished]
        err.print(f"A score is {plan.protocol} (of {plan.evaluations}). {len(pending)} of {len(wanted)} cells to run.")
        units = experiment.work_units(sorted(pending, key=lambda cell: cell.seed), plan)
        with Bars(err) as bars:
            for _ in execute(units, results, workers=workers or os.cpu_count() or 1, progress=bars):
                pass
        finished = kept.finished()
    except StitchError as error:
        err.print(f"[red]{type(error).__name__}[/]: {error}", soft_wrap=True, highlight=False)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        err.print("Stopped. The same command goes on from here.")
        raise typer.Exit(130) from None
    _print({cell: finished[cell] for cell in wanted if cell in finished}, maze)


def _made(dataset_id: str, variant: Variant, err: Console) -> str:
    return prepare.newest(dataset_id, variant) or prepare.augment(dataset_id, variant, err.print)


def _cells(
    names: Sequence[str], dataset_id: str, made: Sequence[str], ratio: str, seeds: range, plan: Budget
) -> Iterator[Cell]:
    for name in names:
        for augmented in made or [dataset_id]:
            both = experiment.cells(name, dataset_id, augmented, kind="episodes", ratio=ratio, seeds=seeds, budget=plan)
            yield from (cell for cell in both if made or not cell.augmented)


def _print(finished: Finished, maze: str) -> None:
    columns = ("Learner", "Dataset", "Success", "95 % interval", "Tasks 1 to 5", "OGBench", "n")
    out = Console(width=None if sys.stdout.isatty() else 160)
    table = Table(*columns, title=f"Goals reached, of a hundred; pointmaze-{maze}")
    for row in rows(finished, maze):
        table.add_row(*row)
    out.print(table)
    for comparison in compare(finished):
        mean, half = comparison.difference
        out.print(f"{comparison.cell.algo}: {mean:+.1f} ± {half:.1f} with {comparison.cell.augmented}", highlight=False)
    for line in diverged(finished):
        out.print(f"[yellow]Diverged:[/] {line}", highlight=False, soft_wrap=True)
    print(json.dumps(summary(finished)))


if __name__ == "__main__":
    typer.run(main)
