"""What an augmentation was asked for: the part of its record that is known before it begins, kept and found again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from minari_stitch.config import to_dict
from minari_stitch.data.dataset import Dataset
from minari_stitch.data.digests import changed
from minari_stitch.data.ids import datasets_path, versions
from minari_stitch.data.provenance import RECORD_KEY
from minari_stitch.errors import ConfigError
from minari_stitch.run import Run
from minari_stitch.transforms.base import Transform

_RESULT = ("n_steps", "n_episodes", "n_synthetic", "report")


def asked_for(
    dataset: Dataset,
    transform: Transform,
    run: Run,
    *,
    n_steps: int | None,
    include_original: bool,
    license: str | None,
) -> dict[str, Any]:
    """Everything that decides what comes out, as plain values."""
    return {
        "version": version("minari-stitch"),
        "method": transform.name,
        "source": dataset.dataset_id,
        "source_fingerprint": dataset.fingerprint,
        "seed": run.seed,
        "device": run.device,
        "precision": run.precision,
        "threads": run.threads,
        "config": to_dict(transform),
        "include_original": include_original,
        "license": license,
        "asked_steps": n_steps or dataset.episodes.n_steps,
    }


def twin(dataset_id: str, asked: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """A version of `dataset_id` that was made as asked, if there is one: the same would only be written again.

    Returns:
        Its id, and what came of it, as its record says.
    """
    wanted = json.loads(json.dumps(asked))
    for other in versions(dataset_id):
        try:
            record = json.loads((datasets_path() / other / "data" / "metadata.json").read_text())[RECORD_KEY]
            same = record | wanted == record and ("filtered_from" in record) == ("filtered_from" in wanted)
            if same and not changed(datasets_path() / other):
                return other, {name: record[name] for name in _RESULT}
        except (OSError, ValueError, KeyError, TypeError):  # not ours, or damaged: no twin
            continue
    return None


def read_config(file: Path) -> dict[str, Any]:
    """What was asked for, from a dataset's `metadata.json`, its folder, or a file with the same names.

    Raises:
        ConfigError: It is not there, or says nothing.
    """
    path = file / "data" / "metadata.json" if file.is_dir() else file
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"no JSON: {error}"
        raise ConfigError(
            f"config {str(file)!r} cannot be read ({reason}): give the folder of a dataset that augment wrote, or its "
            "data/metadata.json"
        ) from None
    record = found.get(RECORD_KEY, found) if isinstance(found, Mapping) else None
    kinds = {"method": str, "config": Mapping, "seed": int, "source": str}
    if not isinstance(record, Mapping) or not all(isinstance(record.get(key), kind) for key, kind in kinds.items()):
        raise ConfigError(
            f"config {str(file)!r} does not say {', '.join(kinds)}: give the folder of a dataset that augment wrote, "
            "or its data/metadata.json"
        )
    return dict(record)
