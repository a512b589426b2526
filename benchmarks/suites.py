"""What is run: budgets, suites of experiments, and which local datasets serve them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from minari_stitch.errors import StitchError
from minari_stitch.ids import datasets_path, exists, parse_id

ALGORITHMS = ("dt", "iql", "td3_bc", "bc")
DEFAULT_DATASET = "demo/hopper/medium-replay-v0"
VARIANTS = {"diffstitch": "stitched", "ser": "ser", "tatu": "tatu"}
"""Name of a method -> suffix of the datasets it writes."""


class UnknownNameError(StitchError):
    """An algorithm, budget or suite that is not there."""


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
    """

    name: str
    seeds: int
    evaluations: int
    last: int = 1
    episodes: int = 10
    steps: Mapping[str, int] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def protocol(self) -> str:
        """How a score is made, in words."""
        what = "the last evaluation" if self.last == 1 else f"the mean of the last {self.last} evaluations"
        return f"{what}, {self.episodes} episodes a seed"


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
        Budget(name="paper", seeds=5, evaluations=20),
    )
}


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One learner on one dataset, alone and mixed with what one method made of it.

    Attributes:
        algo: Name of the learner.
        dataset: Original dataset.
        variant: Method that augmented it, see `VARIANTS`.
        augmented: Id of the augmented dataset; by default the newest version of that variant.
    """

    algo: str
    dataset: str
    variant: str = "diffstitch"
    augmented: str | None = None


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Experiments under a name.

    Attributes:
        experiments: What is run.
        budget: Name of its default budget.
        make: Make missing demo datasets and their stitched versions instead of reporting them as missing.
    """

    experiments: tuple[Experiment, ...]
    budget: str = "small"
    make: bool = True


_LOCOMOTION = [f"demo/{env}/{quality}-v0" for env in ("halfcheetah", "hopper", "walker2d") for quality in (
    "medium", "medium-replay", "medium-expert")]  # fmt: skip
_PEN = ["D4RL/pen/human-v2", "D4RL/pen/cloned-v2"]

SUITES = {
    "smoke": Suite(
        experiments=tuple(Experiment(algo=algo, dataset=DEFAULT_DATASET) for algo in ALGORITHMS), budget="smoke"
    ),
    "demo": Suite(experiments=tuple(Experiment(algo=algo, dataset=DEFAULT_DATASET) for algo in ALGORITHMS)),
    "table1": Suite(
        experiments=tuple(
            Experiment(algo=algo, dataset=dataset, variant=variant)
            for dataset in _LOCOMOTION + _PEN
            for algo in ("iql", "td3_bc", "dt")
            for variant in VARIANTS
        ),
        budget="paper",
        make=False,
    ),
}


def choose(kind: str, name: str, table: Mapping[str, Any]) -> Any:
    """Look a name up.

    Raises:
        UnknownNameError: It is not there.
    """
    if name not in table:
        raise UnknownNameError(f"there is no {kind} {name!r}: choose one of {', '.join(table)}")
    return table[name]


def newest(dataset_id: str, variant: str = "diffstitch") -> str | None:
    """The newest local version of what a method made of a dataset.

    Raises:
        DatasetIdError: The id is malformed.
    """
    namespace, name = parse_id(dataset_id)
    folder = datasets_path() / (namespace or "")
    pattern = re.compile(rf"{re.escape(name)}-{VARIANTS[variant]}-v(\d+)")
    found = [match for path in folder.glob("*") if (match := pattern.fullmatch(path.name))]
    ids = [(int(match[1]), f"{namespace}/{match[0]}" if namespace else match[0]) for match in found]
    return max(((number, id) for number, id in ids if exists(id)), default=(0, None))[1]


def how_to_get(dataset_id: str, variant: str | None = None) -> str:
    """What to do about a dataset that is not local (a `variant` of it, where one is named)."""
    if variant == "diffstitch":
        return f"minari-stitch augment {dataset_id}"
    if variant is not None:
        name = dataset_id.rpartition("-v")[0]
        return f"write what {variant.upper()} makes of it as {name}-{VARIANTS[variant]}-v0"
    if dataset_id.startswith("demo/"):
        return f"minari-stitch augment {dataset_id} (it makes both)"
    return f"minari download {dataset_id}"
