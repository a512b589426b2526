"""What a run will take is said before it, and what cannot fit is refused; --dry-run writes nothing."""

import json
import os
import time

import h5py
import minari
import numpy as np
import pytest
import torch
import toy

import minari_stitch as ms
from minari_stitch import cost, pipeline
from minari_stitch.data import room
from minari_stitch.errors import ConfigError, OutOfMemoryError, StorageError
from minari_stitch.learn.loop import classifier, perceptron
from minari_stitch.learn.nets import MLP
from minari_stitch.run import Run
from minari_stitch.transforms import work
from minari_stitch.transforms.work import Work


def everything(path):
    return {file: file.is_file() and file.read_bytes() for file in path.rglob("*")}


def words(method, *more):
    made = toy.tiny(toy.ID) if method == "diffstitch" else toy.other(method)
    return [*made, *map(str, more)]


@pytest.mark.parametrize("method", ["diffstitch", "synther", "tatu", "resample"])
def test_an_estimate_comes_near_what_is_written_and_writes_nothing(datasets_path, method):
    toy.write()
    before = everything(datasets_path)
    options = ["--steps", 2000, *(["--delta", 1e6] if method == "diffstitch" else [])]
    said = json.loads(toy.ok(*words(method, *options, "--dry-run", "--json")).stdout)
    assert everything(datasets_path) == before
    made = json.loads(toy.ok(*words(method, *options, "--json")).stdout)
    assert said["dataset_id"] == made["dataset_id"] and not said["existing"]
    size = (datasets_path / made["dataset_id"] / "data" / "main_data.hdf5").stat().st_size
    assert size / 2 < said["disk"] < 2 * size
    kept = sum(file.stat().st_size for file in (datasets_path / ".stitch-runs").rglob("*") if file.is_file())
    assert kept / 4 < said["kept"] + 1000 and said["kept"] < 4 * (kept + 10_000)
    assert said["seconds"] > 0 and ("write" in said["stages"]) and (len(said["stages"]) > 1) == (method != "resample")
    again = json.loads(toy.ok(*words(method, *options, "--dry-run", "--json")).stdout)
    assert not [stage for stage in again["stages"] if stage.startswith("train")] and again["existing"]


def test_a_demo_dataset_is_estimated_without_being_made(datasets_path):
    result = toy.ok("augment", toy.DEMO, "--dry-run", "--preset", "fast", "--workers", 1)
    assert not datasets_path.exists()
    said = " ".join(result.stdout.split())
    for part in ("medium-replay-stitched-v0", "200,000 steps", "roll out", "train diffusion", "memory", "Nothing was"):
        assert part in said
    found = ms.estimate(toy.DEMO, ms.Real(), n_steps=5000, demo_steps=1000)
    assert found.stages.keys() == {"roll out", "write"} and 0 < found.seconds < 600


def test_what_cannot_fit_is_refused_before_any_work(datasets_path, monkeypatch):
    toy.write()
    for more in ([], ["--dry-run"]):
        result = toy.invoke(*toy.tiny(toy.ID, "--steps", 10**13, *more))
        assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
        for part in ("StorageError", "--steps=10000000000000", "PB", str(datasets_path), "are free", "fewer steps"):
            assert part in result.stderr
    with pytest.raises(StorageError, match=f"demo_steps={10**13} would take about .*ask for fewer steps"):
        ms.augment(toy.DEMO, demo_steps=10**13)
    with monkeypatch.context() as patch:
        patch.setattr(room, "free_memory", lambda: 10_000_000)
        with pytest.raises(OutOfMemoryError, match="n_steps=50 would .* of memory, of which 10 MB are free"):
            ms.augment(toy.ID, ms.Resample(), n_steps=50)
    assert not (datasets_path / ".stitch-runs").exists()


def test_room_elsewhere_is_asked_for_elsewhere(tmp_path, monkeypatch):
    toy.write()
    monkeypatch.setattr(room, "free_disk", lambda folder: 0 if folder == tmp_path / "runs" else 10**12)
    with pytest.raises(StorageError, match=f"in {tmp_path / 'runs'}, where 0 kB are free: .*another run_dir"):
        ms.augment(toy.ID, n_steps=50, run_dir=tmp_path / "runs")
    assert ms.augment(toy.ID, ms.Resample(), n_steps=50, run_dir=tmp_path / "other").n_steps >= 50


def test_mixes_and_imports_that_cannot_fit_are_refused(tmp_path, monkeypatch):
    toy.write()
    rows = {"observations": (9, 3), "actions": (9, 2), "rewards": (9,), "terminals": (9,)}
    with h5py.File(tmp_path / "swing.hdf5", "w") as file:
        for name, shape in rows.items():
            file[name] = np.ones(shape)
    np.savez(tmp_path / "walk-v0.npz", **{name: np.ones(shape) for name, shape in rows.items()})
    for free in ("free_disk", "free_memory"):
        with monkeypatch.context() as patch:
            patch.setattr(room, free, lambda *_: 100)
            for name, load in (("swing.hdf5", ms.import_d4rl), ("walk-v0.npz", ms.import_ogbench)):
                options = {"env": "Pendulum-v1"} if name == "swing.hdf5" else {}
                with pytest.raises((StorageError, OutOfMemoryError), match=rf"{name} would take about .* are free: "):
                    load(tmp_path / name, dataset_id="my/swing-v0", **options)
    monkeypatch.setattr(room, "free_disk", lambda _: 1000)
    with pytest.raises(StorageError, match="a mix of 360 steps would take about .*: take a smaller fraction"):
        ms.mix([toy.ID], "mixed/walk-v0")
    assert minari.list_local_datasets().keys() == {toy.ID}


def test_free_room_is_what_the_system_says(tmp_path, monkeypatch):
    assert room.free_disk(tmp_path / "not" / "there") == pytest.approx(room.free_disk(tmp_path), rel=0.1)
    assert 10**7 < (whole := room.free_memory()) < 10**14
    (tmp_path / "memory.max").write_text("5000000\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    monkeypatch.setattr(room, "_CGROUP", tmp_path)
    assert room.free_memory() == 4_000_000 < whole


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.1, "a second"), (42.3, "42 seconds"), (150, "2.5 minutes"), (36_000, "10 hours")]
)
def test_durations_in_words(seconds, words):
    assert cost.duration(seconds) == words


@pytest.mark.parametrize(("size", "words"), [(120, "0.12 kB"), (35.4e6, "35 MB"), (123.4e9, "123 GB"), (2e15, "2 PB")])
def test_amounts_in_words(size, words):
    assert room.in_words(size) == words


def test_time_is_counted_work_at_the_cost_of_one():
    asked = []
    work = {"stage": "a", "count": 10, "each": lambda: asked.append(1) or 2.0}
    assert Work(**work).takes(4) == 20 and Work(**work, shared=True).takes(4) == 5 and len(asked) == 2


def test_processes_that_are_not_worth_their_start_are_spared(monkeypatch, tmp_path):
    toy.write()
    used = []

    def augmented(source, method, run, **_):
        used.append(run.workers)
        return ms.Augmented(dataset_id="a/b-v0", path=tmp_path, n_steps=1, n_episodes=1, n_synthetic=1, report={})

    monkeypatch.setattr(pipeline, "augment", augmented)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    words = ["augment", toy.ID, *toy.TINY, "--threads", 1, "--steps", 50, "--device", "cpu", "--json"]
    toy.ok(*words)
    toy.ok(*words, "--workers", 2)  # what is asked for is done
    monkeypatch.setattr(cost, "_START", -1.0)
    toy.ok(*words)
    assert used == [1, 2, 4]


def test_a_method_that_says_nothing_gets_the_processes_that_it_is_given():
    source = toy.write()
    found = ms.estimate(source, ms.Relabel(), n_steps=50, workers=3)
    assert found.worthwhile() is found


def test_a_trial_of_few_rows_tells_what_many_take(monkeypatch):
    clock, rows = [0.0], []

    def do(count):
        rows.append(count)
        clock[0] += 0.3 + 0.02 * count

    monkeypatch.setattr(work.time, "thread_time", lambda: clock[0])
    for many in (1, 4, 64):
        assert work.tried(do, many, device="cpu", threads=1) == pytest.approx(0.3 + 0.02 * many)
    assert max(rows) == 6  # that many one by one are what a trial may take


@pytest.mark.parametrize(("fit", "tenths"), [(perceptron(100), 11), (classifier(100), 10)])
def test_what_follows_every_tenth_step_counts(monkeypatch, tmp_path, fit, tenths):
    done = []
    monkeypatch.setattr(work, "tried", lambda do, rows, **_: done.append(do(rows)) or 1.0)
    net = MLP(2, 1, hidden=8, layers=2, members=2, generator=torch.Generator())
    stage = work.training("net", net, [torch.zeros(1, 2)], fit, Run(directory=tmp_path))
    assert stage.takes(1) == pytest.approx(100 * tenths / 10) and len(done) == tenths - 9


def test_a_stage_takes_about_as_long_as_was_said():
    toy.write()
    longer = words("diffstitch", "--set", "models.dynamics.steps=1500")
    said = json.loads(toy.ok(*longer, "--dry-run", "--json").stdout)["stages"]["train dynamics"]
    begin = time.thread_time()
    toy.ok(*longer, "--json")
    took = time.thread_time() - begin
    assert 0.1 < said < 3 * took and took < 3 * said + 3  # what else there is


# --config


def test_the_config_beside_a_result_makes_it_again(datasets_path, tmp_path):
    toy.write()
    first = toy.augment("--steps", 70, "--seed", 3, "--form", "bridge")
    folder = datasets_path / first["dataset_id"]
    before = (folder / "data" / "main_data.hdf5").read_bytes()
    run = ("--workers", 1, "--json")
    for number, file in enumerate((folder, folder / "data" / "metadata.json")):
        other = f"toy/again-v{number}"
        words = ("--config", file, "--dataset-id", other, "--run-dir", tmp_path / other, *run)
        assert json.loads(toy.ok("augment", *words).stdout)["n_synthetic"] == first["n_synthetic"]
        assert (datasets_path / other / "data" / "main_data.hdf5").read_bytes() == before
    assert json.loads(toy.ok("augment", "--config", folder, *run).stdout)["existing"]
    more = json.loads(toy.ok("augment", toy.ID, "--config", folder, "--steps", 100, "--delta", 1e6, *run).stdout)
    assert more["n_synthetic"] >= 100


def test_what_is_no_config_is_named(stitched, datasets_path, tmp_path):
    toy.ok("filter", toy.STITCHED, "--delta", 7.9)
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "torn.json").write_text("{")
    for file, more, says in (
        (tmp_path / "none", (), "No such file"),
        (tmp_path / "torn.json", (), "no JSON"),
        (tmp_path / "list.json", (), "does not say method"),
        (datasets_path / toy.ID, (), "does not say method"),
        (datasets_path / "toy/walk-stitched-v1", (), "filtered dataset, which is made again by: minari-stitch augment"),
        (datasets_path / toy.STITCHED, ("--method", "tatu"), "--method tatu has no part in --config"),
    ):
        result = toy.invoke("augment", "--config", file, *more)
        assert result.exit_code == 1 and "ConfigError" in result.stderr, result.stderr
        assert says in " ".join(result.stderr.split())


def test_estimates_take_the_arguments_of_augment():
    import inspect

    names = [set(inspect.signature(function).parameters) for function in (ms.augment, ms.estimate)]
    assert names[0] - names[1] == {"download", "executor", "force"} and names[1] <= names[0]
    with pytest.raises(ConfigError, match="delta=-1"):
        ms.estimate(toy.ID, delta=-1)
