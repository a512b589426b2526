"""A suite's results in the paper's order, each beside the paper's own number."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks import paper
from benchmarks.comparison import (
    Comparison,
    Finished,
    average_interval,
    bounds,
    captions,
    compare,
    grid,
    interval,
    spread,
)
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
        differences: From the original data, one for each seed; empty for the original data's own line.
    """

    key: paper.Row
    dataset: str
    title: str
    scores: Sequence[float] | np.ndarray
    differences: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @property
    def against(self) -> str:
        """The interval of the mean difference, in words."""
        if not len(self.differences):
            return ""
        mean, half = interval(self.differences)
        return bounds(mean - half, mean + half)


def markdown(suite: str, finished: Finished, *, family: Family = "demo", budget: str = "small") -> str:
    """The table of a suite, with what is missing left out and counted.

    Args:
        suite: Name of a suite.
        finished: Results.
        family: Where its datasets come from.
        budget: Whose results to show.
    """
    found = comparisons(suite, finished, family, budget)
    if not found:
        return f"No finished pair of runs of suite {suite!r} with budget {budget!r}.\n"
    printed, lines = paper.scores(suite), ordered(found)
    rows = [
        (line.dataset, line.key[0], line.title, line.key[3], _score(line.scores), str(len(line.scores)), line.against)
        + (printed.get(line.key, ""),)
        for line in lines.values()
    ]
    rows += (averages := _averages(lines))
    wanted = len(SUITES[suite].experiments(family))
    notes = [
        f"Suite {suite!r} ({SUITES[suite].what}): {len(found)} of {wanted} comparisons are finished.",
        "'Paper, D4RL' are the paper's scores on D4RL's datasets: other data, other budgets, here for the eye only.",
    ]
    if averages:
        notes.append("The interval of an average is a bootstrap's, over seeds within each dataset.")
    return grid(COLUMNS, rows) + "\n\n" + "\n".join(f"- {n}" for n in [*notes, *captions(found.values())]) + "\n"


def comparisons(suite: str, finished: Finished, family: Family, budget: str) -> dict[Experiment, Comparison]:
    """The finished experiments of a suite, in its order."""
    candidates = [comparison for comparison in compare(finished) if comparison.cell.budget == budget]
    matches = ((item, _best(item, candidates)) for item in SUITES[suite].experiments(family))
    return {item: match for item, match in matches if match is not None}


def ordered(found: Mapping[Experiment, Comparison]) -> dict[paper.Row, Line]:
    """Lines by key; the original data's line before the first that is compared with it."""
    lines: dict[paper.Row, Line] = {}
    for item, comparison in found.items():
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
            differences=comparison.augmented - comparison.original,
        )
        lines[line.key] = line
    return lines


def plot(suite: str, finished: Finished, folder: Path, *, family: Family = "demo", budget: str = "small") -> list[Path]:
    """Bars, as figure 5 of the paper has them: one panel a learner, means over seeds, one standard error.

    Args:
        suite: Name of a suite.
        finished: Results.
        folder: Where the picture goes.
        family: Where the datasets come from.
        budget: Whose results to show.
    """
    from matplotlib.figure import Figure

    lines = ordered(comparisons(suite, finished, family, budget))
    if not lines:
        return []
    algos = list(dict.fromkeys(key[0] for key in lines))
    kinds = list(dict.fromkeys(key[2:] for key in lines))
    names = list(dict.fromkeys(key[1] for key in lines))
    figure = Figure(figsize=(min(16, 2 + 1.2 * len(names) * len(kinds) / 2), 2.6 * len(algos)), layout="constrained")
    axes = figure.subplots(len(algos), squeeze=False, sharex=True)[:, 0]
    for axis, algo in zip(axes, algos, strict=True):
        for place, kind in enumerate(kinds):
            present = [(x, lines[algo, name, *kind]) for x, name in enumerate(names) if (algo, name, *kind) in lines]
            if not present:
                continue
            at = [x + (place - (len(kinds) - 1) / 2) * 0.8 / len(kinds) for x, _ in present]
            means = [float(np.mean(line.scores)) for _, line in present]
            errors = [spread(line.scores) / np.sqrt(len(line.scores)) for _, line in present]
            label = present[0][1].title + (f" {kind[1]}" if kind[1] not in ("1:0", RATIO) else "")
            axis.bar(at, means, 0.8 / len(kinds), yerr=errors, capsize=2, color=f"C{place}", label=label)
        axis.set_ylabel(f"{algo}: score")
        axis.set_xticks(range(len(names)), [name.replace("/", "\n") for name in names])
    handles = {text: bar for axis in axes for bar, text in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=min(5, len(kinds)))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{suite}-{family}-{budget}.png"
    figure.savefig(path, dpi=120)
    return [path]


def _best(item: Experiment, candidates: Sequence[Comparison]) -> Comparison | None:
    """The comparison of an experiment with the most seeds."""
    name = re.escape(item.dataset.rpartition("-v")[0])
    made = re.compile(rf"{name}-{re.escape(item.variant.suffix)}-v\d+")
    matches = [
        c
        for c in candidates
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
            mean = np.mean([float(np.mean(line.scores)) for line in chosen])
            differences = [line.differences for line in chosen]
            against = bounds(*average_interval(differences)) if all(map(len, differences)) else ""
            rows.append(
                (f"average of {len(whole)} datasets", algo, chosen[0].title, kind[1], f"{mean:.1f}", "", against, "")
            )
    return rows
