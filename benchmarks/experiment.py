"""One job: train the lanes of some cells together, evaluate them, and say how it went.

On a CPU a job is one cell, on one thread. On a GPU it is all cells of a learner on one pair of datasets.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import data, results, trainer
from benchmarks.algos import Lane
from benchmarks.batches import parse_ratio
from benchmarks.evaluate import Evaluator, Reference
from benchmarks.results import Cell, Results
from benchmarks.suites import ALGORITHMS, Budget, choose

Progress = Callable[[str, int, int], None]
Record = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Job:
    """Cells that are run together.

    Attributes:
        cells: They share all but augmented data, kind, ratio and seed, and name at most one augmented dataset.
        config: Settings of the learner.
        budget: How often to evaluate.
        device: Torch device.
        precision: See `trainer.train`.
    """

    cells: tuple[Cell, ...]
    config: Any
    budget: Budget
    device: str = "cpu"
    precision: trainer.Precision = "fp32"

    @property
    def label(self) -> str:
        """For people."""
        first = self.cells[0]
        which = f"seed {first.seed} {'augmented' if first.augmented else 'original'}"
        return f"{first.algo} {first.dataset} {which if len(self.cells) == 1 else f'{len(self.cells)} runs'}"


def algorithm(name: str) -> Any:
    """The module of a learner.

    Raises:
        UnknownNameError: There is none.
    """
    choose("algorithm", name, dict.fromkeys(ALGORITHMS))
    return importlib.import_module(f"benchmarks.algos.{name}")


def settings(name: str, dataset: str, budget: Budget) -> Any:
    """The learner's settings for a dataset, within a budget."""
    config = algorithm(name).Config.for_dataset(dataset)
    changes = dict(budget.settings.get(name, {}))
    if name in budget.steps:
        changes["steps"] = budget.steps[name]
    return dataclasses.replace(config, **changes)


def cells(
    algo: str, dataset: str, augmented: str, *, kind: str, ratio: str, seeds: Iterable[int], budget: Budget
) -> list[Cell]:
    """The cells of one comparison: each seed on the original data and on the mix."""
    config = settings(algo, dataset, budget)
    common = {
        "algo": algo,
        "dataset": dataset,
        "budget": budget.name,
        "protocol": f"{budget.protocol}, of {budget.evaluations}",
        "settings": results.digest(dataclasses.asdict(config)),
        "source": results.identity(dataset),
    }
    mix = {"augmented": augmented, "kind": kind, "ratio": ratio, "made": results.identity(augmented)}
    return [Cell(**common, **extra, seed=seed) for seed in seeds for extra in ({}, mix)]


def jobs(
    pending: Sequence[Cell], budget: Budget, *, device: str = "cpu", precision: trainer.Precision = "fp32"
) -> list[Job]:
    """Group unfinished cells into jobs."""
    options: dict[str, Any] = {"budget": budget, "device": device, "precision": precision}
    if device == "cpu":
        groups = [(cell,) for cell in pending]
    else:
        # Cells on original data join the first group of their learner and dataset.
        mixes: dict[tuple, list[Cell]] = {}
        for _, group in groupby(sorted(pending, key=lambda cell: cell.original), key=lambda cell: cell.original):
            members = list(group)
            first = min((c.augmented, c.kind) for c in members if c.augmented or not any(m.augmented for m in members))
            for cell in members:
                which = (cell.augmented, cell.kind) if cell.augmented else first
                mixes.setdefault((cell.original, which), []).append(cell)
        groups = [tuple(group) for group in mixes.values()]
    return [Job(cells=tuple(g), config=settings(g[0].algo, g[0].dataset, budget), **options) for g in groups]


def run(job: Job, progress: Progress | None = None) -> list[tuple[Cell, dict[str, Any]]]:
    """Train and evaluate the cells of a job.

    Returns:
        Each cell with its record, see `benchmarks.results`.

    Raises:
        StitchError: One of its kinds.
    """
    begin = time.perf_counter()
    first = job.cells[0]
    module = algorithm(first.algo)
    augmented, kind = max((cell.augmented, cell.kind) for cell in job.cells)
    made = max(cell.made for cell in job.cells)
    table = _load(first.dataset, augmented or None, kind or "episodes", job.device, first.source + made)
    config = job.config
    if getattr(config, "target_return", 0.0) is None:
        best = float(table.episodes.returns[: table.original_episodes].max())
        config = dataclasses.replace(config, target_return=best)
    reference = Reference.of(table.source)
    evaluator = Evaluator(
        dataset=table.source,
        mean=table.mean.cpu().numpy(),
        std=table.std.cpu().numpy(),
        context=module.CONTEXT,
        target_return=getattr(config, "target_return", 0.0),
        device=job.device,
        workers=1 if job.device == "cpu" else os.cpu_count() or 1,
    )
    lanes = [Lane(seed=cell.seed, ratio=parse_ratio(cell.ratio)) for cell in job.cells]
    played: list[tuple[int, np.ndarray]] = []

    def evaluate(step: int, state: Any, info: Any) -> None:
        returns = evaluator(
            lambda observations: module.act(config, state, observations),
            [cell.seed for cell in job.cells],
            job.budget.episodes,
        )
        played.append((step, returns))

    try:
        trained = trainer.train(
            module,
            config,
            table,
            lanes,
            precision=job.precision,
            evaluate_every=max(1, config.steps // job.budget.evaluations),
            on_eval=evaluate,
            progress=None if progress is None else lambda done, total: progress(job.label, done, total),
        )
    finally:
        evaluator.close()
    common = {
        "config": dataclasses.asdict(config),
        "reference": dataclasses.asdict(reference),
        **results.conditions(job.device),
        "precision": job.precision,
        "compiled": trained.compiled,
        "lanes": len(lanes),
        "train_seconds": round(trained.seconds, 2),
        "seconds": round(time.perf_counter() - begin, 2),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    finished = []
    for lane, cell in enumerate(job.cells):
        scores = [(step, float(reference.score(returns[lane]).mean())) for step, returns in played]
        record = {
            "score": float(np.mean([score for _, score in scores[-job.budget.last :]])),
            "curve": scores,
            "returns": played[-1][1][lane].tolist(),
            "losses": {name: float(values[lane]) for name, values in trained.info.items()},
            **common,
        }
        finished.append((cell, record))
    return finished


def run_and_keep(job: Job, folder: Path, progress: Progress | None = None) -> int:
    """Run a job and append what it finds; return how many cells it finished."""
    torch.set_num_threads(1 if job.device == "cpu" else torch.get_num_threads())
    finished = run(job, progress)
    for cell, record in finished:
        Results(folder).append(cell, record)
    return len(finished)


@lru_cache(maxsize=2)
def _load(dataset: str, augmented: str | None, kind: Any, device: str, identity: str) -> data.LearnerData:
    """Jobs of a process share the data; `identity` is there to be part of the key."""
    return data.load(dataset, augmented, augmented=kind, device=device)
