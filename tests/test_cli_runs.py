import json
import os
import time

import pytest
import toy

from minari_stitch.data.ids import datasets_path
from minari_stitch.data.kept import kept_runs


@pytest.fixture
def runs():
    """Two run directories, one of them old."""
    for name, age, size in (("demo-hopper-v0-1", 0, 100), ("toy-walk-v0-2", 40, 3000)):
        folder = datasets_path() / ".stitch-runs" / name
        for path in (folder / "models-a" / "diffusion.pt", folder / "chunks-b" / "000000.npz"):
            path.parent.mkdir(parents=True)
            path.write_bytes(b"0" * size)
            then = time.time() - 86_400 * age
            os.utime(path, (then, then))


def names():
    return [run.name for run in kept_runs()]


def test_runs_are_listed_with_what_they_hold(runs):
    listed = json.loads(toy.ok("runs", "list", "--json").stdout)
    assert [(run["name"], run["n_bytes"], run["models"], run["chunks"]) for run in listed] == [
        ("toy-walk-v0-2", 6000, 1, 1), ("demo-hopper-v0-1", 200, 1, 1),
    ]  # fmt: skip
    assert listed[0]["age"] == pytest.approx(40 * 86_400, abs=60)
    assert "toy-walk-v0-2" in toy.ok("runs", "list").stdout


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (("toy", "--yes"), ["demo-hopper-v0-1"]),
        (("--older-than", 30, "--yes"), ["demo-hopper-v0-1"]),
        (("--older-than", 50, "--yes"), ["toy-walk-v0-2", "demo-hopper-v0-1"]),
        (("nothing", "--yes"), ["toy-walk-v0-2", "demo-hopper-v0-1"]),
        (("--yes",), []),
    ],
)
def test_only_what_is_meant_is_deleted(runs, words, left):
    assert ("Freed" in toy.ok("runs", "clean", *words).stdout) == (len(left) < 2)
    assert names() == left


def test_nothing_is_deleted_unasked(runs):
    result = toy.invoke("runs", "clean")
    assert result.exit_code == 1 and len(names()) == 2


def test_a_run_that_was_cleaned_is_made_anew():
    toy.write()
    first = toy.augment("--steps", 50)
    toy.ok("runs", "clean", "toy-walk", "--yes")
    assert names() == []
    assert toy.augment("--steps", 50)["n_synthetic"] == first["n_synthetic"]


def test_a_shell_completes_ids():
    from minari_stitch.cli.common import local_ids

    toy.write()
    toy.augment("--steps", 50)
    assert local_ids("") == ["toy/walk-stitched-v0", "toy/walk-v0"]
    assert local_ids("toy/walk-s") == ["toy/walk-stitched-v0"] and local_ids("demo/") == []


@pytest.mark.parametrize("command", ["augment", "show", "render", "check", "verify", "mix"])
def test_a_malformed_id_is_refused_before_torch_is_imported(command):
    """In a process of its own; half a second of CPU is what it may take, and torch alone takes more."""
    code = (
        "import sys; from minari_stitch.cli.app import app\n"
        f"try: app([{command!r}, 'no id'])\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules)"
    )
    done = toy.run("python", "-c", code)
    assert done.stdout.split() == ["1", "False"] and "DatasetIdError: Malformed dataset id 'no id'" in done.stderr
