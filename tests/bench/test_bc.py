"""Behavioural cloning against per-sample losses and a plain training loop."""

import naive
import numpy as np
import pytest
import torch.nn.functional as F
from torch.optim import Adam

from benchmarks.algos import bc
from benchmarks.algos.bc import Config
from benchmarks.data import load
from benchmarks.trainer import TrainingRun, train

CONFIG = Config(hidden=16, batch_size=5)


def test_loss_against_samples():
    state, batch = bc.init(CONFIG, naive.SIZES, naive.generators(2)), naive.batch()
    loss, _ = bc.actor_loss(state["actor"], batch)
    for run in range(2):
        errors = [
            (np.tanh(naive.perceptron(state["actor"], run, 0, sample["states"])) - sample["actions"]) ** 2
            for sample in naive.samples(batch, run)
        ]
        assert loss[run].item() == pytest.approx(np.mean(errors), rel=1e-4)


def test_training_equals_a_plain_loop():
    state = bc.init(CONFIG, naive.SIZES, naive.generators(2))
    nets = [naive.network(state["actor"], run) for run in range(2)]
    optimizers = [Adam(net.parameters(), lr=3e-4) for net in nets]
    for step in range(5):
        batch = naive.batch(seed=step)
        bc.update(CONFIG, state, batch, {}, 0)
        for run, (net, optimizer) in enumerate(zip(nets, optimizers, strict=True)):
            optimizer.zero_grad()
            F.mse_loss(net(batch["states"][run]).tanh(), batch["actions"][run]).backward()
            optimizer.step()
    for run, net in enumerate(nets):
        naive.assert_same(state["actor"], run, net)


def test_it_imitates(write_dataset, make_episodes):
    """Actions that are a function of the state are learned."""
    parts = []
    for part in make_episodes(n_episodes=10, length=50):
        actions = np.tanh(part["observations"][:-1, :2] / 4).astype(np.float32)
        parts.append({**part, "actions": actions})
    data = load(write_dataset(episodes=type(make_episodes()).from_list(parts)))
    config = Config(steps=300, batch_size=64, hidden=64, learning_rate=3e-3)
    trained = train(bc, config, data, [TrainingRun(0)])
    assert trained.info["actor_loss"].item() < 0.01 < data.actions.var().item()


def test_best_is_a_share():
    assert Config.for_dataset("demo/hopper/medium-v0") == Config() and Config().best == 1
