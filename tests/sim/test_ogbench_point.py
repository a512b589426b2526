"""The oracle of OGBench's point mazes, against the environment itself walking into walls."""

import numpy as np
import pytest

pytest.importorskip("ogbench", reason="runs in its own environment: make clients")

from minari_stitch.sim.behaviour import make_env
from minari_stitch.sim.ogbench_point import PlacedPoint
from minari_stitch.sim.ogbench_tasks import env_spec


@pytest.fixture(scope="module")
def walked():
    """Places and actions of a point that is driven about, often against walls."""
    env = make_env(env_spec("pointmaze-medium"))
    rng, places, actions = np.random.default_rng(0), [env.reset(seed=0)[0]], []
    for step in range(400):
        push = np.array([np.cos(step // 40), np.sin(step // 40)])
        actions.append(np.clip(push + rng.normal(0, 0.3, 2), -1, 1))
        places.append(env.step(actions[-1])[0])
    env.close()
    return np.array(places), np.array(actions)


def test_a_place_and_an_action_tell_the_next_place(walked):
    places, actions = walked
    found = PlacedPoint(env_spec("pointmaze-medium")).outcomes(places[:-1], actions)
    np.testing.assert_allclose(found.following, places[1:], atol=1e-6)
    assert np.isnan(found.rewards).all()
    free = np.abs(places[:-1] + 0.2 * actions - places[1:]).max(1) < 1e-3
    assert 0.05 < free.mean() < 0.95  # walls were met


def test_ways_through_walls_are_seen_and_those_that_were_walked_are_none(walked):
    places, _ = walked
    oracle = PlacedPoint(env_spec("pointmaze-medium"))
    assert not oracle.crossings(places[:-1], places[1:]).any()
    env = make_env(env_spec("pointmaze-medium")).unwrapped
    for (row, column), cell in np.ndenumerate(env.maze_map):
        middle = np.array([env.ij_to_xy((row, column))], float)
        assert oracle.crossings(middle, middle + 0.1)[0] == (cell == 1)
    env.close()
