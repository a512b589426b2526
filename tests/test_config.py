import dataclasses
import json
import typing

import pytest

from minari_stitch.baselines.controls import Real, Resample
from minari_stitch.baselines.synther import SynthER
from minari_stitch.baselines.tatu import TATU
from minari_stitch.config import Count, adjust, describe, from_dict, parse, settings, to_dict
from minari_stitch.diffstitch.config import DiffusionConfig, ModelConfig, StitchConfig
from minari_stitch.diffstitch.transform import DiffStitch
from minari_stitch.errors import ConfigError
from minari_stitch.transforms import registry
from minari_stitch.transforms.base import Size

NAMES = typing.get_args(Size)
METHODS = {name: registry.transform_class(name) for name in registry.found()}


@pytest.mark.parametrize("size", NAMES)
@pytest.mark.parametrize("name", METHODS)
def test_a_preset_survives_the_metadata_of_a_dataset(name, size):
    transform = registry.preset(name, size)
    record = {"method": transform.name, "config": json.loads(json.dumps(to_dict(transform)))}
    assert registry.from_record(record) == transform


def test_the_fast_preset_is_the_default():
    assert DiffStitch.preset("fast") == DiffStitch()


def test_the_paper_preset_is_the_method_of_the_paper():
    transform = DiffStitch.preset("paper")
    diffusion, stitch = transform.models.diffusion, transform.stitch
    # Section 5.1 and appendix A.
    assert (diffusion.horizon, diffusion.diffusion_steps, diffusion.context) == (100, 100, 1)
    assert (diffusion.parametrisation, diffusion.mask, diffusion.edge_weight) == ("eps", "paper", 1.0)
    assert (stitch.pairs, stitch.similarity, stitch.min_similarity) == ("paper", "cosine", None)
    # The ancestral sampler, one draw, nothing after it.
    assert (stitch.sampler_steps, stitch.eta, stitch.temperature, stitch.guidance) == (100, 1.0, 1.0, 0.0)
    assert (stitch.draws, stitch.repair_steps) == (1, 0)
    # Eqs. 4, 9 and 10 as they stand, with one dynamics network.
    assert stitch.literal_delta and (transform.models.members, transform.models.judges) == (1, 1)
    qualify = transform.qualify
    assert (qualify.termination, qualify.doubt, qualify.better) == (1, "error", False)
    # From one generated state to a window that holds nothing else between its two ends.
    assert (stitch.shortest, stitch.longest) == (1, 100 - 2)
    assert transform.qualify.delta == 2.0


def test_every_method_has_every_size_and_a_name_of_its_own():
    assert list(METHODS) == ["diffstitch", "real", "relabel", "resample", "synther", "tatu"]
    for cls in METHODS.values():
        assert cls.preset("fast") == cls() and cls.preset("full").gamma == 0.99
        with pytest.raises(ConfigError, match="no preset 'huge': choose one of fast, full, paper"):
            cls.preset("huge")
    assert Resample.preset("paper") == Resample() and Real.preset("full") == Real()
    assert {cls.name for cls in METHODS.values()} == {"DiffStitch", "SER", "TATU", "resample", "relabel", "real"}
    assert len({cls.suffix for cls in METHODS.values()}) == 6


def test_the_paper_sizes_of_the_baselines_are_those_of_their_papers():
    ser, tatu = SynthER.preset("paper"), TATU.preset("paper")
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
    before = DiffStitch.preset("fast")
    after = adjust(before, dict([parse(assignment)]))
    assert before == DiffStitch.preset("fast")
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
        ("stitch.pairs=random", r"pairs='random' is not possible: it should be 'reach', 'paper', "),
        ("models.diffusion.width=wide", r"width='wide' is not possible: it should be a valid int"),
        ("models.diffusion.width=6.5", r"width=6.5 is not possible: "),
        ("models=3", r"models=3 is not possible: "),
        ("qualify.delta=0", r"delta=0 is not possible: it should be greater than 0"),
        ("models.diffusion.horizon=30", r"horizon=30 is not possible: .* use 28 or 32"),
        ("=3", r"there is no setting ''"),
    ],
)
def test_a_wrong_setting_is_named_with_the_way_out(assignment, message):
    with pytest.raises(ConfigError, match=message):
        adjust(DiffStitch(), dict([parse(assignment)]))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stitch": StitchConfig(max_bridge=31)}, "bridge of 31 states .* horizon=32 with context=1 .* room for 30"),
        ({"stitch": StitchConfig(fixed_steps=31)}, "bridge of 31 states"),
        ({"models": ModelConfig(diffusion=DiffusionConfig(context=8))}, "bridge of 24 states .* room for 23"),
        ({"stitch": StitchConfig(guidance=1.2)}, r"guidance=1.2 .* set return_dropout=0.25"),
        ({"stitch": StitchConfig(sampler_steps=101)}, "sampler_steps=101 .* diffusion_steps=100"),
        ({"models": ModelConfig(judges=4)}, "judges=4 .* members=4 .* more members or fewer judges"),
        (
            {"models": ModelConfig(judges=4), "stitch": StitchConfig(repair_steps=0, draws=2)},
            "judges=4 .* members=4",
        ),
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


def test_all_networks_may_judge_where_none_repairs():
    paper = DiffStitch(models=ModelConfig(members=1, judges=1), stitch=StitchConfig(repair_steps=0))
    assert paper.models.judges == 1


@pytest.mark.parametrize("name", METHODS)
def test_every_setting_is_listed_documented_and_can_be_set_to_its_value(name):
    transform = registry.preset(name, "fast")
    rows = list(describe(transform))
    assert all(row.about and row.kind for row in rows)
    assert len({row.name for row in rows}) == len(rows)
    for row in rows:
        assert adjust(transform, dict([parse(f"{row.name}={row.value}")])) == transform


def test_the_words_for_what_a_setting_takes():
    kinds = {row.name: row.kind for row in describe(DiffStitch())}
    assert kinds["stitch.pairs"] == "reach | paper | reference | connect"
    assert kinds["stitch.fixed_steps"] == "int >= 1 | None"
    assert kinds["stitch.source_fraction"] == "float > 0, <= 1"
    assert kinds["models.diffusion.multipliers"] == "tuple of int >= 1"
    assert kinds["qualify.better"] == "bool"
    assert kinds["qualify.doubt"] == "calibrated | judges | error"


@settings
class Pair:
    """Two."""

    left: Count = 1
    """One."""
    right: Count = 2
    """The other."""


def test_settings_are_frozen_keyword_only_and_named_when_wrong():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Pair().left = 3  # pyright: ignore
    with pytest.raises(TypeError, match="positional"):
        Pair(1)
    with pytest.raises(ConfigError, match="there is no setting 'middle'"):
        Pair(middle=1)
    with pytest.raises(ConfigError, match="left='x' is not possible: it should be a valid integer"):
        Pair(left="x")
    with pytest.raises(ConfigError, match="right=0 is not possible"):
        from_dict(Pair, {"left": 1, "right": 0})
    assert hash(Pair()) == hash(Pair()) and Pair() == from_dict(Pair, {"left": 1})


def test_settings_of_an_unknown_method_are_named():
    with pytest.raises(ConfigError, match="'magic' of this dataset is not installed: there are diffstitch"):
        registry.from_record({"method": "magic", "config": {}})
