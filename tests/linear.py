"""A linear world whose dynamics, inverse and rewards are known, and networks that know them exactly."""

from __future__ import annotations

import numpy as np
import torch

from minari_stitch.data.episodes import Episodes
from minari_stitch.diffstitch.config import DiffusionConfig, ModelConfig
from minari_stitch.diffstitch.diffusion import Schedule
from minari_stitch.diffstitch.models import Models, build
from minari_stitch.learn.loop import FitConfig
from minari_stitch.learn.nets import MLP
from minari_stitch.learn.scales import Scales

_A = np.array([[0.9, 0.1, 0.0], [-0.1, 0.9, 0.05], [0.0, 0.0, 0.8]])
_B = np.array([[0.2, 0.0], [0.0, 0.3], [0.1, -0.1]])
_C = np.array([0.1, -0.2, 0.3])
LOW, HIGH = np.array([-2.0, -1.0]), np.array([2.0, 3.0])

FIT = FitConfig(steps=20, batch_size=16, learning_rate=1e-2, warmup=2, evaluate_every=10)
TINY = ModelConfig(
    diffusion=DiffusionConfig(horizon=16, diffusion_steps=20, width=8, multipliers=(1, 2), kernel=3, fit=FIT),
    hidden=16,
    members=4,
    judges=2,
    dynamics=FIT,
    inverse=FIT,
    reward=FIT,
    termination=FIT,
    behaviour=FIT,
)


def next_state(states, actions):
    return states @ _A.T + actions @ _B.T + _C


def inverse(states, following):
    return (following - states @ _A.T - _C) @ np.linalg.pinv(_B).T


def reward(states, actions):
    return states @ np.array([1.0, -0.5, 0.2]) + actions @ np.array([0.3, 0.1]) + 0.5


def episodes(lengths=(14, 9, 20, 12), seed=0, dtype=np.float64, pushes=None) -> Episodes:
    """Random actions; every third episode terminates. `pushes` adds a constant to the actions of each episode."""
    rng = np.random.default_rng(seed)
    parts = []
    for e, length in enumerate(lengths):
        push = 0.0 if pushes is None else pushes[e]
        actions = np.clip(rng.uniform(LOW, HIGH, (length, 2)) + push, LOW, HIGH).astype(np.float32)
        states = np.zeros((length + 1, 3))
        states[0] = rng.normal([1.0, -2.0, 0.5], [1.0, 2.0, 0.5])
        for t in range(length):
            states[t + 1] = next_state(states[t], actions[t])
        last = np.arange(length) == length - 1
        parts.append(
            {
                "observations": states.astype(dtype),
                "actions": actions,
                "rewards": reward(states[:-1], actions),
                "terminations": last & (e % 3 == 2),
                "truncations": last & (e % 3 != 2),
            }
        )
    return Episodes.from_list(parts)


def affine(function, inputs, outputs, offsets=(0.0,)) -> MLP:
    """The perceptron without hidden layers that equals an affine NumPy function; one member for each offset."""
    net = MLP(inputs, outputs, hidden=1, layers=0, members=len(offsets), generator=torch.Generator())
    zero = function(np.zeros((1, inputs)))
    weight, bias = function(np.eye(inputs)) - zero, zero + np.array(offsets)[:, None, None]
    with torch.no_grad():
        net.weights[0].copy_(torch.tensor(weight))
        net.biases[0].copy_(torch.tensor(bias))
    return net.eval().requires_grad_(False)


def scales(source, config=TINY) -> Scales:
    return Scales.of(source, LOW, HIGH, config.diffusion.normalizer)


def exact(source, config=TINY, offsets=(0.0, 0.0, 0.0, 0.0), seed=0) -> Models:
    """A bundle whose perceptrons are exact, up to an offset for each dynamics network; the U-Net is untrained."""
    s = scales(source, config)
    mean, std, change = (x.double().numpy() for x in (s.state.shift, s.state.scale, s.change))
    middle, half = s.action.shift.double().numpy(), s.action.scale.double().numpy()

    def world(zu):
        return zu[:, :3] * std + mean, zu[:, 3:] * half + middle

    def dynamics(zu):
        return ((next_state(*world(zu)) - mean) / std - zu[:, :3]) / change

    def moves(zd):
        states, following = zd[:, :3] * std + mean, (zd[:, :3] + zd[:, 3:] * change) * std + mean
        return (inverse(states, following) - middle) / half

    def rewards(zu):
        return (reward(*world(zu))[:, None] - s.reward.shift.double().numpy()) / s.reward.scale.double().numpy()

    unet = build("diffusion", 3, 2, config, torch.Generator().manual_seed(seed))
    return Models(
        config=config,
        scales=s,
        schedule=Schedule.cosine(config.diffusion.diffusion_steps, config.diffusion.parametrisation),
        diffusion=unet.eval().requires_grad_(False),
        dynamics_net=affine(dynamics, 5, 3, offsets),
        inverse_net=affine(moves, 6, 2),
        reward_net=affine(rewards, 5, 1),
        termination_net=affine(lambda z: 3 * z[:, :1] - 6, 3, 1),
        behaviour_net=affine(lambda z: 0.1 * z[:, :2], 3, 2),
    )
