import dataclasses
import json
import re

import pytest

from minari_stitch.config import adjust, from_dict, key, to_dict
from minari_stitch.diffstitch.config import DiffusionConfig, ModelConfig, QualifyConfig, StitchConfig
from minari_stitch.diffstitch.transform import DiffStitch
from minari_stitch.errors import ConfigError, StitchError
from minari_stitch.learn.loop import FitConfig

FIT = {"steps": 10, "batch_size": 4, "learning_rate": 1e-3}


@pytest.mark.parametrize(
    ("kind", "values", "remedy"),
    [
        (FitConfig, FIT | {"steps": 0}, "greater than or equal to 1"),
        (FitConfig, FIT | {"batch_size": 0}, "greater than or equal to 1"),
        (FitConfig, FIT | {"warmup": 0}, "greater than or equal to 1"),
        (FitConfig, FIT | {"evaluate_every": -3}, "greater than or equal to 1"),
        (FitConfig, FIT | {"patience": 0}, "greater than or equal to 1"),
        (FitConfig, FIT | {"learning_rate": 0.0}, "greater than 0"),
        (FitConfig, FIT | {"ema": 1.0}, "less than 1"),
        (DiffusionConfig, {"horizon": 30}, "use 28 or 32"),
        (DiffusionConfig, {"horizon": 50, "multipliers": (1, 2, 4, 8)}, "4 levels needs a multiple of 8; use 48 or 56"),
        (DiffusionConfig, {"horizon": 4, "context": 3}, "at least 6"),
        (DiffusionConfig, {"context": 0}, "greater than or equal to 1"),
        (DiffusionConfig, {"diffusion_steps": 1}, "greater than or equal to 2"),
        (DiffusionConfig, {"kernel": 4}, "odd"),
        (DiffusionConfig, {"return_dropout": 1.0}, "less than 1"),
        (ModelConfig, {"judges": 0}, "greater than or equal to 1"),
        (ModelConfig, {"judges": 5}, "1 to members=4"),
        (StitchConfig, {"source_fraction": 0.0}, "greater than 0"),
        (StitchConfig, {"target_fraction": 1.5}, "less than or equal to 1"),
        (StitchConfig, {"pool": 0}, "greater than or equal to 1"),
        (StitchConfig, {"min_bridge": 0}, "greater than or equal to 1"),
        (StitchConfig, {"sampler_steps": 0}, "greater than or equal to 1"),
        (StitchConfig, {"draws": 0}, "greater than or equal to 1"),
        (StitchConfig, {"chunk": 0}, "greater than or equal to 1"),
        (StitchConfig, {"repair_steps": -1}, "greater than or equal to 0"),
        (StitchConfig, {"max_bridge": 3}, "min_bridge"),
        (StitchConfig, {"discount": 0.0}, "greater than 0"),
        (StitchConfig, {"discount": 1.01}, "less than or equal to 1"),
        (StitchConfig, {"temperature": 0.0}, "greater than 0"),
        (QualifyConfig, {"delta": 0.0}, "greater than 0"),
        (QualifyConfig, {"delta": -1.0}, "greater than 0"),
        (QualifyConfig, {"termination": 0.0}, "greater than 0"),
        (QualifyConfig, {"delta": float("nan")}, "finite number"),
        (DiffusionConfig, {"multipliers": ()}, "at least 1 item"),
        (DiffusionConfig, {"width": 7}, "multiple of 2"),
    ],
)
def test_an_impossible_value_is_named_with_its_remedy(kind, values, remedy):
    name = next(name for name in values if values[name] != FIT.get(name))
    with pytest.raises(ConfigError, match=rf"{name}={re.escape(repr(values[name]))} is not possible: .*{remedy}"):
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
    assert from_dict(ModelConfig, values) == config != ModelConfig()


def test_a_key_sees_each_setting_and_nothing_else():
    base = StitchConfig()
    assert key(base, "cpu", 3) == key(StitchConfig(), "cpu", 3)
    changes = {"pairs": "paper", "similarity": "cosine", "min_similarity": 0.5, "fixed_steps": 7}
    changes |= {"steps_left": 3, "latest_source": 10, "rising": True, "nearest": 0.5, "imitation": 0.5}
    for field in dataclasses.fields(base):
        value = getattr(base, field.name)
        if field.name not in changes:
            bigger = value + 1 if isinstance(value, int) else value * 0.5 + 0.25
            changes[field.name] = not value if isinstance(value, bool) else bigger
    base = dataclasses.replace(base, pairs="connect")  # of which alone there are chains
    changed = [dataclasses.replace(base, **{name: value}) for name, value in changes.items()]
    parts = [(base, "cpu", 3), (base, "cuda", 3), (base, "cpu", 4), ("cpu", base, 3), *((c,) for c in changed)]
    parts += [(ModelConfig(),), (ModelConfig(reward=FitConfig(**FIT)),)]
    assert len(changed) == len(dataclasses.fields(base))
    assert len({key(*part) for part in parts}) == len(parts)
    assert all(len(key(*part)) == 12 for part in parts)


def test_actions_near_a_behaviour_that_nobody_clones_are_refused_with_both_remedies():
    method = DiffStitch.preset("fast")
    with pytest.raises(ConfigError, match=r"stitch.imitation=0.03 .* models.behaviour=None: set stitch.imitation=0"):
        adjust(method, {"models.behaviour": None, "stitch.imitation": 0.03})
    for others in ({}, {"stitch.imitation": 0.0}, {"stitch.imitation": 0.03, "stitch.repair_steps": 0}):
        assert adjust(method, {"models.behaviour": None, **others}).models.behaviour is None
