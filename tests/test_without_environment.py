"""Datasets that name no environment are first-class: every command takes one."""

import json

import minari
import toy

from minari_stitch.data import minari_io


def test_every_command_takes_a_dataset_without_an_environment(datasets_path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    toy.write(limit=None)
    assert minari_io.read(toy.ID).env_spec is None
    made = toy.augment()
    assert made["dataset_id"] == toy.STITCHED
    for words in (
        ("show", toy.STITCHED),
        ("filter", toy.STITCHED, "--delta", 7.9),
        ("check", toy.ID),
        ("check", toy.STITCHED),
        ("render", toy.STITCHED, "--returns"),
        ("card", toy.STITCHED),
        ("mix", toy.ID, toy.STITCHED, "--dataset-id", "toy/both-v0"),
        ("trim", toy.ID, "--at", "still"),
        ("select", toy.ID, "--top", 0.5),
        ("scores", toy.ID, "--low", 0, "--high", 9),
        ("augment", toy.ID, "--method", "resample", "--steps", 100, "--workers", 1),
    ):
        toy.ok(*words)
    done = toy.ok("verify", toy.STITCHED, "--json")
    said = json.loads(done.stdout)
    assert said["judge"] == "learned networks" and "names no environment" in said["findings"][0]["what"]
    assert "names no environment" in toy.invoke("filter", toy.STITCHED, "--verified").stderr
    said = json.loads(toy.ok("report", toy.STITCHED, "--json").stdout)
    assert said["verdicts"]["true"]["verdict"] == "unknown" and said["provenance"]["environment"] is None
    assert minari.load_dataset(toy.STITCHED).env_spec is None
