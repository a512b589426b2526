"""How growth is measured."""

import json

import numpy as np
import pytest

from benchmarks import scale
from minari_stitch.data import minari_io
from minari_stitch.diffstitch.models import NETWORKS


def test_exponents_are_slopes():
    sizes = [10, 100, 1000]
    assert scale.exponent(sizes, [n**1.3 for n in sizes]) == pytest.approx(1.3)
    assert np.isnan(scale.exponent([10], [1.0]))


def test_sizes_end_with_the_largest():
    assert scale.sizes(10**4, 10**6) == [10**4, 10**5, 10**6]
    assert scale.sizes(1000, 2 * 10**6) == [1000, 10**4, 10**5, 10**6, 2 * 10**6]
    assert scale.sizes(1000, 1000) == [1000]


def test_a_stage_runs_on_what_the_others_left(tmp_path, monkeypatch, capsys):
    """In one process here: the source, networks, chunks and the dataset of bridges."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    monkeypatch.setattr(scale, "_FITS", 20)
    at = scale.Size(steps=3000, bridges=200, folder=tmp_path)
    for stage in ("make", "read", "train", "stitch cheaply", "write"):
        scale.here(stage, at)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["seconds"] > 0 for line in lines] == [True] * 5
    assert lines[2]["parts"].keys() == {*NETWORKS} - {"termination"}
    assert minari_io.read(scale.source_id(3000)).episodes.n_steps == 3000
    written = minari_io.read("scale/bridges-200-v0", keep_infos=True).episodes
    assert written.infos["synthetic"].sum() >= 200


def test_estimates_say_that_they_are(capsys):
    step = {"diffusion": 0.05, "dynamics": 0.004, "inverse": 0.002, "reward": 0.002}
    section = scale.estimates(step, bridge=0.002, read_step=1e-6, mib_step=1e-3)
    assert "not measurements" in section.title and len(section.rows) == 6
    alone, gpus, cluster = (row["hours"] for row in section.rows[:3])
    assert alone > gpus > 0 and alone > cluster > 0
