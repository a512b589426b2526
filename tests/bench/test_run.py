"""The command from end to end on a light environment: the table, resuming, executors, and what is refused."""

import dataclasses
import json
import re
import sys

import pendulum
import pytest
from typer.testing import CliRunner

from benchmarks import experiment, prepare, report, run
from benchmarks.algos import bc
from benchmarks.budgets import ALGORITHMS, BUDGETS
from benchmarks.prepare import newest
from benchmarks.results import Results
from benchmarks.suites import RECOMMENDED
from minari_stitch.data import minari_io
from minari_stitch.errors import StorageError


def invoke(*words):
    return CliRunner().invoke(run.app, [str(word) for word in words])


@pytest.fixture
def command(tmp_path):
    """Words of a run of two seeds that takes a second."""
    words = ["--dataset", pendulum.ID, "--budget", "smoke", "--results", tmp_path / "results", "--workers", 1]
    return lambda *more: invoke(*words, "--device", "cpu", *more)


def records(tmp_path):
    return Results(tmp_path / "results").finished()


def copy_of_source(dataset_id):
    source = minari_io.read(pendulum.ID)
    spaces = {"observation_space": source.observation_space, "action_space": source.action_space}
    minari_io.write(source.episodes, dataset_id=dataset_id, **spaces)
    return dataset_id


def test_one_table(command, tmp_path):
    """Every learner, both kinds of data; what the records say; and a second run trains nothing."""
    pendulum.write(ref_min_score=-2000.0, ref_max_score=0.0)
    mix = ("--augmented-dataset", pendulum.STITCHED, "--augmented", "bridges", "--ratio", "1:1")
    result = command("--algo", "all", *mix)
    assert result.exit_code == 0, result.output
    assert result.stdout.count("(bridges)") == 4 and "95 % interval" in result.stdout
    assert "A score is the last evaluation, 2 episodes a seed" in result.stderr.replace("\n", " ")
    found = records(tmp_path)
    assert len(found) == 4 * 2 * 2
    for cell, record in found.items():
        assert (cell.ratio, cell.kind) == (("1:1", "bridges") if cell.augmented else ("1:0", ""))
        assert record["config"]["steps"] == BUDGETS["smoke"].steps[cell.algo] == record["curve"][-1][0]
        mean = sum(record["returns"]) / 2
        assert record["score"] == pytest.approx(100 * (mean + 2000) / 2000, rel=1e-6)
        assert {"versions", "device", "seconds", "train_seconds", "losses", "finished"} <= record.keys()
    before = (tmp_path / "results" / "results.jsonl").read_bytes()
    again = command("--algo", "all", *mix)
    assert "16 of them finished before" in again.stderr and again.stdout == result.stdout
    assert (tmp_path / "results" / "results.jsonl").read_bytes() == before


def test_the_last_line_is_json_for_programs(command, tmp_path):
    pendulum.write()
    result = command("--algo", "bc", "--augmented-dataset", pendulum.STITCHED, "--json")
    scores = [(cell.augmented or cell.dataset, r["score"]) for cell, r in records(tmp_path).items()]
    said = json.loads(result.stdout.splitlines()[-1])["bc"]
    assert set(said) == {pendulum.ID, pendulum.STITCHED}
    for name, (mean, low, high) in said.items():
        assert mean == pytest.approx(sum(s for n, s in scores if n == name) / 2) and low <= mean <= high


def test_a_killed_run_goes_on(command, tmp_path, monkeypatch):
    """What was finished before the kill is kept, and only the rest is run."""
    pendulum.write()
    ran = []

    def count(unit, progress=None):
        ran.append(unit.cells)
        if len(ran) == 3:
            raise KeyboardInterrupt
        return original(unit, progress)

    original = experiment.run
    monkeypatch.setattr(experiment, "run", count)
    stopped = command("--algo", "bc")
    assert stopped.exit_code == 130 and "goes on from here" in stopped.output
    assert len(records(tmp_path)) == 2
    assert command("--algo", "bc").exit_code == 0
    assert len(ran) == 5 and len(records(tmp_path)) == 4
    assert command("--algo", "bc", "--seeds", 3).exit_code == 0 and len(ran) == 7  # another seed runs alone
    assert command("--algo", "bc", "--steps", 5).exit_code == 0 and len(ran) == 11  # other settings are other cells


def test_processes_and_runs_give_the_same(command, tmp_path):
    """Two worker processes, and all runs in one program as on a GPU, find what one process finds."""
    pendulum.write()
    assert command("--algo", "bc").exit_code == 0
    alone = records(tmp_path)
    assert command("--algo", "bc", "--workers", 2, "--results", tmp_path / "two" / "results").exit_code == 0
    assert {c: r["score"] for c, r in records(tmp_path / "two").items()} == {c: r["score"] for c, r in alone.items()}
    unit = experiment.WorkUnit(
        cells=tuple(alone), config=experiment.settings("bc", pendulum.ID, BUDGETS["smoke"]), budget=BUDGETS["smoke"]
    )
    for cell, record in experiment.run(unit):
        assert record["score"] == pytest.approx(alone[cell]["score"], rel=1e-4)


def test_work_units_hold_all_seeds_on_a_gpu_and_some_on_a_cpu():
    pendulum.write()
    extra = copy_of_source("test/pendulum-ser-v0")
    budget, wanted = BUDGETS["smoke"], {}
    for augmented in (pendulum.STITCHED, extra):
        cells = experiment.cells(
            "bc", pendulum.ID, augmented, kind="episodes", ratio="4:1", seeds=range(3), budget=budget
        )
        wanted |= dict.fromkeys(cells)
    units = experiment.work_units(list(wanted), budget, device="cuda")
    assert sorted(len(unit.cells) for unit in units) == [3, 6] and len(wanted) == 9
    assert all(len({cell.augmented for cell in unit.cells} - {""}) == 1 for unit in units)
    assert {cell for unit in units for cell in unit.cells} == set(wanted)
    assert len(experiment.work_units(list(wanted), budget, device="cpu")) == 9
    few = experiment.work_units(list(wanted), dataclasses.replace(budget, lanes=4), device="cpu")
    assert sorted(len(unit.cells) for unit in few) == [2, 3, 4]
    assert {cell for unit in few for cell in unit.cells} == set(wanted)


def test_a_cell_that_diverges_is_a_named_result(command, tmp_path, monkeypatch):
    """Of two seeds one diverges on the augmented data: its pair is left out, and said; a rerun does not repeat it."""
    pendulum.write()
    update = bc.update

    def explode(config, state, batch, noise, update_policy):
        info = update(config, state, batch, noise, update_policy)
        return {name: value / 0 * 0 for name, value in info.items()} if next(exploding) else info

    exploding = iter([False] * 60 + [True] * 20)  # four cells of twenty steps; the last is seed 1 on the mix
    monkeypatch.setattr(bc, "update", explode)
    words = ("--algo", "bc", "--augmented-dataset", pendulum.STITCHED)
    result = command(*words)
    assert result.exit_code == 0, result.output
    assert "seed 1, diverged before step 20 and is left out" in " ".join(result.stdout.split())
    assert "unknown (n = 1)" in " ".join(result.stdout.split())
    (bad,) = (record for record in records(tmp_path).values() if record["score"] is None)
    assert bad["diverged"] == 20
    assert command(*words).stdout == result.stdout
    report.main(results=tmp_path / "results")


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_by_default_a_learner_gets_what_suits_it(command, tmp_path, monkeypatch, algo):
    pendulum.write()
    asked = []

    def find(item, say):
        asked.append(item)
        return pendulum.STITCHED

    monkeypatch.setattr(prepare, "find", find)
    mix = RECOMMENDED[algo]
    assert command("--algo", algo).exit_code == 0
    (cell,) = {cell for cell in records(tmp_path) if cell.augmented and cell.seed == 0}
    assert asked[0].variant == mix.variant and (cell.kind, cell.ratio) == (mix.kind, mix.ratio)
    other, variant = ("episodes", "stitched") if mix.kind == "bridges" else ("bridges", "transitions-high")
    assert command("--algo", algo, "--augmented", other, "--ratio", "2:1").exit_code == 0
    assert asked[1].variant.suffix == variant
    assert {(cell.kind, cell.ratio) for cell in records(tmp_path)} >= {(mix.kind, mix.ratio), (other, "2:1")}


def test_a_suite_keeps_its_own_ratios(command, monkeypatch):
    """Table 2 is about them; the command line decides only where a suite does not."""
    asked = []
    monkeypatch.setattr(prepare, "find", lambda item, say: pendulum.STITCHED)
    monkeypatch.setattr(experiment, "cells", lambda *_, ratio, kind, **__: asked.append((ratio, kind)) or [])
    assert command("--suite", "table2", "--ratio", "3:1").exit_code == 0
    assert {ratio for ratio, _ in asked} == {"0:1", "1:2", "1:1", "2:1", "4:1"}
    asked.clear()
    assert command("--suite", "table4", "--ratio", "3:1", "--augmented", "bridges").exit_code == 0
    assert set(asked) == {("3:1", "bridges")}


def test_last_evaluations_make_the_score(command, tmp_path):
    pendulum.write()
    assert command("--algo", "bc", "--budget", "small", "--steps", 4, "--seeds", 1, "--last", 2).exit_code == 0
    for record in records(tmp_path).values():
        assert [step for step, _ in record["curve"]] == [2, 4]
        assert record["score"] == pytest.approx(sum(score for _, score in record["curve"]) / 2)


def test_newest_version():
    pendulum.write(stitched=None)
    assert newest(pendulum.ID) is None
    for version in (2, 10, 9):
        copy_of_source(f"test/pendulum-stitched-v{version}")
    assert newest(pendulum.ID) == "test/pendulum-stitched-v10"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--algo", "sac"], "there is no algorithm 'sac': choose one of dt, iql, td3_bc, bc"),
        (["--budget", "huge"], "there is no budget 'huge'"),
        (["--suite", "table9"], "there is no suite 'table9'"),
        (["--executor", "slurm"], "there is no executor 'slurm'"),
        (["--ratio", "4"], "ratio='4' is not possible"),
        (["--ratio", "0:0"], "ratio='0:0' is not possible"),
        (["--augmented", "all"], "augmented='all' is not possible"),
        (["--precision", "int8"], "precision='int8' is not possible"),
        (["--seeds", 0], "--seeds 0 is not possible"),
        (["--workers", 0], "--workers 0 is not possible"),
        (["--last", 3], "--last 3 is not possible: there are 1 evaluations"),
        (["--device", "tpu"], "--device tpu is not possible"),
        (["--dataset", "demo/hopper/perfect-v0"], "There is no demo dataset 'demo/hopper/perfect-v0'"),
        (["--dataset", "nowhere"], "has no version"),
        (["--dataset", "test/absent-v0"], "run `minari download test/absent-v0`"),
        (["--augmented-dataset", "test/absent-v0"], "'test/absent-v0' is not local"),
        (["--augmented-dataset", pendulum.ID], "was not written by minari-stitch"),
    ],
)
def test_refused(command, words, message):
    pendulum.write()
    result = command("--algo", "bc", *words)
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    assert message in result.output, result.output


def test_an_augmented_dataset_without_its_source(command, datasets_path):
    pendulum.write()
    (datasets_path / pendulum.ID).rename(datasets_path / "test" / "moved-v0")
    result = command("--algo", "bc")
    assert result.exit_code == 1 and f"'{pendulum.ID}' is not local: run `minari download" in result.output


def test_a_suite_says_what_is_missing(tmp_path):
    result = invoke("--suite", "table1", "--family", "d4rl", "--results", tmp_path, "--device", "cpu")
    assert result.exit_code == 0, result.output
    printed = re.sub(r"\s+", " ", result.stdout)
    assert printed.count("Missing:") == 11
    assert "run `minari-stitch import-d4rl hopper_medium_replay-v2.hdf5 --env hopper`" in printed
    assert "run `minari-stitch import-d4rl pen_human-v1.hdf5 --env pen`" in printed


def test_demo_datasets_are_made(command, monkeypatch):
    """By the command itself, the augmented ones with the settings of their variant; what goes wrong is said."""
    calls = []

    def augment(dataset_id, method, **kwargs):
        calls.append((dataset_id, method.name))
        raise StorageError("there is no room")

    monkeypatch.setattr(prepare.demo, "ensure", lambda dataset_id: None)
    monkeypatch.setattr(prepare, "exists", lambda dataset_id: dataset_id == "demo/hopper/medium-v0")
    monkeypatch.setattr(prepare.api, "augment", augment)
    result = command("--dataset", "demo/hopper/medium-v0")
    assert result.exit_code == 1 and "StorageError: there is no room" in result.output
    assert "Making it, once: DiffStitch, early of demo/hopper/medium-v0" in result.output
    assert calls == [("demo/hopper/medium-v0", "DiffStitch")]


def test_ray_is_optional(command, monkeypatch):
    pendulum.write()
    monkeypatch.setitem(sys.modules, "ray", None)
    result = command("--algo", "bc", "--executor", "ray")
    assert result.exit_code == 1 and "pip install 'minari-stitch[ray]'" in result.output


def _die(unit, progress=None):
    import os

    os._exit(9)


def test_a_worker_that_dies(command, monkeypatch):
    pendulum.write()
    monkeypatch.setattr(experiment, "run", _die)
    result = command("--algo", "bc", "--workers", 2)
    assert result.exit_code == 1 and "a worker process died" in result.output


@pytest.mark.ray
def test_ray_gives_the_same(command, tmp_path, on_ray):
    pendulum.write()
    assert command("--algo", "bc").exit_code == 0
    result = command("--algo", "bc", "--executor", "ray", "--workers", 2, "--results", tmp_path / "ray" / "results")
    assert result.exit_code == 0, result.output
    alone, ray = records(tmp_path), records(tmp_path / "ray")
    assert {c: r["score"] for c, r in ray.items()} == {c: r["score"] for c, r in alone.items()}
    assert json.dumps(ray[min(ray)]["losses"]) == json.dumps(alone[min(alone)]["losses"])
