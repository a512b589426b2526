"""Small datasets of point mazes, and what must be true of whatever is made from them."""

import dataclasses
import itertools

import minari
import numpy as np

from minari_stitch.data import minari_io
from minari_stitch.sim.behaviour import make_env
from minari_stitch.sim.waypoints import MAZE_RECIPES

RECIPE = MAZE_RECIPES["demo/pointmaze/umaze-play-v0"]


def written(dataset_id="test/maze-v0", count=12, recipe=RECIPE, change=None, **kwargs):
    """Episodes in a point maze with other settings, as a dataset."""
    spec = dataclasses.replace(recipe.spec, kwargs=recipe.spec.kwargs | kwargs)
    env = make_env(spec)
    parts = itertools.islice(recipe.episodes(0, env, 0, np.random.default_rng(0)), count)
    minari_io.write(
        parts if change is None else map(change, parts),
        dataset_id=dataset_id,
        observation_space=env.observation_space,
        action_space=env.action_space,
        env_spec=spec,
    )
    env.close()
    return minari_io.read(dataset_id)


def assert_true_to_the_environment(dataset_id):
    """Rewards, terminations and success of every step are what the environment says."""
    minari_io.check(dataset_id)
    dataset = minari.load_dataset(dataset_id)
    task = dataset.recover_environment().unwrapped
    goals = set()
    for episode in dataset:
        seen = episode.observations
        assert (seen["desired_goal"] == seen["desired_goal"][0]).all()  # one goal all along
        goals.add(tuple(seen["desired_goal"][0]))
        for t in range(len(episode)):
            pair = seen["achieved_goal"][t + 1], seen["desired_goal"][t + 1]
            assert episode.rewards[t] == task.compute_reward(*pair, {})
            assert episode.terminations[t] == task.compute_terminated(*pair, {})
        near = np.linalg.norm(seen["achieved_goal"] - seen["desired_goal"], axis=1) <= 0.45
        np.testing.assert_array_equal(episode.infos["success"][:, 0], near)
    task.close()
    return dataset, goals
