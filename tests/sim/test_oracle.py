from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from linear import episodes, exact, inverse, next_state

from minari_stitch.data.dataset import Dataset
from minari_stitch.data.episodes import Episodes
from minari_stitch.data.validation import ValidationReport
from minari_stitch.diffstitch.config import QualifyConfig
from minari_stitch.diffstitch.proposals import Proposals
from minari_stitch.diffstitch.stitch import doubt
from minari_stitch.errors import StitchError
from minari_stitch.sim import demo
from minari_stitch.sim import oracle as oracles
from minari_stitch.sim.oracle import (
    MujocoLocomotion,
    agreement,
    largest,
    oracle_errors,
    oracle_of,
    real_paths,
    states_of,
)


class World:
    """The linear world as a simulator."""

    def step(self, observations, actions):
        return next_state(observations, actions)


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
            "source", "target", "steps", "similarity", "reachable", "states", "actions", "rewards", "termination",
            "before", "after", "drift", "support",
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
