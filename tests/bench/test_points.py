"""Points of one model against as many environments: the same to the last bit."""

import gymnasium as gym
import numpy as np
import pytest

from benchmarks.evaluate import _here, _Local, build
from benchmarks.points import PointMazes, alike
from minari_stitch.sim.behaviour import register_robotics

CORRIDOR = [[1, 1, 1, 1], [1, "r", "g", 1], [1, 0, "r", 1], [1, 1, 1, 1]]


def spec(**settings):
    register_robotics("PointMaze_UMaze-v3")
    found = gym.spec("PointMaze_UMaze-v3")
    found.kwargs = {"maze_map": CORRIDOR, "continuing_task": False} | settings
    return found


@pytest.mark.parametrize("settings", [{}, {"reward_type": "dense"}, {"continuing_task": True, "reset_target": False}])
def test_they_play_what_as_many_environments_play(settings):
    """Into walls and along them, and at velocities that are cut."""
    count, random = 4, np.random.default_rng(0)
    together, apart = _here(spec(**settings), count), _Local([build(spec(**settings)) for _ in range(count)])
    assert isinstance(together, PointMazes)
    ends = []
    for seeds in (range(4), range(3, 7)):
        np.testing.assert_array_equal(together.reset(seeds), apart.reset(seeds))
        live = np.arange(count)
        for step in range(120):
            actions = np.sign(random.standard_normal((len(live), 2))) if step < 60 else np.ones((len(live), 2))
            ours, theirs = together.step(live, actions), apart.step(live, actions)
            for mine, other in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(mine, other)
                assert mine.dtype == other.dtype
            ends.append(ours[2].sum())
            live = live[~ours[2]]
            if not len(live):
                break
    assert bool(sum(ends)) == (not settings.get("continuing_task", False))
    for environments in (together, apart):
        environments.close()


def test_goals_that_move_are_played_apart():
    env = build(spec(continuing_task=True, reset_target=True))
    assert not alike(env) and not alike(gym.make("Pendulum-v1"))
    env.close()
