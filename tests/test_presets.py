import dataclasses
import json
import typing

import pytest

from minari_stitch.baselines.controls import Real, Resample
from minari_stitch.baselines.synther import SynthER
from minari_stitch.baselines.tatu import Tatu
from minari_stitch.config import DiffusionConfig, ModelConfig, StitchConfig, to_dict
from minari_stitch.diffstitch.transform import DiffStitch
from minari_stitch.errors import ConfigError
from minari_stitch.presets import METHODS, MethodName, PresetName, from_dict, method, override, preset

NAMES = typing.get_args(PresetName)


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_survives_the_metadata_of_a_dataset(name):
    transform = preset(name)
    assert isinstance(transform, DiffStitch)
    assert from_dict(json.loads(json.dumps(to_dict(transform)))) == transform


def test_the_fast_preset_is_the_default():
    assert preset("fast") == DiffStitch()


def test_the_paper_preset_is_the_method_of_the_paper():
    transform = preset("paper")
    diffusion, stitch = transform.models.diffusion, transform.stitch
    # Section 5.1 and appendix A.
    assert (diffusion.horizon, diffusion.diffusion_steps, diffusion.context) == (100, 100, 1)
    assert (diffusion.parametrisation, diffusion.mask, diffusion.edge_weight) == ("eps", "paper", 1.0)
    assert (stitch.pairs, stitch.similarity, stitch.min_similarity) == ("paper", "cosine", None)
    # The ancestral sampler, one draw, nothing after it.
    assert (stitch.sampler_steps, stitch.eta, stitch.temperature, stitch.guidance) == (100, 1.0, 1.0, 0.0)
    assert (stitch.draws, stitch.repair_steps) == (1, 0)
    # From one generated state to a window that holds nothing else between its two ends.
    assert (stitch.shortest, stitch.longest) == (1, 100 - 2)
    assert transform.qualify.delta == 2.0


@pytest.mark.parametrize("size", NAMES)
@pytest.mark.parametrize("name", typing.get_args(MethodName))
def test_every_method_has_every_size(name, size):
    transform = method(name, size)
    assert type(transform) is METHODS[name]
    assert json.loads(json.dumps(to_dict(transform)))["discount" if name != "diffstitch" else "stitch"]
    assert transform.discount == 0.99
    assert method("diffstitch", size) == preset(size)
    if size == "fast":
        assert transform == METHODS[name]()


def test_names_and_suffixes_tell_methods_apart():
    assert METHODS.keys() == set(typing.get_args(MethodName))
    transforms = [method(name, "fast") for name in METHODS]
    assert [transform.name for transform in transforms] == ["DiffStitch", "SER", "TATU", "resample", "real"]
    assert len({transform.suffix for transform in transforms}) == 5
    assert method("resample", "paper") == Resample() and method("real", "full") == Real()


def test_the_paper_sizes_of_the_baselines_are_those_of_their_papers():
    ser, tatu = method("synther", "paper"), method("tatu", "paper")
    assert isinstance(ser, SynthER) and isinstance(tatu, Tatu)
    # Lu et al., table 5: six residual blocks of 1024, 128 steps, 100k gradient steps at 3e-4.
    assert (ser.hidden, ser.blocks, ser.sampler_steps, ser.whitening) == (1024, 6, 128, "columns")
    assert (ser.train.steps, ser.train.learning_rate) == (100_000, 3e-4)
    assert (ser.noise.smallest, ser.noise.largest, ser.noise.rho) == (0.002, 80.0, 7.0)
    assert (ser.noise.log_mean, ser.noise.log_std) == (-1.2, 1.2)
    # Zhang et al., appendix: seven networks, five of which predict, four layers of 200, rollouts of five.
    assert (tatu.members, tatu.elites, tatu.hidden, tatu.horizon) == (7, 5, 200, 5)


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("models.diffusion.width=64", ("models", "diffusion", "width"), 64),
        ("models.diffusion.fit.learning_rate=0.01", ("models", "diffusion", "fit", "learning_rate"), 0.01),
        ("models.diffusion.multipliers=(1, 4, 8)", ("models", "diffusion", "multipliers"), (1, 4, 8)),
        ("models.diffusion.multipliers=[1,2]", ("models", "diffusion", "multipliers"), (1, 2)),
        ("stitch.pairs=paper", ("stitch", "pairs"), "paper"),
        ("stitch.pairs='paper'", ("stitch", "pairs"), "paper"),
        ("stitch.eta=1", ("stitch", "eta"), 1.0),
        ("stitch.min_similarity=0.8", ("stitch", "min_similarity"), 0.8),
        ("stitch.fixed_steps=None", ("stitch", "fixed_steps"), None),
        ("qualify.delta=4", ("qualify", "delta"), 4.0),
        ("form=bridge", ("form",), "bridge"),
    ],
)
def test_one_setting_changes_and_the_others_stay(assignment, path, value):
    before = preset("fast")
    after = override(before, assignment)
    assert before == preset("fast")
    expected = json.loads(json.dumps(to_dict(before)))
    node = expected
    for name in path[:-1]:
        node = node[name]
    node[path[-1]] = list(value) if isinstance(value, tuple) else value
    assert json.loads(json.dumps(to_dict(after))) == expected
    found = after
    for name in path:
        found = getattr(found, name)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("stitch.pairs", r"'stitch.pairs' is not a setting: write name=value"),
        ("stitch.pars=paper", r"there is no setting 'stitch.pars': did you mean 'pairs'\?"),
        ("stich.pairs=paper", r"there is no setting 'stich.pairs': did you mean 'stitch'\?"),
        ("models.diffusion.zzz=1", r"there is no setting 'models.diffusion.zzz': choose one of horizon, context, "),
        (
            "models.hidden.size=1",
            r"there is no setting 'models.hidden.size': 'models.hidden' has no settings of its own",
        ),
        ("stitch.pairs=random", r"stitch.pairs='random' is not possible: Input should be 'reach', 'paper' or "),
        ("models.diffusion.width=wide", r"models.diffusion.width='wide' is not possible: Input should be a valid int"),
        ("models.diffusion.width=6.5", r"models.diffusion.width=6.5 is not possible: "),
        ("models=3", r"models=3 is not possible: "),
        ("qualify.delta=0", r"delta=0.0 is not possible: use a positive squared distance"),
        ("models.diffusion.horizon=30", r"horizon=30 is not possible: .* use 28 or 32"),
        ("=3", r"there is no setting ''"),
    ],
)
def test_a_wrong_setting_is_named_with_the_way_out(assignment, message):
    with pytest.raises(ConfigError, match=message):
        override(preset("fast"), assignment)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stitch": StitchConfig(max_bridge=31)}, "bridge of 31 states .* horizon=32 with context=1 .* room for 30"),
        ({"stitch": StitchConfig(fixed_steps=31)}, "bridge of 31 states"),
        ({"models": ModelConfig(diffusion=DiffusionConfig(context=8))}, "bridge of 24 states .* room for 23"),
        ({"stitch": StitchConfig(guidance=1.2)}, r"guidance=1.2 .* set return_dropout=0.25"),
        ({"stitch": StitchConfig(sampler_steps=101)}, "sampler_steps=101 .* diffusion_steps=100"),
    ],
)
def test_settings_have_to_fit_together(values, message):
    with pytest.raises(ConfigError, match=message):
        DiffStitch(**values)
    assert issubclass(ConfigError, ValueError)


def test_the_longest_bridge_that_fits_is_accepted():
    longest = StitchConfig(max_bridge=30)
    assert DiffStitch(stitch=longest).stitch.longest == 30
    assert dataclasses.is_dataclass(DiffStitch)
