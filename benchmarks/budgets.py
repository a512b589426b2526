"""How long learners are trained and how often they are evaluated: budgets by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ALGORITHMS = ("dt", "iql", "td3_bc", "bc")
GOAL_ALGORITHMS = ("gcbc", "gcivl", "gciql")
"""Learners for goals, on data of OGBench's: `benchmarks/ogbench/run.py`."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How long and how often.

    Attributes:
        name: On the command line.
        seeds: By default.
        evaluations: During training, at equal distances; the last at its end.
        last: How many of them, the last ones, make the score.
        episodes: Of each evaluation and seed.
        steps: Gradient steps of each learner; its own where it has no entry.
        settings: Other settings of a learner.
        lanes: Runs that are trained together on a CPU; more pay where networks are small.
    """

    name: str
    seeds: int
    evaluations: int
    last: int = 1
    episodes: int = 10
    steps: Mapping[str, int] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    lanes: int = 1

    @property
    def protocol(self) -> str:
        """How a score is made, in words."""
        what = "the last evaluation" if self.last == 1 else f"the mean of the last {self.last} evaluations"
        return f"{what}, {self.episodes} episodes a seed"


_RATES = dict.fromkeys(("actor_rate", "critic_rate", "value_rate"), 1e-3)
_SMALL_DT = {"batch_size": 32, "width": 32, "layers": 2, "learning_rate": 2e-3}
_MAZE = {"hidden": 128, "batch_size": 128}
_MAZE_TD = _MAZE | {"discount": 0.995, "target_rate": 0.02}
BUDGETS = {
    budget.name: budget
    for budget in (
        Budget(
            name="smoke",
            seeds=2,
            evaluations=1,
            episodes=2,
            steps=dict.fromkeys(ALGORITHMS, 20) | {"dt": 4},
            settings={"dt": {"batch_size": 16}},
        ),
        # Of one core's minutes: 2 cores train one learner in less than five, beside which a demo dataset can be made.
        Budget(
            name="small",
            seeds=3,
            evaluations=2,
            steps={"dt": 200, "iql": 6_000, "td3_bc": 7_000, "bc": 15_000},
            settings={"dt": {"batch_size": 64, "learning_rate": 1e-3}},
        ),
        Budget(
            name="medium",
            seeds=5,
            evaluations=5,
            steps={"dt": 2_500, "iql": 50_000, "td3_bc": 50_000, "bc": 50_000},
            settings={"dt": {"batch_size": 64}},
        ),
        # Small networks and large steps pass the knee of the learning curve on halfcheetah: TD learners stand still
        # from 24,000 steps on. Three quarters of a minute a run on one core.
        Budget(
            name="knee",
            seeds=8,
            evaluations=5,
            last=2,
            lanes=8,
            steps={"dt": 4_000, "iql": 30_000, "td3_bc": 30_000, "bc": 30_000},
            settings={
                "dt": _SMALL_DT,
                "iql": {"hidden": 64, "target_rate": 0.005} | _RATES,
                "td3_bc": {"hidden": 64, "learning_rate": 1e-3},
                "bc": {"hidden": 64, "learning_rate": 1e-3},
            },
        ),
        # A sequence model's policy changes much from one evaluation to the next: average more of them.
        Budget(
            name="knee-dt", seeds=16, evaluations=10, last=5, lanes=8, steps={"dt": 4_000}, settings={"dt": _SMALL_DT}
        ),
        # Without history it does not copy what the recorded policy did next: it gains from better episodes, and only
        # from the state and the return it asks for (docs/EXPERIMENTS.md, 27).
        Budget(
            name="knee-one-step",
            seeds=16,
            evaluations=5,
            last=2,
            lanes=8,
            steps={"dt": 4_000},
            settings={"dt": _SMALL_DT | {"context": 1, "batch_size": 256}},
        ),
        # A point maze: values travel through hundreds of steps, so targets follow fast and the discount is near 1.
        # Returns are some twenty, so advantages weigh less than they do elsewhere (docs/EXPERIMENTS.md, 18 and 22).
        # A DT that sees what it did a step before arrives nowhere (25).
        Budget(
            name="maze",
            seeds=8,
            evaluations=1,
            episodes=100,
            lanes=8,
            steps={"dt": 3_000, "iql": 8_000, "td3_bc": 10_000, "bc": 10_000},
            settings={
                "dt": _SMALL_DT | {"context": 1, "batch_size": 128, "warmup": 300, "dropout": 0.0, "decay": True},
                "iql": _MAZE_TD | _RATES | {"beta": 0.3},
                "td3_bc": _MAZE_TD | {"learning_rate": 1e-3, "alpha": 0.1},
                "bc": _MAZE | {"learning_rate": 1e-3},
            },
        ),
        Budget(name="paper", seeds=5, evaluations=20),
    )
}
