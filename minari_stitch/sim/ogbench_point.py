"""OGBench's point mazes as an oracle: a place alone tells the state, since a point keeps no velocity."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.envs.registration import EnvSpec

from minari_stitch.sim.behaviour import make_env
from minari_stitch.sim.maze import Maze
from minari_stitch.sim.outcomes import Outcomes, ask

_WIDTH = 0.35  # that a point stays away from walls: half of its radius, since it sinks in a little


class PlacedPoint:
    """Steps a point from its place, by a fifth of its action, as far as walls let it.

    Args:
        spec: Of the environment.
    """

    def __init__(self, spec: EnvSpec) -> None:
        self._env: Any = make_env(spec).unwrapped
        self._env.reset(seed=0)
        corner = np.array(self._env.ij_to_xy((0, 0)), float)
        scale = float(self._env.ij_to_xy((0, 1))[0] - corner[0])
        self._maze = Maze(self._env.maze_map, scale)
        # Rows of the map lead up here, and down in `Maze`.
        self._shift = self._maze.centre((0, 0)) * np.array([1, -1]) - corner

    def step(self, observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Next observations `(B, 2)` from `(B, 2)` and `(B, 2)`."""
        return self.outcomes(observations, actions).following

    def outcomes(self, states: np.ndarray, actions: np.ndarray) -> Outcomes:
        """See `Oracle`; what is rewarded depends on a task, so there are no rewards."""
        import mujoco

        env = self._env

        def place(row: int) -> None:
            mujoco.mj_resetData(env.model, env.data)  # type: ignore[attr-defined]
            env.set_state(states[row].astype(float), np.zeros(2))

        found = ask(env, place, np.ones(len(states), bool), actions, states.shape[1])
        found.rewards[:], found.terminated[:] = np.nan, np.nan
        return found

    def crossings(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """`(B,)` which steps enter a wall, or come nearer to one than the point's width allows."""
        return self._maze.crosses_wall(self._mapped(before), self._mapped(after), _WIDTH)

    def _mapped(self, places: np.ndarray) -> np.ndarray:
        return (places + self._shift) * np.array([1, -1])
