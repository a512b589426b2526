"""docs/ARCHITECTURE.md says what the code is."""

import importlib
import inspect
import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8")
MADE = runpy.run_path(str(ROOT / "docs" / "architecture.py"))
_, PAPER, _ = re.split(r"## From the paper to the code|## Packages", TEXT)
ROWS = re.findall(r"^\| (.+?) \| `(\S+)` \|$", PAPER, re.MULTILINE)


def test_the_tables_are_those_of_the_code():
    assert MADE["written"](TEXT) == TEXT, "run `make architecture`"


def test_there_is_no_circle_benchmarks_included():
    floors = MADE["floors"](MADE["graph"]())
    assert sorted(sum(floors, [])) == sorted(MADE["graph"]()) and "benchmarks" in sum(floors, [])
    with pytest.raises(ValueError, match="circle"):
        MADE["floors"]({"a": {"b"}, "b": {"a"}})


@pytest.mark.parametrize(("paper", "name"), ROWS, ids=[name for _, name in ROWS])
def test_each_equation_has_its_function_which_names_it(paper, name):
    if name == "benchmarks.batches":
        assert "ratio" in importlib.import_module(name).__doc__
        return
    module, _, attribute = f"minari_stitch.{name}".rpartition(".")
    text = inspect.getdoc(getattr(importlib.import_module(module), attribute))
    numbers = re.findall(r"\d+(?:\.\d+)*", paper.partition(":")[0])
    if name.startswith("diffstitch.") and "Algorithm" not in paper:
        assert any(re.search(rf"\b{re.escape(number)}\b", text) for number in numbers), text


def test_every_equation_of_the_method_is_there():
    groups = [group for paper, _ in ROWS for group in re.findall(r"Eqs?\. ([\d, ]+)", paper)]
    equations = {int(number) for group in groups for number in re.findall(r"\d+", group)}
    assert equations == set(range(3, 14))


def test_the_modules_that_it_names_exist():
    for word in re.findall(r"`((?:diffstitch|learn|data|sim|draw|baselines)\.\w+)`", TEXT):
        importlib.import_module(f"minari_stitch.{word}")
