"""Progress of long work on a terminal: one line for each stage, with its rate and the time left."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

_UNITS = {"roll out": "steps", "stitch": "steps", "sample": "steps", "write": "episodes", "draw": "pictures"}


class Rate(ProgressColumn):
    """Units a second."""

    def render(self, task: Task) -> Text:
        """Draw the rate of a stage."""
        speed = task.finished_speed or task.speed
        unit = _UNITS.get(task.description.removeprefix("train "), "steps")
        return Text(f"{speed:,.0f} {unit}/s" if speed else "", style="progress.data.speed")


class Stages:
    """Shows `(stage, done, total)` reports of a run.

    Args:
        console: Where to draw; on anything but a terminal nothing is drawn.
        networks: Stages that train.
    """

    def __init__(self, console: Console, networks: tuple[str, ...]) -> None:
        self._networks = networks
        self._tasks: dict[str, int] = {}
        self._progress = Progress(
            TextColumn("{task.description:<18}"),
            BarColumn(),
            MofNCompleteColumn(),
            Rate(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Stages:
        """Begin to draw."""
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the last state on the screen."""
        self._progress.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Take a report."""
        label = f"train {stage}" if stage in self._networks else stage
        if label not in self._tasks:
            # What an earlier run did is no measure of this one's rate.
            self._tasks[label] = self._progress.add_task(label, total=total, completed=0)
        self._progress.update(self._tasks[label], completed=done, total=total)  # type: ignore[arg-type]
