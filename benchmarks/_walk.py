"""Synthetic episodes of Hopper's shapes, for benchmarks that need data and not a simulator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from gymnasium import spaces

SPACES: dict[str, Any] = {
    "observation_space": spaces.Box(-np.inf, np.inf, (11,), np.float64),
    "action_space": spaces.Box(-1, 1, (3,), np.float32),
}


def walk(n_steps: int, n_episodes: int) -> Iterator[dict[str, Any]]:
    """Yield damped random walks that are pushed by their actions; every other episode terminates."""
    length = n_steps // n_episodes
    for episode in range(n_episodes):
        rng = np.random.default_rng([0, episode])
        actions = rng.uniform(-1, 1, (length, 3)).astype(np.float32)
        push = rng.normal(0, 0.1, (length, 11))
        push[:, :3] += 0.2 * actions
        states = np.zeros((length + 1, 11))
        states[0] = rng.normal(size=11)
        for t in range(length):
            states[t + 1] = 0.98 * states[t] + push[t]
        last = np.arange(length) == length - 1
        yield {
            "observations": states,
            "actions": actions,
            "rewards": 1.0 + states[1:, 0],
            "terminations": last & (episode % 2 == 1),
            "truncations": last & (episode % 2 == 0),
        }
