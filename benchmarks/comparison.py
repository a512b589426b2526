"""Original against augmented data, paired by seed: differences, their intervals, and how both are written down.

Statistics are SciPy's, chosen after Agarwal et al. (2021), "Deep reinforcement learning at the edge of the statistical
precipice".
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.results import Cell

COLUMNS = (
    "Learner", "Dataset", "Augmented with", "Ratio", "Original", "Augmented",
    "Difference", "95 % interval", "IQM", "P(better)", "q", "n",
)  # fmt: skip

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

    @property
    def p_value(self) -> float:
        """Of a paired t test against no difference; NaN for one seed."""
        differences = self.augmented - self.original
        if len(differences) < 2:
            return math.nan
        if not spread(differences):  # of which SciPy warns
            return float(differences[0] == 0)
        test: Any = stats.ttest_1samp(differences, 0)
        return float(test.pvalue)


def rows(comparisons: Sequence[Comparison]) -> list[tuple[str, ...]]:
    """What `COLUMNS` say, with q for as many comparisons as are given."""
    return [_row(comparison, q) for comparison, q in zip(comparisons, q_values(comparisons), strict=True)]


def _row(comparison: Comparison, q: float) -> tuple[str, ...]:
    cell, original, augmented = comparison.cell, comparison.original, comparison.augmented
    mean, half = comparison.difference
    return (
        cell.algo,
        cell.dataset,
        f"{cell.augmented} ({cell.kind})",
        cell.ratio,
        *(f"{np.mean(x):.1f} ± {spread(x):.1f}" for x in (original, augmented)),
        f"{mean:+.1f}",
        bounds(mean - half, mean + half),
        f"{iqm(augmented) - iqm(original):+.1f}",
        f"{improvement(original, augmented):.0%}",
        "" if math.isnan(q) else f"{q:.3f}",
        str(len(original)),
    )


def summary(finished: Finished) -> dict[str, dict[str, list[float]]]:
    """Scores by learner and data, each `[mean, low, high]` with its 95 % interval; of the original data once."""
    found: dict[str, dict[str, list[float]]] = defaultdict(dict)
    for comparison in compare(finished):
        for name, scores in (("dataset", comparison.original), ("augmented", comparison.augmented)):
            mean, half = interval(scores)
            found[comparison.cell.algo][getattr(comparison.cell, name)] = [mean, mean - half, mean + half]
    return dict(found)


def q_values(comparisons: Sequence[Comparison]) -> np.ndarray:
    """`(rows,)` p-values corrected for the number of rows: the false discovery rate at which each would count.

    Benjamini and Hochberg's; rows of one seed have none, and do not count.
    """
    p = np.array([comparison.p_value for comparison in comparisons])
    known = np.isfinite(p)
    if known.any():
        p[known] = stats.false_discovery_control(p[known])
    return p


def iqm(scores: np.ndarray) -> float:
    """Interquartile mean: of the middle half of the scores."""
    return float(stats.trim_mean(scores, 0.25))


def improvement(original: np.ndarray, augmented: np.ndarray) -> float:
    """Probability that a run on augmented data beats one on the original data, of whatever seeds; ties count half."""
    return float(stats.mannwhitneyu(augmented, original).statistic / (len(augmented) * len(original)))


def bounds(low: float, high: float) -> str:
    """An interval in words; unknown where there is but one seed."""
    return "unknown (n = 1)" if math.isnan(low) else f"[{low:+.1f}, {high:+.1f}]"


def grid(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *rows))


def spread(values: Sequence[float] | np.ndarray) -> float:
    """Standard deviation over seeds; 0 for one."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def interval(values: np.ndarray) -> tuple[float, float]:
    """Mean, and half the width of Student's 95 % interval (NaN for fewer than two values)."""
    n = len(values)
    return float(np.mean(values)), float(stats.t.ppf(0.975, n - 1)) * spread(values) / math.sqrt(
        n
    ) if n > 1 else math.nan


def average_interval(strata: Sequence[np.ndarray]) -> tuple[float, float]:
    """Ends of a 95 % interval of the average over datasets of means over seeds.

    Percentiles of a bootstrap that resamples seeds within each dataset (Agarwal et al., 2021, "Deep reinforcement
    learning at the edge of the statistical precipice"); always of the same resamples.

    Args:
        strata: The `(n,)` values of each dataset.

    Returns:
        Low and high; NaN where a dataset has one seed.
    """
    if min(map(len, strata)) < 2:
        return math.nan, math.nan

    def average(*resampled: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.mean([values.mean(axis) for values in resampled], 0)

    found = stats.bootstrap(strata, average, method="percentile", vectorized=True, rng=0).confidence_interval
    return float(found.low), float(found.high)


def diverged(finished: Finished) -> list[str]:
    """The cells whose training diverged, in words; they have no score and are left out of comparisons."""
    return [
        f"{cell.algo} on {cell.dataset}{f' with {cell.augmented} {cell.ratio}' if cell.augmented else ''}, seed "
        f"{cell.seed}, diverged before step {record['diverged']:,} and is left out, with what it is compared with."
        for cell, record in sorted(finished.items())
        if record["score"] is None
    ]


def compare(finished: Finished) -> list[Comparison]:
    """Pair every group on augmented data with the same seeds on the original data."""
    finished = {cell: record for cell, record in finished.items() if record["score"] is not None}
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
        "success": "goals reached, of a hundred",
        "raw": "RAW RETURNS, since there are no reference scores",
    }
    for source in sorted({comparison.reference for comparison in comparisons}):
        names = sorted({c.cell.dataset for c in comparisons if c.reference == source})
        lines.append(f"{', '.join(names)}: {words[source]}.")
    return [
        *lines,
        "± is one standard deviation over seeds; the interval is Student's, over differences by seed.",
        "IQM: difference of interquartile means; P(better): probability that an augmented run beats an original one; "
        f"q: p-value of a paired t test, corrected for the {len(comparisons)} rows (Benjamini-Hochberg).",
    ]
