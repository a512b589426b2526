"""Steps of a dataset put to the simulator, over processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from minari_stitch.data.dataset import Dataset
from minari_stitch.pool import Pool
from minari_stitch.progress import Progress
from minari_stitch.quality.bridges import Bridges
from minari_stitch.sim.carried import CarriedPen
from minari_stitch.sim.oracle import Oracle, oracle_of, states_of
from minari_stitch.sim.outcomes import Outcomes

_CHUNK = 500


@dataclass(frozen=True, kw_only=True)
class _Judge:
    """A dataset's environment in a worker process."""

    about: Dataset

    @cached_property
    def oracle(self) -> Any:
        found = oracle_of(self.about)
        assert found is not None
        return found


class _Steps(_Judge):
    """Judges steps one by one."""

    def __call__(self, states: np.ndarray, actions: np.ndarray, following: np.ndarray, _: Progress | None) -> Any:
        through = getattr(self.oracle, "crossings", None)
        return self.oracle.outcomes(states, actions), None if through is None else through(states, following)


class _Episodes(_Judge):
    """Judges the steps of an episode after some `earlier` ones, from which it is played."""

    def __call__(
        self, observations: np.ndarray, actions: np.ndarray, begin: Any, earlier: int, _: Progress | None
    ) -> Outcomes:
        return self.oracle.follow(observations, actions, begin).rows(slice(earlier, None))


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


def judge(
    dataset: Dataset, rows: np.ndarray, scale: np.ndarray, pool: Pool, source: Dataset | None = None
) -> Judged | None:
    """Ask the simulator about steps; None where there is none.

    Args:
        dataset: Read with its infos.
        rows: `(J,)` steps.
        scale: `(S,)` standard deviation of each dimension.
        pool: Where to work; its progress hears of the stage `simulate`.
        source: What it was made from: what came before pieces of its episodes, where that must be known.
    """
    oracle = oracle_of(dataset)
    if oracle is None:
        return None
    episodes = dataset.episodes
    found = _followed(dataset, rows, pool, source) if isinstance(oracle, CarriedPen) else None
    following, rewards, terminated, walls = found or _stepped(dataset, oracle, rows, pool)  # type: ignore[arg-type]
    gap = (following - episodes.observations[episodes.step_state[rows] + 1]) / scale
    return Judged(rows=rows, errors=(gap**2).sum(1), rewards=rewards, terminated=terminated, walls=walls)


def _stepped(dataset: Dataset, oracle: Oracle, rows: np.ndarray, pool: Pool) -> tuple[Any, ...]:
    """What the simulator makes of steps whose states are known: next states, rewards, ends, and walls."""
    episodes = dataset.episodes
    states, at = states_of(dataset, oracle), episodes.step_state

    def chunks() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        for start in range(0, len(rows), _CHUNK):
            part = rows[start : start + _CHUNK]
            where = at[part]
            yield (
                states[where].astype(np.float64),
                episodes.actions[part].astype(np.float64),
                episodes.observations[where + 1].astype(np.float64),
            )

    parts: list[tuple[Outcomes, Any]] = []
    for part in pool.map(_Steps(about=_without_arrays(dataset)), chunks()):
        parts.append(part)
        if pool.progress is not None:
            pool.progress("simulate", min(len(rows), len(parts) * _CHUNK), len(rows))
    outcomes, walls = zip(*(parts or [(Outcomes.unknown(0, episodes.observations.shape[1]), None)]), strict=True)
    together = (np.concatenate([getattr(o, name) for o in outcomes]) for name in vars(outcomes[0]))
    return *together, None if walls[0] is None else np.concatenate(walls)


def _followed(dataset: Dataset, rows: np.ndarray, pool: Pool, source: Dataset | None) -> tuple[Any, ...]:
    """The same where episodes must be played from their beginnings; real steps after generated ones are not known."""
    episodes, synthetic = dataset.episodes, Bridges.of(dataset.episodes).synthetic
    of = episodes.step_episode[rows]
    numbers = np.unique(of)
    stops = np.zeros(len(episodes), int)
    np.maximum.at(stops, of, rows - episodes.offsets[of] + 1)
    found = Outcomes.unknown(len(rows), episodes.observations.shape[1])
    plays = (_play(dataset, int(number), int(stops[number]), source) for number in numbers)
    judge = _Episodes(about=_without_arrays(dataset))
    for done, (number, outcomes) in enumerate(zip(numbers, pool.map(judge, plays), strict=True), start=1):
        first = episodes.offsets[number]
        begun = np.cumsum(synthetic[first : first + stops[number]]) > 0
        mine = np.flatnonzero(of == number)
        mine = mine[synthetic[rows[mine]] | ~begun[rows[mine] - first]]
        found.put(mine, outcomes.rows(rows[mine] - first))
        if pool.progress is not None:
            pool.progress("simulate", done, len(numbers))
    return *vars(found).values(), None


def _play(dataset: Dataset, number: int, stop: int, source: Dataset | None) -> tuple[Any, ...]:
    """An episode up to step `stop`, behind what came before it in its source; from where; how many steps that were."""
    part = dataset.episodes.episode(number)
    observations, actions = part["observations"][: stop + 1], part["actions"][:stop]
    infos, at, earlier = part["infos"], 0, 0
    if source is not None and {"source_episode", "source_step"} <= infos.keys():
        origin, at = (int(infos[f"source_{what}"][0, 0]) for what in ("episode", "step"))
        there = np.flatnonzero(source.episode_ids == origin)
        if len(there) and at >= 0:
            whole = source.episodes.episode(int(there[0]))
            observations = np.concatenate([whole["observations"][:at], observations])
            actions = np.concatenate([whole["actions"][:at], actions])
            infos, earlier = whole["infos"], at
    begin = tuple(np.asarray(infos[name][0], np.float64) for name in ("qpos", "qvel") if name in infos)
    known = len(begin) == 2 and all(np.isfinite(values).all() for values in begin)
    return observations.astype(np.float64), actions.astype(np.float64), begin if known else None, earlier


def _without_arrays(dataset: Dataset) -> Dataset:
    """What a worker needs to make the oracle: spaces, environment, and which infos there are."""
    first = dataset.episodes.select([0])
    return replace(dataset, episodes=first, episode_ids=dataset.episode_ids[:1], metadata={})
