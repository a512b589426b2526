"""What `augment` begins with: a method at a size and a source, or what a dataset's record says."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

if TYPE_CHECKING:
    from minari_stitch.transforms.base import Transform


@dataclass(frozen=True, kw_only=True)
class Begun:
    """The method, the source's id, amounts by the names of `api.augment`, and whether originals are written too."""

    transform: Transform
    source: str
    include_original: bool
    amounts: dict[str, Any] = field(default_factory=dict)


def chosen(**options: Any) -> dict[str, Any]:
    """Options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def begin_with(
    config: Path | None,
    dataset_id: str | None,
    method: str | None,
    preset: Literal["fast", "full", "paper"] | None,
    device: str | None,
    include_original: bool,
) -> Begun:
    """Put together what the options say; those that are None are left to defaults, or to the file.

    Raises:
        ConfigError: There is no source, the file cannot be used, or an option has no part in it.
    """
    from minari_stitch.api import datasets as api
    from minari_stitch.asked import read_config
    from minari_stitch.errors import ConfigError
    from minari_stitch.transforms import registry

    if config is None:
        if dataset_id is None:
            raise typer.BadParameter("Missing argument 'ID', such as demo/hopper/medium-replay-v0; or give --config")
        device = device or "auto"
        size = preset or ("full" if api.chosen_device(device).startswith("cuda") else "fast")
        amounts = {"n_steps": None, "seed": 0, "device": device, "precision": None, "threads": None}
        transform = registry.preset(method or "diffstitch", size)
        return Begun(transform=transform, source=dataset_id, include_original=include_original, amounts=amounts)
    for name, value in {"--method": method, "--preset": preset}.items():
        if value is not None:
            raise ConfigError(f"{name} {value} has no part in --config, which says the method and its settings")
    record = read_config(config)
    if "filtered_from" in record:
        commands = " && ".join(record.get("command", ())) or f"filter {record['filtered_from']}"
        raise ConfigError(f"config {str(config)!r} is that of a filtered dataset, which is made again by: {commands}")
    names = {"asked_steps": "n_steps", "seed": "seed", "device": "device", "precision": "precision"}
    names |= {"threads": "threads", "license": "license"}
    amounts = {name: record.get(key) for key, name in names.items()}
    return Begun(
        transform=registry.from_record(record),
        source=dataset_id or record["source"],
        include_original=include_original or bool(record.get("include_original")),
        amounts=amounts,
    )
