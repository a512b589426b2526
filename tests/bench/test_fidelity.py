"""Fidelity measures against slow references, depths, and the table on a real simulator."""

import json

import numpy as np
import pytest
import toy
from typer.testing import CliRunner

from benchmarks import fidelity
from minari_stitch.data.episodes import Episodes


def test_marginals_are_one_minus_kolmogorov_smirnov():
    rng = np.random.default_rng(0)
    ours, real = rng.normal(size=(50, 2)), rng.normal(0.3, 2, size=(70, 2))

    def distance(x, y):
        return max(abs((x <= t).mean() - (y <= t).mean()) for t in [*x, *y])

    expected = 1 - np.mean([distance(ours[:, i], real[:, i]) for i in range(2)])
    assert fidelity.marginals(ours, real) == pytest.approx(expected)
    assert fidelity.marginals(real, real) == 1 and fidelity.marginals(real + 100, real) == 0


def test_correlations():
    rng = np.random.default_rng(1)
    x, y, z = rng.normal(size=(3, 400))
    real = np.stack([x, x + y, z, np.ones(400)], 1)
    assert fidelity.correlations(real, real) == pytest.approx(1)
    flipped = np.stack([-x, x + y, z, np.ones(400)], 1)
    rho = {pair: np.corrcoef(real[:, pair].T)[0, 1] for pair in [(0, 1), (0, 2)]}
    assert fidelity.correlations(flipped, real) == pytest.approx(1 - np.mean([*np.abs(list(rho.values())), 0]))


def test_transitions_and_their_depth():
    """Depth counts generated steps in a row, and starts again in each episode."""
    parts = [part | {"infos": {}} for part in toy.walks(episodes=2, length=5, terminate=0)]
    episodes = Episodes.from_list(parts)
    chosen = np.array([0, 1, 1, 0, 1, 1, 1, 0, 0, 1], bool)
    ours = fidelity.Transitions.of(episodes, chosen)
    assert ours.depth.tolist() == [1, 2, 1, 1, 2, 1]
    flat = [(part["observations"], t) for part in parts for t in range(5)]
    for row, (states, t) in enumerate(pair for pair, taken in zip(flat, chosen, strict=True) if taken):
        np.testing.assert_array_equal(ours.states[row], states[t])
        np.testing.assert_array_equal(ours.next_states[row], states[t + 1])
    assert ours.columns.shape == (6, 3 + 2 + 1 + 3)


def test_the_table(monkeypatch):
    """Real steps have no oracle error; the methods' rows stand beside them."""
    source = "demo/hopper/medium-replay-v0"
    tiny = toy.tiny(source, "--delta", 1e6, "--demo-steps", 2000, "--steps", 300)
    # All pairs: what is nearest to tiny networks starts where velocities are clipped, and is not judged.
    toy.ok(*tiny, "--set", "stitch.nearest=1")
    rollout = fidelity.demo.rollout
    monkeypatch.setattr(fidelity.demo, "rollout", lambda *args, **kwargs: rollout(*args, **kwargs, workers=1))
    app = fidelity.typer.Typer()
    app.command()(fidelity.main)
    rows = json.loads(CliRunner().invoke(app, [source, "--count", "300", "--json"]).stdout)
    assert rows.keys() == {"the source itself", "DiffStitch"}
    own, ours = rows.values()
    assert own["n"] == 300 and own["oracle_q90"] < 1e-20 < ours["oracle_median"]
    assert own["marginals"] > ours["marginals"] and "1" in ours["by_depth"]
    shown = CliRunner().invoke(app, [source, "--count", "300"])
    assert shown.exit_code == 0 and "Oracle median by depth" in shown.stdout


def test_without_a_recipe():
    toy.write()
    app = fidelity.typer.Typer()
    app.command()(fidelity.main)
    result = CliRunner().invoke(app, [toy.ID])
    assert result.exit_code == 1
