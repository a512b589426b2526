"""`import minari_stitch as ms`: what a script sees."""

import doctest
import inspect
import math
import os
import pydoc
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version

import minari
import numpy as np
import pytest
import toy

import minari_stitch as ms
from minari_stitch.config import adjust, parse
from minari_stitch.data import minari_io
from minari_stitch.errors import (
    ConfigError,
    DatasetIdError,
    DatasetNotFoundError,
    InvalidDataError,
    StitchError,
    StorageError,
)

TINY = adjust(ms.DiffStitch(), dict(map(parse, toy.TINY[1::2])))
FUNCTIONS = [name for name in ms.__all__ if inspect.isfunction(getattr(ms, name))]


def made(**kwargs):
    return ms.augment(toy.ID, TINY, **{"delta": toy.DELTA, "progress": False, **kwargs})


# What there is


def test_everything_public_is_there_and_documented():
    assert len(set(ms.__all__)) == len(ms.__all__)
    assert set(dir(ms)) == {*ms.__all__, "__version__"}
    for name in ms.__all__:
        assert getattr(ms, name) is getattr(ms, name) and len(inspect.getdoc(getattr(ms, name))) > 20, name
    with pytest.raises(AttributeError, match="no attribute 'stitch_everything'"):
        ms.stitch_everything  # noqa: B018
    assert ms.__version__ == version("minari-stitch")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_say_what_they_take_give_and_raise(name):
    text, parameters = inspect.getdoc(getattr(ms, name)), inspect.signature(getattr(ms, name)).parameters
    for parameter in parameters:
        assert f"\n    {parameter}: " in text, parameter
    for section in ("Args:", "Returns:", "Raises:", "Example:"):
        assert f"\n{section}" in text, section


EXAMPLES = [name for name in ms.__all__ if ">>>" in (inspect.getdoc(getattr(ms, name)) or "")]


def test_what_one_calls_has_an_example():
    called = {"augment", "filter", "mix", "import_d4rl", "read", "DiffStitch", "SynthER", "TATU", "Resample", "Real"}
    assert called | {"import_ogbench", "export_ogbench", "Transform", "Augmented"} <= set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_run(name, stitched):
    examples = doctest.DocTestFinder(recurse=False).find(getattr(ms, name), name, globs={})
    runner = doctest.DocTestRunner(optionflags=doctest.IGNORE_EXCEPTION_DETAIL)
    assert [runner.run(example).failed for example in examples] == [0] * len(examples) != []


def test_help_reads_like_a_table_of_contents():
    text = pydoc.plain(pydoc.render_doc(ms))
    places = [text.index(word) for word in ("Datasets:", "Methods:", "Settings:", "Results:", "Errors:", "FUNCTIONS")]
    assert places == sorted(places)
    assert "augment(dataset" in text and "class DiffStitch" in text


def test_importing_it_costs_no_torch():
    code = "import sys, minari_stitch; sys.exit('torch' in sys.modules or 'minari' in sys.modules)"
    assert toy.run(sys.executable, "-c", code).returncode == 0


def test_it_is_a_command_too():
    done = toy.run(sys.executable, "-m", "minari_stitch", "--version")
    assert done.returncode == 0 and done.stdout.strip() == f"minari-stitch {ms.__version__}"


# What it does


def test_one_call_augments_and_opens(datasets_path):
    toy.write()
    result = made(n_steps=100)
    assert (result.dataset_id, result.path) == (toy.STITCHED, datasets_path / toy.STITCHED)
    assert result.report["accepted"] == result.n_episodes and result.n_steps >= 100
    opened = result.load()
    assert isinstance(opened, minari.MinariDataset) and opened.total_steps == result.n_steps
    strict = ms.filter(result, delta=toy.DELTA / 2)
    assert strict.dataset_id == "toy/walk-stitched-v1" and 0 < strict.n_episodes <= result.n_episodes
    assert ms.filter(opened, delta=toy.DELTA / 2).n_steps == strict.n_steps
    both = ms.mix([toy.ID, opened], "toy/both-v0", progress=False)
    assert both.n_steps == 360 + opened.total_steps


def test_the_command_line_and_the_call_write_the_same(stitched):
    other = made(output_id="toy/called-v0", threads=1)
    assert minari_io.read(other.dataset_id).fingerprint == minari_io.read(toy.STITCHED).fingerprint
    assert other.report == stitched["report"]


def test_keywords_reach_their_settings_as_values(datasets_path):
    toy.write()
    result = made(delta=7.25, form="bridge", pairs="paper", n_steps=50, seed=3)
    record = minari_io.read(result.dataset_id).metadata["minari_stitch"]
    config = record["config"]
    assert (config["qualify"]["delta"], config["form"], config["stitch"]["pairs"]) == (7.25, "bridge", "paper")
    assert (record["seed"], record["device"], record["precision"]) == (3, "cpu", "fp32")


def test_an_open_dataset_and_its_views_count():
    toy.write()
    dataset = minari.load_dataset(toy.ID)
    half = dataset.filter_episodes(lambda episode: episode.id < 6)
    assert ms.augment(dataset, ms.Resample(), n_steps=30, progress=False).dataset_id == "toy/walk-resampled-v0"
    result = ms.augment(half, ms.Resample(), n_steps=300, progress=False)
    sources = {
        about["source_episode"] for about in minari_io.read(result.dataset_id, keep_infos=True).episodes.metadata
    }
    assert sources and max(sources) < 6


def test_counts_are_those_of_what_is_written(stitched):
    """B13: pairs after the last episode that is written are not counted."""
    for n_steps in (1, 60, 200):
        result = made(n_steps=n_steps)
        episodes = minari_io.read(result.dataset_id, keep_infos=True).episodes
        assert result.report["accepted"] == result.n_episodes == len(episodes)
        assert result.report["proposed"] == sum(result.report[name] for name in OUTCOMES)
        assert episodes.n_steps - episodes.lengths[-1] < n_steps <= episodes.n_steps


OUTCOMES = ("accepted", "unreachable", "terminated", "inconsistent", "not_better")


# What is wrong is named as on the command line


class Unfinished(ms.Transform):
    """No settings, no fit."""


@pytest.mark.parametrize(
    ("args", "kwargs", "error", "message"),
    [
        ((3,), {}, ConfigError, "int.*give a Minari dataset id or a minari.MinariDataset"),
        ((None,), {}, ConfigError, "NoneType"),
        (("toy/walk",), {}, DatasetIdError, "has no version"),
        (("toy/absent-v0",), {}, DatasetNotFoundError, "toy/absent-v0"),
        ((toy.ID, ms.DiffStitch), {}, ConfigError, "the class DiffStitch: give an instance"),
        ((toy.ID, "diffstitch"), {}, ConfigError, "transform is a str: give an instance"),
        ((), {}, ConfigError, "dataset is missing"),
        ((toy.ID, TINY, 3), {}, ConfigError, "3 is one argument too many: give it by its name"),
        ((toy.ID, TINY), {"bogus": 3}, ConfigError, "there is no setting 'bogus'"),
        ((toy.ID, TINY), {"n_steps": 0}, ConfigError, "n_steps=0"),
        ((toy.ID, TINY), {"n_steps": 1.5}, ConfigError, "n_steps=1.5 .* valid integer"),
        ((toy.ID, TINY), {"seed": None}, ConfigError, "seed=None .* valid integer"),
        ((toy.ID, TINY), {"workers": "two"}, ConfigError, "workers='two' .* valid integer"),
        ((toy.ID, TINY), {"run_dir": 3}, ConfigError, "run_dir=3 is not possible"),
        ((toy.ID, TINY), {"device": "mps"}, ConfigError, "'mps' is not there: torch sees no MPS device"),
        ((toy.ID, TINY), {"device": "meta"}, ConfigError, "'meta' is not supported"),
        ((toy.ID, TINY), {"delta": math.nan}, ConfigError, "delta=nan.*finite"),
        ((toy.ID, TINY), {"delta": -1}, ConfigError, "qualify.delta=-1.*greater than 0"),
        ((toy.ID, TINY), {"form": "half"}, ConfigError, "form='half'.*'full', 'onward', 'bridge' or 'transitions'"),
        ((toy.ID, ms.Resample()), {"delta": 2}, ConfigError, "delta is not possible with resample"),
        ((toy.ID, TINY), {"workers": 10**6}, ConfigError, "workers=1000000.*use 1 to"),
        ((toy.ID, TINY), {"threads": 0}, ConfigError, "threads=0"),
        ((toy.ID, TINY), {"seed": -1}, ConfigError, "seed=-1"),
        ((toy.ID, TINY), {"device": "abacus"}, ConfigError, "'abacus' is not a torch device"),
        ((toy.ID, TINY), {"precision": "fp8"}, ConfigError, "precision='fp8'.*'fp32' or 'bf16'"),
        ((toy.ID, TINY), {"progress": 3}, ConfigError, "progress=3"),
        ((toy.ID, TINY), {"output_id": "nice"}, DatasetIdError, "nice-v0"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_input_is_named_before_any_work(datasets_path, args, kwargs, error, message):
    toy.write()
    with pytest.raises(error, match=message):
        ms.augment(*args, **{"progress": False, **kwargs})
    assert issubclass(error, StitchError) and issubclass(error, ValueError)
    assert not (datasets_path / ".stitch-runs").exists()


def test_numpy_scalars_and_torch_devices_are_taken_as_they_are_meant():
    import torch

    toy.write()
    seed, device = np.int64(3), torch.device("cpu")
    made = ms.augment(toy.ID, ms.Resample(), n_steps=np.float32(60), seed=seed, device=device, progress=False)
    record = minari_io.read(made.dataset_id).metadata["minari_stitch"]
    assert (record["seed"], record["device"]) == (3, "cpu")
    assert ms.QualifyConfig(delta=np.float32(0.5)).delta == 0.5


def test_a_dataset_that_is_gone_is_named(datasets_path):
    import shutil

    toy.write()
    dataset = minari.load_dataset(toy.ID)
    shutil.rmtree(datasets_path / toy.ID)
    with pytest.raises(DatasetNotFoundError, match="toy/walk-v0"):
        ms.augment(dataset, TINY, progress=False)


def test_everything_is_checked_before_a_demo_dataset_is_rolled_out(datasets_path, monkeypatch):
    def ensure(*args, **kwargs):
        raise AssertionError("too early")

    monkeypatch.setattr("minari_stitch.sim.demo.ensure", ensure)
    for wrong in (
        {"n_steps": 0},
        {"seed": -1},
        {"device": "foo"},
        {"threads": 0},
        {"output_id": "nice"},
        {"delta": -1},
    ):
        with pytest.raises(StitchError):
            ms.augment(toy.DEMO, progress=False, **wrong)
    for words in (["--steps", 0], ["--seed", -1], ["--device", "foo"], ["--threads", 0], ["--set", "stitch.pool=0"]):
        result = toy.invoke("augment", toy.DEMO, *words)
        assert result.exit_code == 1 and "ConfigError" in result.stderr, (words, result.output)
    with pytest.raises(DatasetNotFoundError):  # and nothing is rolled out to be filtered
        ms.filter(toy.DEMO, delta=1)
    (datasets_path.parent / "file").touch()
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(datasets_path.parent / "file"))
    with pytest.raises(StorageError, match="Make it writable"):
        ms.augment(toy.DEMO, progress=False)


def test_what_is_written_is_taken_like_a_dataset(stitched):
    half = ms.mix([toy.ID], fraction=0.5, progress=False)
    assert half.load().total_steps == half.n_steps
    again = ms.augment(half, ms.Resample(), n_steps=40, progress=False)
    assert again.dataset_id == "toy/walk-50pct-resampled-v0"
    with pytest.raises(InvalidDataError, match="read without its infos"):
        ms.filter(ms.read(toy.STITCHED), delta=1)


def test_what_cannot_be_filtered_or_mixed_is_named(stitched):
    with pytest.raises(InvalidDataError, match="'toy/walk-v0' was not written by minari-stitch"):
        ms.filter(toy.ID, delta=1)
    with pytest.raises(ConfigError, match="delta=nan is not possible"):
        ms.filter(toy.STITCHED, delta=math.nan)
    for delta in (0, -1):
        with pytest.raises(ConfigError, match="use a positive"):
            ms.filter(toy.STITCHED, delta=delta)
    with pytest.raises(ConfigError, match="holds what qualified at 8; use a smaller one"):
        ms.filter(toy.STITCHED, delta=9)
    with pytest.raises(ConfigError, match=r"give a list, such as \['toy/walk-v0'\]"):
        ms.mix(toy.ID, "toy/b-v0")
    with pytest.raises(ConfigError, match="nothing to mix"):
        ms.mix([], "toy/b-v0")
    with pytest.raises(ConfigError, match="no preset 'tiny': choose one of fast, full, paper"):
        ms.DiffStitch.preset("tiny")


class Enough(Exception):
    pass


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("stage", ["train inverse", "stitch", "write"])
def test_a_callback_that_raises_stops_the_run_which_goes_on_later(datasets_path, workers, stage):
    toy.write()

    def stop(name, done, total):
        if name == stage:
            raise Enough(name)

    with pytest.raises(Enough, match=stage):
        made(workers=workers, threads=1, progress=stop)
    assert minari_io.local_ids() == [toy.ID]
    kept = {path: path.stat().st_mtime_ns for path in datasets_path.glob(".stitch-runs/*/models-*/*.pt")}
    assert len(kept) == {"train inverse": len(kept), "stitch": 6, "write": 6}[stage]
    seen = []
    made(workers=workers, threads=1, progress=lambda *report: seen.append(report[0]))
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert {"stitch", "write"} <= set(seen)


# Scripts


SCRIPT = """
import minari_stitch as ms
from dataclasses import replace
from importlib.metadata import version
tiny = ms.Resample(temperature=0.5)
made = ms.augment("toy/walk-v0", tiny, n_steps=50)
print(made.dataset_id, made.load().total_steps >= 50)
print(ms.augment("toy/walk-v0", replace(tiny, temperature=1.0), n_steps=50).dataset_id)
"""
STITCH = """
import minari_stitch as ms
from minari_stitch.config import adjust, parse
tiny = adjust(ms.DiffStitch(), dict(map(parse, {settings!r})))
print(ms.augment("toy/walk-v0", tiny, delta=8, n_steps=50, workers={workers}).dataset_id)
"""


def test_a_script_needs_no_guard(tmp_path):
    toy.write()
    script = tmp_path / "script.py"
    script.write_text(SCRIPT + STITCH.format(settings=toy.TINY[1::2], workers=1))
    done = toy.run(sys.executable, script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["toy/walk-resampled-v0", "True", "toy/walk-resampled-v1", toy.STITCHED]
    assert not done.stderr  # no bar where there is no terminal


def test_an_interactive_process_needs_none_either():
    toy.write()
    environment = os.environ | {"PYTHONSTARTUP": ""}
    done = subprocess.run(
        [sys.executable, "-i", "-q"], input=SCRIPT, capture_output=True, text=True, env=environment, timeout=120
    )
    assert done.returncode == 0 and "toy/walk-resampled-v1" in done.stdout, done.stderr
    assert "Traceback" not in done.stderr


def test_several_workers_need_no_guard_and_run_nothing_twice(tmp_path):
    toy.write()
    script = tmp_path / "script.py"
    script.write_text(SCRIPT + STITCH.format(settings=toy.TINY[1::2], workers=2))
    done = toy.run(sys.executable, script)
    assert done.returncode == 0, done.stderr
    made = {f"toy/walk-resampled-v{n}" for n in (0, 1)}
    assert set(minari_io.local_ids()) == {toy.ID, toy.STITCHED, *made}


def test_progress_is_drawn_by_default_on_a_terminal_only(capfd):
    toy.write()
    ms.augment(toy.ID, ms.Resample(), n_steps=30)
    assert capfd.readouterr().err == ""


def test_settings_change_by_replace_and_are_checked():
    method = ms.DiffStitch.preset("paper")
    longer = replace(method, stitch=replace(method.stitch, chunk=3))
    assert longer.stitch.chunk == 3 and method.stitch.chunk == 64
    with pytest.raises(ConfigError, match="chunk=0"):
        replace(method.stitch, chunk=0)
    assert np.isfinite(method.qualify.delta)
