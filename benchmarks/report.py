"""Tables and learning curves from the results.

python benchmarks/report.py                                   Markdown on the screen
python benchmarks/report.py --suite table1                    a table of the paper
python benchmarks/report.py --output report.md --plots plots/
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Optional

import numpy as np
import typer

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import tables
from benchmarks.comparison import COLUMNS, Comparison, Finished, captions, compare, diverged, grid, rows
from benchmarks.results import DEFAULT_FOLDER, Cell, Results
from benchmarks.suites import SUITES, choose
from benchmarks.trails import FOLLOWED
from minari_stitch.data import minari_io
from minari_stitch.data.ids import exists
from minari_stitch.sim.maze import Maze, maze_of

_ARRIVED, _LOST = "#0072b2", "#b3b3b3"


def markdown(comparisons: Sequence[Comparison]) -> str:
    """A table and its captions."""
    if not comparisons:
        return "No finished pair of original and augmented runs.\n"
    table = grid(COLUMNS, rows(comparisons))
    return table + "\n\n" + "\n".join(f"- {line}" for line in captions(comparisons)) + "\n"


def plot(finished: Finished, folder: Path) -> list[Path]:
    """Learning curves, one picture for each dataset and budget: means over seeds, bands of one standard error."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    pictures: dict[tuple[str, str], dict[tuple, list[Cell]]] = defaultdict(lambda: defaultdict(list))
    for cell in sorted(finished):
        pictures[cell.dataset, cell.budget][cell.group].append(cell)
    paths = []
    for (dataset, budget), groups in pictures.items():
        algos = sorted({cells[0].algo for cells in groups.values()})
        figure, axes = plt.subplots(1, len(algos), figsize=(4 * len(algos), 3.2), squeeze=False, sharey=True)
        for axis, algo in zip(axes[0], algos, strict=True):
            for cells in (cells for cells in groups.values() if cells[0].algo == algo):
                curves = [finished[cell]["curve"] for cell in cells]
                shortest = min(map(len, curves))
                values = np.array([[score for _, score in curve[:shortest]] for curve in curves])
                steps = [step for step, _ in curves[0][:shortest]]
                first = cells[0]
                name = (
                    f"{first.augmented.rpartition('/')[2]} {first.ratio} {first.kind}"
                    if first.augmented
                    else "original"
                )
                (line,) = axis.plot(steps, values.mean(0), marker=".", label=f"{name} (n = {len(cells)})")
                if len(cells) > 1:
                    error = values.std(0, ddof=1) / math.sqrt(len(cells))
                    low, high = values.mean(0) - error, values.mean(0) + error
                    axis.fill_between(steps, low, high, alpha=0.2, color=line.get_color())
            axis.set(title=algo, xlabel="gradient steps")
            axis.legend(fontsize="x-small")
        axes[0, 0].set_ylabel("score")
        figure.suptitle(f"{dataset}, budget {budget}")
        figure.tight_layout()
        paths.append(folder / f"{dataset.replace('/', '-')}-{budget}.png")
        figure.savefig(paths[-1], dpi=120)
        plt.close(figure)
    return paths


def forest(comparisons: Sequence[Comparison], path: Path) -> Path:
    """Differences between augmented and original data with their 95 % intervals, a line for each comparison."""
    from matplotlib.figure import Figure

    lines = sorted(comparisons, key=lambda c: (c.cell.algo, c.cell.dataset, c.cell.augmented, c.cell.ratio))
    figure = Figure(figsize=(9, 1.2 + 0.3 * len(lines)), layout="constrained")
    axis = figure.subplots()
    colours = {algo: f"C{k}" for k, algo in enumerate(dict.fromkeys(line.cell.algo for line in lines))}
    for y, line in enumerate(lines):
        mean, half = line.difference
        seeds = line.augmented - line.original
        colour = colours[line.cell.algo]
        axis.plot(seeds, [y] * len(seeds), "|", color=colour, alpha=0.5)
        axis.errorbar(mean, y, xerr=None if math.isnan(half) else half, fmt="o", capsize=3, color=colour)
    names = [f"{x.cell.algo}, {_short(x.cell.dataset)} + {_made(x.cell)} {x.cell.ratio}" for x in lines]
    axis.set_yticks(
        range(len(lines)), [f"{name} (n = {len(x.original)})" for name, x in zip(names, lines, strict=True)]
    )
    axis.invert_yaxis()
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_xlabel("gain in score (95 % interval; ticks: seeds)")
    axis.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path


def draw_trails(finished: Finished, folder: Path) -> list[Path]:
    """A picture for each dataset and budget: a row for each learner, a column for what it was trained on.

    Episodes that earned something are blue, with a star at their end; others grey, with a cross.
    """
    from matplotlib.figure import Figure

    from minari_stitch.draw import figures

    pictures: dict[tuple[str, str], dict[tuple[str, str], list[Cell]]] = defaultdict(lambda: defaultdict(list))
    for cell in sorted(finished):
        if finished[cell].get("trails") and finished[cell]["score"] is not None:  # as it is where a run diverged
            pictures[cell.dataset, cell.budget][cell.algo, _trained_on(cell)].append(cell)
    files = []
    for (dataset, budget), panels in pictures.items():
        rows, columns = (list(dict.fromkeys(names)) for names in zip(*panels, strict=True))
        figure = Figure(figsize=(2.6 * len(columns), 0.4 + 2.8 * len(rows)), layout="constrained")
        axes = figure.subplots(len(rows), len(columns), squeeze=False, sharex=True, sharey=True)
        maze = _maze(dataset)
        for (algo, data), cells in panels.items():
            axis = axes[rows.index(algo), columns.index(data)]
            if maze is not None:
                figures.walls(axis, maze)
            for cell in cells:
                record = finished[cell]
                for trail in record["trails"]:
                    path, arrived = np.array(trail["path"]), record["returns"][trail["episode"]] > 0
                    colour = _ARRIVED if arrived else _LOST
                    axis.plot(*path.T, color=colour, lw=0.6, alpha=0.7, zorder=2 if arrived else 1)
                    axis.plot(*path[-1], "*" if arrived else "x", color=colour, ms=6 if arrived else 4, zorder=3)
            score = np.mean([finished[cell]["score"] for cell in cells])
            axis.set_title(f"{algo}, {data}: {score:.0f}", fontsize=8)
            axis.set(aspect="equal", xticks=[], yticks=[])
        for axis in axes.flat:
            axis.set_visible(axis.has_data())
        figure.suptitle(f"{dataset}, budget {budget}: score, and where {FOLLOWED} episodes a seed lead", fontsize=9)
        folder.mkdir(parents=True, exist_ok=True)
        files.append(folder / f"{dataset.replace('/', '-')}-{budget}-trails.png")
        figure.savefig(files[-1], dpi=150)
    return files


def _trained_on(cell: Cell) -> str:
    if not cell.augmented:
        return "original"
    name, source = (text.rpartition("-v")[0] for text in (cell.augmented, cell.dataset))
    return name.removeprefix(source).strip("-") + (f" {cell.ratio}" if cell.ratio != "0:1" else "")


def _maze(dataset_id: str) -> Maze | None:
    """The maze of a dataset that is here."""
    return maze_of(minari_io.load(dataset_id).env_spec) if exists(dataset_id) else None


def _short(dataset_id: str) -> str:
    return dataset_id.removeprefix("demo/").rpartition("-v")[0]


def _made(cell: Cell) -> str:
    """What was added, without the name of what it was added to."""
    name = _short(cell.augmented).removeprefix(_short(cell.dataset)).strip("-")
    return f"{name} bridges" if cell.kind == "bridges" and not name.startswith("bridges") else name


def main(
    results: Annotated[Path, typer.Option(help="Folder of the JSON lines.")] = DEFAULT_FOLDER,
    suite: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="A suite's table beside the paper's numbers \\[default: all results]."),
    ] = None,
    family: Annotated[Literal["demo", "d4rl"], typer.Option(help="Datasets of the suite.")] = "demo",
    budget: Annotated[str, typer.Option(help="Whose results of the suite.")] = "small",
    output: Annotated[Optional[Path], typer.Option(help="Write the Markdown here \\[default: print it].")] = None,  # noqa: UP045
    plots: Annotated[Optional[Path], typer.Option(help="Folder for learning curves \\[default: none].")] = None,  # noqa: UP045
) -> None:
    """Render Markdown tables and learning curves from the results."""
    finished = Results(results).finished()
    pictures: list[Path] = []
    if suite is None:
        text = markdown(compare(finished)) + "".join(f"- {line}\n" for line in diverged(finished))
        if plots is not None:
            pictures = [*plot(finished, plots), *draw_trails(finished, plots)]
            if found := compare(finished):
                pictures.append(forest(found, plots / "differences.png"))
    else:
        choose("suite", suite, SUITES)
        text = tables.markdown(suite, finished, family=family, budget=budget)
        if plots is not None:
            pictures = tables.plot(suite, finished, plots, family=family, budget=budget)
            if found := tables.comparisons(suite, finished, family, budget):
                pictures.append(forest(list(found.values()), plots / f"{suite}-{family}-{budget}-differences.png"))
                shown = {item.dataset for item in found}
                of_suite = {c: r for c, r in finished.items() if c.budget == budget and c.dataset in shown}
                pictures += draw_trails(of_suite, plots)
    text += "".join(f"\n![{path.stem}]({path})\n" for path in pictures)
    if output is None:
        print(text)
    else:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text)


if __name__ == "__main__":
    typer.run(main)
