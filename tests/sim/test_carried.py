"""Adroit's pen, played from its resets in the real simulator."""

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest

from minari_stitch.sim import demo
from minari_stitch.sim.carried import CarriedPen

SPEC = demo.RECIPES["demo/pen/medium-v0"].spec


@pytest.fixture(scope="module")
def part():
    """An episode of the real pen."""
    return demo.rollout(demo.RECIPES["demo/pen/medium-v0"], n_steps=200, workers=1).episode(0)


@pytest.fixture(scope="module")
def pen():
    return CarriedPen(SPEC)


def off(pen, observations, actions, **kwargs):
    """Largest difference of each step."""
    return np.abs(pen.follow(observations, actions, **kwargs).following - observations[1:]).max(1)


def test_an_episode_comes_out_as_it_was_recorded(part, pen):
    found = pen.follow(part["observations"], part["actions"])
    np.testing.assert_allclose(found.following, part["observations"][1:], atol=1e-9)
    np.testing.assert_allclose(found.rewards, part["rewards"], atol=1e-9)
    np.testing.assert_array_equal(found.terminated, part["terminations"])
    rounded = part["observations"].astype(np.float32).astype(float)
    assert off(pen, rounded, part["actions"].astype(np.float32)).max() < 1e-3


def test_what_was_changed_is_found_where_it_was_changed(part, pen):
    observations = part["observations"].copy()
    observations[50, 3] += 0.2
    gaps = off(pen, observations, part["actions"])
    assert gaps[:49].max() < 1e-9 and gaps[49] == pytest.approx(0.2) and gaps[50] > 0.05
    actions = part["actions"].copy()
    actions[80] = -actions[80]
    gaps = off(pen, part["observations"], actions)
    assert gaps[:80].max() < 1e-9 and gaps[80] > 0.05


def test_where_all_is_seen_as_it_should_be_nothing_is_moved(part, pen):
    """The correction alone: put another way into the same state, the pen goes on the same way."""
    shaken = part["observations"].copy()
    shaken[1:] += 1e-7  # every step is corrected, by nothing that matters
    assert off(pen, shaken, part["actions"]).max() < 1e-2


def test_nothing_is_known_of_what_begins_anywhere_unless_it_is_recorded(part, pen):
    later = part["observations"][60:], part["actions"][60:]
    assert np.isnan(off(pen, *later)).all()
    pen.follow(part["observations"][:61], part["actions"][:60])
    data = pen._pen.env.data
    begin = data.qpos.copy(), data.qvel.copy()
    assert off(pen, *later, begin=begin).max() < 1e-2


def test_a_goal_is_the_one_that_is_seen(part, pen):
    other = part["observations"].copy()
    other[:, 36:39] = other[:, 36:39][:, [1, 0, 2]]  # another direction
    found = pen.follow(other, part["actions"])
    seen, wanted = found.following[:, 36:39], other[1:, 36:39]
    np.testing.assert_allclose(seen, wanted / np.linalg.norm(wanted, axis=1)[:, None], atol=1e-6)
    assert np.abs(found.rewards - part["rewards"]).max() > 0.01


def test_settings_of_the_environment_count(part):
    sparse = replace(gym.spec(SPEC.id), kwargs=SPEC.kwargs | {"reward_type": "sparse"})
    rewards = CarriedPen(sparse).follow(part["observations"], part["actions"]).rewards
    assert set(np.unique(rewards)) <= {-0.1, 10.0}
