"""Parts of a dataset: which episodes, and how much of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from minari_stitch.data import minari_io
from minari_stitch.data.dataset import Dataset
from minari_stitch.data.provenance import ORACLE_KEY, RECORD_KEY
from minari_stitch.data.spaces import FlatSpace
from minari_stitch.errors import ConfigError, InvalidDataError

PARTS_KEY = "minari_stitch_parts"
"""Key, in a dataset's metadata, of what was cut out of which dataset."""


def reached(dataset: Dataset, within: float) -> np.ndarray:
    """`(N,)` bool: whether each step leads to the goal.

    By the info `success` where there is one; else where `achieved_goal` comes as near to `desired_goal` as `within`.

    Raises:
        ConfigError: The dataset says nothing about goals.
    """
    episodes = dataset.episodes
    after = episodes.step_state + 1
    if (success := episodes.infos.get("success")) is not None:
        return success.reshape(len(success), -1)[after, 0].astype(bool)
    slices = FlatSpace(dataset.observation_space).slices
    if not {"achieved_goal", "desired_goal"} <= slices.keys():
        raise ConfigError(
            f"{dataset.dataset_id!r} has neither an info 'success' with a row for each state nor an achieved_goal and "
            "a desired_goal, so nobody can say when a goal is reached: choose another condition"
        )
    there, wanted = (episodes.observations[after][:, slices[name]] for name in ("achieved_goal", "desired_goal"))
    return np.asarray(np.linalg.norm(there - wanted, axis=1) <= within)


def moving(dataset: Dataset, tolerance: float) -> np.ndarray:
    """`(N,)` bool: whether each step changes an observation by more than a share of its standard deviation."""
    episodes = dataset.episodes
    scale = episodes.observations.std(0, dtype=np.float64)
    change = episodes.observations[episodes.step_state + 1] - episodes.observations[episodes.step_state]
    return np.any(np.abs(change) > tolerance * np.where(scale > 0, scale, 1.0), axis=1)


def lengths_until(dataset: Dataset, at: Literal["goal", "still"], within: float, tolerance: float) -> np.ndarray:
    """`(E,)` steps of each episode until its goal is reached, or until nothing moves any more; all of it if never."""
    episodes = dataset.episodes
    starts, stops = episodes.offsets[:-1], episodes.offsets[1:]
    if at == "goal":
        hits = np.append(np.flatnonzero(reached(dataset, within)), episodes.n_steps)
        first = hits[np.searchsorted(hits, starts)]
        return np.where(first < stops, first + 1 - starts, episodes.lengths)
    hits = np.append(-1, np.flatnonzero(moving(dataset, tolerance)))
    last = hits[np.searchsorted(hits, stops) - 1]
    return np.maximum(1, np.where(last >= starts, last + 1 - starts, 0))


def cut(dataset: Dataset, lengths: np.ndarray) -> Iterator[dict[str, Any]]:
    """Yield the first steps of each episode; one that is cut ends with a truncation."""
    for part, length in zip(dataset.episodes, lengths.tolist(), strict=True):
        if length == len(part["rewards"]):
            yield part
            continue
        last = np.arange(length) == length - 1
        yield {
            "observations": part["observations"][: length + 1],
            **{name: part[name][:length] for name in ("actions", "rewards", "terminations")},
            "truncations": last & ~part["terminations"][:length],
            "infos": {name: info[: length + 1] for name, info in part["infos"].items()},
            "metadata": part["metadata"],
        }


def write(
    dataset: Dataset,
    parts: Iterator[dict[str, Any]],
    *,
    suffix: str,
    output_id: str | None,
    how: Mapping[str, Any],
    says: str,
    progress: Callable[[int], None] | None = None,
) -> tuple[Path, int, int]:
    """Write episodes of a dataset, or parts of them, with all that describes it.

    Returns:
        Where, and how many episodes and steps.

    Raises:
        StitchError: The id is not possible, there is no episode, or the datasets path cannot be written.
    """
    episodes = list(parts)
    if not episodes:
        raise InvalidDataError(f"nothing is left of {dataset.dataset_id!r}: ask for less")
    metadata = {key: value for key, value in dataset.metadata.items() if key != ORACLE_KEY}
    n_steps = sum(len(part["rewards"]) for part in episodes)
    if record := metadata.get(RECORD_KEY):
        made = [part for part in episodes if part["metadata"].get("augmented")]
        metadata[RECORD_KEY] = record | {
            "n_episodes": len(made),
            "n_steps": sum(len(part["rewards"]) for part in made),
            "n_synthetic": int(
                sum(part["infos"]["synthetic"][:-1].sum() for part in made if "synthetic" in part["infos"])
            ),
            "command": [],
        }
    description = metadata.get("description")
    metadata["description"] = f"{says} of {dataset.dataset_id}." + (f" {description}" if description else "")
    metadata[PARTS_KEY] = {"from": dataset.dataset_id, "fingerprint": dataset.fingerprint, **how}
    path = minari_io.write(
        episodes,
        dataset_id=output_id or minari_io.next_id(dataset.dataset_id, suffix),
        observation_space=dataset.observation_space,
        action_space=dataset.action_space,
        env_spec=dataset.env_spec,
        metadata=metadata,
        progress=progress,
        automatic=not output_id,
    )
    return path, len(episodes), n_steps
