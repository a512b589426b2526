"""Tables and learning curves from the results.

python benchmarks/report.py                                   Markdown on the screen
python benchmarks/report.py --suite table1                    a table of the paper
python benchmarks/report.py --output report.md --plots plots/
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Annotated, Any, Literal, Optional

import numpy as np
import typer

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.results import DEFAULT_FOLDER, Cell, Results

_T975 = (
    *(12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281),
    *(2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860),
)
"""97.5 % quantiles of Student's t for 1 to 20 degrees of freedom."""
COLUMNS = ("Learner", "Dataset", "Augmented with", "Ratio", "Original", "Augmented", "Difference", "95 % interval", "n")

Finished = Mapping[Cell, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Original against augmented, paired by seed.

    Attributes:
        cell: Any cell on augmented data of the group.
        original: `(n,)` scores on the original data.
        augmented: `(n,)` scores on the mix, of the same seeds.
        reference: Where the reference scores come from.
    """

    cell: Cell
    original: np.ndarray
    augmented: np.ndarray
    reference: str

    @property
    def difference(self) -> tuple[float, float]:
        """Mean difference, and half its 95 % interval."""
        return interval(self.augmented - self.original)

    def row(self) -> tuple[str, ...]:
        """What `COLUMNS` say."""
        mean, half = self.difference
        values = [f"{np.mean(x):.1f} ± {spread(x):.1f}" for x in (self.original, self.augmented)]
        cell, n = self.cell, len(self.original)
        return (cell.algo, cell.dataset, f"{cell.augmented} ({cell.kind})", cell.ratio, *values, f"{mean:+.1f}",
                bounds(mean, half), str(n))  # fmt: skip


def bounds(mean: float, half: float) -> str:
    """An interval in words; unknown where there is but one seed."""
    return "unknown (n = 1)" if math.isnan(half) else f"[{mean - half:+.1f}, {mean + half:+.1f}]"


def grid(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *rows))


def spread(values: Sequence[float] | np.ndarray) -> float:
    """Standard deviation over seeds; 0 for one."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def interval(values: np.ndarray) -> tuple[float, float]:
    """Mean, and half the width of Student's 95 % interval (NaN for fewer than two values)."""
    n = len(values)
    return float(np.mean(values)), t975(n - 1) * spread(values) / math.sqrt(n) if n > 1 else math.nan


def t975(freedom: int) -> float:
    """97.5 % quantile of Student's t."""
    if freedom <= len(_T975):
        return _T975[freedom - 1]
    z = NormalDist().inv_cdf(0.975)  # Cornish and Fisher's expansion
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def compare(finished: Finished) -> list[Comparison]:
    """Pair every group on augmented data with the same seeds on the original data."""
    original = {(cell.original, cell.seed): cell for cell in finished if not cell.augmented}
    groups: dict[tuple, list[Cell]] = defaultdict(list)
    for cell in sorted(finished):
        if cell.augmented and (cell.original, cell.seed) in original:
            groups[cell.group].append(cell)
    return [
        Comparison(
            cell=cells[0],
            original=np.array([finished[original[cell.original, cell.seed]]["score"] for cell in cells]),
            augmented=np.array([finished[cell]["score"] for cell in cells]),
            reference=finished[cells[0]]["reference"]["source"],
        )
        for cells in groups.values()
    ]


def captions(comparisons: Iterable[Comparison]) -> list[str]:
    """How the scores were made: budgets, protocols, references."""
    comparisons = list(comparisons)
    protocols = sorted({(comparison.cell.budget, comparison.cell.protocol) for comparison in comparisons})
    lines = [f"Budget {budget!r}; a score is {protocol} evaluations." for budget, protocol in protocols]
    words = {
        "dataset": "normalised with the dataset's own reference scores, x100",
        "D4RL": "normalised with D4RL's reference scores, x100",
        "raw": "RAW RETURNS, since there are no reference scores",
    }
    for source in sorted({comparison.reference for comparison in comparisons}):
        names = sorted({c.cell.dataset for c in comparisons if c.reference == source})
        lines.append(f"{', '.join(names)}: {words[source]}.")
    return [*lines, "± is one standard deviation over seeds; the interval is Student's, over differences by seed."]


def markdown(comparisons: Sequence[Comparison]) -> str:
    """A table and its captions."""
    if not comparisons:
        return "No finished pair of original and augmented runs.\n"
    table = grid(COLUMNS, (comparison.row() for comparison in comparisons))
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
        text = markdown(compare(finished))
        if plots is not None:
            pictures = plot(finished, plots)
    else:
        from benchmarks import tables  # stands above this module
        from benchmarks.suites import SUITES, choose

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
