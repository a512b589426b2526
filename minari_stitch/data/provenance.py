"""Where the states of an episode come from, as infos that are written with it.

Every state says where it comes from, and every step whether it is synthetic:

| info, `(T + 1, 1)` | at state t |
|---|---|
| `synthetic` | the step from t to t + 1 was generated (False at the last state) |
| `source_episode`, `source_step` | where the state stands in the source dataset; -1 for a generated state |
| `dynamics_error` | squared distance of t + 1 from its prediction, standardised; 0 on real steps |
| `support` | squared distance to the nearest real state (`learn.support`); 0 where it is real or was not measured |
| `return_to_go` | discounted return from t to the end of this episode, or of the one that it is a part of |
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from minari_stitch.data.episodes import Episodes
from minari_stitch.errors import InvalidDataError

RECORD_KEY = "minari_stitch"
"""Key, in a dataset's metadata, of how it was made."""
MIX_KEY = "minari_stitch_mix"
"""Key, in a mix's metadata, of what was mixed."""
ORACLE_KEY = "minari_stitch_oracle"
"""Key of what the simulator says about it."""


def records(metadata: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """How what a dataset holds was made: its own record or, of a mix, those of its parts that have one."""
    if RECORD_KEY in metadata:
        return [metadata[RECORD_KEY]]
    parts = metadata.get(MIX_KEY, {}).get("sources", [])
    return [record for part in parts for record in records(part.get("metadata", {}))]


_RECORD = {"method": str, "source": str, "seed": int, "config": Mapping, "report": Mapping, "n_episodes": int}
_RECORD |= {"n_steps": int, "include_original": bool}
"""What a record holds at least."""


def stitch_record(dataset_id: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Our own record in a dataset's metadata.

    Raises:
        InvalidDataError: There is none.
    """
    record = metadata.get(RECORD_KEY)
    if record is None and (parts := synthetic_sources(metadata)):
        raise InvalidDataError(
            f"{dataset_id!r} is a mix: give the augmented dataset that went into it, {' or '.join(parts)}, and "
            "mix again"
        )
    if record is None:
        raise InvalidDataError(
            f"{dataset_id!r} was not written by minari-stitch: give the id of an augmented dataset, or make "
            f"one with `minari-stitch augment {dataset_id}`"
        )
    sound = isinstance(record, Mapping) and all(isinstance(record.get(name), kind) for name, kind in _RECORD.items())
    if not sound:
        raise InvalidDataError(
            f"{dataset_id!r} has a damaged record of how it was made ({RECORD_KEY} in its metadata): delete it "
            f"with `minari delete {dataset_id}` and augment again"
        )
    return dict(record)


def synthetic_sources(metadata: Mapping[str, Any]) -> list[str]:
    """Ids of what holds generated steps: the dataset itself, or parts of a mix."""
    if RECORD_KEY in metadata:
        return [metadata[RECORD_KEY].get("source", "itself")]
    parts = metadata.get(MIX_KEY, {}).get("sources", [])
    return [part["dataset_id"] for part in parts if records(part.get("metadata", {}))]


def provenance(
    synthetic: np.ndarray,
    episode: np.ndarray,
    step: np.ndarray,
    error: np.ndarray,
    rewards: np.ndarray,
    discount: float,
    beyond: float = 0.0,
    support: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """The infos of an episode, each `(T + 1, 1)`; see the table above.

    Args:
        synthetic: `(T + 1,)`.
        episode: `(T + 1,)` source episode.
        step: `(T + 1,)` source step.
        error: `(T + 1,)` dynamics error.
        rewards: `(T,)`.
        discount: Gamma of the returns-to-go.
        beyond: Discounted return that follows the last state.
        support: `(T + 1,)` distance from real states.
    """
    backwards = accumulate(rewards[::-1].tolist(), lambda later, reward: reward + discount * later, initial=beyond)
    columns = {
        "synthetic": synthetic,
        "source_episode": episode.astype(np.int64),
        "source_step": step.astype(np.int64),
        "dynamics_error": error.astype(np.float32),
        "support": (np.zeros(len(error)) if support is None else support).astype(np.float32),
        "return_to_go": np.array(list(backwards)[::-1]),
    }
    # One-dimensional infos cannot be read back from every storage format.
    return {name: column[:, None] for name, column in columns.items()}


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
