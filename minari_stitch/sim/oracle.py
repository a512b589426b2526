"""The oracle: how far synthetic transitions are from the real simulator.

For MuJoCo locomotion the observation is the whole state but the root's position, which no force depends on.
So each state of a bridge can be set in the real simulator, its action applied, and the outcome compared.
Hopper and Walker2d clip observed velocities to [-10, 10]: a state with a clipped velocity is not determined by its
observation, for real data as for synthetic, so no step from it is judged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from gymnasium.envs.registration import EnvSpec

from minari_stitch.data.dataset import Dataset
from minari_stitch.data.spaces import FlatSpace
from minari_stitch.errors import StitchError
from minari_stitch.sim.behaviour import make_env
from minari_stitch.sim.carried import CarriedPen
from minari_stitch.sim.maze import Maze
from minari_stitch.sim.ogbench_point import PlacedPoint
from minari_stitch.sim.outcomes import Outcomes, ask, one
from minari_stitch.sim.poses import Locomotion

_WIDTH = 0.04  # m that a point stays away from walls: its radius is 0.1, and at full speed half of it sinks in


class Simulator(Protocol):
    """Sets states and steps from them."""

    def step(self, observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Next observations `(B, S)` from `(B, S)` and `(B, A)`; NaN where an observation is not a whole state."""
        ...


class Oracle(Simulator, Protocol):
    """The environment of a dataset, to be asked about single steps.

    Where there is something that a path cannot go through, a method `crossings` of states and next states `(B, S)` says
    `(B,)` which steps go through it.
    """

    def outcomes(self, states: np.ndarray, actions: np.ndarray) -> Outcomes:
        """Of rows of `states_of` and actions `(B, A)`."""
        ...


class Follower(Protocol):
    """The environment of a dataset, to be asked about whole episodes: a single observation does not tell its state."""

    def follow(
        self, observations: np.ndarray, actions: np.ndarray, begin: tuple[np.ndarray, np.ndarray] | None = None
    ) -> Outcomes:
        """Of each step of an episode, `(T + 1, S)` and `(T, A)`; nothing is known where its beginning is not.

        Args:
            observations: `(T + 1, S)`.
            actions: `(T, A)`.
            begin: Positions and velocities at the first state, where they are recorded.
        """
        ...


class MujocoLocomotion:
    """Steps Hopper, Walker2d and HalfCheetah from given observations; the root's x is set to 0.

    Args:
        env: Gymnasium id, or specification, of a MuJoCo locomotion environment.

    Raises:
        StitchError: The environment's observation does not determine its state.
    """

    def __init__(self, env: str | EnvSpec) -> None:
        self._body = Locomotion(env)
        env_id = env if isinstance(env, str) else env.id
        self._clip = np.inf if env_id.startswith("HalfCheetah") else 10.0

    def step(self, observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Next observations `(B, S)` from `(B, S)` and `(B, A)`; NaN where a velocity is clipped."""
        return self.outcome(observations, actions)[0]

    def outcome(self, observations: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Next observations `(B, S)` and rewards `(B,)`; NaN where a velocity is clipped."""
        outcomes = self.outcomes(observations, actions)
        return outcomes.following, outcomes.rewards

    def outcomes(self, states: np.ndarray, actions: np.ndarray) -> Outcomes:
        """See `Oracle`; states are observations, and unknown where a velocity is clipped."""
        body = self._body
        known = np.all(np.abs(states[:, body.positions :]) < self._clip, axis=1)
        return ask(body.env, lambda row: body.set(states[row]), known, actions, states.shape[1])


class PointMaze:
    """Steps a point in a maze from places and velocities, with or without its goal.

    Args:
        spec: Of the environment.
    """

    def __init__(self, spec: EnvSpec) -> None:
        self._env: Any = make_env(spec).unwrapped
        self._env.reset(seed=0)
        layout = FlatSpace(self._env.observation_space)
        self._flatten, self._width = layout.flatten, layout.size
        self._state, self._goal = layout.slices["observation"], layout.slices["desired_goal"]
        self._maze = Maze(self._env.maze.maze_map, self._env.maze.maze_size_scaling)

    def step(self, observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Next observations `(B, S)` from `(B, S)` and `(B, A)`; S is 4 without the goal, and 8 with it."""
        return self.outcomes(observations, actions).following

    def outcomes(self, states: np.ndarray, actions: np.ndarray) -> Outcomes:
        """See `Oracle`; without a goal, there are no rewards."""
        import mujoco

        point, whole, motion = self._env.point_env, states.shape[1] == self._width, self._motion(states)

        def place(row: int) -> None:
            mujoco.mj_resetData(point.model, point.data)  # type: ignore[attr-defined]
            point.set_state(*np.split(motion[row], 2))
            if whole:
                self._env.goal = states[row, self._goal].copy()

        def flat(seen: Any) -> np.ndarray:
            return self._flatten(one(seen))[0] if whole else seen["observation"]

        known = np.ones(len(states), bool)
        found = ask(self._env, place, known, actions, states.shape[1], flat)
        if not whole:
            found.rewards[:], found.terminated[:] = np.nan, np.nan
        return found

    def crossings(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """`(B,)` which steps enter a wall, or come nearer to one than the point's width allows."""
        return self._maze.crosses_wall(self._motion(before)[:, :2], self._motion(after)[:, :2], _WIDTH)

    def _motion(self, states: np.ndarray) -> np.ndarray:
        return states[:, self._state] if states.shape[1] == self._width else states


class AntMaze:
    """Steps an ant in a maze: its place is what is achieved, and the rest of its state what is observed.

    Args:
        spec: Of the environment.
    """

    def __init__(self, spec: EnvSpec) -> None:
        self._env: Any = make_env(spec).unwrapped
        self._env.reset(seed=0)
        self._layout = FlatSpace(self._env.observation_space)
        self._maze = Maze(self._env.maze.maze_map, self._env.maze.maze_size_scaling)

    def step(self, observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Next observations `(B, S)` from `(B, S)` and `(B, A)`."""
        return self.outcomes(observations, actions).following

    def outcomes(self, states: np.ndarray, actions: np.ndarray) -> Outcomes:
        """See `Oracle`."""
        import mujoco

        ant, slices = self._env.ant_env, self._layout.slices
        place_of, rest, goal = (states[:, slices[name]] for name in ("achieved_goal", "observation", "desired_goal"))
        motion = np.concatenate([place_of, rest], 1)  # then come forces of contacts, which follow from it
        cut, end = ant.model.nq, ant.model.nq + ant.model.nv

        def place(row: int) -> None:
            mujoco.mj_resetData(ant.model, ant.data)  # type: ignore[attr-defined]
            ant.set_state(motion[row, :cut], motion[row, cut:end])
            self._env.goal = goal[row].copy()

        def flat(seen: Any) -> np.ndarray:
            return self._layout.flatten(one(seen))[0]

        return ask(self._env, place, np.ones(len(states), bool), actions, states.shape[1], flat)

    def crossings(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """`(B,)` during which steps the ant's middle goes through a wall."""
        where = self._layout.slices["achieved_goal"]
        return self._maze.crosses_wall(before[:, where], after[:, where], 0.0)


class RecordedStates:
    """Steps any environment of MuJoCo from the positions and velocities that a dataset's infos `qpos` and `qvel` hold.

    Args:
        spec: Of the environment.
        space: Flattens its observations.

    Raises:
        StitchError: The environment cannot be made, or be set.
    """

    def __init__(self, spec: EnvSpec, space: FlatSpace) -> None:
        env = make_env(spec).unwrapped
        env.reset(seed=0)
        inner = (getattr(env, name, None) for name in ("point_env", "ant_env"))
        self._env: Any = env
        self._body: Any = next((one for one in (env, *inner) if hasattr(one, "set_state")), None)
        if self._body is None:
            raise StitchError(f"{spec.id} has no set_state, so recorded states of it cannot be set")
        self._space = space

    def step(self, observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Nothing is known from observations alone."""
        return np.full(observations.shape, np.nan)

    def outcomes(self, states: np.ndarray, actions: np.ndarray) -> Outcomes:
        """See `Oracle`; states are positions and velocities side by side, unknown where one is NaN."""
        import mujoco

        body, flatten = self._body, self._space.flatten
        cut = body.model.nq

        def place(row: int) -> None:
            mujoco.mj_resetData(body.model, body.data)  # type: ignore[attr-defined]
            body.set_state(states[row, :cut], states[row, cut:])

        known = np.isfinite(states.sum(1))
        return ask(self._env, place, known, actions, self._space.size, lambda seen: flatten(one(seen))[0])


ORACLES: dict[str, Callable[[EnvSpec], Oracle | Follower]] = {
    "Hopper": MujocoLocomotion,
    "Walker2d": MujocoLocomotion,
    "HalfCheetah": MujocoLocomotion,
    "PointMaze": PointMaze,
    "pointmaze": PlacedPoint,
    "AntMaze": AntMaze,
    "AdroitHandPen": CarriedPen,
}
"""Environments whose observations tell their whole state, one or one after the other, by how their ids begin."""


def oracle_of(dataset: Dataset) -> Oracle | Follower | None:
    """What can be asked about the steps of a dataset; None where there is no such thing, or not here."""
    spec = dataset.env_spec
    if spec is None:
        return None
    try:
        if make := next((make for name, make in ORACLES.items() if spec.id.startswith(name)), None):
            return make(spec)
        if {"qpos", "qvel"} <= dataset.episodes.infos.keys():
            return RecordedStates(spec, FlatSpace(dataset.observation_space))
    except Exception:  # an environment that is not installed fails in its own way
        return None
    return None


def simulator_of(dataset: Dataset) -> Simulator | None:
    """What can be asked about states that no dataset holds; None where these do not tell all that must be known."""
    oracle = oracle_of(dataset)
    return None if isinstance(oracle, RecordedStates | AntMaze | CarriedPen | None) else oracle  # type: ignore[return-value]


def states_of(dataset: Dataset, oracle: Oracle) -> np.ndarray:
    """`(N + E, ...)` what an oracle sets: recorded positions and velocities, or observations."""
    episodes = dataset.episodes
    if not isinstance(oracle, RecordedStates):
        return episodes.observations
    parts = (episodes.infos[name] for name in ("qpos", "qvel"))
    return np.concatenate([part.reshape(len(part), -1) for part in parts], 1)
