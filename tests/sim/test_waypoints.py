"""Demo datasets of point mazes, in the real environment."""

import dataclasses

import minari
import numpy as np
import pytest
import toy

from minari_stitch.data import minari_io
from minari_stitch.sim import demo
from minari_stitch.sim.behaviour import make_env
from minari_stitch.sim.maze import Maze
from minari_stitch.sim.waypoints import MAZE_RECIPES, STAY

ROUNDS = {"achieved": slice(0, 2), "desired": slice(2, 4), "state": slice(4, 8)}


def rollout(name, n_steps=2000, **kwargs):
    return demo.rollout(MAZE_RECIPES[f"demo/pointmaze/{name}-v0"], n_steps=n_steps, **{"workers": 1, **kwargs})


def columns(part):
    return (part["observations"][:, at] for at in ROUNDS.values())


@pytest.fixture(scope="module", params=["umaze-play", "medium-split", "large-stitch"])
def made(request):
    return request.param, rollout(request.param)


def test_the_simulator_repeats_every_step(made):
    name, episodes = made
    recipe = MAZE_RECIPES[f"demo/pointmaze/{name}-v0"]
    env = make_env(recipe.spec)
    env.reset(seed=0)
    inner = env.unwrapped
    for part in list(episodes)[::5]:
        achieved, desired, state = columns(part)
        np.testing.assert_array_equal(achieved, state[:, :2])
        assert (desired == desired[0]).all()  # one goal all along
        np.testing.assert_array_equal(np.concatenate([part["infos"]["qpos"], part["infos"]["qvel"]], 1), state)
        success = np.linalg.norm(achieved - desired, axis=1) <= 0.45
        np.testing.assert_array_equal(part["infos"]["success"][:, 0], success)
        np.testing.assert_array_equal(part["rewards"], success[1:])
        for t in range(0, len(part["rewards"]), 9):
            inner.point_env.set_state(state[t, :2], state[t, 2:])
            after = inner.step(part["actions"][t])[0]["observation"]
            np.testing.assert_allclose(after, state[t + 1], atol=1e-7)
    env.close()


def test_episodes_are_short_and_most_reach_their_goal(made):
    name, episodes = made
    limit = MAZE_RECIPES[f"demo/pointmaze/{name}-v0"].spec.max_episode_steps
    assert episodes.n_steps == 2000 and not episodes.terminations.any() and episodes.lengths.max() <= limit
    last = episodes.offsets[1:] - 1
    assert episodes.truncations[last].all() and episodes.truncations.sum() == len(episodes)
    assert np.abs(episodes.actions).max() <= 1 and episodes.actions.dtype == np.float32
    if name.endswith("stitch"):
        assert (episodes.lengths[:-1] == 200).all()
    if not name.endswith("split"):
        assert np.mean([part["rewards"].any() for part in list(episodes)[:-1]]) > 0.9
    if name.endswith("play"):
        assert (episodes.returns[:-1] <= STAY + 1).all()


@pytest.mark.parametrize("name", ["umaze-split", "umaze-split-near", "large-split", "zigzag-split"])
def test_nothing_enters_the_gap(name):
    recipe, episodes = MAZE_RECIPES[f"demo/pointmaze/{name}-v0"], rollout(name, 3000)
    maze = Maze(recipe.spec.kwargs["maze_map"])
    start, goal = recipe.ends
    distance = maze.distances(goal)
    middle = distance[maze.stretch(start, goal)].mean()
    sides = {"start": 0, "goal": 0}
    for number, part in enumerate(episodes):
        achieved, desired, _ = columns(part)
        assert (maze.cell(desired) == goal).all() and not maze.blocked(achieved).any()
        depth = maze.depth(achieved, distance)
        assert (np.abs(depth - middle) > recipe.gap / 2).all()
        assert (depth > middle).all() or (depth < middle).all()  # nothing crosses
        side = "start" if depth[0] > middle else "goal"
        sides[side] += len(part["rewards"])
        assert part["rewards"].any() == (side == "goal") or number == len(episodes) - 1  # cut
        if side == "start":
            assert tuple(maze.cell(achieved[0])) == start
    assert sides == {"start": 1500, "goal": 1500}


def test_ways_may_lead_aside_of_the_middles_of_cells():
    """Along the first corridor, which runs east."""
    recipe = MAZE_RECIPES["demo/pointmaze/zigzag-split-v0"]
    middle = Maze(recipe.spec.kwargs["maze_map"]).centre(recipe.ends[0])[1]
    aside = []
    for width in (recipe.aside, 0.0):
        episodes = demo.rollout(dataclasses.replace(recipe, aside=width), n_steps=4000, workers=1)
        x, y = episodes.observations[:, :2].T
        aside.append(np.abs(y - middle)[(x > 0) & (x < 1) & (y > 2)].mean())
    assert recipe.metadata["waypoints"]["aside"] == recipe.aside and aside[0] > 2 * aside[1]


def test_where_trajectories_meet_they_overlap():
    recipe, episodes = MAZE_RECIPES["demo/pointmaze/umaze-split-meet-v0"], rollout("umaze-split-meet", 3000)
    maze = Maze(recipe.spec.kwargs["maze_map"])
    depth = maze.depth(episodes.observations[:, :2], maze.distances(recipe.ends[1]))
    half = episodes.state_offsets[int(np.searchsorted(episodes.offsets, 1500))]
    assert depth[:half].min() < 3 < depth[half:].max()


def test_goals_of_stitch_are_four_cells_away():
    recipe = MAZE_RECIPES["demo/pointmaze/medium-stitch-v0"]
    maze = Maze(recipe.spec.kwargs["maze_map"])
    for part in rollout("medium-stitch"):
        achieved, desired, _ = columns(part)
        assert maze.distances(tuple(maze.cell(desired[0])))[tuple(maze.cell(achieved[0]))] == 4


def test_same_bytes_for_any_number_of_workers(monkeypatch):
    monkeypatch.setattr(demo, "_CHUNK_STEPS", 150)
    assert len({rollout("umaze-split", 450, workers=workers).fingerprint() for workers in (1, 2)}) == 1
    others = [rollout("umaze-split", 450, **kwargs).fingerprint() for kwargs in ({"seed": 1}, {"first_chunk": 9})]
    assert len({rollout("umaze-split", 450).fingerprint(), *others}) == 3


def test_it_is_an_ordinary_dataset_whose_environment_is_known():
    name = "demo/pointmaze/umaze-split-v0"
    demo.ensure(name, n_steps=700, workers=1)
    minari_io.check(name)
    dataset = minari.load_dataset(name)
    env = dataset.recover_environment(eval_env=True)
    starts, goals = zip(*[(o["achieved_goal"], o["desired_goal"]) for o, _ in map(reset(env), range(5))], strict=True)
    assert not env.spec.kwargs["continuing_task"]  # a return is success, and so is a score
    env.close()
    assert (dataset.storage.metadata["ref_min_score"], dataset.storage.metadata["ref_max_score"]) == (0, 1)
    assert np.abs(np.array(starts) - [-1, 1]).max() <= 0.25 and np.abs(np.array(goals) - [-1, -1]).max() <= 0.25
    episode = dataset[0]
    assert set(episode.observations) == {"achieved_goal", "desired_goal", "observation"}
    assert episode.infos["success"].shape == (len(episode) + 1, 1)
    assert "a gap of 0.6 cells that nothing enters (noise of 0.5" in dataset.storage.metadata["description"]
    listed = toy.ok("demo", "list").stdout
    assert all(dataset_id in listed for dataset_id in MAZE_RECIPES)


def reset(env):
    return lambda seed: env.reset(seed=seed)
