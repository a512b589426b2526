"""From accepted bridges to episodes: prefix of the source + bridge + suffix of the target, with provenance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from minari_stitch.data.episodes import Episodes
from minari_stitch.data.goals import Goals
from minari_stitch.data.provenance import provenance
from minari_stitch.diffstitch.proposals import Proposals

Form = Literal["full", "onward", "bridge", "transitions"]
"""Whole stitched episodes; bridge and suffix, without what led there; bridges with a little real context; or each step
of a bridge as an episode of its own, which ends where the judging networks say that it leads."""
BRIDGE_MARGIN = 5
"""Real steps on each side of a bridge written alone."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Spans:
    """Which real steps the stitched episodes of `B` bridges hold, by episode and time step of the source.

    Attributes:
        head: `(B,)` episode of the prefix.
        first: `(B,)` its first step that is written.
        junction: `(B,)` state where the bridge begins.
        steps: `(B,)` generated states.
        tail: `(B,)` episode of the suffix.
        entry: `(B,)` state where the bridge ends.
        stop: `(B,)` step before which the suffix ends as it is written.
        end: `(B,)` step before which it ends in the whole stitched episode.
    """

    head: np.ndarray
    first: np.ndarray
    junction: np.ndarray
    steps: np.ndarray
    tail: np.ndarray
    entry: np.ndarray
    stop: np.ndarray
    end: np.ndarray

    @classmethod
    def of(cls, source: Episodes, proposals: Proposals, *, form: Form, max_episode_steps: int | None) -> Spans:
        """Where each bridge of a chunk would be cut, see `stitched`."""
        head, tail = (np.searchsorted(source.state_offsets, at, side="right") - 1
                      for at in (proposals.source, proposals.target))  # fmt: skip
        junction, entry = proposals.source - source.state_offsets[head], proposals.target - source.state_offsets[tail]
        end = source.lengths[tail]
        if max_episode_steps is not None:
            # Time in the environment runs from the start of the source's episode, whatever part is written.
            end = np.minimum(end, entry + max_episode_steps - (junction + proposals.steps + 1))
        first = {"full": np.zeros_like(head), "bridge": np.maximum(0, junction - BRIDGE_MARGIN)}
        stop = {"bridge": np.minimum(end, entry + BRIDGE_MARGIN), "transitions": entry}
        return cls(
            head=head,
            first=first.get(form, junction),
            junction=junction,
            steps=proposals.steps,
            tail=tail,
            entry=entry,
            stop=stop.get(form, end),
            end=end,
        )

    @property
    def lengths(self) -> np.ndarray:
        """`(B,)` steps of each stitched episode as it is written."""
        return self.junction - self.first + self.steps + 1 + self.stop - self.entry


def stitched(
    source: Episodes,
    ids: Sequence[int],
    proposals: Proposals,
    spans: Spans,
    rows: np.ndarray,
    *,
    discount: float,
    goals: Goals | None = None,
    apart: bool = False,
) -> Iterator[dict[str, Any]]:
    """Yield the stitched episodes (tau_gen, section 4.1.4) of accepted `rows`, as `Episodes.from_list` takes them.

    Small errors of a repaired bridge all lead to its target, and a critic comes to rely on them. Written `apart`, its
    steps lead where the judges say, who err in no such direction (docs/EXPERIMENTS.md, 11).

    A bridge written alone keeps the return-to-go that it has in the whole stitched episode: `return_to_go` counts what
    follows, and `return_beyond` in the metadata is the undiscounted return after the last step that is written.

    Args:
        source: The source dataset.
        ids: Id of each source episode in its dataset.
        proposals: The chunk.
        spans: Of the chunk.
        rows: Accepted rows.
        discount: Gamma of `return_to_go`.
        goals: Of the source, where it has any: prefix and bridge are made to pursue the target's.
        apart: Yield each step alone; for spans of the form `transitions`.
    """
    for row in rows:
        part = _stitch_one(source, ids, proposals, spans, int(row), discount, goals)
        if apart:
            yield from _steps(part, proposals.predicted[row], goals)
        else:
            yield part


def _steps(bridge: dict[str, Any], predicted: np.ndarray, goals: Goals | None) -> Iterator[dict[str, Any]]:
    """Each step of a bridge as an episode that ends in the predicted state; its metadata speak of the whole bridge."""
    observations, length = bridge["observations"], len(bridge["rewards"])
    following = predicted[:length].astype(observations.dtype)
    if goals is not None:
        following = goals.pursue(following, goals.goal(observations[0]))
    for step in range(length):
        pair = np.stack([observations[step], following[step]])
        ends = np.zeros(1, bool) if goals is None else goals.terminations(pair)
        infos = {name: values[step : step + 2].copy() for name, values in bridge["infos"].items()}
        for name, generated in (("synthetic", False), ("source_episode", -1), ("source_step", -1)):
            infos[name][1] = generated
        yield {
            "observations": pair,
            "actions": bridge["actions"][step : step + 1],
            "rewards": bridge["rewards"][step : step + 1] if goals is None else goals.rewards(pair),
            "terminations": ends,
            "truncations": ~ends,
            "infos": infos,
            "metadata": bridge["metadata"] | {"bridge_states": 0, "bridge_step": step},
        }


def early_end(source: Episodes, proposals: Proposals, spans: Spans, row: int, goals: Goals) -> bool:
    """Whether what leads to a bridge's target would end on its way there, under the target's goal."""
    return bool(goals.terminations(_arriving(source, proposals, spans, row, goals)).any())


def _arriving(source: Episodes, chunk: Proposals, spans: Spans, row: int, goals: Goals | None) -> np.ndarray:
    """Observations of prefix and bridge, and the target's first one."""
    head, first, junction, n, tail, entry, *_ = (int(values[row]) for values in vars(spans).values())
    prefix = source.episode(head)["observations"][first : junction + 1]
    bridge = chunk.states[row, 1 : n + 1].astype(prefix.dtype)  # first, or a goal would be rounded
    target = source.episode(tail)["observations"][entry]
    if goals is not None:
        goal = goals.goal(target)
        prefix, bridge = goals.pursue(goals.states(prefix), goal), goals.pursue(bridge, goal)
    return np.concatenate([prefix, bridge, target[None]])


def _stitch_one(
    source: Episodes,
    ids: Sequence[int],
    chunk: Proposals,
    spans: Spans,
    row: int,
    discount: float,
    goals: Goals | None,
) -> dict[str, Any]:
    head, first, junction, n, tail, entry, stop, end = (int(values[row]) for values in vars(spans).values())
    before, after = source.episode(head), source.episode(tail)

    def join(name: str, middle: np.ndarray) -> np.ndarray:
        real = before[name][first:junction], after[name][entry:stop]
        return np.concatenate([real[0], middle.astype(real[0].dtype), real[1]])

    rewards = join("rewards", chunk.rewards[row, : n + 1])
    arriving, suffix = _arriving(source, chunk, spans, row, goals), after["observations"][entry : stop + 1]
    observations = np.concatenate([arriving, suffix[1:]])
    if goals is not None:
        rewards[: len(arriving) - 1] = goals.rewards(arriving)
    no_end = np.zeros(n + 1, bool)
    terminations, truncations = join("terminations", no_end), join("truncations", no_end)
    truncations[-1] = truncations[-1] or not terminations[-1]
    length, begin = len(rewards), junction - first
    synthetic = np.zeros(length + 1, bool)
    synthetic[begin : begin + n + 1] = True
    error = np.zeros(length + 1)
    error[begin : begin + n + 1] = chunk.errors[row, : n + 1]
    episode = np.concatenate([np.full(begin + 1, ids[head]), np.full(n, -1), np.full(stop - entry + 1, ids[tail])])
    step = np.concatenate([np.arange(first, junction + 1), np.full(n, -1), np.arange(entry, stop + 1)])
    rest = after["rewards"][stop:end].astype(np.float64)
    beyond = float((rest * discount ** np.arange(len(rest))).sum())
    support = np.zeros(length + 1)
    support[begin : begin + n + 1] = chunk.support[row, : n + 1]
    infos = provenance(synthetic, episode, step, error, rewards, discount, beyond, support)
    return {
        "observations": observations,
        "actions": join("actions", chunk.actions[row, : n + 1]),
        "rewards": rewards,
        "terminations": terminations,
        "truncations": truncations,
        "infos": infos,
        "metadata": {
            "augmented": True,
            "source_episode": int(ids[head]),
            "source_step": junction,
            "target_episode": int(ids[tail]),
            "target_step": entry,
            "bridge_start": begin,
            "bridge_states": n,
            "similarity": float(chunk.similarity[row]),
            "dynamics_error": float(chunk.error[row]),
            "disagreement": float(chunk.disagreement[row]),
            "error_bound": float(chunk.bound[row]),
            "drift": float(chunk.drift[row]),
            "support": float(chunk.support[row].max()),
            "termination": float(chunk.termination[row]),
            "return_before": float(chunk.before[row]),
            "return_after": float(chunk.after[row] if goals is None else infos["return_to_go"][begin, 0]),
            "return_beyond": float(rest.sum()),
        },
    }
