"""Settings: frozen keyword-only dataclasses that pydantic checks, the same on disk as in memory.

A setting is named by a dotted path (`models.diffusion.width`), and changed by `dataclasses.replace`, by `adjust` with
values, or from text by `parse` first.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Annotated, Any, Literal, TypeVar, dataclass_transform, get_args, get_origin

import numpy as np
import pydantic
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from minari_stitch.errors import ConfigError, StitchError, memory_errors

C = TypeVar("C")
F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

_MOST = 2**31
Count = Annotated[int, Field(ge=1, lt=_MOST)]
Amount = Annotated[int, Field(ge=0, lt=_MOST)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Decay = Annotated[float, Field(ge=0, lt=1)]
"""In [0, 1)."""
Share = Annotated[float, Field(gt=0, le=1)]
"""In (0, 1]."""

_CONFIG = ConfigDict(extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)
_BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "multiple_of": "a multiple of"}


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(dataclasses.field, Field))
def settings(cls: type[T]) -> type[T]:
    """Class decorator: a frozen keyword-only dataclass whose values are checked, and whose errors are `ConfigError`.

    The string below a field is its documentation, here and in `describe`.

    Args:
        cls: Fields with types, and bounds such as `Annotated[int, Field(ge=1)]`; `Count` and its like abbreviate some.

    Returns:
        The class; `dataclasses.replace` checks what it changes.

    Raises:
        ConfigError: On construction: no such setting, or a value that does not fit, with what would.

    Example:
        >>> import minari_stitch as ms
        >>> @ms.settings
        ... class Size:
        ...     width: int = 64
        >>> Size(width="wide")
        Traceback (most recent call last):
        minari_stitch.errors.ConfigError: width='wide' is not possible: it should be a valid integer
    """
    made: Any = pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=_CONFIG)(cls)
    check = made.__init__

    @wraps(check)
    def __init__(self: Any, **values: Any) -> None:  # noqa: N807 - it becomes the method
        try:
            check(self, **{name: _plain(value) for name, value in values.items()})
        except ValidationError as error:
            raise _named(error) from None

    made.__init__ = __init__
    lines = [f"    {name}: {' '.join((field.description or '').split())}" for name, field in _fields(made)]
    made.__doc__ = "\n".join([(cls.__doc__ or "").rstrip(), "", "Attributes:", *lines])
    return made


def checked(function: F) -> F:
    """Function decorator: arguments must fit their annotations, and a `ConfigError` names the one that does not.

    Where memory runs out, that is an `OutOfMemoryError`.
    """
    call = pydantic.validate_call(config=ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False))(function)

    @wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            with memory_errors():
                return call(*map(_plain, args), **{name: _plain(value) for name, value in kwargs.items()})
        except ValidationError as error:
            raise _named(error, depth=1) from None

    return wrapped  # type: ignore[return-value]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting of a transform.

    Attributes:
        name: Dotted path.
        kind: What it takes, in words such as `int >= 1`.
        value: Its value.
        about: What it is.
    """

    name: str
    kind: str
    value: Any
    about: str


def describe(config: Any, prefix: str = "") -> Iterator[Setting]:
    """Yield every setting of a configuration, nested ones by their dotted names."""
    for name, field in _fields(type(config)):
        value = getattr(config, name)
        if dataclasses.is_dataclass(value):
            yield from describe(value, f"{prefix}{name}.")
        else:
            about = " ".join((field.description or "").split())
            yield Setting(name=prefix + name, kind=_kind(field.annotation, field.metadata), value=value, about=about)


def adjust(config: C, changes: Mapping[str, Any], *, within: str = "") -> C:
    """A copy with some settings changed; they are checked together, so their order does not matter.

    Args:
        config: A configuration with nested ones.
        changes: Dotted name -> value.
        within: What the names stand below, for messages.

    Raises:
        ConfigError: There is no such setting, or the value does not fit it or the other settings.
    """
    names = [name for name, _ in _fields(type(config))]
    values: dict[str, Any] = {}
    inner: dict[str, dict[str, Any]] = {}
    for name, value in changes.items():
        first, _, rest = name.partition(".")
        if first not in names:
            near = difflib.get_close_matches(first, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(names)}"
            raise ConfigError(f"there is no setting {within + name!r}: {hint}")
        if not rest:
            values[first] = value
        elif dataclasses.is_dataclass(getattr(config, first)):
            inner.setdefault(first, {})[rest] = value
        else:
            raise ConfigError(f"there is no setting {within + name!r}: {within + first!r} has no settings of its own")
    for name, below in inner.items():
        values[name] = adjust(values.get(name, getattr(config, name)), below, within=f"{within}{name}.")
    try:
        return dataclasses.replace(config, **values)  # type: ignore[type-var]
    except ConfigError as error:
        if any(str(error).startswith(f"{name}=") for name in names):
            raise ConfigError(f"{within}{error}") from None
        raise


def parse(assignment: str) -> tuple[str, Any]:
    """`name=value`, as it is written on a command line, as a dotted name and a value.

    Raises:
        ConfigError: It has no `=`.
    """
    name, separator, text = assignment.partition("=")
    if not separator:
        raise ConfigError(f"{assignment!r} is not a setting: write name=value, such as stitch.pairs=paper")
    try:
        return name, ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return name, text


def to_dict(config: Any) -> dict[str, Any]:
    """Nested plain values, fit for JSON."""
    return dataclasses.asdict(config)


def from_dict(cls: type[C], values: Mapping[str, Any]) -> C:
    """The configuration that `to_dict` wrote.

    Raises:
        ConfigError: The values are those of another version or class.
    """
    try:
        return TypeAdapter(cls).validate_python(dict(values))
    except ValidationError as error:
        raise _named(error) from None


def key(*parts: Any) -> str:
    """Short hex digest of configs and plain values: what a cache entry depends on."""
    plain = [to_dict(part) if dataclasses.is_dataclass(part) else part for part in parts]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]


def _fields(cls: type) -> list[tuple[str, FieldInfo]]:
    """Names and descriptions.

    Raises:
        ConfigError: The class is not decorated with `settings`.
    """
    if "__pydantic_fields__" not in vars(cls):
        raise ConfigError(f"{cls.__name__} has no settings: decorate the class with minari_stitch.settings")
    return list(cls.__pydantic_fields__.items())  # type: ignore[attr-defined]


def _plain(value: Any) -> Any:
    """NumPy's scalars as Python's, which pydantic takes for nothing else."""
    return value.item() if isinstance(value, np.generic) else value


def _named(error: ValidationError, depth: int | None = None) -> StitchError:
    """The first thing that is wrong, in our words; its name up to a depth."""
    first = error.errors()[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, StitchError):  # of settings that do not fit together
        return cause
    name = ".".join(map(str, first["loc"][:depth]))
    if first["type"] == "unexpected_keyword_argument":
        return ConfigError(f"there is no setting {name!r}: check its name, or leave it out")
    if first["type"] == "unexpected_positional_argument":
        return ConfigError(f"{first['input']!r} is one argument too many: give it by its name")
    if first["type"].startswith("missing"):
        return ConfigError(f"{name} is missing: it has no default")
    return ConfigError(f"{name}={first['input']!r} is not possible: {first['msg'].replace('Input', 'it', 1)}")


def _kind(annotation: Any, metadata: list[Any]) -> str:
    """A field's type in words."""
    bounds = [
        f"{sign} {bound:g}"
        for part in metadata
        for name, sign in _BOUNDS.items()
        if (bound := getattr(part, name, None)) is not None and bound < _MOST
    ]
    if get_origin(annotation) is Annotated:
        annotation, *inner = get_args(annotation)
        return _kind(annotation, [part for extra in inner for part in getattr(extra, "metadata", [extra])])
    if get_origin(annotation) is Literal:
        return " | ".join(map(str, get_args(annotation)))
    if get_origin(annotation) is None:
        name = getattr(annotation, "__name__", str(annotation)).replace("NoneType", "None")
        return f"{name} {', '.join(bounds)}".strip()
    if get_origin(annotation) is tuple:
        return "tuple of " + _kind(get_args(annotation)[0], [])
    return " | ".join(_kind(part, []) for part in get_args(annotation))
