"""Goals in Dict observations, against the environment's own functions; and stitched episodes that keep one."""

import dataclasses
import itertools

import gymnasium as gym
import minari
import numpy as np
import pytest
import toy
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from mazes import assert_true_to_the_environment, written

from minari_stitch.baselines.controls import Resample
from minari_stitch.config import adjust, parse
from minari_stitch.data import minari_io
from minari_stitch.data.episodes import Episodes
from minari_stitch.data.goals import without_goals
from minari_stitch.diffstitch.transform import DiffStitch
from minari_stitch.errors import InvalidDataError
from minari_stitch.pipeline import augment
from minari_stitch.run import Run
from minari_stitch.sim.behaviour import make_env, play_episode, register_robotics, uniform
from minari_stitch.sim.tasks import goals_of
from minari_stitch.sim.waypoints import MAZE_RECIPES

ANY = dict(map(parse, toy.TINY[1::2])) | {"qualify.delta": 1e9, "qualify.better": False}


def made_from(dataset, tmp_path, n_steps=400, method=None, **settings):
    method = method or adjust(DiffStitch(), ANY | settings)
    return augment(dataset, method, Run(directory=tmp_path, workers=1, threads=1), n_steps=n_steps)


@pytest.mark.parametrize("kwargs", [{}, {"reward_type": "dense"}, {"continuing_task": False}])
def test_a_stitched_episode_pursues_the_goal_of_its_target(tmp_path, kwargs):
    source = written(**kwargs)
    goals = goals_of(source)
    assert goals is not None and goals.terminates == (kwargs == {"continuing_task": False})
    made = made_from(source, tmp_path)
    assert "goal_dimensions" not in made.report
    dataset, _ = assert_true_to_the_environment(made.dataset_id)
    moved = 0
    for episode, about in zip(dataset, dataset.storage.get_episode_metadata(range(len(dataset))), strict=True):
        head, tail = (source.episodes.episode(int(about[f"{side}_episode"]))["observations"]
                      for side in ("source", "target"))  # fmt: skip
        begin, n, entry = about["bridge_start"], about["bridge_states"], about["target_step"]
        state = episode.observations["observation"]
        np.testing.assert_array_equal(state[: begin + 1], head[: about["source_step"] + 1, 4:])
        np.testing.assert_array_equal(state[begin + n + 1 :], tail[entry:, 4:][: len(state) - begin - n - 1])
        np.testing.assert_array_equal(episode.observations["achieved_goal"], state[:, :2])  # of generated states too
        np.testing.assert_array_equal(episode.observations["desired_goal"][0], tail[0, 2:4])
        moved += not np.allclose(tail[0, 2:4], head[0, 2:4])
        if kwargs.get("continuing_task", True):
            assert about["return_after"] == episode.infos["return_to_go"][begin, 0]
    assert moved > 0


def test_what_would_end_on_its_way_is_not_joined(tmp_path):
    """With one goal for all, a prefix that goes on from there has reached it."""
    source = written(recipe=MAZE_RECIPES["demo/pointmaze/umaze-split-meet-v0"], count=8)
    ending = dataclasses.replace(source.env_spec, kwargs=source.env_spec.kwargs | {"continuing_task": False})
    parts = []
    for index, part in enumerate(source.episodes):  # half of the goals are where others begin
        observations = part["observations"].copy()
        observations[:, 2:4] = observations[3, :2] if index % 2 else (9.0, 9.0)
        gap = np.linalg.norm(observations[1:, :2] - observations[1:, 2:4], axis=1)
        parts.append(part | {"observations": observations, "rewards": (gap <= 0.45).astype(float)})
    passing = dataclasses.replace(source, episodes=Episodes.from_list(parts), env_spec=ending)
    goals = goals_of(passing)
    assert goals is not None and not goals.terminates  # nothing of this ended there
    goals.terminates = True
    fitted = adjust(DiffStitch(), ANY | {"stitch.pairs": "paper"}).fit(
        passing, Run(directory=tmp_path, workers=1, threads=1)
    )
    early = 0
    for proposals in itertools.islice(dataclasses.replace(fitted, goals=goals).proposals(), 3):
        for row in range(len(proposals)):
            at = int(proposals.source[row])
            episode = int(np.searchsorted(passing.episodes.state_offsets, at, side="right")) - 1
            prefix = passing.episodes.observations[passing.episodes.state_offsets[episode] : at + 1, :2]
            way = np.concatenate([prefix[1:], proposals.states[row, 1 : proposals.steps[row] + 1, :2]])
            goal = passing.episodes.observations[proposals.target[row], 2:4]
            reached = (np.linalg.norm(way - goal, axis=1) <= 0.45).any()
            early += reached
            assert proposals.reachable[row] == (not reached)
    assert early > 0


def test_the_state_is_what_the_goal_does_not_say():
    source = written()
    goals = goals_of(source)
    assert goals is not None
    seen = without_goals(source, goals).episodes.observations
    np.testing.assert_array_equal(seen, source.episodes.observations[:, 4:])  # achieved_goal repeats x and y
    np.testing.assert_array_equal(seen[:, goals.place], source.episodes.observations[:, :2])
    for part in source.episodes:
        own = part["observations"]
        np.testing.assert_array_equal(goals.pursue(goals.states(own), goals.goal(own[0])), own)
        np.testing.assert_array_equal(goals.rewards(own), part["rewards"])


def test_what_is_achieved_stays_in_the_state_where_nothing_repeats_it():
    def hide(part):
        part["observations"][:, 4:6] = 0.0
        return part

    goals = goals_of(source := written(change=hide))
    assert goals is not None
    observations = source.episodes.observations
    np.testing.assert_array_equal(goals.states(observations)[:, :2], observations[:, :2])
    assert goals.states(observations).shape[1] == 6 and goals.place == (0, 1)


@pytest.mark.parametrize("method", [None, Resample()])
def test_originals_and_controls_say_success_too(tmp_path, method):
    source = written()
    run = Run(directory=tmp_path, workers=1, threads=1)
    made = augment(
        source, method or adjust(DiffStitch(), ANY), run, n_steps=200, output_id="test/made-v0", include_original=True
    )
    dataset, goals = assert_true_to_the_environment(made.dataset_id)
    assert len(dataset) == 12 + made.n_episodes and len(goals) == 12


# What has no goals that are understood is flattened, as any other dataset is.


def changed(dataset_id, change):
    return written(dataset_id, change=change)


def test_rewards_that_do_not_follow_from_the_goal():
    assert goals_of(changed("test/other-v0", lambda part: part | {"rewards": part["rewards"] - 1})) is None


def test_a_goal_that_changes_within_an_episode():
    def change(part):
        part["observations"][-5:, 2:4] += 9
        return part

    assert goals_of(changed("test/moving-v0", change)) is None


class Silent(gym.Env):
    """Goals, but nothing that computes a reward."""

    observation_space = spaces.Dict(
        {n: spaces.Box(-9, 9, (2,)) for n in ("achieved_goal", "desired_goal", "observation")}
    )
    action_space = spaces.Box(-1, 1, (2,))


def test_environments_that_cannot_be_asked(tmp_path):
    source = written()
    assert goals_of(dataclasses.replace(source, env_spec=None)) is None
    for entry_point in (Silent, "nowhere:Missing"):
        spec = EnvSpec("Silent-v0", entry_point=entry_point, max_episode_steps=300)  # type: ignore[arg-type]
        other = dataclasses.replace(source, env_spec=spec)
        assert goals_of(other) is None
    report = made_from(dataclasses.replace(source, env_spec=None), tmp_path).report
    assert report["goal_dimensions"] == 2


def test_a_dict_without_a_goal(tmp_path):
    space = spaces.Dict({"here": spaces.Box(-9, 9, (1,)), "there": spaces.Box(-9, 9, (2,))})
    toy.write(observation_space=space)
    assert goals_of(minari_io.read(toy.ID)) is None
    made = made_from(minari_io.read(toy.ID), tmp_path)
    assert set(minari.load_dataset(made.dataset_id)[0].observations) == {"here", "there"}


def test_infos_of_length_t_are_no_matter_and_observations_of_length_t_are_named(tmp_path):
    import h5py

    written()
    path = minari_io.datasets_path() / "test/maze-v0/data/main_data.hdf5"
    with h5py.File(path, "r+") as file:
        for episode in file.values():
            short = episode["infos/success"][:-1]
            del episode["infos/success"]
            episode["infos/success"] = short
    toy.accept("test/maze-v0")
    made = made_from(minari_io.read("test/maze-v0"), tmp_path)
    assert_true_to_the_environment(made.dataset_id)
    with h5py.File(path, "r+") as file:
        for name, array in list(file["episode_3/observations"].items()):
            short = array[:-1]
            del file[f"episode_3/observations/{name}"]
            file[f"episode_3/observations/{name}"] = short
    toy.accept("test/maze-v0")
    with pytest.raises(InvalidDataError, match=r"episode 3: observations have shape \(\d+, 8\) where \d+ rewards want"):
        minari_io.read("test/maze-v0")


@pytest.mark.slow
def test_an_ant_in_a_maze_from_start_to_end(tmp_path):
    """29 dimensions: 27 of the ant, and where it is, which no other column says."""
    register_robotics("AntMaze_UMaze-v5")
    spec = gym.spec("AntMaze_UMaze-v5")
    spec = dataclasses.replace(
        spec, max_episode_steps=120, kwargs=spec.kwargs | {"include_cfrc_ext_in_observation": False}
    )
    env = make_env(spec)
    rng, parts = np.random.default_rng(0), []
    for seed in range(10):
        part = play_episode(env, uniform(env.action_space, rng), seed=seed)
        rows = part["observations"]
        part["observations"] = np.concatenate(
            [np.array([row[key] for row in rows]) for key in ("achieved_goal", "desired_goal", "observation")], 1
        )
        parts.append(part)
    minari_io.write(
        parts,
        dataset_id="test/ant-v0",
        observation_space=env.observation_space,
        action_space=env.action_space,
        env_spec=spec,
    )
    source = minari_io.read("test/ant-v0")
    # Random actions lead nowhere: some goals are where the ant is.
    near = []
    for index, part in enumerate(source.episodes):
        observations = part["observations"].copy()
        if index % 2:
            observations[:, 2:4] = observations[60, :2]
        gap = np.linalg.norm(observations[1:, :2] - observations[1:, 2:4], axis=1)
        near.append(part | {"observations": observations, "rewards": (gap <= 0.45).astype(float)})
    minari_io.write(
        near,
        dataset_id="test/ant-v1",
        observation_space=env.observation_space,
        action_space=env.action_space,
        env_spec=spec,
    )
    env.close()
    source = minari_io.read("test/ant-v1")
    goals = goals_of(source)
    assert goals is not None and goals.states(source.episodes.observations).shape[1] == 29
    made = made_from(source, tmp_path)
    assert_true_to_the_environment(made.dataset_id)
