"""Progress of long work: what reports it, and bars with a rate and the time left for each stage of it."""

from __future__ import annotations

from collections.abc import Callable
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
        console: Where to draw, standard error by default; on anything but a terminal or a notebook nothing is drawn.
    """

    def __init__(self, console: Console | None = None) -> None:
        console = console or Console(stderr=True)
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
