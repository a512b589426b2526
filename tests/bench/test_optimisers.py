"""The comparison of optimisers runs, gives each the same time, and names what is not there."""

import json

import toy
import typer
from typer.testing import CliRunner

from benchmarks import optimisers


def run(*words):
    app = typer.Typer()
    app.command()(optimisers.main)
    return CliRunner().invoke(app, list(words))


def test_each_learns_for_the_same_time(monkeypatch):
    toy.write()
    asked = []
    monkeypatch.setattr(
        optimisers, "fitted", lambda *args, real=optimisers.fitted: asked.append(args[1]) or real(*args)
    )
    monkeypatch.setattr(optimisers, "_TRIED", 30)
    done = run(toy.ID, "--seconds", "0.2", "--members", "2")
    assert done.exit_code == 0, done.output
    found = json.loads(done.output.splitlines()[-1])
    assert [fit.optimizer for fit in asked] == ["adam", "adam", "soap", "soap"]
    assert list(found) == ["adam", "soap"]
    for name, long in zip(found, asked[1::2], strict=True):
        assert found[name]["steps"] == long.steps > 10 and 0 < found[name]["median"] < 1


def test_what_is_not_there_is_named():
    for name in ("toy/nothing-v0", "demo/hopper/nothing-v0"):
        done = run(name)
        assert done.exit_code == 1 and name in done.output
