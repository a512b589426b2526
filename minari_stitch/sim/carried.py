"""Adroit's pen before the oracle: what its observations do not show is carried along from the reset on.

An observation lacks the velocities of the hand's 24 joints and the pen's turn about its own axis. At a reset both are
known. From there each step is played with its action, and what the episode then observes is put in its place: so a
state is known as a whole wherever it is real, and on a bridge as far as the bridge is what the simulator does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.envs.registration import EnvSpec

from minari_stitch.sim.outcomes import Outcomes
from minari_stitch.sim.poses import AdroitPen

_NEAR = 1e-5  # m, m/s and rad: what rounding to float32 may do
_SEEN = 36  # of 45 observations: hand, place, velocity and axis of the pen; the rest is the goal, and differences


class CarriedPen:
    """Plays recorded episodes of the pen in step.

    Args:
        spec: Of the environment.
    """

    def __init__(self, spec: EnvSpec) -> None:
        self._pen = AdroitPen(spec)

    def follow(
        self, observations: np.ndarray, actions: np.ndarray, begin: tuple[np.ndarray, np.ndarray] | None = None
    ) -> Outcomes:
        """What the environment makes of each step of an episode; nothing is known where its beginning is not.

        Args:
            observations: `(T + 1, 45)`.
            actions: `(T, 24)`.
            begin: Positions and velocities at the first state; by default those of a reset, if that is what it shows.
        """
        env, found = self._pen.env, Outcomes.unknown(len(actions), observations.shape[1])
        env.reset(seed=0)
        self._pen.aim(observations[0])
        env.set_state(*(begin or (env.init_qpos, env.init_qvel)))
        if begin is None and not np.allclose(env._get_obs()[:_SEEN], observations[0, :_SEEN], rtol=0, atol=_NEAR):
            return found
        for step, action in enumerate(actions):
            seen, found.rewards[step], found.terminated[step], *_ = env.step(action)
            found.following[step] = seen
            self._correct(env, seen[:_SEEN], observations[step + 1, :_SEEN])
        return found

    def _correct(self, env: Any, seen: np.ndarray, wanted: np.ndarray) -> None:
        """Move what is seen to where it is wanted, and nothing else.

        By differences, for the pen's place and axis are observed a moment late: before the last of several substeps.
        """
        if np.array_equal(seen, wanted):  # as a rule for real steps, which come out exactly
            return
        positions, velocities = env.data.qpos.copy(), env.data.qvel.copy()
        off = wanted - seen
        positions[:24] += off[:24]
        positions[24:27] += self._pen.slide(off[24:27])
        positions[27:29] += self._pen.turn(wanted[33:]) - self._pen.turn(seen[33:])
        velocities[24:] += off[27:33]
        env.set_state(positions, velocities)
