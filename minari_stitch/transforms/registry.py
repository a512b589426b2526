"""All transforms by name: ours and those of installed packages, from one group of entry points."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from minari_stitch.errors import ConfigError

if TYPE_CHECKING:
    from minari_stitch.transforms.base import Transform

GROUP = "minari_stitch.transforms"


def found() -> dict[str, EntryPoint]:
    """Name -> where each transform is, without importing it."""
    return {point.name: point for point in sorted(entry_points(group=GROUP), key=lambda point: point.name)}


def transform_class(name: str) -> type[Transform]:
    """The class of a transform.

    Raises:
        ConfigError: There is none of that name, or it is no transform.
    """
    from minari_stitch.transforms.base import Transform  # here: names alone cost no import of torch

    points = found()
    if name not in points:
        raise ConfigError(f"there is no method {name!r}: choose one of {', '.join(points)}")
    try:
        loaded = points[name].load()
    except Exception as error:  # whatever a stranger's module raises
        raise ConfigError(
            f"method {name!r} cannot be loaded from {points[name].value} ({type(error).__name__}: {error}): reinstall "
            "or remove the package that provides it"
        ) from error
    several = {point.value for point in entry_points(group=GROUP, name=name)}
    if len(several) > 1:
        raise ConfigError(f"method {name!r} is provided twice, by {' and '.join(sorted(several))}: remove one package")
    if not (isinstance(loaded, type) and issubclass(loaded, Transform)):
        raise ConfigError(f"method {name!r} is {points[name].value}, which is not a class derived from Transform")
    if missing := [what for what in ("name", "suffix") if not isinstance(getattr(loaded, what, None), str)]:
        raise ConfigError(f"method {name!r} has no {' and no '.join(missing)}: give {points[name].value} one")
    return loaded


def preset(name: str, size: str) -> Transform:
    """A transform at a size.

    Raises:
        ConfigError: There is no such transform or size.
    """
    return transform_class(name).preset(size)  # type: ignore[arg-type]


def from_record(record: Mapping[str, Any]) -> Transform:
    """The transform whose name and settings a dataset's metadata hold.

    Raises:
        ConfigError: It is not installed, or its settings are those of another version.
    """
    from minari_stitch.config import from_dict

    for name in found():
        with suppress(ConfigError):  # of a broken one, which need not be the one that is looked for
            if (cls := transform_class(name)).name == record["method"]:
                break
    else:
        known = ", ".join(found())
        raise ConfigError(f"method {record['method']!r} of this dataset is not installed: there are {known}")
    return from_dict(cls, record["config"])
