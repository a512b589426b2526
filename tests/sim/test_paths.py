"""Paths before the oracle: against loops, counts, and a world that is known."""

import numpy as np
import pytest
from linear import episodes, exact, inverse, next_state

from minari_stitch.diffstitch.config import QualifyConfig
from minari_stitch.diffstitch.proposals import Proposals
from minari_stitch.diffstitch.stitch import doubt
from minari_stitch.sim.paths import agreement, crossed, largest, oracle_errors, quantile, real_paths


class World:
    """The linear world as a simulator."""

    def step(self, observations, actions):
        return next_state(observations, actions)


def paths(count=8, longest=5):
    rng = np.random.default_rng(0)
    steps = rng.integers(0, longest + 1, count)
    return rng.normal(size=(count, longest + 2, 3)), rng.normal(size=(count, longest + 1, 2)), steps


def test_oracle_errors_match_a_loop():
    states, actions, steps = paths()
    scale = np.array([0.5, 1.0, 3.0])
    errors = oracle_errors(World(), states, actions, steps, scale)
    assert errors.shape == (8, 6)
    for b in range(8):
        for t in range(6):
            gap = (next_state(states[b, t], actions[b, t]) - states[b, t + 1]) / scale
            expected = (gap**2).sum() if t <= steps[b] else np.nan
            assert errors[b, t] == pytest.approx(expected, nan_ok=True)
    worst = largest(errors)
    for b in range(8):
        assert worst[b] == max(errors[b, : steps[b] + 1])
    assert largest(np.array([[np.nan, 3.0, np.nan, 1.0]])) == [3.0]


def test_quantiles_are_of_what_could_be_judged():
    errors = np.array([np.nan, 3.0, 1.0, np.nan, 2.0, 4.0])
    assert quantile(errors) == 2.5 and quantile(errors, 1.0) == 4.0
    assert np.isnan(quantile(errors[[0, 3]])) and np.isnan(quantile(errors[:0]))


def test_real_paths_are_windows_of_single_episodes():
    data = episodes([12, 5, 20, 9, 3, 16])
    models = exact(data)
    steps = np.array([3, 5, 1, 4, 2, 5, 0])
    states, recorded, inverted, kept = real_paths(data, models.act, steps, seed=0)
    assert states.shape == (7, 7, 3) and recorded.shape == inverted.shape == (7, 6, 2)
    np.testing.assert_array_equal(kept, steps)
    # All that happened is true, by the recorded actions and, here, by the exact inverse.
    scale = np.ones(3)
    for actions, tolerance in ((recorded, 1e-12), (inverted, 1e-6)):
        assert np.nanmax(oracle_errors(World(), states, actions, np.full(7, 5), scale)) < tolerance
    np.testing.assert_allclose(inverted, inverse(states[:, :-1], states[:, 1:]), atol=1e-3)
    assert len({tuple(window[0]) for window in states}) == 7
    again, other = real_paths(data, models.act, steps, 0)[0], real_paths(data, models.act, steps, 1)[0]
    assert np.array_equal(again, states) and not np.array_equal(other, states)


def test_real_paths_are_fewer_where_few_episodes_are_long_enough():
    data = episodes([12, 5])
    # Windows of 9 transitions and one step more fit three times.
    states, recorded, _, steps = real_paths(data, exact(data).act, np.array([8, 2, 3, 4, 5]), seed=0)
    assert len(states) == len(recorded) == len(steps) == 3
    assert steps.tolist() == [8, 2, 3]


def test_agreement_matches_counting():
    rng = np.random.default_rng(0)
    count = 60
    columns = {
        name: np.zeros(count)
        for name in (
            "source", "target", "steps", "similarity", "reachable", "states", "actions", "rewards", "predicted",
            "termination", "before", "after", "drift", "support", "bend", "chain",
        )
    }  # fmt: skip
    errors, disagreement = rng.exponential(1, (count, 4)), rng.exponential(1.5, count)
    oracle = errors * rng.lognormal(0, 0.5, (count, 4))
    oracle[:, 1:][rng.random((count, 3)) < 0.2] = np.nan
    chunk = Proposals(**columns, errors=errors, disagreement=disagreement, bound=errors.max(1) + disagreement)
    rows = agreement(doubt(chunk, QualifyConfig()), oracle, (1e-6, 0.5, 2.0, 1e6))
    assert [row["delta"] for row in rows] == [1e-6, 0.5, 2.0, 1e6]
    for row in rows:
        accepted = [b for b in range(count) if errors[b].max() + disagreement[b] < row["delta"]]
        true = [b for b in range(count) if np.nanmax(oracle[b]) < row["delta"]]
        both = set(accepted) & set(true)
        expected = {
            "delta": row["delta"],
            "accepted": len(accepted) / count,
            "true": len(true) / count,
            "precision": len(both) / len(accepted) if accepted else np.nan,
            "recall": len(both) / len(true) if true else np.nan,
            "median_accepted": np.median([np.nanmax(oracle[b]) for b in accepted]) if accepted else np.nan,
        }
        assert row == pytest.approx(expected, nan_ok=True)
    assert np.isnan(rows[0]["precision"]) and rows[-1]["accepted"] == 1


def test_paths_that_go_through_something_are_found_and_padding_is_not():
    class Barred(World):
        """Nothing may come to where the first dimension is positive."""

        def crossings(self, before, after):
            return after[:, 0] > 0

    states, _, steps = paths(count=40)
    expected = [any(states[b, t, 0] > 0 for t in range(1, steps[b] + 2)) for b in range(40)]
    assert crossed(Barred(), states, steps).tolist() == expected and 0 < sum(expected) < 40
    assert crossed(World(), states, steps) is None
