"""A unit of work: train the runs of some cells together, evaluate them, and say how it went.

On a CPU it is one cell, or a few of small networks, on one thread; on a GPU all cells of a learner on one pair of
datasets.
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
from typing import Any

import numpy as np
import torch

from benchmarks import data, results, trainer
from benchmarks.algos import history
from benchmarks.batches import parse_ratio
from benchmarks.budgets import ALGORITHMS, GOAL_ALGORITHMS, Budget
from benchmarks.evaluate import Evaluator, Reference
from benchmarks.ogbench.evaluate import TaskEvaluator
from benchmarks.results import Cell
from benchmarks.suites import choose
from benchmarks.trails import Trails
from benchmarks.trainer import TrainingRun
from minari_stitch.data.spaces import FlatSpace

Progress = Callable[[str, int, int], None]
Record = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class WorkUnit:
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
    choose("algorithm", name, dict.fromkeys((*ALGORITHMS, *GOAL_ALGORITHMS)))
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


def work_units(
    pending: Sequence[Cell], budget: Budget, *, device: str = "cpu", precision: trainer.Precision = "fp32"
) -> list[WorkUnit]:
    """Group unfinished cells into units of work: all of a learner on one pair of datasets, on a CPU only `lanes`."""
    options: dict[str, Any] = {"budget": budget, "device": device, "precision": precision}
    lanes = budget.lanes if device == "cpu" else len(pending)
    if lanes == 1:
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
        groups = [part for group in mixes.values() for part in _batched(group, lanes)]
    return [WorkUnit(cells=tuple(g), config=settings(g[0].algo, g[0].dataset, budget), **options) for g in groups]


def _batched(cells: Sequence[Cell], size: int) -> list[tuple[Cell, ...]]:
    return [tuple(cells[at : at + size]) for at in range(0, len(cells), size)]


def for_goals(module: Any) -> bool:
    """Whether a learner's policies pursue goals; its score is then the share of goals that are reached."""
    return getattr(module, "GOALS", False)


def with_target(config: Any, table: data.LearnerData) -> Any:
    """The settings of a learner that asks for a return, with the best original one where they name none."""
    if getattr(config, "target_return", 0.0) is not None:
        return config
    best = float(table.episodes.returns[: table.original_episodes].max())
    return dataclasses.replace(config, target_return=best)


def evaluator_of(module: Any, config: Any, table: data.LearnerData) -> Evaluator | TaskEvaluator:
    """What plays a learner's policies in the environment of its data, on their device."""
    if for_goals(module):
        return TaskEvaluator(dataset=table.source, device=table.device)
    return Evaluator(
        dataset=table.source,
        mean=table.mean.cpu().numpy(),
        std=table.std.cpu().numpy(),
        context=history(config),
        target_return=getattr(config, "target_return", 0.0),
        device=table.device,
        workers=1 if table.device.type == "cpu" else _cores(),
    )


def _cores() -> int:
    """That this process may use, which can be fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(unit: WorkUnit, progress: Progress | None = None) -> list[tuple[Cell, dict[str, Any]]]:
    """Train and evaluate the cells of a unit.

    Returns:
        Each cell with its record, see `benchmarks.results`.

    Raises:
        StitchError: One of its kinds.
    """
    begin = time.perf_counter()
    first = unit.cells[0]
    module = algorithm(first.algo)
    augmented, kind = max((cell.augmented, cell.kind) for cell in unit.cells)
    made = max(cell.made for cell in unit.cells)
    table = _load(first.dataset, augmented or None, kind or "episodes", unit.device, first.source + made)
    config = with_target(unit.config, table)
    reached = Reference(low=0.0, high=1.0, source="success")
    reference = reached if for_goals(module) else Reference.of(table.source)
    evaluator = evaluator_of(module, config, table)
    runs = [TrainingRun(seed=cell.seed, ratio=parse_ratio(cell.ratio)) for cell in unit.cells]
    played: list[tuple[int, np.ndarray]] = []
    diverged: dict[int, int] = {}
    columns = FlatSpace(table.source.observation_space).plane
    trails: list[Trails] = []

    def evaluate(step: int, state: Any, info: Any) -> None:
        finite = torch.stack(list(info.values())).isfinite().all(0).tolist()
        for k in (k for k, sound in enumerate(finite) if not sound):
            diverged.setdefault(k, step)
        trails[:] = [] if columns is None else [Trails(columns)]
        returns = evaluator(  # a simulator given NaN may hang
            lambda observations: module.act(config, state, observations).nan_to_num(),
            [cell.seed for cell in unit.cells],
            unit.budget.episodes,
            *trails,
        )
        played.append((step, returns))

    trained = trainer.train(
        module,
        config,
        table,
        runs,
        precision=unit.precision,
        evaluate_every=max(1, config.steps // unit.budget.evaluations),
        on_eval=evaluate,
        progress=None if progress is None else lambda done, total: progress(unit.label, done, total),
    )
    common = {
        "config": dataclasses.asdict(config),
        "reference": dataclasses.asdict(reference),
        **results.conditions(unit.device),
        "precision": unit.precision,
        "compiled": trained.compiled,
        "runs": len(runs),
        "train_seconds": round(trained.seconds, 2),
        "seconds": round(time.perf_counter() - begin, 2),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    finished = []
    for k, cell in enumerate(unit.cells):
        scores = [(step, float(reference.score(returns[k]).mean())) for step, returns in played]
        record = {
            "score": float(np.mean([score for _, score in scores[-unit.budget.last :]])),
            "curve": scores,
            "returns": played[-1][1][k].tolist(),
            "losses": {name: float(values[k]) for name, values in trained.info.items()},
            **({"trails": trails[0].of(k)} if trails else {}),
            **common,
        }
        if k in diverged:
            record |= {"score": None, "diverged": diverged[k], "losses": {}}
        finished.append((cell, record))
    return finished


@lru_cache(maxsize=2)
def _load(dataset: str, augmented: str | None, kind: Any, device: str, identity: str) -> data.LearnerData:
    """Units of a process share the data; `identity` is there to be part of the key."""
    return data.load(dataset, augmented, augmented=kind, device=device)
