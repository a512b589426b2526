"""Interleaved timing and its tables: contenders run in turn, so a slower moment of the machine hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What the sections share.

    Attributes:
        device: Where the networks run.
        quick: Sizes for a smoke test; the figures mean nothing.
        dataset: Id for the sections that need trained models.
        demo_steps: Steps of a demo dataset that is made for it.
        budget: Share of the fast preset's gradient steps.
        seeds: Training seeds of `parametrisation`.
        directory: Run directory with the models.
    """

    device: str
    quick: bool
    dataset: str
    demo_steps: int
    budget: float
    seeds: int
    directory: Path

    @property
    def repeats(self) -> int:
        """Timed rounds."""
        return 2 if self.quick else 7


@dataclass(frozen=True)
class Contender:
    """One way to do a job.

    Attributes:
        work: Does it once.
        units: How much that is, in the unit of the rate.
    """

    work: Callable[[], Any]
    units: float


@dataclass(frozen=True)
class Spread:
    """Median, least and greatest of repeats."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: np.ndarray) -> Spread:
        """Summarise repeats."""
        return cls(*(float(value) for value in (np.median(values), values.min(), values.max())))

    def __str__(self) -> str:
        """`median (low-high)`."""
        return f"{_short(self.median)} ({_short(self.low)}-{_short(self.high)})"


@dataclass
class Section:
    """A table under construction.

    Attributes:
        name: What `--section` takes.
        title: What the table shows.
        note: What a reader must know.
        rows: One mapping of column to value for each row.
    """

    name: str
    title: str
    note: str = ""
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, **cells: Any) -> None:
        """Append a row."""
        self.rows.append(cells)

    def show(self, console: Console) -> None:
        """Print as Markdown."""
        console.print(f"\n### {self.title}\n", markup=False, highlight=False)
        if self.rows:
            table = Table(*self.rows[0], box=box.MARKDOWN)
            for row in self.rows:
                table.add_row(*(_short(value) if isinstance(value, float) else str(value) for value in row.values()))
            console.print(table)
        if self.note:
            console.print(f"\n{self.note}", markup=False, highlight=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; a `Spread` is `[median, low, high]`."""
        plain = [
            {key: [v.median, v.low, v.high] if isinstance(v, Spread) else v for key, v in row.items()}
            for row in self.rows
        ]
        return {"name": self.name, "title": self.title, "note": self.note, "rows": plain}


def seconds(work: Callable[[], Any], device: str = "cpu") -> float:
    """Wall time of one call."""
    _wait(device)
    begin = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - begin


def rates(contenders: Mapping[str, Contender], repeats: int, device: str = "cpu") -> dict[str, np.ndarray]:
    """Units per second of each contender, `(repeats,)`: one round to warm up, then A B A B ..."""
    taken = {name: np.zeros(repeats) for name in contenders}
    for repeat in range(-1, repeats):
        for name, contender in contenders.items():
            duration = seconds(contender.work, device)
            if repeat >= 0:
                taken[name][repeat] = duration
    return {name: contender.units / taken[name] for name, contender in contenders.items()}


def _wait(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
