"""The commands that make a dataset again, from its record."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, get_args

from minari_stitch.config import describe
from minari_stitch.errors import ConfigError
from minari_stitch.transforms.base import Size
from minari_stitch.transforms.registry import found, from_record, preset, transform_class


def again(record: Mapping[str, Any]) -> list[str]:
    """The command line; nothing where the method is not installed, or its settings are those of another version.

    Args:
        record: What `augment` keeps in a dataset's metadata.
    """
    try:
        transform = from_record(record)
        name = next(name for name in found() if transform_class(name) is type(transform))
    except (ConfigError, StopIteration):
        return []
    wanted = {row.name: row.value for row in describe(transform)}
    differing: dict[str, dict[str, Any]] = {}
    for size in get_args(Size):
        with suppress(ConfigError):
            values = {row.name: row.value for row in describe(preset(name, size))}
            differing[size] = {key: value for key, value in wanted.items() if values.get(key) != value}
    size = min(differing, key=lambda size: len(differing[size]))
    changes = differing[size]
    words = ["minari-stitch", "augment", record["source"]]
    words += ["--method", name] if name != "diffstitch" else []
    words += ["--preset", size, "--seed", str(record["seed"])]
    synthetic = getattr(transform, "form", None) in ("bridge", "transitions") and "n_synthetic" in record
    words += ["--steps", str(record["n_synthetic" if synthetic else "n_steps"])]
    words += [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    words += ["--include-original"] if record.get("include_original") else []
    words += ["--license", record["license"]] if record.get("license") else []
    words += ["--device", record["device"], "--threads", str(record["threads"])]
    return [shlex.join(words)]


def filtering(dataset_id: str, delta: float | None, verified: bool) -> list[str]:
    """The command line that keeps a part of a dataset."""
    words = ["minari-stitch", "filter", dataset_id]
    words += ["--delta", f"{delta:g}"] if delta is not None else []
    return [shlex.join([*words, "--verified"] if verified else words)]
