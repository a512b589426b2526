"""A suite's results in the paper's order, each beside the paper's own number."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks import paper
from benchmarks.report import Comparison, Finished, bounds, captions, compare, grid, spread
from benchmarks.suites import SUITES, Experiment, Family

COLUMNS = ("Dataset", "Learner", "Data", "Ratio", "Ours", "n", "Against original, 95 %", "Paper, D4RL")
RATIO = "4:1"
"""Of an experiment that names none."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a table.

    Attributes:
        key: Learner, `env/quality`, `original` or the suffix of the augmented dataset, ratio.
        dataset: Id.
        title: Of the data, for people.
        scores: One for each seed.
        against: Difference from the original data, in words.
    """

    key: paper.Row
    dataset: str
    title: str
    scores: Sequence[float] | np.ndarray
    against: str = ""


def markdown(suite: str, finished: Finished, *, family: Family = "demo", budget: str = "small") -> str:
    """The table of a suite, with what is missing left out and counted.

    Args:
        suite: Name of a suite.
        finished: Results.
        family: Where its datasets come from.
        budget: Whose results to show.
    """
    comparisons = [comparison for comparison in compare(finished) if comparison.cell.budget == budget]
    experiments = SUITES[suite].experiments(family)
    found = {item: match for item in experiments if (match := _best(item, comparisons)) is not None}
    if not found:
        return f"No finished pair of runs of suite {suite!r} with budget {budget!r}.\n"
    lines: dict[paper.Row, Line] = {}
    for item, comparison in sorted(found.items(), key=lambda pair: experiments.index(pair[0])):
        algo, which = item.algo, _which(item.dataset)
        plain = Line(
            key=(algo, which, paper.ORIGINAL, "1:0"),
            dataset=item.dataset,
            title="original",
            scores=comparison.original,
        )
        lines.setdefault(plain.key, plain)
        line = Line(
            key=(algo, which, item.variant.suffix, item.ratio or RATIO),
            dataset=item.dataset,
            title=item.variant.title,
            scores=comparison.augmented,
            against=bounds(*comparison.difference),
        )
        lines[line.key] = line
    printed = paper.scores(suite)
    rows = [
        (line.dataset, line.key[0], line.title, line.key[3], _score(line.scores), str(len(line.scores)), line.against)
        + (printed.get(line.key, ""),)
        for line in lines.values()
    ]
    rows += _averages(lines)
    notes = [
        f"Suite {suite!r} ({SUITES[suite].what}): {len(found)} of {len(experiments)} comparisons are finished.",
        "'Paper, D4RL' are the paper's scores on D4RL's datasets: other data, other budgets, here for the eye only.",
    ]
    return grid(COLUMNS, rows) + "\n\n" + "\n".join(f"- {n}" for n in [*notes, *captions(found.values())]) + "\n"


def _best(item: Experiment, comparisons: Sequence[Comparison]) -> Comparison | None:
    """The comparison of an experiment with the most seeds."""
    name = re.escape(item.dataset.rpartition("-v")[0])
    made = re.compile(rf"{name}-{re.escape(item.variant.suffix)}-v\d+")
    matches = [
        c
        for c in comparisons
        if (c.cell.algo, c.cell.dataset, c.cell.ratio) == (item.algo, item.dataset, item.ratio or RATIO)
        and made.fullmatch(c.cell.augmented)
    ]
    return max(matches, key=lambda c: len(c.original), default=None)


def _which(dataset_id: str) -> str:
    """`env/quality` of an id, as the paper's rows are named."""
    return re.sub(r"(-\d+pct)?-v\d+$", "", "/".join(dataset_id.split("/")[-2:]))


def _score(scores: Sequence[float] | np.ndarray) -> str:
    return f"{np.mean(scores):.1f} ± {spread(scores):.1f}"


def _averages(lines: Mapping[paper.Row, Line]) -> list[tuple[str, ...]]:
    """Means over the datasets on which a learner has been trained on all that it is trained on anywhere."""
    rows = []
    for algo in dict.fromkeys(key[0] for key in lines):
        kinds = list(dict.fromkeys(key[2:] for key in lines if key[0] == algo))
        names = dict.fromkeys(key[1] for key in lines if key[0] == algo)
        whole = [name for name in names if all((algo, name, *kind) in lines for kind in kinds)]
        if len(whole) < 2:
            continue
        for kind in kinds:
            chosen = [lines[algo, name, *kind] for name in whole]
            mean = np.mean([np.mean(line.scores) for line in chosen])
            rows.append(
                (f"average of {len(whole)} datasets", algo, chosen[0].title, kind[1], f"{mean:.1f}", "", "", "")
            )
    return rows
