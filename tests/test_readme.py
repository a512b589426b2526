"""What the README shows works as it is written.

Each ```python block runs as it stands, each line of a ```console block runs as a command (a leading `$` and a
comment are dropped), in the order of the README, in one datasets folder that holds a tiny version of every dataset
the README starts from. `augment` gets tiny models on top of what is written. Commands that do not run here are listed
in `NOT_RUN` with what is checked instead; a block after `<!-- not run: reason -->` is reported as skipped.
"""

import os
import re
import runpy
import shlex
import shutil
import sys
import tomllib
from pathlib import Path

import pytest
import toy

from minari_stitch import refilter as refilter_module
from minari_stitch.data import minari_io
from minari_stitch.diffstitch import proposals, stitch, transform

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DEMO = "demo/hopper/medium-replay-v0"
STITCHED = "demo/hopper/medium-replay-stitched-v0"
_FENCE = re.compile(
    r"^(?:<!-- not run: (?P<reason>.+?) -->\n+)?```(?P<language>\w*)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE
)
BLOCKS = [match.groupdict() for match in _FENCE.finditer(README)]


def makefile(target):
    return re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


NOT_RUN = {  # prefix -> what holds instead, from the words that follow it
    "make": makefile,
    "pip install": lambda what: what == "-e ." and tomllib.loads((ROOT / "pyproject.toml").read_text()),
    "python benchmarks/run.py": lambda *_: (ROOT / "benchmarks" / "run.py").is_file(),
}


def commands(code):
    for line in code.splitlines():
        if words := line.removeprefix("$ ").partition(" #")[0].strip():
            yield words


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """A tiny demo dataset and its stitched version, and a copy under each other id that the README augments."""
    path = tmp_path_factory.mktemp("readme") / "datasets"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(path))
        toy.ok(*toy.tiny(DEMO, "--delta", 1e6, "--demo-steps", 2000, "--steps", 500))
        source = minari_io.read(DEMO)
        for dataset_id in set(re.findall(r"augment ([\w/-]+-v\d+)", README)) - {DEMO}:
            minari_io.write(
                source.episodes,
                dataset_id=dataset_id,
                observation_space=source.observation_space,
                action_space=source.action_space,
                env_spec=source.env_spec,
            )
    return path


@pytest.fixture
def here(datasets, datasets_path, tmp_path, monkeypatch):
    shutil.copytree(datasets, datasets_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    return datasets_path


def run(words, monkeypatch):
    """Run one command; what it prints."""
    program, *rest = shlex.split(words)
    if rest[:1] == ["verify"]:  # tiny models make nothing true, and are found out
        done = toy.invoke(*rest, "--pairs", 32)
        assert done.exit_code in (0, 1) and " true by " in done.output, done.output
        return done.output
    if program == "minari-stitch":
        # What is written comes last, and so counts.
        tiny = toy.tiny("--delta", 1e6, "--steps", 300)[1:] if rest[0] == "augment" else []
        return toy.ok(rest[0], *tiny, *_lenient(rest[1:])).output
    if program == "minari":
        done = toy.run(*shlex.split(words))
        assert done.returncode == 0, done.stderr
        return done.stdout
    if program == "python" and rest[0] == "benchmarks/quality.py":
        monkeypatch.setattr(sys, "argv", [*rest, "--pairs", "32"])
        with pytest.raises(SystemExit) as done:
            runpy.run_path(str(ROOT / rest[0]), run_name="__main__")
        assert done.value.code in (0, None), words
        return ""
    for prefix, holds in NOT_RUN.items():
        if words.startswith(prefix):
            assert holds(words.removeprefix(prefix).strip()), words
            return ""
    raise AssertionError(f"no way to check {words!r}: run it, or list it in NOT_RUN with what holds instead")


def _lenient(words):
    """Tiny models meet no useful delta: any that `augment` is given is checked to be one, and raised."""
    words = list(words)
    if "--delta" in words:
        value = words.index("--delta") + 1
        assert float(words[value]) > 0
        words[value] = "1e6"
    return words


CONTRIBUTING = [match.groupdict() for match in _FENCE.finditer((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))]


@pytest.fixture
def small(monkeypatch):
    """Every size of DiffStitch is tiny, and meets no useful delta."""
    from dataclasses import replace

    from minari_stitch.config import adjust, parse
    from minari_stitch.diffstitch.transform import DiffStitch

    tiny = adjust(DiffStitch(), dict(map(parse, toy.TINY[1::2])))
    monkeypatch.setattr(DiffStitch, "preset", classmethod(lambda cls, size: tiny))
    lenient = replace(tiny.qualify, delta=1e6, drift=None, support=None, termination=1, better=False)
    monkeypatch.setattr(stitch, "qualify", lambda judged, config, real=stitch.qualify: real(judged, lenient))
    for module in (transform, proposals):
        monkeypatch.setattr(module, "qualify", stitch.qualify)

    def refilter(dataset, delta, real=refilter_module.refilter, **kwargs):
        small = {"error_bound": delta / 2}
        metadata = [about | small for about in dataset.episodes.metadata]
        return real(replace(dataset, episodes=replace(dataset.episodes, metadata=metadata)), delta, **kwargs)

    monkeypatch.setattr(refilter_module, "refilter", refilter)


@pytest.mark.parametrize(
    "block", [b for b in [*BLOCKS, *CONTRIBUTING] if b["language"] == "python"], ids=lambda b: b["code"][:60]
)
def test_python_runs(block, here, small, capsys):
    if block["reason"]:
        pytest.skip(block["reason"])
    exec(compile(block["code"], "README.md", "exec"), {"__name__": "readme"})
    assert capsys.readouterr().out.strip() or "print" not in block["code"]


def test_console_runs(here, monkeypatch):
    for block in BLOCKS:
        if block["language"] == "console" and not block["reason"]:
            for words in commands(block["code"]):
                run(words, monkeypatch)


if NOT_RUN_BLOCKS := [b for b in BLOCKS if b["language"] == "console" and b["reason"]]:

    @pytest.mark.parametrize("block", NOT_RUN_BLOCKS, ids=lambda block: block["code"][:40])
    def test_console_that_is_not_run(block):
        pytest.skip(block["reason"])


def test_every_block_is_of_a_known_kind():
    assert {block["language"] for block in BLOCKS} <= {"python", "console", "text", "bibtex"}
    assert README.count("```") == 2 * len(BLOCKS)
    assert sum(block["language"] == "python" for block in BLOCKS) >= 2
    everything = [words for b in BLOCKS if b["language"] == "console" for words in commands(b["code"])]
    assert any(words.startswith("minari-stitch augment") for words in everything)


def options(name):
    """Every option of a command, from itself: help shortens them."""
    from typer.main import get_command

    from minari_stitch.cli.app import app

    parameters = get_command(app).commands[name].params
    return {option for parameter in parameters for option in (*parameter.opts, *parameter.secondary_opts)}


def test_what_is_mentioned_in_the_text_exists():
    inline = re.findall(r"`([^`\n]+)`", _FENCE.sub("", README))
    from typer.main import get_command

    from minari_stitch.cli.app import app

    commands = get_command(app).commands
    known = {option for name in commands for option in options(name)}
    for code in inline:
        for option in re.findall(r"(?<!\S)--[a-z][\w-]+", code):
            assert option in known, f"{code}: there is no {option}"
        if code.startswith("minari-stitch "):
            assert toy.invoke(*re.match(r"minari-stitch (demo list|[\w-]+)", code)[1].split(), "--help").exit_code == 0
        if setting := re.search(r"--set ([\w.]+=\w+)", code):
            from minari_stitch.config import adjust, parse
            from minari_stitch.diffstitch.transform import DiffStitch

            adjust(DiffStitch(), dict([parse(setting[1])]))


def test_links_lead_somewhere():
    local = [link for link in re.findall(r"\]\(([^)\s]+)\)", README) if not link.startswith(("http", "#"))]
    assert local
    assert not [link for link in local if not (ROOT / link.partition("#")[0]).exists()]
