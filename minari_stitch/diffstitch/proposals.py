"""Proposals: a chunk of judged bridges as plain arrays, before any threshold is applied.

A chunk depends on the models, the stitching settings, the seed and its number, but not on delta: the same
chunks serve every delta and every amount.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minari_stitch.data.storage import Arrays
from minari_stitch.diffstitch import chains
from minari_stitch.diffstitch.config import QualifyConfig, StitchConfig
from minari_stitch.diffstitch.models import Models
from minari_stitch.diffstitch.source import Source
from minari_stitch.diffstitch.stitch import (
    Outcome,
    Pairs,
    choose_pairs,
    estimate_steps,
    judge,
    qualify,
    stitch_states,
    wrap_up,
)
from minari_stitch.learn.judging import DELTAS, transition_errors
from minari_stitch.learn.seeds import chunk_generator


@dataclass(frozen=True, kw_only=True, eq=False)
class Proposals(Arrays):
    """`B` judged bridges. Shapes as in `stitch.Bridges` and `stitch.Verdict`, in units of the source.

    Attributes:
        source: `(B,)` state rows.
        target: `(B,)` state rows.
        steps: `(B,)` generated states.
        similarity: `(B,)`.
        reachable: `(B,)` bool.
        states: `(B, L + 2, S)` in the units of the source.
        actions: `(B, L + 1, A)` in the units of the source.
        rewards: `(B, L + 1)`.
        predicted: `(B, L + 1, S)` where each transition leads by the judging networks, in the units of the source.
        errors: `(B, L + 1)` squared distance in standardised state space.
        disagreement: `(B,)`.
        bound: `(B,)`.
        drift: `(B,)`.
        support: `(B, L + 2)`.
        bend: `(B,)`.
        termination: `(B,)`.
        before: `(B,)`.
        after: `(B,)`.
        chain: `(B,)` number of the episode that each bridge is for; those of one follow each other.
    """

    source: np.ndarray
    target: np.ndarray
    steps: np.ndarray
    similarity: np.ndarray
    reachable: np.ndarray
    states: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    predicted: np.ndarray
    errors: np.ndarray
    disagreement: np.ndarray
    bound: np.ndarray
    drift: np.ndarray
    support: np.ndarray
    bend: np.ndarray
    termination: np.ndarray
    before: np.ndarray
    after: np.ndarray
    chain: np.ndarray

    def __len__(self) -> int:
        """Number of proposed pairs B."""
        return len(self.source)

    @property
    def error(self) -> np.ndarray:
        """`(B,)` largest error of each bridge: what delta is compared with (Eq. 10)."""
        return self.errors.max(1)

    def head(self, count: int) -> Proposals:
        """The first `count` pairs."""
        return Proposals(**{name: array[:count] for name, array in vars(self).items()})


@dataclass(frozen=True)
class StitchReport:
    """Outcomes of proposed pairs, counted at several thresholds; reports of chunks add up.

    Attributes:
        counts: delta -> `(9,)` pairs by `Outcome`. The first delta is the one that decided.
    """

    counts: Mapping[float, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, proposals: Proposals, config: QualifyConfig) -> StitchReport:
        """Count a chunk at the configured delta and at the usual ones."""

        def count(delta: float) -> np.ndarray:
            outcomes = qualify(proposals, dataclasses.replace(config, delta=delta))
            return np.bincount(outcomes, minlength=len(Outcome))

        return cls({delta: count(delta) for delta in (config.delta, *DELTAS)})

    def __add__(self, other: StitchReport) -> StitchReport:
        """Join the counts of two sets of pairs."""
        none, deltas = np.zeros(len(Outcome), int), {**self.counts, **other.counts}
        return StitchReport({delta: self.counts.get(delta, none) + other.counts.get(delta, none) for delta in deltas})

    @property
    def proposed(self) -> int:
        """Pairs proposed: the sum over all outcomes."""
        return int(next(iter(self.counts.values())).sum()) if self.counts else 0

    @property
    def accepted(self) -> int:
        """Pairs that qualify."""
        return int(next(iter(self.counts.values()))[Outcome.ACCEPTED]) if self.counts else 0

    @property
    def acceptance(self) -> dict[float, float]:
        """Delta -> share of all proposed pairs that would be accepted."""
        return {delta: float(self.counts[delta][Outcome.ACCEPTED] / self.proposed) for delta in sorted(self.counts)}

    def to_dict(self) -> dict[str, Any]:
        """Plain values for metadata; the outcomes add up to `proposed`."""
        decided = next(iter(self.counts.values()))
        return {
            "proposed": self.proposed,
            **{outcome.name.lower(): int(decided[outcome]) for outcome in Outcome},
            "acceptance": {f"{delta:g}": share for delta, share in self.acceptance.items()},
        }


@torch.no_grad()
def propose(models: Models, source: Source, config: StitchConfig, seed: int, chunk: int) -> Proposals:
    """Propose and judge one numbered chunk of pairs, from a generator seeded by `(seed, chunk)`.

    Of the drawn pairs a share `config.nearest` is bridged, or all joins of the chains that are drawn. For each
    `config.draws` bridges are drawn, and the one that the repairing networks find truest is kept.
    """
    generator = chunk_generator(seed, chunk, source.z.device)
    if config.hops > 1:
        joins = chains.draw(source, config, generator)
        pairs, chain = Pairs.given(joins.source, joins.target, joins.steps), joins.chain
    else:
        candidates = choose_pairs(source, config, round(config.chunk / config.nearest), generator)
        pairs = estimate_steps(models, source, candidates, config, generator).nearest(config.chunk)
        chain = torch.arange(len(pairs.source))
    return judged(models, source, pairs, chain, _truest(models, source, pairs, config, generator), config)


def judged(
    models: Models, source: Source, pairs: Pairs, chain: Tensor, states: Tensor, config: StitchConfig
) -> Proposals:
    """Wrap generated states `(B, L + 2, S)` up and judge them; `chain (B,)` says which belong together."""
    bridges = wrap_up(models, pairs, states, config)
    verdict = judge(models, source, bridges)
    arrays = {
        **vars(pairs),
        **vars(verdict),
        "states": models.scales.state.decode(bridges.states),
        "predicted": models.scales.state.decode(verdict.predicted),
        "actions": models.scales.action.decode(bridges.actions),
        "rewards": bridges.rewards,
        "chain": chain,
    }
    return Proposals(**{name: value.cpu().numpy() for name, value in arrays.items()})


def _truest(models: Models, source: Source, pairs: Pairs, config: StitchConfig, generator: torch.Generator) -> Tensor:
    """All draws in one batch; keep the one with the smallest largest error by the repairing networks."""
    repeated = Pairs(**{name: value.repeat(config.draws) for name, value in vars(pairs).items()})
    states = stitch_states(models, source, repeated, config, generator)
    if config.draws == 1:
        return states
    bridges = wrap_up(models, repeated, states, dataclasses.replace(config, repair_steps=0))
    errors, _ = transition_errors(models.repairers, bridges.states, bridges.actions, repeated.steps)
    best = errors.amax(1).reshape(config.draws, -1).argmin(0)
    return states.reshape(config.draws, len(best), *states.shape[1:])[best, torch.arange(len(best), device=best.device)]
