"""What is left to the dataset is settled by it."""

import dataclasses

import mazes
import numpy as np
import pytest
import toy

from minari_stitch.config import adjust
from minari_stitch.data import minari_io
from minari_stitch.diffstitch.transform import DiffStitch
from minari_stitch.errors import ConfigError
from minari_stitch.run import Run


def unpaid():
    return [part | {"rewards": np.zeros_like(part["rewards"])} for part in toy.walks()]


@pytest.fixture
def run(tmp_path):
    return Run(directory=tmp_path, workers=1, threads=1)


def test_actions_are_kept_near_a_clone_only_where_all_trajectories_do_one_thing(run):
    paid, free = minari_io.read(toy.write()), minari_io.read(toy.write(unpaid(), "toy/free-v0"))
    many = mazes.written()
    for dataset, weight in ((paid, 0.005), (free, 0.0), (many, 0.0)):
        fitted = DiffStitch().found(dataset, run)
        assert fitted.transform.stitch.imitation == weight
        assert ("behaviour" in fitted.networks) == (weight > 0)
        assert ("reward" in fitted.networks) == bool(np.ptp(dataset.episodes.rewards))
    asked = adjust(DiffStitch(), {"stitch.imitation": 0.5}).found(free, run)
    assert asked.transform.stitch.imitation == 0.5 and "behaviour" in asked.networks


def test_without_a_clone_or_repair_nothing_is_kept_near_one(run):
    dataset = minari_io.read(toy.write())
    for settings in ({"models.behaviour": None}, {"stitch.repair_steps": 0}):
        fitted = adjust(DiffStitch(), settings).found(dataset, run)
        assert not fitted.transform.stitch.imitates and "behaviour" not in fitted.networks


def test_returns_are_compared_where_they_can_be(run):
    rising = {}
    for name, dataset in (
        ("paid", minari_io.read(toy.write())),
        ("free", minari_io.read(toy.write(unpaid(), "toy/free-v0"))),
        ("many goals", mazes.written()),
    ):
        settled = adjust(DiffStitch(), {"stitch.pairs": "connect"}).found(dataset, run).transform
        assert settled.stitch.rising == settled.qualify.better
        rising[name] = settled.stitch.rising
    assert rising == {"paid": True, "free": False, "many goals": False}
    method = DiffStitch()
    by_hand = dataclasses.replace(method, stitch=dataclasses.replace(method.stitch, pairs="connect", rising=True))
    assert by_hand.found(minari_io.read("toy/free-v0"), run).transform.stitch.rising


def test_only_what_has_a_place_in_the_plane_can_be_asked_not_to_bend(run):
    straight = adjust(DiffStitch(), {"qualify.bend": 0.1})
    assert straight.found(mazes.written(), run).job.origin.place == (0, 1)
    source = minari_io.read(toy.write())
    assert source.episodes.observations.shape[1] == 3
    with pytest.raises(ConfigError, match=r"qualify.bend=0.1 is not possible with 'toy/walk-v0': its states have no"):
        straight.found(source, run)
