"""From accepted bridges to episodes: prefix of the source + bridge + suffix of the target, with provenance.

Every state says where it comes from, and every step whether it is synthetic:

| info, `(T + 1, 1)` | at state t |
|---|---|
| `synthetic` | the step from t to t + 1 was generated (False at the last state) |
| `source_episode`, `source_step` | where the state stands in the source dataset; -1 for a generated state |
| `dynamics_error` | squared distance of t + 1 from its prediction, standardised; 0 on real steps |
| `return_to_go` | discounted return from t to the end of this episode |
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np

from minari_stitch.data.episodes import Episodes
from minari_stitch.diffstitch.proposals import Proposals

Form = Literal["full", "bridge"]
BRIDGE_MARGIN = 5
"""Real steps on each side of a bridge written alone."""


def stitched(
    source: Episodes,
    ids: Sequence[int],
    proposals: Proposals,
    rows: np.ndarray,
    *,
    form: Form,
    discount: float,
    max_episode_steps: int | None,
) -> Iterator[dict[str, Any]]:
    """Yield the stitched episodes of the accepted `rows` of a chunk, as `Episodes.from_list` takes them.

    Args:
        source: The source dataset.
        ids: Id of each source episode in its dataset.
        proposals: The chunk.
        rows: Accepted rows.
        form: `full`, or `bridge` with a little real context (the released code writes bridges only).
        discount: Gamma of `return_to_go`.
        max_episode_steps: Longest valid episode; a longer one is cut there and truncated.
    """
    for row in rows:
        yield _stitch_one(source, ids, proposals, int(row), form, discount, max_episode_steps)


def original(
    source: Episodes, ids: Sequence[int], discount: float, *, augmented: bool = False
) -> Iterator[dict[str, Any]]:
    """Yield real episodes with the same infos, none of it synthetic.

    Args:
        source: The episodes.
        ids: Id of each in the source dataset; -1 where it is not from there.
        discount: Gamma of `return_to_go`.
        augmented: Whether a transform adds them to the source.
    """
    for index, part in enumerate(source):
        length = len(part["rewards"])
        state = np.arange(length + 1) if ids[index] >= 0 else np.full(length + 1, -1)
        infos = provenance(
            np.zeros(length + 1, bool),
            np.full(length + 1, ids[index]),
            state,
            np.zeros(length + 1),
            part["rewards"],
            discount,
        )
        yield {**part, "infos": infos, "metadata": {"augmented": augmented, "source_episode": int(ids[index])}}


def _stitch_one(
    source: Episodes,
    ids: Sequence[int],
    chunk: Proposals,
    row: int,
    form: Form,
    discount: float,
    limit: int | None,
) -> dict[str, Any]:
    n = int(chunk.steps[row])
    (head, junction), (tail, entry) = (_locate(source, int(at[row])) for at in (chunk.source, chunk.target))
    first = max(0, junction - BRIDGE_MARGIN) if form == "bridge" else 0
    stop = int(source.lengths[tail])
    if form == "bridge":
        stop = min(stop, entry + BRIDGE_MARGIN)
    if limit is not None:
        # Time in the environment runs from the start of the source's episode, whatever part is written.
        stop = min(stop, entry + limit - (junction + n + 1))
    before, after = source.episode(head), source.episode(tail)

    def join(name: str, middle: np.ndarray) -> np.ndarray:
        real = before[name][first:junction], after[name][entry:stop]
        return np.concatenate([real[0], middle.astype(real[0].dtype), real[1]])

    observations = np.concatenate(
        [
            before["observations"][first : junction + 1],
            chunk.states[row, 1 : n + 1].astype(source.observations.dtype),
            after["observations"][entry : stop + 1],
        ]
    )
    no_end = np.zeros(n + 1, bool)
    rewards = join("rewards", chunk.rewards[row, : n + 1])
    terminations, truncations = join("terminations", no_end), join("truncations", no_end)
    truncations[-1] = truncations[-1] or not terminations[-1]
    length, begin = len(rewards), junction - first
    synthetic = np.zeros(length + 1, bool)
    synthetic[begin : begin + n + 1] = True
    error = np.zeros(length + 1)
    error[begin : begin + n + 1] = chunk.errors[row, : n + 1]
    episode = np.concatenate([np.full(begin + 1, ids[head]), np.full(n, -1), np.full(stop - entry + 1, ids[tail])])
    step = np.concatenate([np.arange(first, junction + 1), np.full(n, -1), np.arange(entry, stop + 1)])
    return {
        "observations": observations,
        "actions": join("actions", chunk.actions[row, : n + 1]),
        "rewards": rewards,
        "terminations": terminations,
        "truncations": truncations,
        "infos": provenance(synthetic, episode, step, error, rewards, discount),
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
            "termination": float(chunk.termination[row]),
            "return_before": float(chunk.before[row]),
            "return_after": float(chunk.after[row]),
        },
    }


def _locate(source: Episodes, row: int) -> tuple[int, int]:
    """Episode and time step of a state row."""
    episode = int(np.searchsorted(source.state_offsets, row, side="right")) - 1
    return episode, row - int(source.state_offsets[episode])


def provenance(
    synthetic: np.ndarray,
    episode: np.ndarray,
    step: np.ndarray,
    error: np.ndarray,
    rewards: np.ndarray,
    discount: float,
) -> dict[str, np.ndarray]:
    """The infos of an episode, each `(T + 1, 1)`; see the table above.

    Args:
        synthetic: `(T + 1,)`.
        episode: `(T + 1,)` source episode.
        step: `(T + 1,)` source step.
        error: `(T + 1,)` dynamics error.
        rewards: `(T,)`.
        discount: Gamma of the returns-to-go.
    """
    returns = np.zeros(len(rewards) + 1)
    for t in range(len(rewards) - 1, -1, -1):
        returns[t] = rewards[t] + discount * returns[t + 1]
    columns = {
        "synthetic": synthetic,
        "source_episode": episode.astype(np.int64),
        "source_step": step.astype(np.int64),
        "dynamics_error": error.astype(np.float32),
        "return_to_go": returns,
    }
    # One-dimensional infos cannot be read back from every storage format.
    return {name: column[:, None] for name, column in columns.items()}
