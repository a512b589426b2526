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
            pictures = plot(finished, plots)
    else:
        choose("suite", suite, SUITES)
        text = tables.markdown(suite, finished, family=family, budget=budget)
        if plots is not None:
            pictures = tables.plot(suite, finished, plots, family=family, budget=budget)
    text += "".join(f"\n![{path.stem}]({path})\n" for path in pictures)
    if output is None:
        print(text)
    else:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text)


if __name__ == "__main__":
    typer.run(main)
