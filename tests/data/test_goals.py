"""Goals: the same episode under another goal, against the environment itself; and stitched episodes that keep one."""

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import toy

from minari_stitch.config import adjust, parse
from minari_stitch.data import minari_io
from minari_stitch.data.goals import PenGoals, without_goals
from minari_stitch.diffstitch.transform import DiffStitch
from minari_stitch.pipeline import augment
from minari_stitch.run import Run
from minari_stitch.sim import demo
from minari_stitch.sim.behaviour import make_env
from minari_stitch.sim.tasks import goals_of

ID = "demo/pen/medium-replay-v0"


@pytest.fixture(scope="module")
def pen():
    """Five episodes of three actors."""
    return demo.rollout(demo.RECIPES[ID], n_steps=1000, workers=1)


def played(goal_seed, actions, **kwargs):
    """The same actions from the same hand and pen, with the goal of a seed."""
    env = make_env(dataclasses.replace(gym.spec("AdroitHandPen-v1"), kwargs=kwargs))
    observations, rewards = [env.reset(seed=goal_seed)[0]], []
    for action in actions:
        after, reward, *_ = env.step(action)
        observations.append(after)
        rewards.append(reward)
    env.close()
    return np.array(observations), np.array(rewards)


@pytest.mark.parametrize("reward_type", ["dense", "sparse"])
def test_another_goal_is_what_the_environment_shows_and_pays(pen, reward_type):
    goals, actions = PenGoals(sparse=reward_type == "sparse"), pen.episode(1)["actions"][:60]
    (ours, _), (theirs, paid) = (played(seed, actions, reward_type=reward_type) for seed in (1, 2))
    assert not np.array_equal(ours, theirs)
    np.testing.assert_allclose(goals.states(ours), goals.states(theirs), atol=1e-12)
    made = goals.pursue(goals.states(ours), goals.goal(theirs[0]))
    np.testing.assert_allclose(made, theirs, atol=1e-9)
    np.testing.assert_allclose(goals.rewards(made), paid, atol=1e-9)


def test_own_goal_changes_nothing(pen):
    goals = PenGoals(sparse=False)
    paid = set()
    for part in pen:
        observations = part["observations"]
        np.testing.assert_array_equal(
            goals.pursue(goals.states(observations), goals.goal(observations[0])), observations
        )
        np.testing.assert_allclose(goals.rewards(observations), part["rewards"], atol=1e-9)
        paid |= set(np.round(part["rewards"], -1).astype(int))
    assert paid >= {0, 60}  # bonuses were among them


def write(pen, dataset_id=ID, **changes):
    spec = gym.spec("AdroitHandPen-v1")
    env = gym.make(spec)
    minari_io.write(
        dataclasses.replace(pen, **changes),
        dataset_id=dataset_id,
        observation_space=env.observation_space,
        action_space=env.action_space,
        env_spec=spec,
    )
    env.close()
    return minari_io.read(dataset_id)


def test_goals_are_known_where_they_explain_the_rewards(pen):
    dataset = write(pen)
    assert isinstance(goals_of(dataset), PenGoals)
    assert goals_of(dataclasses.replace(dataset, env_spec=None)) is None
    assert goals_of(dataclasses.replace(dataset, env_spec=gym.spec("Hopper-v5"))) is None
    assert goals_of(write(pen, "test/pen-v0", rewards=pen.rewards + 1)) is None
    states = without_goals(dataset, PenGoals(sparse=False))
    assert states.episodes.observations.shape == (len(pen.observations), 36)
    assert not states.episodes.goal_dimensions().any() and states.fingerprint != dataset.fingerprint


@pytest.mark.parametrize("form", ["full", "onward", "bridge"])
def test_a_stitched_episode_pursues_the_goal_of_its_target(pen, tmp_path, form):
    dataset = write(pen)
    goals = goals_of(dataset)
    settings = dict(map(parse, toy.TINY[1::2])) | {"qualify.delta": 1e9, "qualify.better": False, "form": form}
    made = augment(dataset, adjust(DiffStitch(), settings), Run(directory=tmp_path, workers=1, threads=1), n_steps=300)
    assert "goal_dimensions" not in made.report
    moved = 0
    for part in minari_io.read(made.dataset_id, keep_infos=True).episodes:
        about, observations = part["metadata"], part["observations"]
        source, target = (dataset.episodes.episode(about[f"{side}_episode"]) for side in ("source", "target"))
        begin, rest = about["bridge_start"], about["bridge_start"] + about["bridge_states"] + 1
        goal = goals.goal(target["observations"][0])
        own = goals.pursue(goals.states(observations), goal)
        np.testing.assert_allclose(own, observations, atol=1e-6)  # one goal all along
        np.testing.assert_allclose(goals.rewards(observations), part["rewards"], atol=1e-6)
        # Hand and pen of the source, and the target as it was recorded.
        first = about["source_step"] - begin
        np.testing.assert_array_equal(
            goals.states(observations[: begin + 1]),
            goals.states(source["observations"][first : about["source_step"] + 1]),
        )
        entry = about["target_step"]
        kept = len(observations) - rest
        np.testing.assert_array_equal(observations[rest:], target["observations"][entry : entry + kept])
        assert about["return_after"] == part["infos"]["return_to_go"][begin, 0]
        moved += not np.allclose(goal, goals.goal(source["observations"][0]))
    assert moved > 0


def test_steps_written_apart_pursue_the_goal_of_their_target(pen, tmp_path):
    dataset = write(pen)
    goals = goals_of(dataset)
    settings = dict(map(parse, toy.TINY[1::2])) | {"qualify.delta": 1e9, "qualify.better": False, "form": "transitions"}
    made = augment(dataset, adjust(DiffStitch(), settings), Run(directory=tmp_path, workers=1, threads=1), n_steps=50)
    written = minari_io.read(made.dataset_id, keep_infos=True).episodes
    assert len(written) == made.n_steps == made.n_synthetic >= 50
    for part in written:
        target = dataset.episodes.episode(part["metadata"]["target_episode"])
        goal = goals.goal(target["observations"][0])
        own = goals.pursue(goals.states(part["observations"]), goal)
        np.testing.assert_allclose(own, part["observations"], atol=1e-6)
        np.testing.assert_allclose(goals.rewards(part["observations"]), part["rewards"], atol=1e-6)
