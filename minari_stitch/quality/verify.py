"""Is a dataset true? The simulator's word on generated and real steps, on rewards and on ends.

Every judged step is set in the environment, its action applied, and the outcome compared. Where there is no simulator
to ask, the errors that learned networks recorded stand in, and the result says so.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from minari_stitch.data.dataset import Dataset
from minari_stitch.data.provenance import RECORD_KEY
from minari_stitch.errors import InvalidDataError
from minari_stitch.pool import Pool
from minari_stitch.quality.bridges import Bridges
from minari_stitch.quality.check import Finding
from minari_stitch.quality.origin import own_delta, unit
from minari_stitch.quality.rows import plain_numbers
from minari_stitch.quality.simulate import Judged, judge
from minari_stitch.refilter import Confirmed
from minari_stitch.sim.paths import quantile

LEAST_CONFIRMED = 0.8
"""Share of bridges within delta by the simulator below which a dataset is not true; calibration aims at 0.9."""
LEARNED = "learned networks"
"""The judge where there is no simulator."""
_EXACT = 1e-3  # of real steps: what rounding to float32 and back may do, in standardised units


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What `verify` found.

    Attributes:
        dataset_id: The dataset.
        judge: Who judged: the environment's id, or `learned networks`.
        delta: Threshold of a bridge's largest error, squared distance in standardised state space.
        bridges: Errors of bridges: `n`, quantiles of the largest of each, medians by position, shares.
        real: The same of real steps, which come out at 0 where the simulator is the right one.
        rewards: Of synthetic and real steps: mean difference to the simulator and mean absolute difference.
        ends: Share of steps on which the simulator agrees whether the episode ends.
        agreement: For each delta the precision and recall of the learned judges, of the bridges that were written.
        proposals: The same of all that were proposed, with rejected ones and real windows; see `judge_proposals`.
        findings: What is not as it should be.
        arrays: For figures: errors of each judged bridge, rewards of judged steps.
    """

    dataset_id: str
    judge: str
    delta: float
    bridges: Mapping[str, Any] = field(default_factory=dict)
    real: Mapping[str, Any] = field(default_factory=dict)
    rewards: Mapping[str, Any] = field(default_factory=dict)
    ends: Mapping[str, Any] = field(default_factory=dict)
    agreement: Mapping[str, Any] = field(default_factory=dict)
    proposals: Mapping[str, Any] = field(default_factory=dict)
    findings: Sequence[Finding] = ()
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether no finding is an error."""
        return not any(finding.level == "error" for finding in self.findings)

    @property
    def simulated(self) -> bool:
        """Whether a simulator judged."""
        return self.judge != LEARNED

    def to_dict(self) -> dict[str, Any]:
        """Plain values, without arrays."""
        return plain_numbers({name: value for name, value in asdict(self).items() if name != "arrays"}) | {
            "ok": self.ok
        }


def verify(
    dataset: Dataset,
    pool: Pool,
    *,
    scale: np.ndarray | None = None,
    source: Dataset | None = None,
    delta: float | None = None,
    n_steps: int | None = 50_000,
    n_real: int = 5_000,
    seed: int = 0,
) -> Verified:
    """Judge the generated steps of a dataset, and as a control some of its real ones.

    Args:
        dataset: Read with its infos.
        pool: Where to work.
        scale: `(S,)` what a unit of each dimension is: the standard deviation in the source; by default that here.
        source: What it was made from, see `judge`.
        delta: Threshold; by default the one that the dataset was made with, or 2.
        n_steps: Generated steps to judge at most, in whole bridges; None for all.
        n_real: Real steps to judge at most.
        seed: Chooses them.

    Raises:
        InvalidDataError: There is neither a simulator to ask nor a generated step with a recorded error.
    """
    episodes, bridges = dataset.episodes, Bridges.of(dataset.episodes)
    rng = np.random.default_rng([seed, zlib.crc32(b"verify")])
    chosen = bridges.some(n_steps, rng)
    made = bridges.rows(chosen)
    real = np.sort(rng.permutation(np.flatnonzero(~bridges.synthetic))[:n_real])
    scale = unit(dataset) if scale is None else scale
    delta = own_delta(dataset) if delta is None else delta
    judged, cut = judge(dataset, np.concatenate([made, real]), scale, pool, source), len(made)
    if judged is None or np.isnan(judged.errors[: cut or None]).all():
        return _learned(dataset, bridges, delta, judged is None)
    assert dataset.env_spec is not None
    lengths = bridges.lengths[chosen]
    begins = np.cumsum(lengths) - lengths
    worst = np.fmax.reduceat(judged.errors[:cut], begins) if len(lengths) else np.zeros(0)
    recorded = _recorded(dataset, bridges, chosen)
    out = {
        "bridges": _of_bridges(judged, cut, begins, lengths, worst, delta),
        "real": _of_steps(judged.errors[cut:]),
        "rewards": _rewards(episodes.rewards[judged.rows], judged.rewards, cut),
        "ends": _ends(episodes.terminations[judged.rows], judged.terminated, cut),
        "agreement": {} if recorded is None else _agreement(recorded, worst, delta),
    }
    arrays = {
        "worst": worst,
        "real": judged.errors[cut:],
        "reward": episodes.rewards[made],
        "reward_simulated": judged.rewards[:cut],
        "bridge": chosen,
    }
    lowered = bool(((dataset.metadata.get(RECORD_KEY) or {}).get("config") or {}).get("pessimism"))
    found = list(_findings(out, delta, float(np.std(episodes.rewards)) or 1.0, lowered))
    return Verified(
        dataset_id=dataset.dataset_id, judge=dataset.env_spec.id, delta=delta, **out, findings=found, arrays=arrays
    )


def confirmed(
    dataset: Dataset, pool: Pool, scale: np.ndarray, delta: float, source: Dataset | None = None
) -> Confirmed:
    """Which episodes the simulator confirms.

    Every generated step that it can judge is within delta, ends no episode that goes on, and goes through no wall; and
    it can judge some of them. Episodes without any are confirmed.

    Raises:
        InvalidDataError: There is no simulator to ask.
    """
    episodes, bridges = dataset.episodes, Bridges.of(dataset.episodes)
    rows = bridges.rows(np.arange(len(bridges)))
    judged = judge(dataset, rows, scale, pool, source)
    if judged is None or (len(rows) and np.isnan(judged.errors).all()):
        raise InvalidDataError(
            f"{dataset.dataset_id!r} has no simulator to ask: {_why(dataset, judged is None)}. Choose by delta alone "
            "instead."
        )
    known = ~np.isnan(judged.errors)
    bad = known & ((judged.errors >= delta) | ((judged.terminated > 0) & ~episodes.terminations[rows]))
    if judged.walls is not None:
        bad |= judged.walls
    of, count = episodes.step_episode[rows], len(episodes)
    refused = np.bincount(of, bad, count) > 0
    unseen = (np.bincount(of, minlength=count) > 0) & (np.bincount(of, known, count) == 0)
    assert dataset.env_spec is not None
    return Confirmed(episodes=~(refused | unseen), simulator=dataset.env_spec.id, delta=delta)


def _quantiles(values: np.ndarray) -> dict[str, float]:
    count = int((~np.isnan(values)).sum())
    return {"n": count} | ({"median": quantile(values), "q90": quantile(values, 0.9)} if count else {})


def _of_steps(errors: np.ndarray) -> dict[str, float]:
    return _quantiles(errors) | {"exact": _share(errors < _EXACT, ~np.isnan(errors))}


def _of_bridges(
    judged: Judged, cut: int, begins: np.ndarray, lengths: np.ndarray, worst: np.ndarray, delta: float
) -> dict[str, Any]:
    errors = judged.errors[:cut]
    if not len(lengths):
        return {"n": 0}
    ends = begins + lengths - 1
    inner = np.ones(cut, bool)
    inner[begins] = inner[ends] = False
    known = ~np.isnan(worst)
    found = _quantiles(worst) | {
        "first": quantile(errors[begins]),
        "last": quantile(errors[ends]),
        "inner": quantile(errors[inner]),
        "judged": float((~np.isnan(errors)).mean()),
        "confirmed": _share(worst < delta, known),
        "steps": cut,
    }
    if judged.walls is not None:
        through = np.logical_or.reduceat(judged.walls[:cut], begins)
        found |= {"through_walls": float(through.mean())}
    return found


def _rewards(ours: np.ndarray, theirs: np.ndarray, cut: int) -> dict[str, Any]:
    found = {}
    for name, part in (("synthetic", slice(None, cut)), ("real", slice(cut, None))):
        off = (ours[part] - theirs[part])[~np.isnan(theirs[part])]
        if len(off):
            found[name] = {"n": len(off), "bias": float(off.mean()), "mean_absolute": float(np.abs(off).mean())}
    return found


def _ends(ours: np.ndarray, theirs: np.ndarray, cut: int) -> dict[str, Any]:
    found = {}
    for name, part in (("synthetic", slice(None, cut)), ("real", slice(cut, None))):
        known = ~np.isnan(theirs[part])
        if known.any():
            a, b = ours[part][known], theirs[part][known] > 0
            found[name] = {"n": int(known.sum()), "agree": float((a == b).mean()), "missed": float((b & ~a).mean())}
    return found


def _recorded(dataset: Dataset, bridges: Bridges, chosen: np.ndarray) -> np.ndarray | None:
    """What learned judges say about the largest error of each chosen bridge: the bound that delta is held against."""
    about, at = dataset.episodes.metadata, dataset.episodes.step_episode[bridges.first[chosen]]
    names = [name for name in ("error_bound", "dynamics_error") if about and len(at) and name in about[int(at[0])]]
    if not names or len(set(at.tolist())) < len(at):
        return None
    return np.array([about[row].get(names[0], np.nan) for row in at.tolist()])


def _agreement(learned: np.ndarray, truth: np.ndarray, delta: float) -> dict[str, Any]:
    """At delta and below it, of the bridges that were written."""
    known = ~np.isnan(truth) & ~np.isnan(learned)
    learned, truth = learned[known], truth[known]
    rows = {}
    for share in (1.0, 0.5, 0.25, 0.125):
        accepted, true = learned < delta * share, truth < delta * share
        both = int((accepted & true).sum())
        rows[f"{delta * share:g}"] = {
            "accepted": float(accepted.mean()) if len(accepted) else float("nan"),
            "precision": both / int(accepted.sum()) if accepted.any() else float("nan"),
            "recall": both / int(true.sum()) if true.any() else float("nan"),
        }
    return rows


def _findings(out: Mapping[str, Any], delta: float, reward_scale: float, lowered: bool) -> Iterator[Finding]:
    """What is not as it should be; `lowered` rewards of generated steps are the method's intention (TATU's)."""
    bridges, real = out["bridges"], out["real"]
    if real.get("n") and real["exact"] < 0.95:
        what = f"only {real['exact']:.1%} of {real['n']:,} real steps come out of the simulator as they were recorded"
        yield Finding(
            kind="real steps", level="error", what=f"{what}: it is another environment, or the data are spoilt"
        )
    if bridges.get("n"):
        if bridges["confirmed"] < LEAST_CONFIRMED:
            what = f"the simulator confirms {bridges['confirmed']:.1%} of {bridges['n']:,} bridges at delta {delta:g}"
            yield Finding(kind="bridges", level="error", what=f"{what}; {LEAST_CONFIRMED:.0%} or more is true")
        if (through := bridges.get("through_walls", 0.0)) > 0.02:
            yield Finding(kind="walls", level="error", what=f"{through:.1%} of the bridges go through a wall")
    for name, row in out["rewards"].items():
        most = (0.1 if name == "synthetic" else 0.01) * reward_scale
        if abs(row["bias"]) > most or row["mean_absolute"] > 4 * most:
            what = f"rewards of {name} steps are off by {row['bias']:+.3g} on average, {row['mean_absolute']:.3g} each"
            what += f" (they vary by {reward_scale:.3g})"
            if name == "synthetic" and lowered and row["bias"] < 0:
                what += ": its method lowers them where its networks disagree (pessimism)"
                yield Finding(kind="rewards", level="warning", what=what)
            else:
                yield Finding(kind="rewards", level="error", what=what)
    for name, row in out["ends"].items():
        if row["agree"] < (0.95 if name == "synthetic" else 0.98):
            what = f"the simulator agrees on {row['agree']:.1%} of {name} steps whether the episode ends"
            yield Finding(kind="ends", level="error", what=what)


def _learned(dataset: Dataset, bridges: Bridges, delta: float, unset: bool) -> Verified:
    """Without a simulator, or one whose states (but for `unset`) are not known: the errors that networks recorded."""
    recorded = dataset.episodes.infos.get("dynamics_error")
    if recorded is None or not len(bridges):
        raise InvalidDataError(
            f"{dataset.dataset_id!r} cannot be verified: {_why(dataset, unset)}, and no generated step has a recorded "
            "error"
        )
    errors = recorded.reshape(-1)[dataset.episodes.step_state[bridges.rows(np.arange(len(bridges)))]]
    begins = np.cumsum(bridges.lengths) - bridges.lengths
    worst = np.maximum.reduceat(errors, begins)
    row = _quantiles(worst) | {"confirmed": float((worst < delta).mean()), "steps": len(errors), "judged": 1.0}
    what = f"{_why(dataset, unset)}: errors are those of the learned networks that accepted the bridges"
    return Verified(
        dataset_id=dataset.dataset_id,
        judge=LEARNED,
        delta=delta,
        bridges=row,
        findings=[Finding(kind="no simulator", level="warning", what=what)],
        arrays={"worst": worst, "bridge": np.arange(len(bridges))},
    )


def _why(dataset: Dataset, unset: bool) -> str:
    if dataset.env_spec is None:
        return "the dataset names no environment"
    if not unset:
        return f"no generated step comes from a state of {dataset.env_spec.id} that is known as a whole"
    return f"states of {dataset.env_spec.id} cannot be set from its observations here"


def _share(what: np.ndarray, among: np.ndarray) -> float:
    return float(what[among].mean()) if among.any() else float("nan")
