import dataclasses
import json

import pytest
from pydantic import TypeAdapter

from minari_stitch.config import DiffusionConfig, FitConfig, ModelConfig, QualifyConfig, StitchConfig, key, to_dict
from minari_stitch.errors import ConfigError, StitchError

FIT = {"steps": 10, "batch_size": 4, "learning_rate": 1e-3}


@pytest.mark.parametrize(
    ("kind", "values", "remedy"),
    [
        (FitConfig, FIT | {"steps": 0}, "at least 1"),
        (FitConfig, FIT | {"batch_size": 0}, "at least 1"),
        (FitConfig, FIT | {"warmup": 0}, "at least 1"),
        (FitConfig, FIT | {"evaluate_every": -3}, "at least 1"),
        (FitConfig, FIT | {"patience": 0}, "at least 1"),
        (FitConfig, FIT | {"learning_rate": 0.0}, "positive"),
        (FitConfig, FIT | {"ema": 1.0}, r"\[0, 1\)"),
        (DiffusionConfig, {"horizon": 30}, "use 28 or 32"),
        (DiffusionConfig, {"horizon": 50, "multipliers": (1, 2, 4, 8)}, "4 levels needs a multiple of 8: use 48 or 56"),
        (DiffusionConfig, {"horizon": 4, "context": 3}, "at least 6"),
        (DiffusionConfig, {"context": 0}, "start state"),
        (DiffusionConfig, {"diffusion_steps": 1}, "at least 2"),
        (DiffusionConfig, {"kernel": 4}, "odd"),
        (DiffusionConfig, {"return_dropout": 1.0}, r"\[0, 1\)"),
        (ModelConfig, {"judges": 0}, "1 to members - 1 = 3"),
        (ModelConfig, {"judges": 4}, "1 to members - 1 = 3"),
        (StitchConfig, {"source_fraction": 0.0}, r"\(0, 1\]"),
        (StitchConfig, {"target_fraction": 1.5}, r"\(0, 1\]"),
        (StitchConfig, {"pool": 0}, "at least 1"),
        (StitchConfig, {"min_bridge": 0}, "at least 1"),
        (StitchConfig, {"sampler_steps": 0}, "at least 1"),
        (StitchConfig, {"draws": 0}, "at least 1"),
        (StitchConfig, {"chunk": 0}, "at least 1"),
        (StitchConfig, {"repair_steps": -1}, "0 or more"),
        (StitchConfig, {"max_bridge": 3}, "min_bridge"),
        (StitchConfig, {"discount": 0.0}, r"\(0, 1\]"),
        (StitchConfig, {"discount": 1.01}, r"\(0, 1\]"),
        (StitchConfig, {"temperature": 0.0}, "positive"),
        (QualifyConfig, {"delta": 0.0}, "positive"),
        (QualifyConfig, {"delta": -1.0}, "positive"),
        (QualifyConfig, {"termination": 0.0}, r"\(0, 1\]"),
    ],
)
def test_an_impossible_value_is_named_with_its_remedy(kind, values, remedy):
    name = next(name for name in values if values[name] != FIT.get(name))
    with pytest.raises(
        ConfigError, match=rf"{name}={values[name]!r} is not possible: .*{remedy}".replace("(", r"\(", 0)
    ):
        kind(**values)
    assert issubclass(ConfigError, StitchError)


@pytest.mark.parametrize("kind", [DiffusionConfig, ModelConfig, StitchConfig, QualifyConfig])
def test_the_defaults_are_possible_frozen_and_keyword_only(kind):
    config = kind()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.anything = 1
    with pytest.raises(TypeError, match="positional"):
        kind(1)
    assert config == kind() and hash(config) == hash(kind())


@pytest.mark.parametrize(
    "values",
    [
        {"horizon": 10, "multipliers": (1, 2)},
        {"horizon": 7, "multipliers": (1,), "context": 4},
        {"kernel": 1},
        {"return_dropout": 0.0},
    ],
)
def test_the_edges_are_possible(values):
    DiffusionConfig(**values)


def test_a_fixed_length_is_both_the_shortest_and_the_longest():
    assert (StitchConfig().shortest, StitchConfig().longest) == (4, 24)
    fixed = StitchConfig(fixed_steps=40)
    assert (fixed.shortest, fixed.longest) == (40, 40)


def test_settings_are_the_same_on_disk_as_in_memory():
    config = ModelConfig(diffusion=DiffusionConfig(multipliers=(1, 4), horizon=10), judges=1, hidden=64)
    values = json.loads(json.dumps(to_dict(config)))
    assert TypeAdapter(ModelConfig).validate_python(values) == config != ModelConfig()


def test_a_key_sees_each_setting_and_nothing_else():
    base = StitchConfig()
    assert key(base, "cpu", 3) == key(StitchConfig(), "cpu", 3)
    changes = {"pairs": "paper", "similarity": "cosine", "min_similarity": 0.5, "fixed_steps": 7}
    for field in dataclasses.fields(base):
        value = getattr(base, field.name)
        if field.name not in changes:
            changes[field.name] = value + 1 if isinstance(value, int) else value * 0.5 + 0.25
    changed = [dataclasses.replace(base, **{name: value}) for name, value in changes.items()]
    parts = [(base, "cpu", 3), (base, "cuda", 3), (base, "cpu", 4), ("cpu", base, 3), *((c,) for c in changed)]
    parts += [(ModelConfig(),), (ModelConfig(reward=FitConfig(**FIT)),)]
    assert len(changed) == len(dataclasses.fields(base))
    assert len({key(*part) for part in parts}) == len(parts)
    assert all(len(key(*part)) == 12 for part in parts)
