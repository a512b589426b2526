"""Datasets to one dataset: all episodes of several, or a share of each.

Unlike Minari's `combine_datasets` this keeps what describes the data (episode metadata, infos, reference scores,
authors), says where each episode comes from, and honours views: what is mixed are the episodes of the `Dataset`
objects that are given, so a selection made with `select` stays one. A `filter_episodes` view of Minari's exists only in
the process that made it, and an id always names the whole dataset.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np

from minari_stitch.data import minari_io
from minari_stitch.data.card import LICENSE_KEY
from minari_stitch.data.dataset import Dataset
from minari_stitch.data.episodes import Episodes
from minari_stitch.data.ids import datasets_path
from minari_stitch.data.provenance import MIX_KEY, RECORD_KEY, original
from minari_stitch.data.room import EPISODE, require_room
from minari_stitch.data.storage import plain_attributes
from minari_stitch.data.written import Written
from minari_stitch.errors import ConfigError, InvalidDataError

_JOINED = ("author", "author_email", "requirements")  # lists
_AGREED = ("code_permalink", "eval_env_spec")  # kept where all that have one have the same
_SCORES = ("ref_min_score", "ref_max_score", "num_episodes_average_score")
_STANDARD = {"description", "algorithm_name", LICENSE_KEY, *_JOINED, *_AGREED, *_SCORES}


@dataclass(frozen=True, kw_only=True)
class Mixed(Written):
    """What `mix` wrote.

    Attributes:
        sources: For each source its id, fingerprint, and the episodes and steps used and there.
    """

    sources: Sequence[Mapping[str, Any]]


def select(dataset: Dataset, indices: Sequence[int] | np.ndarray) -> Dataset:
    """The dataset with only the episodes at `indices`, in that order."""
    indices = np.asarray(indices, dtype=np.int64)
    return replace(dataset, episodes=dataset.episodes.select(indices), episode_ids=dataset.episode_ids[indices])


def take_share(dataset: Dataset, fraction: float, rng: np.random.Generator) -> Dataset:
    """Whole episodes at random, until they hold a share of the dataset's steps; in their old order.

    Args:
        dataset: The source.
        fraction: Share of its steps, in (0, 1].
        rng: Decides which episodes.

    Raises:
        ConfigError: There is no such share.
    """
    if not 0 < fraction <= 1:
        raise ConfigError(f"fraction={fraction:g} is not possible: use more than 0 and at most 1")
    order = rng.permutation(len(dataset.episodes))
    wanted = math.ceil(fraction * dataset.episodes.n_steps - 1e-6)  # 0.1 * 30 is a little more than 3
    count = int(np.searchsorted(np.cumsum(dataset.episodes.lengths[order]), wanted)) + 1
    return select(dataset, np.sort(order[:count]))


def mix(
    datasets: Sequence[Dataset],
    *,
    output_id: str | None = None,
    fraction: float | None = None,
    seed: int = 0,
    scores_of: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Mixed:
    """Write the episodes of all datasets as a new one.

    Kept are the environment, episode metadata, the infos that all sources share, and the reference scores; where a
    source is synthetic, the steps of the others are marked as real. Authors,
    requirements and descriptions are joined. Custom metadata describe one dataset, not a mix of it: they are kept
    with its source in the new dataset's `minari_stitch_mix`. Episode metadata say in `mixed_from` and `mixed_episode`
    where an episode stood.

    Args:
        datasets: Read with `keep_infos=True`, or selections of such.
        output_id: Id of the new dataset; a share of a single one is called after it (`medium-20pct-v0`) by default.
        fraction: Take of each dataset only whole episodes at random with this share of its steps.
        seed: Seed of that choice.
        scores_of: Id of the dataset whose reference scores count, where they differ.
        progress: Called with (episodes written, episodes in all).

    Returns:
        What was written.

    Raises:
        ConfigError: Nothing to mix, no id, an impossible fraction or seed, or `scores_of` is none of the datasets.
        DatasetIdError: The id is malformed or taken.
        InvalidDataError: Spaces, environments or reference scores differ.
        StorageError: The datasets path cannot be written, or is full.
    """
    if not datasets:
        raise ConfigError("There is nothing to mix: give at least one dataset.")
    if not 0 <= seed < 2**63:
        raise ConfigError(f"seed={seed} is not possible: use 0 to 2**63 - 1")
    for other in datasets[1:]:
        _check_same_kind(datasets[0], other)
    scores = _scores(datasets, scores_of)
    if fraction is None:
        chosen = list(datasets)
    else:  # each with a generator of its own: its share does not depend on the other datasets
        rngs = (np.random.default_rng([seed, number]) for number in range(len(datasets)))
        chosen = [take_share(dataset, fraction, rng) for dataset, rng in zip(datasets, rngs, strict=True)]
    output_id = output_id or _default_id(datasets, fraction)
    minari_io.check_output_id(output_id)
    sources = [_source(dataset, part) for dataset, part in zip(datasets, chosen, strict=True)]
    n_episodes, n_steps = (sum(source[name] for source in sources) for name in ("n_episodes", "n_steps"))
    chosen = _with_provenance(chosen)
    require_room(
        f"a mix of {n_steps:,} steps",
        disk=sum(_stored(part.episodes) for part in chosen),
        memory=0,
        folder=datasets_path(),
        remedy="take a smaller fraction",
    )
    infos = _common_infos(chosen)
    record = {
        "version": version("minari-stitch"),
        "fraction": fraction,
        "seed": seed if fraction is not None else None,
        "infos": sorted(infos),
        "sources": [
            source | {"metadata": {key: value for key, value in dataset.metadata.items() if key not in _STANDARD}}
            for source, dataset in zip(sources, datasets, strict=True)
        ],
    }
    path = minari_io.write(
        _parts(chosen, infos),
        dataset_id=output_id,
        observation_space=datasets[0].observation_space,
        action_space=datasets[0].action_space,
        env_spec=datasets[0].env_spec,
        metadata={**_joined(datasets), **scores, "description": _description(datasets, sources), MIX_KEY: record},
        progress=progress and (lambda done: progress(done, n_episodes)),
    )
    return Mixed(dataset_id=output_id, path=path, n_episodes=n_episodes, n_steps=n_steps, sources=sources)


def _stored(episodes: Episodes) -> int:
    """Bytes that episodes take in the file of a dataset, about."""
    arrays = (episodes.observations, episodes.actions, episodes.rewards, *episodes.infos.values())
    return sum(array.nbytes for array in arrays) + EPISODE * len(episodes)


def _check_same_kind(first: Dataset, other: Dataset) -> None:
    for what, of in (
        ("environments", _environment),
        ("observation spaces", lambda dataset: dataset.observation_space),
        ("action spaces", lambda dataset: dataset.action_space),
    ):
        if of(first) != of(other):
            raise InvalidDataError(
                f"{first.dataset_id!r} and {other.dataset_id!r} have different {what}: {of(first)} and {of(other)}. "
                "Mix datasets of one environment."
            )


def _environment(dataset: Dataset) -> str:
    spec = dataset.env_spec
    return f"{spec.id} (time limit {spec.max_episode_steps}, {spec.kwargs})" if spec else "unknown"


def _scores(datasets: Sequence[Dataset], scores_of: str | None) -> dict[str, Any]:
    """Reference scores, and over how many episodes they were measured."""
    found = {dataset.dataset_id: {key: dataset.metadata.get(key) for key in _SCORES} for dataset in datasets}
    if scores_of is not None:
        if scores_of not in found:
            raise ConfigError(f"scores_of={scores_of!r} is not possible: choose one of {', '.join(found)}")
        return found[scores_of]
    having = {key: scores for key, scores in found.items() if any(value is not None for value in scores.values())}
    first, scores = next(iter(having.items()), ("", {}))
    for other, differing in having.items():
        if differing != scores:
            raise InvalidDataError(
                f"{first!r} and {other!r} have different reference scores: {list(scores.values())[:2]} and "
                f"{list(differing.values())[:2]}. Say with scores_of whose count."
            )
    return scores


def _default_id(datasets: Sequence[Dataset], fraction: float | None) -> str:
    if len(datasets) > 1 or fraction is None:
        raise ConfigError("The mix has no name: choose a dataset id, for example mixed/hopper-v0.")
    return minari_io.next_id(datasets[0].dataset_id, f"{100 * fraction:g}pct".replace(".", "_"))


def _source(dataset: Dataset, part: Dataset) -> dict[str, Any]:
    return {
        "dataset_id": dataset.dataset_id,
        "fingerprint": dataset.fingerprint,
        "n_episodes": len(part.episodes),
        "n_steps": part.episodes.n_steps,
        "of_episodes": len(dataset.episodes),
        "of_steps": dataset.episodes.n_steps,
    }


def _with_provenance(datasets: Sequence[Dataset]) -> list[Dataset]:
    """Beside synthetic episodes, real ones say that they are: else a mix would hide what is generated."""
    infos = [set(dataset.episodes.infos) for dataset in datasets if "synthetic" in dataset.episodes.infos]
    if not infos:
        return list(datasets)
    records = [record for dataset in datasets if (record := dataset.metadata.get(RECORD_KEY))]
    origins = {record["source"] for record in records}

    def marked(dataset: Dataset) -> Dataset:
        if "synthetic" in dataset.episodes.infos:
            return dataset
        ids = dataset.episode_ids if dataset.dataset_id in origins else np.full(len(dataset.episodes), -1)
        parts = [
            {**part, "infos": real["infos"] | part["infos"], "metadata": {"augmented": False} | part["metadata"]}
            for part, real in zip(
                dataset.episodes, original(dataset.episodes, ids.tolist(), _discount(records)), strict=True
            )
        ]
        return replace(dataset, episodes=Episodes.from_list(parts))

    return [marked(dataset) for dataset in datasets]


def _discount(records: Sequence[Mapping[str, Any]]) -> float:
    """Gamma of the returns-to-go of synthetic episodes."""
    configs = [record.get("config", {}) for record in records]
    found = [config.get("stitch", config).get("discount") for config in configs]
    return next((discount for discount in found if discount is not None), 0.99)


def _common_infos(datasets: Sequence[Dataset]) -> dict[str, np.dtype]:
    """Name -> common dtype of the infos that all datasets have, in the same shape."""
    columns = [{name: _column(info) for name, info in dataset.episodes.infos.items()} for dataset in datasets]
    common = set.intersection(*(set(infos) for infos in columns))
    return {
        name: np.result_type(*(infos[name] for infos in columns))
        for name in sorted(common)
        if len({infos[name].shape[1:] for infos in columns}) == 1
    }


def _column(info: np.ndarray) -> np.ndarray:
    return info[:, None] if info.ndim == 1 else info


def _parts(datasets: Sequence[Dataset], infos: Mapping[str, np.dtype]) -> Iterator[dict[str, Any]]:
    for dataset in datasets:
        for part, number in zip(dataset.episodes, dataset.episode_ids.tolist(), strict=True):
            kept = {name: _column(part["infos"][name]).astype(dtype, copy=False) for name, dtype in infos.items()}
            origin = {"mixed_from": dataset.dataset_id, "mixed_episode": number}
            yield {**part, "infos": kept, "metadata": _storable(part["metadata"]) | origin}


def _storable(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Without what other writers left there and HDF5 attributes cannot keep."""

    def fits(key: str, value: Any) -> bool:
        try:
            return bool(plain_attributes({key: value}))
        except InvalidDataError:
            return False

    return {key: value for key, value in metadata.items() if fits(key, value)}


def _joined(datasets: Sequence[Dataset]) -> dict[str, Any]:
    values = {key: _distinct(dataset.metadata.get(key) for dataset in datasets) for key in (*_JOINED, *_AGREED)}
    agreed = {key: values[key][0] for key in _AGREED if len(values[key]) == 1}
    algorithms = _distinct(dataset.metadata.get("algorithm_name") for dataset in datasets)
    return {
        **{key: values[key] for key in _JOINED if values[key]},
        **agreed,
        **_license(datasets),
        "algorithm_name": ", ".join(map(str, algorithms)) or None,
    }


def _license(datasets: Sequence[Dataset]) -> dict[str, Any]:
    """That of all, or those of all; nothing where one is not known."""
    known = [dataset.metadata.get(LICENSE_KEY) for dataset in datasets]
    names = _distinct(known)
    return {LICENSE_KEY: names[0] if len(names) == 1 else names} if all(known) else {}


def _distinct(values: Iterable[Any]) -> list[Any]:
    """What is there, once, in order; lists are opened."""
    items = (item for value in values if value is not None for item in (value if isinstance(value, list) else [value]))
    return list(dict.fromkeys(items))


def _description(datasets: Sequence[Dataset], sources: Sequence[Mapping[str, Any]]) -> str:
    shares = [
        f"{source['n_episodes']:,} of {source['of_episodes']:,} episodes of {source['dataset_id']}"
        for source in sources
    ]
    said = _distinct(dataset.metadata.get("description") for dataset in datasets)
    return " ".join([f"{' and '.join(shares)}, mixed by minari-stitch.", *map(str, said)])
