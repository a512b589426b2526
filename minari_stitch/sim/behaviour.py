"""Behaviour policies in the simulator: a NumPy actor, and whole episodes played with it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec

from minari_stitch.errors import InvalidDataError, StitchError

Policy = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Actor:
    """A tanh-Gaussian policy with two hidden layers, in plain NumPy.

    Attributes:
        weights: `w0, b0, w1, b1` hidden layers, `w2, b2` mean, `w3, b3` log standard deviation.
    """

    weights: Mapping[str, np.ndarray]

    def __call__(self, observation: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """Action `(A,)` float32 for an observation `(S,)`: sampled, or the mode without `rng`."""
        h = np.maximum(self._layer(0, observation.astype(np.float32)), 0)
        h = np.maximum(self._layer(1, h), 0)
        action = self._layer(2, h)
        if rng is not None:
            std = np.exp(np.clip(self._layer(3, h), -20, 2))
            action += std * rng.standard_normal(len(std), dtype=np.float32)
        return np.tanh(action)

    def _layer(self, index: int, x: np.ndarray) -> np.ndarray:
        # einsum, not BLAS: as fast for one row, and its sums do not depend on the number of threads.
        return np.einsum("i,ij->j", x, self.weights[f"w{index}"]) + self.weights[f"b{index}"]


@dataclass(frozen=True, kw_only=True)
class LinearActor:
    """A clipped affine policy with Gaussian noise.

    Attributes:
        weights: `w (S, A)`, `b (A,)`, and `std ()` of the noise.
    """

    weights: Mapping[str, np.ndarray]

    def __call__(self, observation: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """Action `(A,)` float32 for an observation `(S,)`: sampled, or the mode without `rng`."""
        action = np.einsum("i,ij->j", observation.astype(np.float32), self.weights["w"]) + self.weights["b"]
        if rng is not None:
            action += self.weights["std"] * rng.standard_normal(len(action), dtype=np.float32)
        return np.clip(action, -1, 1)


def load_actor(path: Path) -> Actor | LinearActor:
    """Read an actor's weights from an `.npz` file."""
    with np.load(path) as file:
        weights = dict(file)
    return LinearActor(weights=weights) if "w" in weights else Actor(weights=weights)


def uniform(space: gym.Space, rng: np.random.Generator) -> Policy:
    """The policy that ignores its observation and draws actions uniformly from a bounded Box."""
    assert isinstance(space, gym.spaces.Box)
    return lambda observation: rng.uniform(space.low, space.high).astype(space.dtype)


def play_episode(env: gym.Env, policy: Policy, *, seed: int | None = None) -> dict[str, np.ndarray]:
    """Play one episode to its end.

    Args:
        env: Reset here, with `seed` where given, else with its own generator.
        policy: Observation `(S,)` -> action `(A,)`.
        seed: Seed of the environment's generator.

    Returns:
        Mapping in the form that `Episodes.from_list` takes.
    """
    observation, _ = env.reset(seed=seed)
    observations, actions, rewards = [observation], [], []
    terminated = truncated = False
    while not (terminated or truncated):
        action = policy(observation)
        observation, reward, terminated, truncated, _ = env.step(action)
        observations.append(observation)
        actions.append(action)
        rewards.append(reward)
    terminations, truncations = np.zeros((2, len(rewards)), dtype=bool)
    terminations[-1], truncations[-1] = terminated, truncated
    return {
        "observations": np.array(observations),
        "actions": np.array(actions),
        "rewards": np.array(rewards, dtype=np.float64),
        "terminations": terminations,
        "truncations": truncations,
    }


def random_return(spec: EnvSpec | None, episodes: int, seed: int) -> float:
    """Mean undiscounted return of episodes of uniform random actions.

    Raises:
        InvalidDataError: There is no environment, or it cannot be made here.
    """
    if spec is None:
        raise InvalidDataError("the dataset names no environment to measure in: give low yourself")
    try:
        env = make_env(spec)
    except Exception as error:  # each environment fails in its own way
        raise InvalidDataError(
            f"{spec.id} cannot be made here ({error}), so nothing can be measured in it: give values, or install it"
        ) from error
    policy = uniform(env.action_space, np.random.default_rng(seed))
    played = (play_episode(env, policy, seed=seed + number) for number in range(max(1, episodes)))
    found = float(np.mean([part["rewards"].sum() for part in played]))
    env.close()
    return found


def make_env(env: str | EnvSpec) -> gym.Env:
    """Make a MuJoCo environment without the wrappers that only check.

    An old version is named on purpose, as for D4RL's data, and so made without advice to take a newer one.

    Args:
        env: Gymnasium id, or a specification with settings of its own.

    Raises:
        StitchError: If MuJoCo is not installed.
    """
    env_id = env if isinstance(env, str) else env.id
    try:
        import mujoco
    except ImportError as error:
        raise StitchError(
            f'{env_id} needs MuJoCo, which cannot be imported ({error}); run pip install "gymnasium[mujoco]"'
        ) from error
    # HalfCheetah's model file is old, and MuJoCo would log that in the user's working directory at each load.
    set_warning = mujoco.set_mju_user_warning  # pyright: ignore[reportAttributeAccessIssue]
    set_warning(lambda message: None)
    if env_id.startswith(("Adroit", "PointMaze", "AntMaze")):
        register_robotics(env_id)
    try:
        # Gymnasium gives that advice for a name, and not for a specification.
        spec = gym.registry.get(env_id, env) if isinstance(env, str) else env
        made = gym.make(spec, disable_env_checker=True)
    finally:
        set_warning(None)
    if model := getattr(made.unwrapped, "tmp_xml_file_path", None):  # of a maze, which would stay for ever
        Path(model).unlink(missing_ok=True)
    return made


def register_robotics(env_id: str) -> None:
    """Make the environments of gymnasium-robotics known, where `env_id` is not yet."""
    if env_id not in gym.registry:
        with contextlib.redirect_stderr(io.StringIO()):  # its import prints news of other tasks
            import gymnasium_robotics
        gym.register_envs(gymnasium_robotics)
