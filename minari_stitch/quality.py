"""The oracle: how far synthetic transitions are from the real simulator.

For MuJoCo locomotion the observation is the whole state but the root's position, which no force depends on.
So each state of a bridge can be set in the real simulator, its action applied, and the outcome compared.
"""

from __future__ import annotations

from typing import Any, Protocol

import gymnasium as gym
import numpy as np

from minari_stitch.errors import StitchError


class Simulator(Protocol):
    """Sets states and steps from them."""

    def step(self, observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Next observations `(B, S)` of the real environment from `(B, S)` and `(B, A)`."""
        ...


class MujocoLocomotion:
    """Steps Hopper, Walker2d and HalfCheetah from given observations; the root's x is set to 0.

    Args:
        env_spec: Specification of a Gymnasium MuJoCo locomotion environment.

    Raises:
        StitchError: The environment's observation does not determine its state.
    """

    def __init__(self, env_spec: Any) -> None:
        env: Any = gym.make(env_spec).unwrapped
        position, velocity = env.model.nq - 1, env.model.nv if hasattr(env, "model") else 0
        if env.observation_space.shape != (position + velocity,):
            raise StitchError(
                f"no oracle for {env_spec.id}: its observation is not (positions without root x, velocities); "
                "Hopper, Walker2d and HalfCheetah are supported"
            )
        self._env, self._positions = env, position

    def step(self, observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Next observations `(B, S)` of the real environment from `(B, S)` and `(B, A)`."""
        import mujoco

        env, result = self._env, np.empty_like(observations, dtype=np.float64)
        for row, (observation, action) in enumerate(zip(observations, actions, strict=True)):
            # The solver's warm start remembers the previous state: forget it, so that rows are independent.
            mujoco.mj_resetData(env.model, env.data)
            env.set_state(np.concatenate([[0.0], observation[: self._positions]]), observation[self._positions :])
            env.do_simulation(action, env.frame_skip)
            result[row] = env._get_obs()
        return result
