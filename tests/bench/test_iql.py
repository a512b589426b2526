"""IQL against per-sample losses and a plain training loop."""

from dataclasses import replace

import naive
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benchmarks.algos import iql
from benchmarks.algos.iql import Config

CONFIG = Config(hidden=16, batch_size=5, steps=10)


def settled(config):
    """A state as after some training."""
    state = iql.init(config, naive.SIZES, naive.generators(2))
    g = torch.Generator().manual_seed(9)
    state["critic_target"] = {k: v + 0.3 * torch.randn(v.shape, generator=g) for k, v in state["critic_target"].items()}
    if "log_std" in state["actor"]:
        state["actor"]["log_std"] += 0.5 * torch.randn(2, 1, 2, generator=g)
    return state


@pytest.mark.parametrize("deterministic", [False, True])
def test_losses_against_samples(deterministic):
    config = replace(CONFIG, deterministic=deterministic, beta=20.0)
    state, batch = settled(config), naive.batch()
    state["value"]["bias2"][0] -= 0.9  # so that both signs occur, and the bound
    best = iql.action_values(state["critic_target"], batch).amin(1)
    value_loss, info = iql.value_loss(state["value"], batch, best, 0.7)
    target = batch["rewards"] + 0.99 * batch["continues"] * iql.values(state["value"], batch["next_states"])
    critic_loss, _ = iql.critic_loss(state["critic"], batch, target)
    weights = (config.beta * info["advantages"]).exp().clamp(max=100)
    actor_loss, _ = iql.actor_loss(state["actor"], batch, weights, None)
    assert (weights == 100).any() and (info["advantages"] < 0).any()
    for run in range(2):
        value_errors, critic_errors, actor_errors = [], [], []
        for i, sample in enumerate(naive.samples(batch, run)):
            pair = np.concatenate([sample["states"], sample["actions"]])
            least = min(naive.perceptron(state["critic_target"], run, m, pair)[0] for m in (0, 1))
            advantage = least - naive.perceptron(state["value"], run, 0, sample["states"])[0]
            value_errors.append((0.7 if advantage > 0 else 0.3) * advantage**2)
            after = naive.perceptron(state["value"], run, 0, sample["next_states"])[0]
            want = sample["rewards"] + (0.99 * after if i != 1 else 0)
            critic_errors += [(naive.perceptron(state["critic"], run, m, pair)[0] - want) ** 2 for m in (0, 1)]
            mean = np.tanh(naive.perceptron(state["actor"], run, 0, sample["states"]))
            if deterministic:
                error = ((mean - sample["actions"]) ** 2).sum()
            else:
                std = np.exp(state["actor"]["log_std"][run, 0].double().numpy())
                density = np.exp(-0.5 * ((sample["actions"] - mean) / std) ** 2) / (std * np.sqrt(2 * np.pi))
                error = -np.log(density).sum()
            actor_errors.append(min(np.exp(config.beta * advantage), 100) * error)
        assert value_loss[run].item() == pytest.approx(np.mean(value_errors), rel=1e-4)
        assert critic_loss[run].item() == pytest.approx(np.mean(critic_errors), rel=1e-4)
        assert actor_loss[run].item() == pytest.approx(np.mean(actor_errors), rel=1e-3)


@pytest.mark.parametrize(("deterministic", "dropout"), [(False, 0.0), (True, 0.0), (False, 0.3)])
def test_training_equals_a_plain_loop(deterministic, dropout):
    """Six of ten updates of both runs against modules and optimisers of one run at a time."""
    config = replace(CONFIG, deterministic=deterministic, dropout=dropout)
    state = settled(config)
    noise = iql.noise(config, naive.SIZES, naive.generators(2), 5, 6)
    plain = [_Plain(state, run, config) for run in range(2)]
    for step in range(6):
        batch = naive.batch(seed=step)
        random = {name: value[step] for name, value in noise.items()}
        iql.update(config, state, batch, random, 0)
        for run in range(2):
            masks = noise["dropout"][step, run] if dropout else None
            plain[run].step({name: value[run] for name, value in batch.items()}, masks)
    for run, reference in enumerate(plain):
        naive.assert_same(state["actor"], run, reference.actor)
        naive.assert_same(state["value"], run, reference.value)
        for member in range(2):
            naive.assert_same(state["critic"], run, reference.critics[member], member)
            naive.assert_same(state["critic_target"], run, reference.targets[member], member)
        if not deterministic:
            torch.testing.assert_close(state["actor"]["log_std"][run, 0], reference.log_std.data)


def test_dropout_masks():
    """Of the right rate and scale, for training only."""
    config = replace(CONFIG, dropout=0.25)
    masks = iql.noise(config, naive.SIZES, naive.generators(2), 50, 20)["dropout"]
    assert masks.shape == (20, 2, 2, 50, 16)
    assert sorted(masks.unique().tolist()) == [0, pytest.approx(4 / 3)]
    assert masks.mean().item() == pytest.approx(1, abs=0.02)
    assert iql.noise(CONFIG, naive.SIZES, naive.generators(2), 50, 20) == {}


def test_act():
    state = settled(CONFIG)
    observations = torch.randn(2, 4, 3, generator=naive.generators(1)[0])
    actions = iql.act(CONFIG, state, observations)
    for run in range(2):
        for n in range(4):
            want = np.tanh(naive.perceptron(state["actor"], run, 0, observations[run, n].double().numpy()))
            np.testing.assert_allclose(actions[run, n], want, rtol=1e-4, atol=1e-6)


def test_settings_by_dataset():
    hopper = Config(deterministic=True, normalize_rewards=True, target_rate=0.001)
    assert Config.for_dataset("demo/hopper/medium-v0") == hopper
    assert Config.for_dataset("demo/hopper/medium-replay-stitched-v0") == hopper
    assert Config.for_dataset("demo/hopper/medium-expert-v0") == Config(beta=6, expectile=0.5)
    assert Config.for_dataset("D4RL/pen/human-v2") == Config(expectile=0.8, dropout=0.1)
    assert Config.for_dataset("mujoco/halfcheetah/medium-v0") == Config()


class _Plain:
    """The loop that people write, for one run."""

    def __init__(self, state, run, config):
        self.config = config
        self.actor, self.value = (naive.network(state[name], run) for name in ("actor", "value"))
        self.critics = torch.nn.ModuleList([naive.network(state["critic"], run, member) for member in (0, 1)])
        self.targets = torch.nn.ModuleList([naive.network(state["critic_target"], run, member) for member in (0, 1)])
        parameters = list(self.actor.parameters())
        if not config.deterministic:
            self.log_std = torch.nn.Parameter(state["actor"]["log_std"][run, 0].clone())
            parameters.append(self.log_std)
        self.actor_optimizer = torch.optim.Adam(parameters, lr=3e-4)
        self.value_optimizer = torch.optim.Adam(self.value.parameters(), lr=3e-4)
        self.critic_optimizer = torch.optim.Adam(self.critics.parameters(), lr=3e-4)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.actor_optimizer, config.steps)

    def step(self, batch, masks):
        pair = torch.cat([batch["states"], batch["actions"]], 1)
        with torch.no_grad():
            after = self.value(batch["next_states"])[:, 0]
            least = torch.min(*(target(pair)[:, 0] for target in self.targets))
        advantage = least - self.value(batch["states"])[:, 0]
        self._descend(self.value_optimizer, (torch.abs(0.7 - (advantage < 0).float()) * advantage**2).mean())
        target = batch["rewards"] + batch["continues"] * 0.99 * after
        self._descend(self.critic_optimizer, sum(F.mse_loss(c(pair)[:, 0], target) for c in self.critics) / 2)
        for old, new in zip(self.targets.parameters(), self.critics.parameters(), strict=True):
            old.data.copy_(0.995 * old.data + 0.005 * new.data)
        weights = torch.exp(3 * advantage.detach()).clamp(max=100)
        x, hidden = batch["states"], 0
        for module in self.actor:
            x = module(x)
            if isinstance(module, torch.nn.ReLU) and masks is not None:
                x, hidden = x * masks[hidden], hidden + 1
        if self.config.deterministic:
            errors = ((x.tanh() - batch["actions"]) ** 2).sum(1)
        else:
            errors = -torch.distributions.Normal(x.tanh(), self.log_std.exp()).log_prob(batch["actions"]).sum(1)
        self._descend(self.actor_optimizer, (weights * errors).mean())
        self.schedule.step()

    @staticmethod
    def _descend(optimizer, loss):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
