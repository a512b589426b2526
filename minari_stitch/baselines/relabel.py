"""Goal relabelling by clusters (Ghugare et al., ICLR 2024): stitching without a generative model, for tasks with goals.

A state of one trajectory and a state of another that lie in the same cluster count as one place. What led to the first
is then given, as its goal, what the second trajectory reaches later: no step is generated, but starts are paired with
goals that no trajectory led to from there.

Where data have neither goals nor rewards, learners take their goals from what a trajectory goes on to reach. There the
second trajectory itself is written after the first, as if the one state were the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from minari_stitch.config import Count, Share, settings
from minari_stitch.data.dataset import Dataset
from minari_stitch.data.episodes import Episodes
from minari_stitch.data.goals import Goals
from minari_stitch.data.provenance import provenance
from minari_stitch.errors import ConfigError
from minari_stitch.learn.clusters import clusters
from minari_stitch.run import Run
from minari_stitch.sim.tasks import goals_of
from minari_stitch.transforms.base import Sample, Transform

_SEEN = 50_000  # states from which clusters are made; all are assigned


@settings
class Relabel(Transform):
    """Episodes of the source up to a state, with the goal of what another trajectory reaches from near there.

    How often, and the number of clusters, are the paper's. Its learners draw new goals for each batch; here they are
    drawn once and written. Returns-to-go count what the other trajectory goes on to earn, for learners that ask for it.
    Of data without goals and rewards: episodes that go on in another trajectory, all of them; `share` is not used.

    Example:
        >>> import minari_stitch as ms
        >>> ms.Relabel(clusters=100).share
        0.5
    """

    share: Share = 0.5
    """Of the episodes: how many get a goal through a cluster (the paper's epsilon); the others one that they reach."""
    clusters: Count = 40
    """K of k-means over standardised states without their goals."""
    discount: Share = 0.99
    """Gamma of the returns-to-go that are written."""

    name: ClassVar[str] = "relabel"
    suffix: ClassVar[str] = "relabelled"

    def fit(self, dataset: Dataset, run: Run) -> FittedRelabel | FittedJoins:
        """Find the clusters.

        Raises:
            ConfigError: The dataset has no goals that are understood, or fewer states than clusters.
        """
        goals = goals_of(dataset)
        if goals is None and np.ptp(dataset.episodes.rewards):
            raise ConfigError(
                f"method relabel is not possible for {dataset.dataset_id!r}: its goals, if it has any, do not yield "
                "its rewards; compare with method resample instead"
            )
        seen = dataset.episodes.observations
        states = np.asarray(seen if goals is None else goals.states(seen), np.float64)
        if len(states) < self.clusters:
            raise ConfigError(f"clusters={self.clusters} is not possible with {len(states)} states: use fewer")
        scale = states.std(0)
        states = (states - states.mean(0)) / np.where(scale > 0, scale, 1.0)
        rng = np.random.default_rng(run.seed)
        labels, _ = clusters(states, self.clusters, rng, sample=_SEEN, rounds=30)
        if goals is None:
            return FittedJoins(transform=self, dataset=dataset, labels=labels, seed=run.seed)
        return FittedRelabel(transform=self, dataset=dataset, goals=goals, labels=labels, seed=run.seed)


class _Meetings:
    """Draws states of episodes, and where others meet them: `(N + E,)` labels say which states lie in one cluster."""

    def __init__(self, episodes: Episodes, labels: np.ndarray) -> None:
        self._episodes, self._labels = episodes, labels
        self._order = np.argsort(labels, kind="stable")
        self._begins = np.searchsorted(labels[self._order], np.arange(labels.max() + 2))

    def draw(self, rng: np.random.Generator) -> tuple[int, int]:
        """An episode, and a state of it but the first: as many steps lead there."""
        step = int(rng.integers(self._episodes.n_steps))
        episode = int(np.searchsorted(self._episodes.offsets, step, side="right")) - 1
        return episode, step - int(self._episodes.offsets[episode]) + 1

    def other(self, episode: int, state: int, rng: np.random.Generator) -> tuple[int, int]:
        """An episode, perhaps the same, and a state of it in that state's cluster."""
        starts = self._episodes.state_offsets
        label = self._labels[int(starts[episode]) + state]
        row = int(self._order[rng.integers(self._begins[label], self._begins[label + 1])])
        other = int(np.searchsorted(starts, row, side="right")) - 1
        return other, row - int(starts[other])


@dataclass(frozen=True, kw_only=True, eq=False)
class _Plan:
    """One episode: the first `stop` steps of `episode`, with the goal reached in `other` at state `reached`."""

    episode: int
    stop: int
    other: int
    met: int
    reached: int

    @property
    def length(self) -> int:
        """Steps, where the other trajectory is written too."""
        return self.stop + self.reached - self.met


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedRelabel:
    """Draws episodes and their new goals.

    Attributes:
        labels: `(N + E,)` cluster of each state.
    """

    transform: Relabel
    dataset: Dataset
    goals: Goals
    labels: np.ndarray
    seed: int

    @cached_property
    def _meetings(self) -> _Meetings:
        return _Meetings(self.dataset.episodes, self.labels)

    def sample(self, n_steps: int) -> Sample:
        """Draw until the episodes hold `n_steps` steps."""
        plans, steps, rng = [], 0, np.random.default_rng([self.seed, 1])
        while steps < n_steps:
            plans.append(self._end(self._draw(rng)))
            steps += plans[-1].stop
        through = [plan for plan in plans if plan.other != plan.episode]
        report = {"episodes": len(plans), "through_clusters": len(through), "clusters": len(np.unique(self.labels))}
        return Sample(
            report=report,
            n_steps=steps,
            n_episodes=len(plans),
            n_synthetic=0,
            parts=lambda: self._parts(plans),
        )

    def _draw(self, rng: np.random.Generator) -> _Plan:
        """A state of an episode, and what it leads to."""
        lengths = self.dataset.episodes.lengths
        episode, stop = self._meetings.draw(rng)
        if rng.random() < self.transform.share:
            other, met = self._meetings.other(episode, stop, rng)
            if other != episode:
                reached = int(rng.integers(met, lengths[other] + 1))
                return _Plan(episode=episode, stop=stop, other=other, met=met, reached=reached)
        reached = int(rng.integers(stop, int(lengths[episode]) + 1))
        return _Plan(episode=episode, stop=reached, other=episode, met=reached, reached=reached)

    def _end(self, plan: _Plan) -> _Plan:
        """Cut where the environment would end the episode."""
        ends = self.goals.terminations(self._observations(plan))
        stop = int(ends.argmax()) + 1 if ends.any() else plan.stop
        return _Plan(**vars(plan) | {"stop": stop})

    def _observations(self, plan: _Plan) -> np.ndarray:
        episodes = self.dataset.episodes
        own = episodes.episode(plan.episode)["observations"][: plan.stop + 1]
        return self.goals.pursue(self.goals.states(own), self._goal(plan))

    def _goal(self, plan: _Plan) -> np.ndarray:
        return self.goals.achieved(self.dataset.episodes.episode(plan.other)["observations"][plan.reached])

    def _beyond(self, plan: _Plan) -> np.ndarray:
        """Rewards that the other trajectory earns from where the two meet, under the new goal."""
        if plan.other == plan.episode:
            return np.zeros(0)
        rest = self.dataset.episodes.episode(plan.other)["observations"][plan.met :]
        return self.goals.rewards(self.goals.pursue(self.goals.states(rest), self._goal(plan)))

    def _parts(self, plans: list[_Plan]) -> Iterator[dict[str, Any]]:
        ids, discount = self.dataset.episode_ids, self.transform.discount
        for plan in plans:
            part, observations = self.dataset.episodes.episode(plan.episode), self._observations(plan)
            rewards, terminations = self.goals.rewards(observations), self.goals.terminations(observations)
            last, own = np.arange(plan.stop) == plan.stop - 1, int(ids[plan.episode])
            rest = np.zeros(0) if terminations.any() else self._beyond(plan)
            nothing, beyond = np.zeros(plan.stop + 1), float((rest * discount ** np.arange(len(rest))).sum())
            yield {
                "observations": observations,
                "actions": part["actions"][: plan.stop],
                "rewards": rewards.astype(part["rewards"].dtype),
                "terminations": terminations,
                "truncations": last & ~terminations,
                "infos": provenance(
                    nothing.astype(bool), nothing + own, np.arange(plan.stop + 1), nothing, rewards, discount, beyond
                ),
                "metadata": {
                    "augmented": True,
                    "source_episode": own,
                    "goal_episode": int(ids[plan.other]),
                    "goal_met": plan.met,
                    "goal_step": plan.reached,
                    "return_beyond": float(rest.sum()),
                },
            }


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedJoins:
    """Draws a trajectory, and another one that it goes on in from where their clusters meet.

    Attributes:
        labels: `(N + E,)` cluster of each state.
    """

    transform: Relabel
    dataset: Dataset
    labels: np.ndarray
    seed: int

    def sample(self, n_steps: int) -> Sample:
        """Draw until the episodes hold `n_steps` steps; one of each leads where nothing led and is called synthetic."""
        episodes, rng = self.dataset.episodes, np.random.default_rng([self.seed, 1])
        meetings = _Meetings(episodes, self.labels)
        limit, plans, steps = self.dataset.max_episode_steps or 2**62, [], 0
        while steps < n_steps:
            episode, stop = meetings.draw(rng)
            other, met = meetings.other(episode, stop, rng)
            if other != episode and stop <= limit:
                reached = min(int(episodes.lengths[other]), met + limit - stop)
                plans.append(_Plan(episode=episode, stop=stop, other=other, met=met, reached=reached))
                steps += plans[-1].length
        return Sample(
            report={"episodes": len(plans), "clusters": len(np.unique(self.labels))},
            n_steps=steps,
            n_episodes=len(plans),
            n_synthetic=len(plans),
            parts=lambda: map(self._joined, plans),
        )

    def _joined(self, plan: _Plan) -> dict[str, Any]:
        first, second = (self.dataset.episodes.episode(number) for number in (plan.episode, plan.other))
        ids, length = self.dataset.episode_ids, plan.length

        def join(name: str, extra: int) -> np.ndarray:
            return np.concatenate([first[name][: plan.stop], second[name][plan.met : plan.reached + extra]])

        own, later = np.arange(plan.stop), np.arange(plan.met, plan.reached + 1)
        source = np.concatenate([np.full(len(own), ids[plan.episode]), np.full(len(later), ids[plan.other])])
        last, rewards = np.arange(length) == length - 1, join("rewards", 0)
        synthetic = np.arange(length + 1) == plan.stop - 1
        nothing = np.zeros(length + 1)
        return {
            "observations": join("observations", 1),
            "actions": join("actions", 0),
            "rewards": rewards,
            "terminations": last & False,
            "truncations": last,
            "infos": provenance(
                synthetic, source, np.concatenate([own, later]), nothing, rewards, self.transform.discount
            ),
            "metadata": {
                "augmented": True,
                "source_episode": int(ids[plan.episode]),
                "goal_episode": int(ids[plan.other]),
                "goal_met": plan.met,
                "goal_step": plan.reached,
            },
        }
