"""Progress of long work: what reports it, and bars with a rate and the time left for each stage of it.

Where there is no terminal, a line now and then says the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from importlib.util import find_spec

from rich import progress as rich_progress
from rich.console import Console
from rich.text import Text

Progress = Callable[[str, int, int], None]
"""Called as `progress(stage, done, total)`."""

_UNITS = {"roll out": "steps", "stitch": "steps", "sample": "steps", "write": "episodes", "draw": "pictures"}


class _Rate(rich_progress.ProgressColumn):
    """Units a second."""

    def render(self, task: rich_progress.Task) -> Text:
        speed = task.finished_speed or task.speed
        unit = _UNITS.get(task.description, "steps")
        return Text(f"{speed:,.0f} {unit}/s" if speed else "", style="progress.data.speed")


class Bars:
    """Shows `(stage, done, total)` reports, a bar for each stage.

    Args:
        console: Where to draw, standard error by default. On anything but a terminal or a notebook nothing is drawn,
            and a line is printed instead.
        every: Seconds between such lines.
    """

    def __init__(self, console: Console | None = None, *, every: float = 30.0) -> None:
        console = console or Console(stderr=True)
        self._console, self._every = console, every
        self._said = time.monotonic()
        self._begun: dict[str, tuple[float, int]] = {}
        notebook = console.is_jupyter and find_spec("ipywidgets") is not None  # without it rich only warns
        self._tasks: dict[str, rich_progress.TaskID] = {}
        self._progress = rich_progress.Progress(
            rich_progress.TextColumn("{task.description:<18}"),
            rich_progress.BarColumn(),
            rich_progress.MofNCompleteColumn(),
            _Rate(),
            rich_progress.TimeElapsedColumn(),
            rich_progress.TimeRemainingColumn(),
            console=console,
            disable=not (console.is_terminal or notebook),
        )

    def __enter__(self) -> Bars:
        """Begin to draw."""
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the last state on the screen."""
        self._progress.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Take a report."""
        if stage not in self._tasks:
            # What an earlier run did is no measure of this one's rate.
            self._tasks[stage] = self._progress.add_task(stage, total=total, completed=0)
        self._progress.update(self._tasks[stage], completed=done, total=total)
        if self._progress.disable:
            self._say(stage, done, total)

    def _say(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        begun, first = self._begun.setdefault(stage, (now, done))
        if now - self._said < self._every:
            return
        self._said, line = now, f"{stage}: {done:,} of {total:,}"
        if done > first:
            rate = (done - first) / (now - begun)
            left = timedelta(seconds=round((total - done) / rate))
            line += f", {rate:,.0f} {_UNITS.get(stage, 'steps')}/s, {left} left"
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        self._console.file.flush()
