"""Faults planted in a stitched dataset; each returns the id of the spoilt copy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from minari_stitch.data import minari_io
from minari_stitch.data.episodes import Episodes
from minari_stitch.data.provenance import RECORD_KEY


def copied(dataset_id, name, change):
    """Write what `change` makes of each augmented episode (a mapping of copies) beside the dataset."""
    dataset = minari_io.read(dataset_id, keep_infos=True)
    parts = []
    for part in dataset.episodes:
        part = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in part.items()}
        part["infos"] = {k: v.copy() for k, v in part["infos"].items()}
        parts.append(change(part) if part["metadata"].get("augmented") else part)
    return write(dataset, parts, name)


def write(dataset, parts, name):
    minari_io.write(
        parts,
        dataset_id=name,
        observation_space=dataset.observation_space,
        action_space=dataset.action_space,
        env_spec=dataset.env_spec,
        metadata=dataset.metadata,
    )
    return name


def generated(part):
    """Rows of the steps of a bridge."""
    return np.flatnonzero(part["infos"]["synthetic"][:-1, 0])


def shuffled_actions(dataset_id, name="spoilt/shuffled-v0"):
    rng = np.random.default_rng(0)

    def change(part):
        rows = generated(part)
        part["actions"][rows] = part["actions"][rng.permutation(rows)]
        return part

    return copied(dataset_id, name, change)


def reward_offset(dataset_id, name="spoilt/rewards-v0", by=2.0):
    def change(part):
        part["rewards"][generated(part)] += by
        return part

    return copied(dataset_id, name, change)


def shifted_states(dataset_id, name="spoilt/shifted-v0"):
    """The inner states of a bridge arrive a step late."""

    def change(part):
        inner = generated(part)[1:]
        part["observations"][inner] = part["observations"][inner - 1]
        return part

    return copied(dataset_id, name, change)


def passed_off(source_id, stitched_id, name="spoilt/copies-v0"):
    """Episodes of the source that say they were generated, with the record of a stitched dataset."""
    source, stitched = (minari_io.read(one, keep_infos=True) for one in (source_id, stitched_id))
    parts = []
    for part in Episodes.from_list(list(source.episodes)[:8]):
        steps = len(part["rewards"])
        infos = {
            "synthetic": np.append(np.ones(steps, bool), False)[:, None],
            "source_episode": np.full((steps + 1, 1), -1),
            "source_step": np.full((steps + 1, 1), -1),
            "dynamics_error": np.zeros((steps + 1, 1), np.float32),
            "return_to_go": np.zeros((steps + 1, 1)),
        }
        parts.append({**part, "infos": infos, "metadata": {"augmented": True}})
    record = {**stitched.metadata, RECORD_KEY: dict(stitched.metadata[RECORD_KEY])}
    return write(replace(stitched, metadata=record), parts, name)
