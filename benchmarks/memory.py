"""Peak memory of `minari-stitch augment` on a dataset of a million steps.

    python benchmarks/memory.py

Writes a synthetic dataset of Hopper's shapes (S = 11, A = 3) to a temporary folder, augments it through the
real command with tiny training budgets, and watches the resident memory of every process of the command.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.console import Console

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks._timing import Section
from benchmarks._walk import SPACES, walk
from minari_stitch.data import minari_io

DATASET_ID = "bench/walk-v0"
GOAL_MIB = 2048
_COMMAND = "from minari_stitch.cli import main; main()"
_INTERVAL = 0.05
_BUDGETS = ("diffusion.fit", "dynamics", "inverse", "reward", "termination")
_KINDS = {"Rss": "resident", "Pss": "proportional"}


@dataclass
class Peaks:
    """Largest memory seen, in MiB, and how long the command took.

    Attributes:
        parent: Of the command's first process.
        child: Of its largest other process.
        tree: Of all its processes together, by `resident` (shared pages counted in each process) and
            `proportional` (shared pages counted once) set size.
        stage: What was under way at each peak.
        seconds: Wall time.
    """

    parent: float = 0.0
    child: float = 0.0
    tree: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_KINDS.values(), 0.0))
    stage: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def see(self, root: int, stage: str) -> None:
        """Take one look at the process `root` and its descendants."""
        used = {pid: memory for pid in _family(root) if (memory := _memory(pid))}
        if root not in used:
            return
        looks = {"parent": used[root]["resident"]}
        looks["child"] = max((m["resident"] for pid, m in used.items() if pid != root), default=0.0)
        for name, value in looks.items():
            if value > getattr(self, name):
                setattr(self, name, value)
                self.stage[name] = stage
        for kind in self.tree:
            total = sum(memory[kind] for memory in used.values())
            if total > self.tree[kind]:
                self.tree[kind] = total
                self.stage[kind] = stage


def watch(command: list[str], environment: dict[str, str]) -> Peaks:
    """Run a command to its end and record the peaks; its own progress names the stages."""
    peaks, begin, stage = Peaks(), time.monotonic(), "start"
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=errors)
        while process.poll() is None:
            peaks.see(process.pid, stage)
            stage = _stage(Path(environment["MINARI_DATASETS_PATH"]), stage)
            time.sleep(_INTERVAL)
        if process.returncode:
            errors.seek(0)
            raise SystemExit(f"the command failed:\n{errors.read()[-4000:]}")
    peaks.seconds = time.monotonic() - begin
    return peaks


def measure(n_steps: int, n_episodes: int, stitch_steps: int, workers: int, fits: int, settings: list[str]) -> Peaks:
    """Write the dataset, augment it, and return the peaks."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MINARI_DATASETS_PATH"] = folder
        minari_io.write(walk(n_steps, n_episodes), dataset_id=DATASET_ID, **SPACES)
        # Hardly trained models: every bridge that raises the return is to qualify.
        defaults = [*(f"models.{name}.steps={fits}" for name in _BUDGETS), "qualify.drift=None", "qualify.support=None"]
        defaults.append("qualify.termination=1")
        options = [part for setting in [*defaults, *settings] for part in ("--set", setting)]
        command = ["augment", DATASET_ID, "--device", "cpu", "--delta", "1e12", "--steps", str(stitch_steps)]
        command += ["--workers", str(workers), "--threads", "1", *options]
        return watch([sys.executable, "-c", _COMMAND, *command], dict(os.environ))


def main(
    steps: Annotated[int, typer.Option(help="Steps of the dataset.")] = 1_000_000,
    episodes: Annotated[int, typer.Option(help="Episodes of the dataset.")] = 2000,
    stitch_steps: Annotated[int, typer.Option("--stitch-steps", help="Stitched steps to write.")] = 20_000,
    workers: Annotated[int, typer.Option(help="Processes of the command.")] = 2,
    fits: Annotated[int, typer.Option(help="Gradient steps of each network.")] = 50,
    settings: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer reads this at run time
        typer.Option("--set", metavar="NAME=VALUE", help="As of `minari-stitch augment`; repeatable."),
    ] = None,
    json_file: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--json", help="Also write the figures here."),
    ] = None,
) -> None:
    """Report the peak memory of augmenting a large synthetic dataset (Linux: it reads /proc)."""
    if not Path("/proc/self/smaps_rollup").exists():
        raise SystemExit("memory is read from /proc/PID/smaps_rollup, which this system does not have: use Linux")
    peaks = measure(steps, episodes, stitch_steps, workers, fits, settings or [])
    section = Section(
        "memory",
        f"Peak memory, augmenting {steps:,} steps of {episodes:,} episodes",
        note=f"{stitch_steps:,} stitched steps, {workers} workers, {fits} gradient steps a network, "
        f"{peaks.seconds:.0f} s; goal: under {GOAL_MIB:,} MiB.",
    )
    for name, value, stage in (
        ("parent, resident", peaks.parent, "parent"),
        ("largest child, resident", peaks.child, "child"),
        *((f"all processes, {kind}", value, kind) for kind, value in peaks.tree.items()),
    ):
        section.add(what=name, MiB=round(value), during=peaks.stage.get(stage, ""), **{"of the goal": value / GOAL_MIB})
    section.show(Console(width=200))
    if json_file is not None:
        json_file.write_text(json.dumps(section.to_dict(), indent=1))


def _family(root: int) -> list[int]:
    """`root` and its descendants."""
    children: dict[int, list[int]] = defaultdict(list)
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            children[int(path.read_text().rpartition(")")[2].split()[1])].append(int(path.parent.name))
    family = [root]
    for pid in family:
        family += children[pid]
    return family


def _memory(pid: int) -> dict[str, float]:
    """MiB in use by a process; empty when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return {}
    values = dict(line.split(":") for line in lines)
    return {kind: int(values[name].split()[0]) / 1024 for name, kind in _KINDS.items()}


def _stage(datasets: Path, stage: str) -> str:
    """How far the command is, told from the files that it has made."""
    if any(datasets.glob(".minari-stitch-*")):
        return "write"
    if any(datasets.glob(".stitch-runs/*/chunks-*/*.npz")):
        return "stitch"
    if any(datasets.glob(".stitch-runs/*/source-*/offsets.npy")):
        return "train"
    return "read" if stage in ("start", "read") else stage


if __name__ == "__main__":
    typer.run(main)
