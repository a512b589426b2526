"""TD3+BC against per-sample losses and a plain training loop."""

import copy

import naive
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benchmarks.algos import td3_bc
from benchmarks.algos.td3_bc import Config

CONFIG = Config(hidden=16, batch_size=5)


@pytest.fixture
def state():
    state = td3_bc.init(CONFIG, naive.SIZES, naive.generators(2))
    for name in ("actor_target", "critic_target"):  # as after some training
        state[name] = {
            k: v + 0.01 * torch.randn(v.shape, generator=naive.generators(1)[0]) for k, v in state[name].items()
        }
    return state


def test_losses_against_samples(state):
    batch = naive.batch()
    noise = td3_bc.noise(CONFIG, naive.SIZES, naive.generators(2), 5, 3)["target"]
    assert noise.shape == (3, 2, 5, 2)
    target = td3_bc.target_values(CONFIG, state, batch, 5 * noise[0])  # often clipped
    critic_loss, critic_info = td3_bc.critic_loss(state["critic"], batch, target)
    actor_loss, actor_info = td3_bc.actor_loss(state["actor"], state["critic"], batch, 2.5)
    for run in range(2):
        errors, values, imitation, first = [], [], [], []
        for i, sample in enumerate(naive.samples(batch, run)):
            blur = np.clip(5 * noise[0, run, i].double().numpy() * 0.2, -0.5, 0.5)
            following = np.tanh(naive.perceptron(state["actor_target"], run, 0, sample["next_states"])) + blur
            pair = np.concatenate([sample["next_states"], np.clip(following, -1, 1)])
            least = min(naive.perceptron(state["critic_target"], run, m, pair)[0] for m in (0, 1))
            want = sample["rewards"] + (0.99 * least if i != 1 else 0)
            assert target[run, i].item() == pytest.approx(want, rel=1e-4, abs=1e-5)
            pair = np.concatenate([sample["states"], sample["actions"]])
            both = [naive.perceptron(state["critic"], run, m, pair)[0] for m in (0, 1)]
            errors.append(sum((q - want) ** 2 for q in both))
            values.append(np.mean(both))
            chosen = np.tanh(naive.perceptron(state["actor"], run, 0, sample["states"]))
            imitation.append(np.mean((chosen - sample["actions"]) ** 2))
            first.append(naive.perceptron(state["critic"], run, 0, np.concatenate([sample["states"], chosen]))[0])
        assert critic_loss[run].item() == pytest.approx(np.mean(errors), rel=1e-4)
        assert critic_info["value"][run].item() == pytest.approx(np.mean(values), rel=1e-4, abs=1e-5)
        want = np.mean(imitation) - 2.5 * np.mean(first) / np.mean(np.abs(first))
        assert actor_loss[run].item() == pytest.approx(want, rel=1e-4)
        assert actor_info["imitation_loss"][run].item() == pytest.approx(np.mean(imitation), rel=1e-4)


def test_training_equals_a_plain_loop(state):
    """Six updates of both runs against modules and optimisers of one run at a time."""
    batches = [naive.batch(seed=seed) for seed in range(6)]
    noise = td3_bc.noise(CONFIG, naive.SIZES, naive.generators(2), 5, 6)["target"]
    plain = [_Plain(state, run) for run in range(2)]
    for step, batch in enumerate(batches):
        info = td3_bc.update(CONFIG, state, batch, {"target": noise[step]}, step % 2 == 1)
        assert ("actor_loss" in info) == (step % 2 == 1)
        for run in range(2):
            plain[run].step({name: value[run] for name, value in batch.items()}, noise[step, run], step)
    for run, reference in enumerate(plain):
        naive.assert_same(state["actor"], run, reference.actor)
        naive.assert_same(state["actor_target"], run, reference.actor_target)
        for member in range(2):
            naive.assert_same(state["critic"], run, reference.critics[member], member)
            naive.assert_same(state["critic_target"], run, reference.critic_targets[member], member)


def test_policy_period():
    """With a period of three, only every third step moves the actor and the targets."""
    config = Config(hidden=8, batch_size=5, policy_period=3)
    assert td3_bc.policy_frequency(config) == 3
    state = td3_bc.init(config, naive.SIZES, naive.generators(1))
    moved = []
    for step in range(6):
        before = copy.deepcopy(state)
        noise = td3_bc.noise(config, naive.SIZES, naive.generators(1), 5, 1)["target"][0]
        td3_bc.update(config, state, naive.batch(runs=1, seed=step), {"target": noise}, step % 3 == 2)
        names = ("critic", "actor", "actor_target", "critic_target")
        moved.append([not torch.equal(before[name]["weight1"], state[name]["weight1"]) for name in names])
    assert moved == [[True, False, False, False]] * 2 + [[True] * 4] + [[True, False, False, False]] * 2 + [[True] * 4]


def test_act(state):
    observations = torch.randn(2, 4, 3, generator=naive.generators(1)[0])
    actions = td3_bc.act(CONFIG, state, observations)
    for run in range(2):
        for n in range(4):
            want = np.tanh(naive.perceptron(state["actor"], run, 0, observations[run, n].double().numpy()))
            np.testing.assert_allclose(actions[run, n], want, rtol=1e-4, atol=1e-6)


def test_settings_are_the_same_everywhere():
    assert Config.for_dataset("demo/hopper/medium-v0") == Config()


class _Plain:
    """The loop that people write, for one run."""

    def __init__(self, state, run):
        self.actor, self.actor_target = (naive.network(state[name], run) for name in ("actor", "actor_target"))
        self.critics = [naive.network(state["critic"], run, member) for member in (0, 1)]
        self.critic_targets = [naive.network(state["critic_target"], run, member) for member in (0, 1)]
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), lr=3e-4)
        self.critic_optimizer = torch.optim.Adam([p for c in self.critics for p in c.parameters()], lr=3e-4)

    def step(self, batch, noise, number):
        with torch.no_grad():
            actions = self.actor_target(batch["next_states"]).tanh() + (0.2 * noise).clamp(-0.5, 0.5)
            pair = torch.cat([batch["next_states"], actions.clamp(-1, 1)], 1)
            least = torch.min(*(target(pair)[:, 0] for target in self.critic_targets))
            target = batch["rewards"] + 0.99 * batch["continues"] * least
        pair = torch.cat([batch["states"], batch["actions"]], 1)
        self._descend(self.critic_optimizer, sum(F.mse_loss(critic(pair)[:, 0], target) for critic in self.critics))
        if number % 2 == 1:
            actions = self.actor(batch["states"]).tanh()
            value = self.critics[0](torch.cat([batch["states"], actions], 1))
            loss = -2.5 / value.abs().mean().detach() * value.mean() + F.mse_loss(actions, batch["actions"])
            self._descend(self.actor_optimizer, loss)
            targets = [self.actor_target, *self.critic_targets]
            for target, net in zip(targets, [self.actor, *self.critics], strict=True):
                for old, new in zip(target.parameters(), net.parameters(), strict=True):
                    old.data.copy_(0.995 * old.data + 0.005 * new.data)

    @staticmethod
    def _descend(optimizer, loss):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
