"""Evaluation against one episode at a time, reference scores, and environments that are not there."""

import dataclasses
import multiprocessing

import gymnasium as gym
import numpy as np
import pendulum
import pytest
import torch

from benchmarks import evaluate
from benchmarks.evaluate import Evaluator, Reference, SimulatorError, environment_spec
from minari_stitch.data import minari_io


@pytest.fixture(autouse=True)
def no_process_is_left():
    yield
    evaluate._forget()
    for process in multiprocessing.active_children():
        process.join(10)


def dataset(**metadata):
    return minari_io.read(pendulum.write(stitched=None, **metadata))


def push(observations):
    """Actions `(K, M, 1)` that depend on the state."""
    return torch.tanh(observations.sum(-1, keepdim=True))


@pytest.mark.parametrize("workers", [1, 2])
def test_against_single_episodes(workers):
    mean, std = np.array([0.1, 0.2, 0.3]), np.array([1.0, 2.0, 3.0])
    evaluator = Evaluator(dataset=dataset(), mean=mean, std=std, workers=workers)
    returns = evaluator(push, [0, 5, 0], episodes=2)
    assert returns.shape == (3, 2) and (returns[0] == returns[2]).all() and (returns[0] != returns[1]).all()
    assert (evaluator(push, [0, 5, 0], episodes=2) == returns).all()  # environments are reset, not carried on
    env = gym.make(pendulum.SPEC)
    for run, seed in enumerate((0, 5)):
        for e, start in enumerate(np.random.SeedSequence([seed, 1]).generate_state(2).tolist()):
            observation, _ = env.reset(seed=start)
            total, done = 0.0, False
            while not done:
                scaled = torch.from_numpy(((observation - mean) / std).astype(np.float32))
                observation, reward, terminated, truncated, _ = env.step(2 * push(scaled).numpy())
                total, done = total + reward, terminated or truncated
            assert returns[run, e] == pytest.approx(total, rel=1e-4)
    env.close()


class Short(gym.Env):
    """Episodes of random length, which pay 1 a step."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float64)
    action_space = gym.spaces.Box(-2, 2, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.length = 0, int(self.np_random.integers(1, 40))
        return np.array([0.0, 0, self.length]), {}

    def step(self, action):
        assert action.dtype == np.float32
        self.t += 1
        # It pays what the policy says, which is the window's length and timestep.
        return np.array([self.t, 0.0, self.length]), float(action[0]), self.t == self.length, False, {}


@pytest.mark.parametrize("context", [4, 1])
def test_windows_of_episodes_that_end_apart(monkeypatch, context):
    """Live episodes move together; each sees its own history, however many others have ended."""
    spec = gym.envs.registration.EnvSpec("Short-v0", entry_point=Short, max_episode_steps=50)
    monkeypatch.setattr("benchmarks.evaluate.environment_spec", lambda dataset: spec)
    evaluator = Evaluator(dataset=dataset(), mean=np.zeros(3), std=np.ones(3), context=context, target_return=10.0)
    widths = []

    def policy(windows):
        states, actions, wanted = windows["states"], windows["actions"], windows["returns_to_go"]
        k, m, t, _ = states.shape
        widths.append(m)
        now = states[..., -1, 0]
        live = now < states[..., -1, 2]
        times = windows["timesteps"]
        assert t == min(context, int(times[0, 0, -1]) + 1) and (times.diff(dim=-1) == 1).all() and windows["mask"].all()
        assert (states[..., 0][live] == times[live]).all()
        assert (actions[..., -1, :] == 0).all()
        assert (actions[live][:, :-1, 0] == 0.25).all()
        # 0.5 is earned in each step of a live episode: actions of 0.25 in a space from -2 to 2.
        torch.testing.assert_close(wanted[live], 10.0 - 0.5 * times[live])
        return torch.full((k, m, 1), 0.25)

    returns = evaluator(policy, [0, 1], episodes=6)
    lengths = 2 * returns
    assert len(set(lengths.ravel())) > 4 and len(widths) == lengths.max()
    assert widths == [int((lengths > t).sum(1).max()) for t in range(len(widths))]  # no call is wider than needed


def test_a_process_builds_environments_once(monkeypatch):
    built = []
    monkeypatch.setattr("benchmarks.evaluate.build", lambda spec, make=evaluate.build: built.append(spec) or make(spec))
    monkeypatch.setattr(evaluate, "_kept", [])
    common = {"dataset": dataset(), "mean": np.zeros(3), "std": np.ones(3)}
    returns = [Evaluator(**common)(push, seeds, 3).tolist() for seeds in ([7], [7], [7, 8])]
    assert len(built) == 3 * 1 + 3 + 6  # each evaluator tries one; then three, none, and six
    assert returns[0] == returns[1] == returns[2][:1]


def test_an_evaluation_that_breaks_off_leaves_nothing_to_the_next(monkeypatch):
    evaluator = Evaluator(dataset=dataset(), mean=np.zeros(3), std=np.ones(3), workers=2)
    returns = evaluator(push, [7], 4)
    broken = evaluate._kept[0][1]._pipes[0]
    monkeypatch.setattr(evaluate._kept[0][1], "_pipes", [broken, Interrupting()])
    with pytest.raises(KeyboardInterrupt):
        evaluator(push, [7], 4)
    assert broken.closed and not evaluate._kept
    assert (evaluator(push, [7], 4) == returns).all()


class Interrupting:
    """A pipe at which somebody presses Ctrl-C."""

    def send(self, message):
        raise KeyboardInterrupt

    def close(self):
        pass


def test_reference_scores():
    ours = dataset(ref_min_score=-10.0, ref_max_score=10.0)
    assert Reference.of(ours) == Reference(low=-10, high=10, source="dataset")
    assert Reference.of(ours).score(np.array([0.0, 10.0])).tolist() == [50.0, 100.0]
    named = dataclasses.replace(ours, metadata={}, env_spec=gym.spec("HalfCheetah-v5"))
    assert Reference.of(named) == Reference(low=-280.18, high=12135.0, source="D4RL")
    raw = Reference.of(dataclasses.replace(ours, metadata={}))
    assert raw.source == "raw" and raw.score(np.array(42.0)) == 42.0


def test_environments_that_are_not_there():
    ours = dataset()
    with pytest.raises(SimulatorError, match="names no environment"):
        environment_spec(dataclasses.replace(ours, env_spec=None))
    absent = dataclasses.replace(pendulum.SPEC, entry_point="nowhere:Env")
    with pytest.raises(SimulatorError, match="Pendulum-v1 cannot be built"):
        Evaluator(dataset=dataclasses.replace(ours, env_spec=absent), mean=np.zeros(3), std=np.ones(3))
    other = dataclasses.replace(ours, env_spec=gym.spec("MountainCarContinuous-v0"))
    with pytest.raises(SimulatorError, match="width 3, but MountainCarContinuous-v0 has 2"):
        Evaluator(dataset=other, mean=np.zeros(3), std=np.ones(3))


def test_the_evaluation_environment_comes_first():
    other = dataclasses.replace(pendulum.SPEC, max_episode_steps=7)
    assert environment_spec(dataset(eval_env_spec=other.to_json())).max_episode_steps == 7
