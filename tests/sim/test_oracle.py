from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest

from minari_stitch.data.dataset import Dataset
from minari_stitch.data.episodes import Episodes
from minari_stitch.data.validation import ValidationReport
from minari_stitch.errors import StitchError
from minari_stitch.sim import demo
from minari_stitch.sim import oracle as oracles
from minari_stitch.sim.behaviour import make_env, register_robotics
from minari_stitch.sim.oracle import (
    AntMaze,
    MujocoLocomotion,
    PointMaze,
    oracle_of,
    states_of,
)


def transitions(recipe, steps=150):
    data = demo.rollout(demo.RECIPES[recipe], n_steps=steps, workers=1)
    rows = data.step_state
    return data.observations[rows], data.actions, data.observations[rows + 1]


@pytest.mark.parametrize("env", ["hopper", "walker2d", "halfcheetah"])
def test_real_transitions_come_back_from_the_simulator(env):
    states, actions, following = transitions(f"demo/{env}/medium-v0")
    simulator = MujocoLocomotion(demo.RECIPES[f"demo/{env}/medium-v0"].env_id)
    velocities = states[:, states.shape[1] // 2 :]
    # Hopper and Walker2d clip what they show of velocities, and from a clipped one the state is not known.
    seen = (np.abs(velocities) < (np.inf if env == "halfcheetah" else 10)).all(1)
    assert seen.sum() > 100
    outcome = simulator.step(states, actions)
    assert np.array_equal(np.isnan(outcome).any(1), ~seen) and np.array_equal(np.isnan(outcome).all(1), ~seen)
    outcome = outcome[seen]
    assert np.abs(outcome - following[seen]).max() < 1e-8
    # Rows are independent: their order does not matter.
    order = np.random.default_rng(0).permutation(int(seen.sum()))[:30]
    np.testing.assert_array_equal(simulator.step(states[seen][order], actions[seen][order]), outcome[order])
    # And the simulator does say so when an action is another.
    other = simulator.step(states[seen][:30], -actions[seen][:30])
    assert np.abs(other - following[seen][:30]).max() > 0.1


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize(("env", "known"), [("Hopper", False), ("Walker2d", False), ("HalfCheetah", True)])
def test_a_clipped_velocity_leaves_the_state_unknown(env, known, version):
    simulator = MujocoLocomotion(f"{env}-v{version}")
    width = {"Hopper": (11, 3), "Walker2d": (17, 6), "HalfCheetah": (17, 6)}[env]
    states, actions = np.zeros((3, width[0])), np.zeros((3, width[1]))
    states[:, 0] = 1.25
    states[1, -1], states[2, -2] = 10.0, -10.0
    outcome = simulator.step(states, actions)
    assert np.isfinite(outcome).all(1).tolist() == [True, known, known]


def test_an_environment_with_a_hidden_state_has_no_oracle():
    with pytest.raises(
        StitchError, match="Ant-v5 cannot be put where an observation says: .* Hopper, Walker2d and HalfCheetah"
    ):
        MujocoLocomotion("Ant-v5")


def recorded(steps=60):
    """Random pushes in HalfCheetah, with the positions and velocities that its observations lack."""
    env = gym.make("HalfCheetah-v5").unwrapped
    rng, (seen, _) = np.random.default_rng(0), env.reset(seed=0)
    rows = [(seen, env.data.qpos.copy(), env.data.qvel.copy())]
    actions, rewards = rng.uniform(-1, 1, (steps, 6)).astype(np.float32), []
    for action in actions:
        seen, reward, *_ = env.step(action)
        rows.append((seen, env.data.qpos.copy(), env.data.qvel.copy()))
        rewards.append(reward)
    observations, qpos, qvel = map(np.array, zip(*rows, strict=True))
    last = np.arange(steps) == steps - 1
    part = {
        "observations": observations,
        "actions": actions,
        "rewards": np.array(rewards),
        "terminations": last & False,
        "truncations": last,
        "infos": {"qpos": qpos, "qvel": qvel},
    }
    return Dataset(
        dataset_id="test/pushes-v0",
        episodes=Episodes.from_list([part]),
        observation_space=env.observation_space,
        action_space=env.action_space,
        env_spec=gym.spec("HalfCheetah-v5"),
        episode_ids=np.zeros(1, int),
        skipped=ValidationReport(1),
    )


def test_recorded_positions_and_velocities_lead_where_the_data_say(monkeypatch):
    data = recorded()
    monkeypatch.setattr(oracles, "ORACLES", {})  # as for an environment whose observation is not its state
    oracle = oracle_of(data)
    states = states_of(data, oracle)
    assert states.shape == (61, 18)
    outcomes = oracle.outcomes(states[:-1], data.episodes.actions)
    np.testing.assert_allclose(outcomes.following, data.episodes.observations[1:], atol=1e-8)
    np.testing.assert_allclose(outcomes.rewards, data.episodes.rewards, atol=1e-8)
    assert not outcomes.terminated.any()
    unknown = states[:2].copy()
    unknown[0, 3] = np.nan
    assert np.isnan(oracle.outcomes(unknown, data.episodes.actions[:2]).rewards).tolist() == [True, False]


def test_rewards_and_ends_come_from_the_simulator_too():
    data = demo.rollout(demo.RECIPES["demo/hopper/random-v0"], n_steps=400, workers=1)
    outcomes = MujocoLocomotion(gym.spec("Hopper-v5")).outcomes(data.observations[data.step_state], data.actions)
    known = ~np.isnan(outcomes.rewards)
    np.testing.assert_allclose(outcomes.rewards[known], data.rewards[known], atol=1e-6)
    np.testing.assert_array_equal(outcomes.terminated[known], data.terminations[known])
    assert data.terminations[known].any()


def test_without_an_environment_there_is_no_oracle():
    assert oracle_of(replace(recorded(5), env_spec=None)) is None
    assert oracle_of(replace(recorded(5), env_spec=gym.spec("CartPole-v1"))) is None


@pytest.mark.parametrize("name", ["umaze-play", "large-split"])
def test_steps_in_a_point_maze_come_back_with_and_without_the_goal(name):
    recipe = demo.RECIPES[f"demo/pointmaze/{name}-v0"]
    data = demo.rollout(recipe, n_steps=400, workers=1)
    oracle, rows = PointMaze(recipe.spec), data.step_state
    outcomes = oracle.outcomes(data.observations[rows], data.actions)
    np.testing.assert_allclose(outcomes.following, data.observations[rows + 1], atol=1e-8)
    np.testing.assert_array_equal(outcomes.rewards, data.rewards)
    np.testing.assert_array_equal(outcomes.terminated, data.terminations)
    state = data.observations[:, 4:]
    alone = oracle.outcomes(state[rows], data.actions)
    np.testing.assert_allclose(alone.following, state[rows + 1], atol=1e-8)
    assert np.isnan(alone.rewards).all() and np.isnan(alone.terminated).all()
    assert np.abs(oracle.step(state[rows], -data.actions) - state[rows + 1]).max() > 0.1
    assert not oracle.crossings(state[rows], state[rows + 1]).any()


@pytest.mark.parametrize("version", ["v4", "v5"])
def test_steps_of_an_ant_in_a_maze_come_back(version):
    """Random pushes in the real environment; in v5 observations hold forces of contacts too."""
    register_robotics(f"AntMaze_UMaze-{version}")
    oracle = AntMaze(gym.spec(f"AntMaze_UMaze-{version}"))
    env, layout, rng = make_env(f"AntMaze_UMaze-{version}"), oracle._layout, np.random.default_rng(0)
    seen, rewards = [env.reset(seed=0)[0]], []
    actions = rng.uniform(-1, 1, (60, 8)).astype(np.float32)
    for action in actions:
        observation, reward, *_ = env.step(action)
        seen.append(observation)
        rewards.append(reward)
    states = np.concatenate([layout.flatten({k: np.asarray(v)[None] for k, v in row.items()}) for row in seen])
    found = oracle.outcomes(states[:-1], actions)
    np.testing.assert_allclose(found.following, states[1:], atol=1e-6)
    np.testing.assert_array_equal(found.rewards, rewards)
    assert not oracle.crossings(states[:-1], states[1:]).any()
    there = states[:1].copy()
    there[:, layout.slices["achieved_goal"]] += [0, 8]  # beyond the wall in the middle
    assert oracle.crossings(states[:1], there).all()
    assert np.abs(oracle.step(states[:-1], -actions) - states[1:]).max() > 0.01


def test_walls_stop_a_point_and_paths_through_them_are_crossings():
    oracle = PointMaze(gym.spec("PointMaze_UMaze-v3"))
    # Pushed against each wall around the middle of the lower corridor, and into a corner.
    for push in ([0, 1], [0, -1], [-1, -1], [1, 1]):
        states = [np.array([[0.0, -1.0, 0.0, 0.0]])]
        for _ in range(150):
            states.append(oracle.step(states[-1], np.array([push], np.float32)))
        path = np.concatenate(states)
        assert np.abs(path[-1, :2] - [0, -1]).max() > 0.3
        assert not oracle.crossings(path[:-1], path[1:]).any()
        # It stands right at the wall: what is further is through it.
        beyond = path[-1:] + np.array([[*push, 0, 0]]) * 0.07
        assert oracle.crossings(path[-1:], beyond).all()
    above, below = np.array([[0.0, 1.0, 0, 0]]), np.array([[0.0, -1.0, 0, 0]])
    assert oracle.crossings(above, below).all() and not oracle.crossings(above, above).any()
