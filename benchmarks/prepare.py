"""Which local datasets serve an experiment, and how those that are missing are made."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

import torch

from benchmarks.suites import DIFFSTITCH, Experiment, Variant
from minari_stitch.api import datasets as api
from minari_stitch.data.ids import datasets_path, exists, parse_id
from minari_stitch.errors import DatasetNotFoundError
from minari_stitch.sim import demo

_SUBSET = re.compile(r"(?P<name>.+)-(?P<percent>\d+)pct-v0")


def newest(dataset_id: str, variant: Variant = DIFFSTITCH) -> str | None:
    """The newest local version of what a method made of a dataset.

    Raises:
        DatasetIdError: The id is malformed.
    """
    namespace, name = parse_id(dataset_id)
    folder = datasets_path() / (namespace or "")
    pattern = re.compile(rf"{re.escape(name)}-{variant.suffix}-v(\d+)")
    found = [match for path in folder.glob("*") if (match := pattern.fullmatch(path.name))]
    ids = [(int(match[1]), f"{namespace}/{match[0]}" if namespace else match[0]) for match in found]
    return max(((number, id) for number, id in ids if exists(id)), default=(0, None))[1]


def augment(dataset_id: str, variant: Variant, say: Callable[[str], None]) -> str:
    """Make a variant of a local dataset, and return its id.

    Raises:
        StitchError: It cannot be made.
    """
    name, _, _ = dataset_id.rpartition("-v")
    output_id = f"{name}-{variant.suffix}-v0" if variant.label or variant.beside else None
    if variant.beside:
        made = [newest(dataset_id, part) or augment(dataset_id, part, say) for part in variant.parts]
        return api.mix(made, output_id).dataset_id
    say(f"Making it, once: {variant.title} of {dataset_id}")
    size = "full" if torch.cuda.is_available() else "fast"
    method = variant.transform(size)
    workers = os.cpu_count() or 1
    made = api.augment(dataset_id, method, n_steps=variant.steps or None, output_id=output_id, workers=workers)
    return made.dataset_id


def ensure(dataset_id: str, say: Callable[[str], None]) -> bool:
    """Make a demo dataset or a share of a dataset, if it is missing; whether it is there now.

    Raises:
        StitchError: It cannot be made.
    """
    if exists(dataset_id):
        return True
    if dataset_id in demo.RECIPES:
        say(f"Rolling out {dataset_id}, once.")
        demo.ensure(dataset_id)
        return True
    match = _SUBSET.fullmatch(dataset_id)
    if match is None or not ensure(whole := _whole(match["name"]), say):
        return False
    say(f"Making it, once: {match['percent']} % of {whole}")
    api.mix([whole], dataset_id, fraction=int(match["percent"]) / 100)
    return True


def find(item: Experiment, say: Callable[[str], None]) -> str:
    """The augmented dataset of an experiment, made if it is missing and its source can be had.

    Raises:
        DatasetNotFoundError: Something is missing and cannot be made.
        StitchError: Something cannot be made.
    """
    parse_id(item.dataset)
    unknown = item.dataset not in demo.RECIPES and not _SUBSET.fullmatch(item.dataset)
    if unknown and demo.is_demo_id(item.dataset):
        demo.ensure(item.dataset)  # says which there are
    found = item.augmented or newest(item.dataset, item.variant)
    if not ensure(item.dataset, say):
        raise DatasetNotFoundError(
            f"{item.dataset!r} is not local: run `{how_to_get(item.dataset)}`. Demo datasets need no network "
            "(`minari-stitch demo list`)."
        )
    if found is not None and not exists(found):
        raise DatasetNotFoundError(f"{found!r} is not local: run `minari-stitch augment {item.dataset}`")
    return augment(item.dataset, item.variant, say) if found is None else found


def how_to_get(dataset_id: str) -> str:
    """What to do about a dataset that is not local and that nobody here can make."""
    if match := _SUBSET.fullmatch(dataset_id):
        return how_to_get(_whole(match["name"]))
    if dataset_id.startswith("d4rl/"):
        env, _, rest = dataset_id.removeprefix("d4rl/").partition("/")
        quality, _, version = rest.rpartition("-v")
        return f"minari-stitch import-d4rl {env}_{quality.replace('-', '_')}-v{version}.hdf5 --env {env}"
    return f"minari download {dataset_id}"


def _whole(name: str) -> str:
    """Id of the dataset that a share was taken of: the newest local version, else the first."""
    namespace, _, short = name.rpartition("/")
    versions = [int(path.name.rpartition("-v")[2]) for path in (datasets_path() / namespace).glob(f"{short}-v*")]
    if name.startswith("d4rl/"):
        versions = versions or [1 if "/pen/" in name else 2]
    return f"{name}-v{max(versions, default=0)}"
