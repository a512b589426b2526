"""Original against augmented data, paired by seed: differences, their intervals, and how both are written down."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from benchmarks.results import Cell

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
