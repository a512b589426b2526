"""What is run: suites of experiments, each table and figure of the paper by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from benchmarks.budgets import ALGORITHMS
from benchmarks.data import AugmentedKind
from minari_stitch.config import adjust
from minari_stitch.errors import StitchError
from minari_stitch.transforms.base import Size, Transform
from minari_stitch.transforms.registry import preset

DEFAULT_DATASET = "demo/hopper/medium-replay-v0"
MAZE = "demo/pointmaze/zigzag-split-v0"


class UnknownNameError(StitchError):
    """An algorithm, budget or suite that is not there."""


@dataclass(frozen=True, kw_only=True, order=True)
class Variant:
    """A way to augment a dataset.

    Attributes:
        method: As `minari-stitch augment --method` takes it.
        label: Sets the id of what it writes apart from that of the method's defaults.
        settings: What differs from its defaults: dotted names and values.
        steps: How much to make; 0 stands for as many steps as the source has.
        beside: What else is made of the dataset, and mixed with it.
    """

    method: str = "diffstitch"
    label: str = ""
    settings: tuple[tuple[str, Any], ...] = ()
    steps: int = 0
    beside: tuple[Variant, ...] = ()

    @property
    def parts(self) -> tuple[Variant, ...]:
        """What is mixed; of what stands alone nothing."""
        return (replace(self, beside=()), *self.beside) if self.beside else ()

    @property
    def suffix(self) -> str:
        """What the names of the datasets it writes end with, before the version."""
        if self.beside:
            return "-and-".join(part.suffix for part in self.parts)
        return f"{self.transform().output_suffix}{'-' if self.label else ''}{self.label}"

    @property
    def title(self) -> str:
        """For people."""
        if self.beside:
            return " and ".join(part.title for part in self.parts)
        made = self.transform()
        form = "" if made.output_suffix == made.suffix else made.output_suffix
        return ", ".join(filter(None, (made.name, form, self.label.replace("-", " "))))

    def transform(self, size: Size = "fast") -> Transform:
        """The method with these settings, at a size."""
        return adjust(preset(self.method, size), dict(self.settings))


DIFFSTITCH = Variant()
TRANSITIONS = Variant(
    label="high",
    settings=(("form", "transitions"), ("stitch.pairs", "reference"), ("stitch.pool", 512)),
    steps=50_000,
)
"""Steps of bridges that leave states of high return: those from low ones teach that bad states are easily left, and
whole bridges that their targets are reached (docs/EXPERIMENTS.md, 10 and 11)."""
RESAMPLED = Variant(method="resample")
OVER = Variant(
    label="over",
    settings=(
        ("stitch.pairs", "connect"),
        ("stitch.rising", True),
        ("stitch.nearest", 0.02),
        ("stitch.spread", True),
        ("stitch.latest_source", 400),
        ("stitch.fixed_steps", 52),
        ("stitch.max_bridge", 52),
        ("stitch.sampler_steps", 10),
        ("stitch.imitation", 0.0),
        ("qualify.support", 200.0),
        ("qualify.stray", 650.0),
        ("qualify.bend", 0.08),
        ("qualify.delta", 0.25),
        ("models.diffusion.horizon", 56),
        ("models.diffusion.width", 32),
        ("models.diffusion.multipliers", (1, 2, 4)),
        ("models.diffusion.kernel", 5),
        ("models.diffusion.fit.steps", 400),
        ("models.diffusion.fit.batch_size", 32),
        ("models.dynamics.steps", 1_200),
        ("models.inverse.steps", 600),
        ("models.reward.steps", 100),
        ("models.termination.steps", 200),
        ("models.behaviour", None),
    ),
    steps=100_000,
)
"""Bridges over what no trajectory enters, where no behaviour is known: as long as it takes, as far from all data, and
to many targets; and straight (docs/EXPERIMENTS.md, 16, 18, 40, 41 and 46)."""


EARLY = Variant(
    label="early",
    settings=(("stitch.discount", 1.0), ("stitch.target_fraction", 0.004), ("stitch.latest_source", 10)),
)
"""Episodes that leave in their first steps for where the most is still to come (docs/EXPERIMENTS.md, 27)."""


@dataclass(frozen=True, kw_only=True)
class Mix:
    """What a learner is given beside the original data.

    Attributes:
        variant: How it is made.
        kind: What the augmented side of a batch is drawn from: `bridges` or `episodes`.
        ratio: Original : augmented.
    """

    variant: Variant = DIFFSTITCH
    kind: AugmentedKind = "episodes"
    ratio: str = "4:1"


MIXES: Mapping[AugmentedKind, Mix] = {"bridges": Mix(variant=TRANSITIONS, kind="bridges"), "episodes": Mix()}
"""By what their augmented side is drawn from."""
RECOMMENDED = {
    "td3_bc": MIXES["bridges"],
    "iql": MIXES["bridges"],
    "dt": Mix(variant=replace(EARLY, beside=(RESAMPLED,)), ratio="1:1"),
    "bc": MIXES["episodes"],
}
"""What was found to suit each learner best where trajectories meet. DT's was confirmed, without history, on a fifth of
hopper's data; the others on no other data (docs/RESULTS.md)."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One learner on one dataset, alone and mixed with what one method made of it.

    Attributes:
        algo: Name of the learner.
        dataset: Original dataset.
        variant: How it is augmented.
        ratio: Original : augmented; that of the command line where it is None.
        kind: What the augmented side is drawn from; that of the command line where it is None.
        augmented: Id of the augmented dataset; by default the newest version of that variant.
    """

    algo: str
    dataset: str
    variant: Variant = DIFFSTITCH
    ratio: str | None = None
    kind: AugmentedKind | None = None
    augmented: str | None = None


Family = Literal["demo", "d4rl"]
"""Where a suite's datasets come from: our own recipes, or files of D4RL (`minari-stitch import-d4rl`)."""


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Experiments under a name.

    Attributes:
        experiments: What is run, for a family of datasets.
        budget: Name of its default budget.
        what: In words.
    """

    experiments: Callable[[Family], tuple[Experiment, ...]]
    what: str
    budget: str = "small"


def dataset(family: Family, env: str, quality: str) -> str:
    """Id of a dataset of the paper; the demo recipes have no people, so a replay buffer stands for pen-human."""
    if family == "d4rl":
        return f"d4rl/{env}/{quality}-{'v1' if env == 'pen' else 'v2'}"
    stand_in = {"human": "medium-replay", "cloned": "medium"}
    return f"demo/{env}/{stand_in.get(quality, quality)}-v0"


def subset(dataset_id: str, percent: int = 20) -> str:
    """Id of a share of a dataset, as `minari-stitch mix ID --fraction` names it."""
    name, _, _ = dataset_id.rpartition("-v")
    return f"{name}-{percent}pct-v0"


_ENVS = ("halfcheetah", "hopper", "walker2d")
_QUALITIES = ("medium-expert", "medium", "medium-replay")
_BASELINES = (DIFFSTITCH, Variant(method="synther"), Variant(method="tatu"))
_CONTROLS = (Variant(method="resample"), Variant(method="real"))
_FIXED = (("stitch.fixed_steps", 40), ("models.diffusion.horizon", 44))
_UNQUALIFIED = (
    ("qualify.delta", 1e9),
    ("qualify.drift", None),
    ("qualify.support", None),
    ("qualify.termination", 1),
)


def _each(datasets: list[str], variants: Mapping[Any, tuple[Variant, ...]]) -> tuple[Experiment, ...]:
    return tuple(
        Experiment(algo=algo, dataset=dataset_id, variant=variant)
        for dataset_id in datasets
        for algo, chosen in variants.items()
        for variant in chosen
    )


def _all_learners(_: Family) -> tuple[Experiment, ...]:
    return _each([DEFAULT_DATASET], dict.fromkeys(ALGORITHMS, (DIFFSTITCH,)))


def _methods(_: Family) -> tuple[Experiment, ...]:
    everything = (*_BASELINES, *_CONTROLS)
    return _each([DEFAULT_DATASET], {"iql": everything, "td3_bc": everything, "dt": (DIFFSTITCH, *_CONTROLS)})


def _table1(family: Family) -> tuple[Experiment, ...]:
    locomotion = [dataset(family, env, quality) for quality in _QUALITIES for env in _ENVS]
    pen = [dataset(family, "pen", quality) for quality in ("human", "cloned")]
    # What SER and TATU make are no trajectories: the paper trains no DT on them.
    return _each(locomotion + pen, {"iql": _BASELINES, "td3_bc": _BASELINES, "dt": (DIFFSTITCH,)})


def _table2(family: Family) -> tuple[Experiment, ...]:
    return tuple(
        Experiment(algo=algo, dataset=dataset(family, "halfcheetah", "medium-expert"), ratio=ratio)
        for ratio in ("0:1", "1:2", "1:1", "2:1", "4:1")
        for algo in ("td3_bc", "iql", "dt")
    )


def _table3(family: Family) -> tuple[Experiment, ...]:
    deltas = tuple(Variant(label=f"delta-{delta}", settings=(("qualify.delta", delta),)) for delta in (1, 2, 3, 4))
    learners = dict.fromkeys(("td3_bc", "iql", "dt"), deltas)
    return _each([dataset(family, "halfcheetah", "medium-expert")], learners)


def _table4(family: Family) -> tuple[Experiment, ...]:
    pairs = (("halfcheetah", "medium-expert"), ("hopper", "medium-replay"))
    learners = {"iql": _BASELINES, "td3_bc": _BASELINES, "dt": (DIFFSTITCH,)}
    return _each([subset(dataset(family, env, quality)) for env, quality in pairs], learners)


def _figure5(family: Family) -> tuple[Experiment, ...]:
    variants = (
        DIFFSTITCH,
        Variant(label="no-estimation", settings=_FIXED),
        Variant(label="no-qualification", settings=_UNQUALIFIED),
    )
    return _each([dataset(family, "hopper", q) for q in _QUALITIES], {"td3_bc": variants, "iql": variants})


def _against_resampling(datasets: Sequence[str]) -> tuple[Experiment, ...]:
    """TD learners with what suits them, and with as large a share of resampled episodes."""
    return tuple(
        Experiment(algo=algo, dataset=dataset_id, variant=mix.variant, ratio=mix.ratio, kind=mix.kind)
        for dataset_id in datasets
        for algo in ("td3_bc", "iql")
        for mix in (RECOMMENDED[algo], Mix(variant=RESAMPLED, ratio=RECOMMENDED[algo].ratio))
    )


def _development(family: Family) -> tuple[Experiment, ...]:
    return _against_resampling([dataset(family, "halfcheetah", "medium")])


def _confirmation(family: Family) -> tuple[Experiment, ...]:
    whole = [
        ("halfcheetah", "medium-replay"),
        ("walker2d", "medium-replay"),
        ("walker2d", "medium"),
        ("hopper", "medium"),
    ]
    names = [dataset(family, env, quality) for env, quality in whole]
    return _against_resampling(names + [subset(name) for name in names])


def _sequences(family: Family) -> tuple[Experiment, ...]:
    """A DT, on episodes that are better as a whole."""
    hopper = dataset(family, "hopper", "medium-replay")
    return tuple(
        Experiment(algo="dt", dataset=dataset_id, variant=variant, ratio="1:1", kind="episodes")
        for dataset_id in (hopper, subset(hopper), dataset(family, "walker2d", "medium-replay"))
        for variant in (RECOMMENDED["dt"].variant, RESAMPLED, EARLY)
    )


def _figure1(_: Family) -> tuple[Experiment, ...]:
    """What is stitched, and what needs no model, instead of the data: in them nothing leads from start to goal."""
    mixes = (OVER, RESAMPLED, Variant(method="relabel"))
    return tuple(
        Experiment(algo=algo, dataset=MAZE, variant=variant, ratio="0:1", kind="episodes")
        for algo in ("bc", "td3_bc", "iql", "dt")
        for variant in mixes
    )


def _figure1_ab(_: Family) -> tuple[Experiment, ...]:
    """The same maze where trajectories meet, and where they nearly do: what the original data are good for there."""
    return tuple(
        Experiment(algo=algo, dataset=dataset_id, variant=RESAMPLED, ratio="0:1", kind="episodes")
        for dataset_id in (f"{MAZE.removesuffix('-v0')}-{gap}-v0" for gap in ("meet", "near"))
        for algo in ALGORITHMS
    )


SUITES = {
    "smoke": Suite(experiments=_all_learners, what="does everything run?", budget="smoke"),
    "demo": Suite(experiments=_all_learners, what="every learner on one demo dataset"),
    "methods": Suite(experiments=_methods, what="every method and control on one demo dataset"),
    "table1": Suite(experiments=_table1, what="the paper's main result"),
    "table2": Suite(experiments=_table2, what="ratios of original to augmented data"),
    "table3": Suite(experiments=_table3, what="qualification thresholds"),
    "table4": Suite(experiments=_table4, what="a fifth of the data"),
    "development": Suite(
        experiments=_development, what="the setting that suits a learner, where it was found", budget="knee"
    ),
    "confirmation": Suite(experiments=_confirmation, what="the same setting on other data", budget="knee"),
    "dt": Suite(experiments=_sequences, what="episodes for a DT without history", budget="knee-one-step"),
    "figure1": Suite(experiments=_figure1, what="a maze in which nothing leads from start to goal", budget="maze"),
    "figure1ab": Suite(experiments=_figure1_ab, what="the same where trajectories meet, or nearly do", budget="maze"),
    "figure5": Suite(experiments=_figure5, what="without augmentation, step estimation, qualification"),
}


def choose(kind: str, name: str, table: Mapping[str, Any]) -> Any:
    """Look a name up.

    Raises:
        UnknownNameError: It is not there.
    """
    if name not in table:
        raise UnknownNameError(f"there is no {kind} {name!r}: choose one of {', '.join(table)}")
    return table[name]
