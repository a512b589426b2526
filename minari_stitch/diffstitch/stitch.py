"""DiffStitch as the paper tells it: choose pairs, then four modules, each a pure function over a batch.

    choose_pairs -> estimate_steps -> stitch_states -> wrap_up -> judge -> qualify

Nothing here prints, renders or touches a file, and all randomness comes from the generator that is passed in.

Shape letters: `B` pairs, `P` candidate targets, `H` horizon, `L` longest bridge, `S` state width, `A` action
width. A bridge of `n` generated states has `n + 1` transitions; its states are padded to `L + 2` rows: the
source's last state, the generated ones, then the target's first state, repeated to the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from minari_stitch.diffstitch.config import QualifyConfig, StitchConfig
from minari_stitch.diffstitch.dream import closest, generate, spread
from minari_stitch.diffstitch.models import Models
from minari_stitch.diffstitch.repair import repair
from minari_stitch.diffstitch.source import Source
from minari_stitch.learn.judging import judged_transitions


class Outcome(IntEnum):
    """What became of a proposed pair; the first reason that applies."""

    ACCEPTED = 0
    UNREACHABLE = 1
    TERMINATED = 2
    INCONSISTENT = 3
    ADRIFT = 4
    FAR = 5
    BENT = 6
    NOT_BETTER = 7
    BROKEN = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """Source states and, for each, targets to choose from.

    Attributes:
        source: `(B,)` state rows where the real prefix ends (the paper's s_T).
        targets: `(B, P)` state rows where a real suffix may begin (the paper's s'_1), or `(1, P)` for all sources.
    """

    source: Tensor
    targets: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """Pairs with the number of steps between them.

    Attributes:
        source: `(B,)` state rows.
        target: `(B,)` state rows.
        steps: `(B,)` estimated number of generated states (the masks of Eq. 5).
        similarity: `(B,)` of the target with the dreamed state that it stands for.
        reachable: `(B,)` False where no candidate may be used.
    """

    source: Tensor
    target: Tensor
    steps: Tensor
    similarity: Tensor
    reachable: Tensor

    @classmethod
    def given(cls, source: Tensor, target: Tensor, steps: Tensor) -> Pairs:
        """Pairs that are known, with their steps, before anything is dreamed."""
        open_ = torch.ones_like(steps, dtype=torch.bool)
        return cls(source=source, target=target, steps=steps, similarity=open_.float(), reachable=open_)

    def nearest(self, count: int) -> Pairs:
        """Those `count` of which the target is most like its dreamed state, in order; the unreachable come last."""
        likeness = self.similarity.masked_fill(~self.reachable, -torch.inf)
        kept = likeness.argsort(descending=True, stable=True)[:count].sort().values
        return Pairs(**{name: value[kept] for name, value in vars(self).items()})


@dataclass(frozen=True, kw_only=True, eq=False)
class Bridges:
    """Bridges with actions and rewards, in the spaces of the models.

    Attributes:
        pairs: What is bridged.
        states: `(B, L + 2, S)` standardised.
        actions: `(B, L + 1, A)` in [-1, 1].
        rewards: `(B, L + 1)` in the units of the source.
    """

    pairs: Pairs
    states: Tensor
    actions: Tensor
    rewards: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Verdict:
    """What the qualification measured; acceptance at any delta follows from it.

    Attributes:
        predicted: `(B, L + 1, S)` where each transition leads, by the judging networks (standardised).
        errors: `(B, L + 1)` squared distance of each state from its prediction; 0 after the bridge.
        disagreement: `(B,)` largest variance between the judging networks, summed over dimensions.
        bound: `(B,)` squared distance from the truth that no state exceeds, at nine bridges of ten.
        drift: `(B,)` share of the way from source to target that no action explains, by the judges.
        support: `(B, L + 2)` squared distance of generated states to the nearest real one, see `learn.support`; 0 else.
        bend: `(B,)` distance from the straight way between source and target that no state exceeds, as a share of its
            length, in the plane; 0 where states have no place there.
        termination: `(B,)` largest predicted probability of an end inside the bridge.
        before: `(B,)` discounted return of the source's state in the dataset.
        after: `(B,)` discounted return of the same state in the stitched episode.
    """

    predicted: Tensor
    errors: Tensor
    disagreement: Tensor
    bound: Tensor
    drift: Tensor
    support: Tensor
    bend: Tensor
    termination: Tensor
    before: Tensor
    after: Tensor


def choose_pairs(source: Source, config: StitchConfig, count: int, generator: torch.Generator) -> Candidates:
    """Draw `count` source states, and targets for each, by the strategy `config.pairs`.

    `paper`: a random low-return state and one random high-return state (section 4.1). `reference`: sources of high
    return, `config.pool` targets of the highest for each (released code: 512 of 2 %). `reach`: one wide pool of
    high-return targets, shared by all pairs, from which the step estimation takes the one that the dream comes
    closest to. `connect`: the same from all states to all others, whatever their returns.
    """
    starts = source.starts(config)
    picks = torch.randint(len(starts), (count,), device=starts.device, generator=generator)
    pool = source.targets(config)
    width = 1 if config.pairs == "paper" else min(config.pool, len(pool))
    rows = 1 if config.pairs in ("reach", "connect") else count
    draws = torch.randint(len(pool), (rows, width), device=pool.device, generator=generator)
    return Candidates(source=starts[picks], targets=pool[draws])


def estimate_steps(
    models: Models, source: Source, candidates: Candidates, config: StitchConfig, generator: torch.Generator
) -> Pairs:
    """Module 1 (Eqs. 3, 4): dream on from the source alone; the most similar dreamed state gives Delta.

    Eq. 4 takes the index i of that state for the number of masks, which places the target one step after it. By
    default the target stands where that state stood, with i - 1 states before it (see `literal_delta`).

    A length is open only if the bridge fits in the time limit. With `reach` a candidate is open only if its own
    return could raise the source's and it belongs to another episode, with `connect` if it leads where no trajectory
    leads from the source, and raises its return where `rising` says so; paper and released code leave that to chance
    and to the qualification.

    Returns:
        Pairs; where no candidate is open or similar enough, `reachable` is False. With `config.spread` only as many as
        are bridged together, of as many trajectories as there are.
    """
    rows, count = candidates.source, len(candidates.source)
    unknown = torch.zeros(count, dtype=torch.long, device=rows.device)
    low, high = config.shortest, config.longest
    targets = source.z[candidates.targets]
    if config.fixed_steps is not None:
        # No dream says what can be reached: the nearest, in units of how far the data get in as many steps.
        pace = source.pace(config.fixed_steps + 1)
        dream, targets = source.z[rows][:, None] / pace, targets / pace
    else:
        window = generate(models, source, rows, None, unknown, config, generator)
        # After n generated states comes window state n + 1: that is where the target would stand.
        first = low if config.literal_delta else low + 1
        dream = window[:, first : first + high - low + 1]
    open_ = source.fits(rows[:, None], low)
    if config.pairs == "reach" or (config.pairs == "connect" and config.rising):
        open_ = open_ & source.may_follow(rows[:, None], candidates.targets)
    lengths = low + torch.arange(dream.shape[1], device=rows.device)
    fits = source.fits(rows[:, None], lengths)
    best, offset = closest(dream, fits, targets, config)
    if config.pairs == "connect":
        open_ = open_ & source.adds(rows, candidates.targets[0], low + offset, config)
    best = best.masked_fill(~open_, -torch.inf)
    each = torch.arange(count, device=rows.device)
    if config.spread and len(candidates.targets) == 1:
        trajectories = source.episode[rows], source.episode[candidates.targets[0]]
        each, choice = spread(best, *trajectories, count=min(config.chunk, count))
    elif config.pairs == "reference" and config.min_similarity is not None:
        noise = torch.rand(best.shape, device=best.device, generator=generator)
        choice = noise.masked_fill(best < config.min_similarity, -1.0).argmax(1)
    else:
        choice = best.argmax(1)
    value = best[each, choice]
    floor = -torch.inf if config.min_similarity is None else config.min_similarity
    return Pairs(
        source=rows[each],
        target=candidates.targets.expand(count, -1)[each, choice],
        steps=low + offset[each, choice],
        similarity=value,
        reachable=value.isfinite() & (value >= floor),
    )


def stitch_states(
    models: Models, source: Source, pairs: Pairs, config: StitchConfig, generator: torch.Generator
) -> Tensor:
    """Module 2 (Eqs. 5, 6): inpaint `pairs.steps` states between source and target.

    Returns:
        `(B, L + 2, S)` standardised states, padded with the target.
    """
    window = generate(models, source, pairs.source, pairs.target, pairs.steps, config, generator)
    position = torch.arange(config.longest + 2, device=window.device)
    return window[
        torch.arange(len(window), device=window.device)[:, None],
        torch.minimum(position, pairs.steps[:, None] + 1),
    ]


def wrap_up(models: Models, pairs: Pairs, states: Tensor, config: StitchConfig) -> Bridges:
    """Module 3 (Eqs. 7, 8): actions by inverse dynamics and rewards by the reward model.

    Between the two, `config.repair_steps` pull states and actions onto the dynamics model; 0 is the paper.
    """
    width = states.shape[-1]
    before, after = states[:, :-1].reshape(-1, width), states[:, 1:].reshape(-1, width)
    actions = models.inverse(before, after).reshape(len(states), states.shape[1] - 1, -1)
    states, actions = repair(models, states, actions, pairs.steps, config.repair_steps, config.imitation or 0.0)
    rewards = models.reward(states[:, :-1].reshape(-1, width), actions.reshape(-1, actions.shape[-1]))
    return Bridges(pairs=pairs, states=states, actions=actions, rewards=rewards.reshape(len(states), -1))


def judge(models: Models, source: Source, bridges: Bridges) -> Verdict:
    """Module 4, first half (Eq. 9): judge each transition by dynamics networks that had no part in the repair.

    A state may be off from what the judges predict, and the judges from the truth: their calibration bounds the latter.
    """
    pairs, states = bridges.pairs, bridges.states
    errors, spread, predicted = judged_transitions(models.judges, states, bridges.actions, pairs.steps)
    position = torch.arange(states.shape[1], device=states.device)
    inside = (position >= 1) & (position <= pairs.steps[:, None])
    ends = models.termination(states.reshape(-1, states.shape[-1])).reshape(inside.shape)
    within = (position[:-1] <= pairs.steps[:, None]) * source.power(position[:-1])
    after = (bridges.rewards * within).sum(1)
    after = after + source.power(pairs.steps + 1) * source.suffix_return(pairs.source, pairs.target, pairs.steps)
    support = torch.zeros_like(ends)
    if models.support is not None:  # of generated states alone: a bridge is half padding
        support[inside] = models.support(states[inside])
    disagreement = spread.amax(1)
    return Verdict(
        predicted=predicted,
        errors=errors,
        disagreement=disagreement,
        bound=errors.amax(1) + models.calibration(disagreement),
        drift=_drift(states, predicted),
        support=support,
        bend=_bend(models, states, source.place),
        termination=(ends * inside).amax(1),
        before=source.returns[pairs.source],
        after=after,
    )


def _drift(states: Tensor, predicted: Tensor) -> Tensor:
    """The sum of a bridge's errors along the straight way from source to target, as a share of that way."""
    total = (states[:, 1:] - predicted).sum(1)
    way = states[:, -1] - states[:, 0]  # padded with the target
    return (total * way).sum(1) / way.square().sum(1).clamp(min=1e-12)


def _bend(models: Models, states: Tensor, place: Sequence[int] | None) -> Tensor:
    """How far bridges `(B, L + 2, S)` leave the straight way, as a share of its length, in the units of the source."""
    if place is None:
        return states.new_zeros(len(states))
    places = models.scales.state.decode(states)[..., list(place)]
    way = (places[:, -1] - places[:, 0])[:, None]  # padded with the target
    length, off = way.square().sum(-1).clamp(min=1e-12), places - places[:, :1]
    along = ((off * way).sum(-1) / length).clamp(0, 1)[..., None]
    return ((off - along * way).square().sum(-1) / length).amax(1).sqrt()


class Judged(Protocol):
    """What the second half of module 4 decides from: arrays of `B` bridges, as in `Pairs` and `Verdict`."""

    @property
    def reachable(self) -> np.ndarray: ...  # noqa: D102
    @property
    def errors(self) -> np.ndarray: ...  # noqa: D102
    @property
    def disagreement(self) -> np.ndarray: ...  # noqa: D102
    @property
    def bound(self) -> np.ndarray: ...  # noqa: D102
    @property
    def drift(self) -> np.ndarray: ...  # noqa: D102
    @property
    def support(self) -> np.ndarray: ...  # noqa: D102
    @property
    def bend(self) -> np.ndarray: ...  # noqa: D102
    @property
    def termination(self) -> np.ndarray: ...  # noqa: D102
    @property
    def before(self) -> np.ndarray: ...  # noqa: D102
    @property
    def after(self) -> np.ndarray: ...  # noqa: D102
    @property
    def chain(self) -> np.ndarray: ...  # noqa: D102


def doubt(judged: Judged, config: QualifyConfig) -> np.ndarray:
    """`(B,)` what `qualify` compares with delta, by the rule `config.doubt`."""
    if config.doubt == "calibrated":
        return judged.bound
    error = judged.errors.max(1)
    return error if config.doubt == "error" else np.maximum(error, judged.disagreement)


def qualify(judged: Judged, config: QualifyConfig) -> np.ndarray:
    """Module 4, second half (Eq. 10): a bridge is accepted if every transition is off by less than delta.

    Beyond the paper, and each by a setting: what the judges may be wrong by counts as an error, errors may not carry a
    bridge towards its target, its states may not be far from all real ones nor from the straight way, a predicted
    termination inside it rejects, and so does a return that would not rise. A chain ends before the first that is.

    Returns:
        `(B,)` the `Outcome` of each; NaN fails every comparison and is never accepted.
    """
    consistent = doubt(judged, config) < config.delta
    earned = (judged.drift < config.drift) if config.drift is not None else np.ones_like(consistent)
    near = (judged.support.max(1) < config.support) if config.support is not None else np.ones_like(consistent)
    near &= (judged.support.sum(1) < config.stray) if config.stray is not None else True
    straight = (judged.bend < config.bend) if config.bend is not None else np.ones_like(consistent)
    goes_on = (judged.termination < config.termination) | (config.termination == 1)
    better = (judged.after > judged.before) | (not config.better)
    reasons = [~judged.reachable, ~goes_on, ~consistent, ~earned, ~near, ~straight, ~better]
    return np.select([*reasons, _broken(judged.chain, np.any(reasons, axis=0))], list(Outcome)[1:], Outcome.ACCEPTED)


def _broken(chain: np.ndarray, failed: np.ndarray) -> np.ndarray:
    """`(B,)` whether an earlier bridge of the same chain failed; those of a chain follow each other."""
    place = np.arange(len(chain))
    begins = np.maximum.accumulate(np.where(np.diff(chain, prepend=chain[:1] - 1) != 0, place, 0))
    return np.maximum.accumulate(np.where(failed, place, -1)) >= begins
