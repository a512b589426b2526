"""Observations back into the simulator, for environments whose observation determines what it shows.

MuJoCo locomotion observes the whole state but the root's x, which no force depends on; Adroit's pen observes the
joints of the hand and the pose of the pen, but not how the pen is turned about its own axis nor how fast the
hand moves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec

from minari_stitch.errors import StitchError
from minari_stitch.sim.behaviour import make_env


class Poser(Protocol):
    """An environment that can be put where an observation says.

    Attributes:
        env: The unwrapped environment, whose `model` and `data` are MuJoCo's.
    """

    env: Any

    def set(self, observation: np.ndarray, x: float = 0.0) -> None:
        """Put the simulator into the state of an observation `(S,)`, with the root at `x` where that is free."""
        ...

    def travelled(self, observations: np.ndarray) -> np.ndarray:
        """`(T + 1,)` x of the root in m along an episode `(T + 1, S)`; 0 at first."""
        ...


class Locomotion:
    """Hopper, Walker2d and HalfCheetah: positions without the root's x, then velocities.

    Args:
        env: Gymnasium id or specification.

    Raises:
        StitchError: The environment's observation is another.
    """

    def __init__(self, env: str | EnvSpec) -> None:
        env_id = env if isinstance(env, str) else env.id
        self.env: Any = make_env(env).unwrapped
        model = getattr(self.env, "model", None)
        shape = None if model is None else (model.nq - 1 + model.nv,)
        if shape != self.env.observation_space.shape:
            raise StitchError(
                f"{env_id} cannot be put where an observation says: that is not (positions without root x, "
                "velocities); Hopper, Walker2d and HalfCheetah are supported"
            )
        self.positions: int = self.env.model.nq - 1

    def set(self, observation: np.ndarray, x: float = 0.0) -> None:
        """Put the simulator into the state of an observation `(S,)`, with the root at `x` in m."""
        import mujoco

        # The solver's warm start remembers the previous state: forget it.
        mujoco.mj_resetData(self.env.model, self.env.data)  # type: ignore[attr-defined]
        positions, velocities = np.split(observation, [self.positions])
        self.env.set_state(np.concatenate([[x], positions]), velocities)

    def travelled(self, observations: np.ndarray) -> np.ndarray:
        """`(T + 1,)` x of the root in m along an episode `(T + 1, S)`, from its observed velocity; 0 at first."""
        return np.concatenate([[0.0], np.cumsum(observations[:-1, self.positions] * self.env.dt)])


class AdroitPen:
    """Adroit's pen task: the hand, the pen and the pen that shows the goal.

    All that is seen is set exactly, but the turn of either pen about its own axis, which is arbitrary. The hand's
    velocities are unknown and set to 0: this is a pose, not a state to step from.

    Args:
        env: Gymnasium id or specification.

    Raises:
        StitchError: The environment's observation is another.
    """

    def __init__(self, env: str | EnvSpec) -> None:
        self.env: Any = make_env(env).unwrapped
        if self.env.observation_space.shape != (45,) or self.env.model.nq != 30:
            env_id = env if isinstance(env, str) else env.id
            raise StitchError(f"{env_id} is not Adroit's pen with its 45 observations; use AdroitHandPen-v1")
        self.env.reset(seed=0)
        self._rest = self.env.data.xpos[self.env.obj_body_id].copy()
        self._turn = self.env.data.xmat[self.env.obj_body_id].reshape(3, 3).copy()

    def set(self, observation: np.ndarray, x: float = 0.0) -> None:
        """Put hand and pens where an observation `(45,)` says; `x` has no meaning here."""
        hand, place, velocity, axis = np.split(observation[:36], [24, 27, 33])
        self.aim(observation)
        pen = [*self.slide(place - self._rest), *self.turn(axis), 0.0]
        self.env.set_state(np.concatenate([hand, pen]), np.concatenate([np.zeros(24), velocity]))

    def aim(self, observation: np.ndarray) -> None:
        """Point the pen that shows the goal where an observation says."""
        import mujoco

        target = np.zeros(4)
        mujoco.mju_quatZ2Vec(target, _unit(observation[36:39]))  # type: ignore[attr-defined]
        self.env.model.body_quat[self.env.target_obj_body_id] = target

    def slide(self, way: np.ndarray) -> np.ndarray:
        """`(3,)` what the pen's slides change for a way `(3,)` of the pen: they go along the axes of its body."""
        return self._turn.T @ way

    def turn(self, axis: np.ndarray) -> np.ndarray:
        """`(2,)` angles at which the pen lies along `axis`: first about its body's x, then y; z is its own axis."""
        across, up, along = self._turn.T @ _unit(axis)
        return np.array([np.arctan2(-up, along), np.arcsin(np.clip(across, -1, 1))])

    def travelled(self, observations: np.ndarray) -> np.ndarray:
        """`(T + 1,)` zeros: the hand's base is fixed."""
        return np.zeros(len(observations))


_POSERS: dict[str, Callable[[str], Poser]] = {
    "Hopper": Locomotion,
    "Walker2d": Locomotion,
    "HalfCheetah": Locomotion,
    "AdroitHandPen": AdroitPen,
}


def poser(env_id: str) -> Poser:
    """What can put an environment where an observation says.

    Args:
        env_id: Gymnasium id (`Hopper-v5`).

    Raises:
        StitchError: The environment is not supported, or cannot be made here.
    """
    known = [make for name, make in _POSERS.items() if env_id.startswith(name)]
    if not known:
        raise StitchError(
            f"{env_id} cannot be put where an observation says, so no state of it can be drawn; "
            f"{', '.join(_POSERS)} are supported"
        )
    try:
        return known[0](env_id)
    except gym.error.Error as error:
        raise StitchError(f"{env_id} cannot be made here ({error}); use a dataset of a current version") from error


def _unit(vector: np.ndarray) -> np.ndarray:
    """The direction of a vector that a network generated, and so has not quite unit length."""
    return vector / max(float(np.linalg.norm(vector)), 1e-9)
