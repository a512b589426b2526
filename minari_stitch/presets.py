"""Methods by name, their named settings, and how to change any one of them by its dotted name."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import typing
from dataclasses import replace
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from minari_stitch.baselines.controls import Real, Resample
from minari_stitch.baselines.synther import SynthER
from minari_stitch.baselines.tatu import Tatu
from minari_stitch.config import DiffusionConfig, FitConfig, ModelConfig, StitchConfig
from minari_stitch.diffstitch.transform import DiffStitch
from minari_stitch.errors import ConfigError
from minari_stitch.transform import Transform

C = TypeVar("C")
_Change = tuple[list[str], Any, str]  # path, value, full name
PresetName = Literal["fast", "full", "paper"]
MethodName = Literal["diffstitch", "synther", "tatu", "resample", "real"]
METHODS: dict[MethodName, type] = {
    "diffstitch": DiffStitch,
    "synther": SynthER,
    "tatu": Tatu,
    "resample": Resample,
    "real": Real,
}


def method(name: MethodName, size: PresetName) -> Transform:
    """Any method at a size; the controls have but one.

    Args:
        name: One of `METHODS`.
        size: See `preset`; `paper` is the size of the method's own paper.
    """
    if name == "diffstitch":
        return preset(size)
    if size == "fast" or name in ("resample", "real"):
        return METHODS[name]()
    judges = preset("full").models
    if name == "synther":
        return SynthER(
            hidden=1024,
            blocks=6,
            sampler_steps=128,
            train=FitConfig(steps=100_000, batch_size=1024, learning_rate=3e-4, ema=0.999, evaluate_every=1000),
            models=judges,
            chunk=65_536,
        )
    fit = FitConfig(steps=100_000, batch_size=256, learning_rate=1e-3, evaluate_every=1000)
    return Tatu(ensemble=fit, policy=fit, models=judges, chunk=65_536)


def preset(name: PresetName) -> DiffStitch:
    """DiffStitch at a size.

    Args:
        name: `fast` takes minutes on two CPU cores. `full` is for a GPU: longer windows, larger networks, more
            draws. `paper` is the paper's method (section 5.1) with the sizes of the released code: H = 100,
            K = 100 ancestral steps, noise prediction, random pairs, cosine similarity, one draw, no repair.

    Returns:
        The transform.
    """
    match name:
        case "fast":
            return DiffStitch()
        case "full":
            fits = {
                network: FitConfig(steps=30_000, batch_size=1024, learning_rate=1e-3, evaluate_every=1000)
                for network in ("dynamics", "inverse", "reward", "termination")
            }
            diffusion = DiffusionConfig(
                horizon=64,
                width=64,
                fit=FitConfig(steps=100_000, batch_size=256, learning_rate=5e-4, ema=0.999, evaluate_every=1000),
            )
            return DiffStitch(
                models=ModelConfig(diffusion=diffusion, hidden=512, members=7, judges=4, **fits),
                stitch=StitchConfig(max_bridge=48, pool=16384, sampler_steps=20, draws=4, chunk=512),
            )
        case "paper":
            fit = FitConfig(steps=100_000, batch_size=256, learning_rate=3e-4, evaluate_every=1000)
            diffusion = DiffusionConfig(
                horizon=100,
                parametrisation="eps",
                mask="paper",
                width=128,
                multipliers=(1, 4, 8),
                fit=FitConfig(steps=1_000_000, batch_size=64, learning_rate=2e-4, evaluate_every=10_000, patience=100),
            )
            return DiffStitch(
                models=ModelConfig(
                    diffusion=diffusion,
                    members=7,
                    judges=5,
                    dynamics=fit,
                    inverse=fit,
                    reward=fit,
                    termination=fit,
                ),
                stitch=StitchConfig(
                    pairs="paper",
                    similarity="cosine",
                    source_fraction=0.5,
                    target_fraction=0.5,
                    min_bridge=1,
                    max_bridge=98,
                    sampler_steps=100,
                    eta=1.0,
                    draws=1,
                    repair_steps=0,
                ),
            )


def from_dict(values: dict[str, Any]) -> DiffStitch:
    """The transform whose settings a dataset's metadata hold."""
    return TypeAdapter(DiffStitch).validate_python(values)


def override(config: C, *assignments: str) -> C:
    """A copy with some settings changed; they are checked together, so their order does not matter.

    Args:
        config: A configuration with nested ones.
        assignments: `dotted.name=value`, such as `models.diffusion.width=64` or `stitch.pairs=paper`; of two for
            the same setting the later counts.

    Raises:
        ConfigError: There is no such setting, or the value does not fit it or the other settings.
    """
    return _replace(config, [_parse(assignment) for assignment in assignments])


def _parse(assignment: str) -> _Change:
    name, separator, text = assignment.partition("=")
    if not separator:
        raise ConfigError(f"{assignment!r} is not a setting: write name=value, such as stitch.pairs=paper")
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    return name.split("."), value, name


def _replace(config: Any, changes: list[_Change]) -> Any:
    hints: dict[str, Any] = typing.get_type_hints(type(config)) if dataclasses.is_dataclass(config) else {}
    names = [field.name for field in dataclasses.fields(config)] if hints else []
    values: dict[str, Any] = {}
    inner: dict[str, list[_Change]] = {}
    for path, value, name in changes:
        if not names:
            parent = name.removesuffix("." + ".".join(path))
            raise ConfigError(f"there is no setting {name!r}: {parent!r} has no settings of its own")
        if path[0] not in names:
            near = difflib.get_close_matches(path[0], names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(names)}"
            raise ConfigError(f"there is no setting {name!r}: {hint}")
        if len(path) > 1:
            inner.setdefault(path[0], []).append((path[1:], value, name))
            continue
        try:
            values[path[0]] = TypeAdapter(hints[path[0]]).validate_python(value)
        except ValidationError as error:
            raise ConfigError(f"{name}={value!r} is not possible: {error.errors()[0]['msg']}") from None
        inner.pop(path[0], None)
    for key, below in inner.items():
        values[key] = _replace(values.get(key, getattr(config, key)), below)
    change: Any = replace
    return change(config, **values)
