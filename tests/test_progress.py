"""Bars on a terminal, lines elsewhere."""

import io

import pytest
from rich.console import Console

from minari_stitch import progress
from minari_stitch.progress import Bars


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when told so."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_without_a_terminal_a_line_is_flushed_every_half_minute(clock):
    class File(io.StringIO):
        flushed = ""

        def flush(self):
            self.flushed = self.getvalue()

    file = File()
    with Bars(Console(file=file)) as bars:
        for second in range(0, 95):
            clock[0] = 100.0 + second
            bars("train dynamics", 10 * second, 1000)
            assert file.flushed.count("\n") == second // 30
    assert file.flushed.splitlines() == [
        "train dynamics: 300 of 1,000, 10 steps/s, 0:01:10 left",
        "train dynamics: 600 of 1,000, 10 steps/s, 0:00:40 left",
        "train dynamics: 900 of 1,000, 10 steps/s, 0:00:10 left",
    ]


def test_a_stage_that_has_not_moved_has_no_rate(clock):
    file = io.StringIO()
    bars = Bars(Console(file=file), every=5)
    bars("write", 0, 7)
    clock[0] += 6
    bars("write", 0, 7)
    bars("stitch", 5, 70)
    assert file.getvalue() == "write: 0 of 7\n"


def test_on_a_terminal_there_are_bars(clock):
    file = io.StringIO()
    with Bars(Console(file=file, force_terminal=True, width=100), every=0) as bars:
        bars("stitch", 5, 70)
    assert "5/70" in file.getvalue() and "stitch: 5" not in file.getvalue()
