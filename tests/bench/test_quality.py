"""The oracle's word on a stitched dataset."""

import toy

from benchmarks.quality import _print, measure


def test_bridges_of_a_maze_are_judged_and_those_through_walls_counted(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")

    made = toy.augment("--demo-steps", 1500, source="demo/pointmaze/umaze-split-v0", delta=1e9)
    result = measure(made["dataset_id"], 32, None, 0)
    accepted, real = result["paths"]["bridges accepted"], result["paths"]["real windows"]
    assert accepted["n"] > 0 and 0 <= accepted["through_walls"] <= accepted["n"]
    assert real["median"] < 1e-12 and real["through_walls"] == 0 and real["judged"] == 1
    _print(made["dataset_id"], result)
    assert "through walls" in capsys.readouterr().out.replace("\n", " ")
