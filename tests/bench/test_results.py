"""Append-only lines: torn writes, several writers, merging."""

import json
import multiprocessing

import pendulum
import pytest

from benchmarks.results import Cell, Results, conditions, identity
from minari_stitch.data import minari_io
from minari_stitch.errors import StorageError


def cell(seed=0, **kwargs):
    return Cell(algo="bc", dataset="test/walk-v0", seed=seed, **kwargs)


def test_a_cell_is_found_again(tmp_path):
    results = Results(tmp_path / "new")
    assert results.finished() == {}
    results.append(cell(0), {"score": 1.5})
    results.append(cell(1, augmented="test/walk-stitched-v0", ratio="4:1"), {"score": 2.5})
    found = results.finished()
    assert [found[cell(0)]["score"], found[cell(1, augmented="test/walk-stitched-v0", ratio="4:1")]["score"]] == [
        1.5,
        2.5,
    ]
    assert cell(2) not in found and cell(0, settings="other") not in found


def test_a_torn_line_costs_only_itself(tmp_path):
    results = Results(tmp_path)
    results.append(cell(0), {"score": 1.0})
    path = tmp_path / "results.jsonl"
    path.write_bytes(path.read_bytes() + path.read_bytes()[:20])
    results.append(cell(1), {"score": 2.0})
    assert set(results.finished()) == {cell(0), cell(1)}


def test_merging(tmp_path):
    """Files in one folder, and concatenated files, are the same results; strange lines are passed over."""
    for machine in range(3):
        Results(tmp_path, f"machine{machine}").append(cell(machine), {"score": float(machine)})
    apart = Results(tmp_path).finished()
    joined = tmp_path / "joined"
    joined.mkdir()
    lines = [path.read_text() for path in sorted(tmp_path.glob("*.jsonl"))]
    (joined / "all.jsonl").write_text("".join(lines) + json.dumps({"cell": {"unknown": 1}}) + "\n[]\n")
    assert Results(joined).finished() == apart and len(apart) == 3


def _append(folder, first):
    for seed in range(first, first + 25):
        Results(folder).append(cell(seed), {"score": 0.0, "padding": "x" * 10_000})


def test_several_writers(tmp_path):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_append, args=(tmp_path, 100 * i)) for i in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(Results(tmp_path).finished()) == 50


def test_identity_follows_the_content(monkeypatch, tmp_path):
    pendulum.write()
    before = identity(pendulum.ID), identity(pendulum.STITCHED)
    assert before[0] != before[1] and identity(pendulum.ID) == before[0]
    minari_io.annotate(pendulum.STITCHED, {"minari_stitch_oracle": {"pairs": 1}})  # says nothing about the content
    assert identity(pendulum.STITCHED) == before[1]
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "elsewhere"))
    pendulum.write(synthetic=(5, 12), demo={"seed": 1})
    assert identity(pendulum.ID) != before[0]
    with pytest.raises(StorageError, match="test/absent-v0"):
        identity("test/absent-v0")


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="--results"):
        Results(tmp_path / "file").append(cell(), {"score": 0.0})


def test_conditions():
    assert conditions("cpu")["device"]["type"] == "cpu" and "torch" in conditions("cpu")["versions"]
