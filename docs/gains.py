"""Draw the README's picture of gains from the committed results.

python docs/gains.py
"""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.comparison import compare
from benchmarks.report import forest
from benchmarks.results import DEFAULT_FOLDER, Cell, Results

SHOWN = (
    ("stitched over the gap", "maze", "stitched-over"),
    ("chains", "mazes", "medium-onchained|large-chained|seed1-chained|stitched-chained"),
    ("chains", "wide", "seed1-stitched-chained"),
    ("bridges", "knee", "transitions-high|im03"),
    ("stitched, early", "knee-one-step", "stitched-early"),
    ("resampled", "knee-one-step", "(?<!and-)resampled"),
    ("stitched and resampled", "knee-one-step", "early-and-resampled"),
)
"""What the tool recommends, and what resampling does for a DT: name, budget, and end of the augmented dataset's id."""


def main() -> None:
    """Draw `docs/gains.png`: of the comparisons of one kind, learner and dataset the one that was recorded last."""
    finished: dict[Cell, dict[str, Any]] = {}
    for record in Results(DEFAULT_FOLDER):  # cells on original data were run again here and there: the first counts
        finished.setdefault(record["cell"], record)
    found = {replace(comparison.cell, seed=0): comparison for comparison in compare(finished)}
    latest = {}
    for cell in finished:  # in the order of the files
        for name, budget, augmented in SHOWN:
            if cell.budget == budget and re.search(rf"({augmented})-v\d+$", cell.augmented):
                latest[name, cell.algo, cell.dataset] = found.get(replace(cell, seed=0))
    shown = [
        replace(comparison, cell=replace(comparison.cell, augmented=f"demo/{name}-v0", kind="episodes"))
        for (name, *_), comparison in latest.items()
        if comparison is not None
    ]
    print(forest(shown, Path(__file__).with_name("gains.png")))


if __name__ == "__main__":
    main()
