"""What is new about generated data, and what use they may be: numbers and the columns that figures draw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy import stats

from minari_stitch.data.dataset import Dataset
from minari_stitch.data.episodes import Episodes
from minari_stitch.data.provenance import RECORD_KEY
from minari_stitch.data.spaces import FlatSpace
from minari_stitch.learn.support import nearest
from minari_stitch.quality.bridges import Bridges
from minari_stitch.quality.rows import digests

_REFERENCE, _LOOKED_AT = 20_000, 4_000
_BLOCK = 100_000
RATIOS = ("4:1", "2:1", "1:1", "1:2", "0:1")
"""Original to augmented steps of a batch."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """Numbers, and the arrays that figures are drawn of.

    Attributes:
        values: Plain values.
        arrays: By name.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)


def columns_of(episodes: Episodes, rows: np.ndarray) -> np.ndarray:
    """`(B, 2 S + A + 1)` states, actions, rewards and changes of state of steps `(B,)`, in float64."""
    at = episodes.step_state[rows]
    states = episodes.observations[at].astype(np.float64)
    change = episodes.observations[at + 1] - states
    return np.concatenate([states, episodes.actions[rows], episodes.rewards[rows, None], change], 1)


def column_names(dataset: Dataset) -> list[str]:
    """What the columns of `columns_of` are."""
    slices = FlatSpace(dataset.observation_space).slices
    states = [f"{name or 's'}[{k - part.start}]" for name, part in slices.items() for k in range(part.start, part.stop)]
    actions = [f"a[{k}]" for k in range(dataset.episodes.actions.shape[1])]
    return [*states, *actions, "reward", *(f"change of {name}" for name in states)]


def distances(ours: np.ndarray, real: np.ndarray) -> np.ndarray:
    """`(D,)` two-sample Kolmogorov-Smirnov distance of each column of `(B, D)` and `(B', D)`."""
    test: Any = stats.ks_2samp(ours, real, method="asymp")  # the cheapest p-value, since nobody reads it
    return np.asarray(test.statistic)


def marginals(ours: np.ndarray, real: np.ndarray) -> float:
    """One minus the Kolmogorov-Smirnov distance, mean over columns."""
    return float(1 - distances(ours, real).mean())


def correlations(ours: np.ndarray, real: np.ndarray) -> float:
    """One minus half the distance of correlation coefficients, mean over pairs of columns that vary in both."""
    varies = (ours.std(0) > 0) & (real.std(0) > 0)
    first, second = (np.corrcoef(table[:, varies].T) for table in (ours, real))
    pairs = np.triu_indices(len(np.atleast_1d(first)), 1)
    if not len(pairs[0]):
        return 1.0
    return float(1 - np.abs(first - second)[pairs].mean() / 2)


def novelty(dataset: Dataset, source: Dataset | None, scale: np.ndarray, seed: int = 0) -> Measured:
    """How far generated states are from real ones, as held-out real states are from other real ones; and how alike.

    Args:
        dataset: Read with its infos.
        source: What it was made from; where that is gone, the real steps of the dataset stand for it.
        scale: `(S,)` a unit of each dimension.
        seed: Chooses states.
    """
    episodes, rng = dataset.episodes, np.random.default_rng([seed, 1])
    bridges = Bridges.of(episodes)
    made = np.flatnonzero(bridges.synthetic)
    real = source.episodes if source is not None else episodes
    known = np.arange(real.n_steps) if source is not None else np.flatnonzero(~bridges.synthetic)
    if not len(made) or len(known) < 2:
        return Measured()
    # Held out are whole episodes, or the last tenth of few.
    of = real.step_episode[known]
    chosen = rng.permutation(np.unique(of))
    held = np.isin(of, chosen[: max(1, len(chosen) // 10)]) if len(chosen) > 9 else np.arange(len(of)) >= 0.9 * len(of)
    known_states, held_states = (
        _some(real.observations[real.step_state[_rows(rows, rng)[:count]]], count, rng, scale)
        for rows, count in ((known[~held], _REFERENCE), (known[held], _LOOKED_AT))
    )
    generated = _some(_generated(episodes, made), _LOOKED_AT, rng, scale)
    if not len(generated):
        return Measured()
    near, usual = (_nearest(states, known_states) for states in (generated, held_states))
    unit = max(float(np.quantile(usual, 0.9)), 1e-9)
    same = min(len(generated), len(known_states))
    covered = {
        name: float((_nearest(held_states, states) <= unit).mean())
        for name, states in (("by_generated", generated[:same]), ("by_as_many_real", known_states[:same]))
    }
    ours, theirs = (columns_of(e, _rows(rows, rng)) for e, rows in ((episodes, made), (real, known)))
    off = distances(ours, theirs)
    order = np.argsort(-off, kind="stable")
    names = column_names(dataset)
    stored, rows = np.sort(_digests(real, known)), _digests(episodes, made)
    at = np.minimum(np.searchsorted(stored, rows), len(stored) - 1)
    return Measured(
        values={
            "generated_states": len(generated),
            "distance_median": float(np.median(near)),
            "distance_median_of_held_out": float(np.median(usual)),
            "beyond_held_out": float((near > unit).mean()),
            "coverage": covered,
            "copies": float((stored[at] == rows).mean()),
            "repeats": float(1 - len(np.unique(rows)) / len(rows)),
            "marginals": float(1 - off.mean()),
            "correlations": correlations(ours, theirs),
            "worst_columns": {names[k]: float(1 - off[k]) for k in order[:10].tolist()},
        },
        arrays={"generated": near, "held_out": usual, "ours": ours[:, order[:4]], "real": theirs[:, order[:4]]},
    )


def usefulness(dataset: Dataset, source: Dataset | None) -> Measured:
    """Returns before and after, lengths, who was joined to whom, and how much of it is generated."""
    episodes, bridges = dataset.episodes, Bridges.of(dataset.episodes)
    about = [row for row in episodes.metadata if "bridge_states" in row]
    synthetic = np.bincount(episodes.step_episode, bridges.synthetic, len(episodes)) / episodes.lengths
    augmented = np.array([bool(row.get("augmented", True)) for row in episodes.metadata] or [True] * len(episodes))
    share = float(bridges.synthetic.mean())
    values: dict[str, Any] = {
        "synthetic_steps": int(bridges.synthetic.sum()),
        "synthetic_share": share,
        "batch_share": {ratio: _augmented(ratio) * share for ratio in RATIOS},
        "batch_share_synthetic_only": {ratio: _augmented(ratio) for ratio in RATIOS},
        "return_mean": float(episodes.returns[augmented].mean()) if augmented.any() else None,
    }
    arrays = {"share": synthetic[augmented], "returns": episodes.returns[augmented]}
    if len(bridges):
        values["bridge_steps_median"] = float(np.median(bridges.lengths))
        arrays["lengths"] = bridges.lengths
    form = (dataset.metadata.get(RECORD_KEY) or {}).get("config", {}).get("form", "full")
    # Pieces, and rollouts that a model made from their first step on, have returns of their own.
    if source is not None and form == "full" and not (augmented & (synthetic == 1)).any():
        values["source_return_mean"] = float(source.episodes.returns.mean())
        arrays["source_returns"] = source.episodes.returns
    if about:
        before, after = (np.array([row[f"return_{when}"] for row in about]) for when in ("before", "after"))
        values |= {"bridges": len(about), "return_raised_by": float((after - before).mean())}
        arrays |= {"before": before, "after": after}
        for name in ("source", "target"):
            count = np.unique([row[f"{name}_episode"] for row in about], return_counts=True)[1]
            part = count / count.sum()
            values[f"{name}s"] = {"distinct": len(count), "effective": float(np.exp(-(part * np.log(part)).sum()))}
        if source is not None:
            row_of = {number: row for row, number in enumerate(source.episode_ids.tolist())}
            joined = [[row_of.get(row[f"{name}_episode"], -1) for name in ("source", "target")] for row in about]
            pairs = np.array([pair for pair in joined if min(pair) >= 0]).reshape(-1, 2)
            arrays |= {"from": source.episodes.returns[pairs[:, 0]], "to": source.episodes.returns[pairs[:, 1]]}
    return Measured(values=values, arrays=arrays)


def _augmented(ratio: str) -> float:
    original, augmented = map(int, ratio.split(":"))
    return augmented / (original + augmented)


def _generated(episodes: Episodes, made: np.ndarray) -> np.ndarray:
    """States that are generated: of bridges not the last one, which is real."""
    after = episodes.step_state[made] + 1
    origin = episodes.infos.get("source_step")
    if origin is not None:
        after = after[origin.reshape(-1)[after] < 0]
    return episodes.observations[after]


def _digests(episodes: Episodes, rows: np.ndarray) -> np.ndarray:
    """Of states and actions of steps; a part at a time, since there may be millions."""
    parts = (rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK))
    return np.concatenate([digests(episodes.observations[episodes.step_state[p]], episodes.actions[p]) for p in parts])


def _rows(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.permutation(rows)[:_REFERENCE]


def _some(table: np.ndarray, count: int, rng: np.random.Generator, scale: np.ndarray) -> torch.Tensor:
    """Rows at random, in units of `scale`."""
    return torch.as_tensor(table[rng.permutation(len(table))[:count]] / scale, dtype=torch.float32)


def _nearest(states: torch.Tensor, reference: torch.Tensor) -> np.ndarray:
    return nearest(states, reference).sqrt().numpy()
