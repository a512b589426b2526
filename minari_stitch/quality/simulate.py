"""Steps of a dataset put to the simulator, over processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from gymnasium.envs.registration import EnvSpec

from minari_stitch.data.dataset import Dataset
from minari_stitch.pool import Pool
from minari_stitch.progress import Progress
from minari_stitch.sim.oracle import Oracle, oracle_of, states_of

_CHUNK = 500


@dataclass(frozen=True, kw_only=True)
class _Judge:
    """A dataset's environment in a worker process."""

    spec: EnvSpec
    about: Dataset

    @cached_property
    def oracle(self) -> Oracle:
        found = oracle_of(self.about)
        assert found is not None
        return found

    def __call__(self, states: np.ndarray, actions: np.ndarray, following: np.ndarray, _: Progress | None) -> Any:
        outcomes = self.oracle.outcomes(states, actions)
        through = getattr(self.oracle, "crossings", None)
        walls = None if through is None else through(states, following)
        return outcomes.following, outcomes.rewards, outcomes.terminated, walls


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """Steps of a dataset, and what the simulator makes of them.

    Attributes:
        rows: `(J,)` steps.
        errors: `(J,)` squared distance of the next state, standardised; NaN where the state is not known as a whole.
        rewards: `(J,)` of the simulator.
        terminated: `(J,)` 1 where the simulator ends the episode.
        walls: `(J,)` whether the step goes through something; None where there is nothing such.
    """

    rows: np.ndarray
    errors: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    walls: np.ndarray | None


def judge(dataset: Dataset, rows: np.ndarray, scale: np.ndarray, pool: Pool) -> Judged | None:
    """Ask the simulator about steps; None where there is none.

    Args:
        dataset: Read with its infos.
        rows: `(J,)` steps.
        scale: `(S,)` standard deviation of each dimension.
        pool: Where to work; its progress hears of the stage `simulate`.
    """
    oracle = oracle_of(dataset)
    if oracle is None or dataset.env_spec is None:
        return None
    episodes = dataset.episodes
    states, at = states_of(dataset, oracle), episodes.step_state
    cuts = range(0, len(rows), _CHUNK)
    nothing = _without_arrays(dataset)

    def chunks() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        for start in cuts:
            part = rows[start : start + _CHUNK]
            where = at[part]
            yield (
                states[where].astype(np.float64),
                episodes.actions[part].astype(np.float64),
                episodes.observations[where + 1].astype(np.float64),
            )

    parts = []
    for part in pool.map(_Judge(spec=dataset.env_spec, about=nothing), chunks()):
        parts.append(part)
        if pool.progress is not None:
            pool.progress("simulate", min(len(rows), len(parts) * _CHUNK), len(rows))
    width = episodes.observations.shape[1]
    empty = (np.zeros((0, width)), np.zeros(0), np.zeros(0), None)
    following, rewards, terminated, walls = zip(*(parts or [empty]), strict=True)
    gap = (np.concatenate(following) - episodes.observations[at[rows] + 1]) / scale
    return Judged(
        rows=rows,
        errors=(gap**2).sum(1),
        rewards=np.concatenate(rewards),
        terminated=np.concatenate(terminated),
        walls=None if walls[0] is None else np.concatenate(walls),
    )


def _without_arrays(dataset: Dataset) -> Dataset:
    """What a worker needs to make the oracle: spaces, environment, and which infos there are."""
    first = dataset.episodes.select([0])
    return replace(dataset, episodes=first, episode_ids=dataset.episode_ids[:1], metadata={})
