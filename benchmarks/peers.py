"""d3rlpy's learners beside ours: the same dataset, settings, steps, thread and evaluation episodes, taking turns.

make peers                                         makes d3rlpy's environment, and runs this with it
python benchmarks/peers.py --python .venv/peers/bin/python --algo iql --steps 10000 --seeds 3
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import data, experiment
from benchmarks.budgets import BUDGETS
from benchmarks.comparison import interval, spread
from benchmarks.evaluate import Reference, starts
from benchmarks.experiment import WorkUnit
from benchmarks.results import Cell
from benchmarks.suites import DEFAULT_DATASET
from minari_stitch.errors import StitchError

PEERS = ("td3_bc", "iql", "dt")


class PeerError(StitchError):
    """The peer cannot be run."""


def main(
    algo: Annotated[str, typer.Option(help=f"{', '.join(PEERS)} or all.")] = "all",
    dataset: Annotated[str, typer.Option(metavar="ID", help="A local dataset.")] = DEFAULT_DATASET,
    steps: Annotated[int, typer.Option(help="Gradient steps; DT takes a twentieth.")] = 2000,
    seeds: Annotated[int, typer.Option(help="Seeds 0, 1, ...")] = 1,
    episodes: Annotated[int, typer.Option(help="Episodes of the one evaluation, at the end.")] = 10,
    python: Annotated[Path, typer.Option(help="Python of d3rlpy's environment.")] = Path(".venv/peers/bin/python"),
) -> None:
    """Train both, and print scores and speeds side by side."""
    torch.set_num_threads(1)
    try:
        table = Table("Learner", "Steps", "Ours", "d3rlpy", "Difference", "Ours, steps/s", "d3rlpy, steps/s", "Ratio")
        for name in PEERS if algo == "all" else (algo,):
            table.add_row(*compare(name, dataset, steps // 20 if name == "dt" else steps, seeds, episodes, python))
    except StitchError as error:
        Console(stderr=True).print(f"[red]{type(error).__name__}[/]: {error}", soft_wrap=True)
        raise typer.Exit(1) from None
    table.title = f"{dataset}, {seeds} seeds, {episodes} episodes a seed after the last step, one thread each"
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def compare(algo: str, dataset: str, steps: int, seeds: int, episodes: int, python: Path) -> list[str]:
    """A row: both learners, seed by seed in turn.

    Raises:
        PeerError: d3rlpy failed, or is not there.
        StitchError: Whatever ours has to say.
    """
    plan = dataclasses.replace(BUDGETS["small"], steps={algo: steps}, episodes=episodes, evaluations=1)
    config = experiment.settings(algo, dataset, plan)
    if algo == "iql":  # d3rlpy's has neither of what CORL makes exceptions for
        config = dataclasses.replace(config, deterministic=False, normalize_rewards=False, dropout=0.0)
    reference = Reference.of(data.load(dataset).source)
    ours, theirs, speeds = [], [], []
    for seed in range(seeds):
        ((_, record),) = experiment.run(
            WorkUnit(cells=(Cell(algo=algo, dataset=dataset, seed=seed),), config=config, budget=plan)
        )
        peer = _peer(python, algo, dataset, record["config"], seed, episodes)
        ours.append(record["score"])
        theirs.append(float(reference.score(np.array(peer["returns"])).mean()))
        speeds.append((steps / record["train_seconds"], peer["steps_per_second"]))
    mean, half = interval(np.array(ours) - np.array(theirs))
    fast, slow = np.median(speeds, 0)
    scores = [f"{np.mean(x):.1f} ± {spread(x):.1f}" for x in (ours, theirs)]
    between = f"{mean:+.1f}" + (f" ± {half:.1f}" if seeds > 1 else "")
    ratio = np.median([a / b for a, b in speeds])
    return [algo, str(steps), *scores, between, f"{fast:.1f}", f"{slow:.1f}", f"{ratio:.2f}"]


def _peer(python: Path, algo: str, dataset: str, settings: dict, seed: int, episodes: int) -> dict:
    if not python.exists():
        raise PeerError(f"there is no {python}: run `make peers`, or `sh benchmarks/peers.sh`, which makes it")
    words = {
        "--algo": algo,
        "--dataset": dataset,
        "--settings": json.dumps(settings),
        "--starts": json.dumps(starts(seed, episodes)),
        "--seed": str(seed),
    }
    command = [str(python), "-W", "ignore", str(Path(__file__).with_name("_d3rlpy.py"))]
    command += [word for pair in words.items() for word in pair]
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | threads)
    if done.returncode:
        raise PeerError(f"d3rlpy failed on {algo}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    typer.run(main)
