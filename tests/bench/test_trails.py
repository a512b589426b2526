"""Where evaluated episodes lead: followed as they are played, and drawn."""

import dataclasses
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

from benchmarks import report
from benchmarks.evaluate import Evaluator
from benchmarks.results import Cell
from benchmarks.trails import Trails
from minari_stitch.data import minari_io
from minari_stitch.sim import demo


def test_a_few_episodes_are_followed_to_their_ends():
    """Episode e of run k moves along x by 1 a step, starts at y = k + 100 e, and ends after e + 1 steps."""
    follow, begin = Trails(slice(1, 3)), np.zeros((2, 20, 4))
    begin[..., 2] = np.arange(2)[:, None] + 100 * np.arange(20)
    for step in range(21):
        places = begin.copy()
        places[..., 1] = np.minimum(step, np.arange(20) + 1)
        follow(places, step <= np.arange(20) + np.zeros((2, 1)))
    for run in range(2):
        found = follow.of(run)
        assert [trail["episode"] for trail in found] == [0, 4, 8, 12, 16]
        for trail in found:
            e, path = trail["episode"], np.array(trail["path"])
            assert path[:, 0].tolist() == [*range(0, e + 1, 10), e + 1]
            assert (path[:, 1] == run + 100 * e).all()


def test_fewer_episodes_than_are_followed():
    follow = Trails(slice(0, 2))
    follow(np.full((1, 3, 2), 0.12345), np.ones((1, 3), bool))
    assert follow.of(0) == [{"episode": e, "path": [[0.12, 0.12]] * 2} for e in range(3)]


def test_an_evaluator_shows_what_is_played(datasets_path):
    """In a maze: the places that it shows are those of the environment, played by hand."""
    demo.ensure("demo/pointmaze/umaze-split-v0", n_steps=400, workers=1)
    source = minari_io.read("demo/pointmaze/umaze-split-v0")
    size = source.episodes.observations.shape[1]
    evaluator = Evaluator(dataset=source, mean=np.zeros(size), std=np.ones(size))
    seen = []
    returns = evaluator(
        lambda states: torch.ones(*states.shape[:2], 2),
        [3],
        2,
        lambda states, live: seen.append((states.copy(), live.copy())),
    )
    assert len(seen) == 1 + evaluator._limit and seen[0][1].all() and not returns.any()
    env = gym.make(evaluator._spec)
    observation, _ = env.reset(seed=np.random.SeedSequence([3, 1]).generate_state(2).tolist()[1])
    for states, _ in seen[:-1]:
        np.testing.assert_array_equal(states[0, 1, :2], observation["achieved_goal"])
        observation, *_ = env.step(np.ones(2, np.float32))
    np.testing.assert_array_equal(seen[-1][0][0, 1, :2], observation["achieved_goal"])
    env.close()


@pytest.fixture
def finished():
    """Two seeds of one learner on the original data, which fail, and on augmented data, which arrive."""
    path = [{"episode": 1, "path": [[0.0, 0.0], [1.0, 0.5]]}]
    mix = {"augmented": "test/maze-stitched-v0", "kind": "episodes", "ratio": "0:1"}
    return {
        Cell(algo="bc", dataset="test/maze-v0", seed=seed, **extra): {
            "score": score,
            "returns": [0.0, score],
            "trails": path,
        }
        for seed in range(2)
        for extra, score in (({}, 0.0), (mix, 1.0))
    }


def test_they_are_drawn_into_a_picture_for_each_dataset(finished, tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: drawn.append(self) or Path(path).touch())
    other = {Cell(algo="dt", dataset="test/flat-v0"): {"score": 1.0, "returns": [1.0]}}  # of which none was followed
    (cell, *_), diverged = finished, {"score": None, "returns": [0.0, 0.0]}
    other[dataclasses.replace(cell, seed=9)] = finished[cell] | diverged
    assert report.draw_trails(finished | other, tmp_path) == [tmp_path / "test-maze-v0-small-trails.png"]
    axes = [axis for axis in drawn[0].axes if axis.get_visible()]
    assert [axis.get_title() for axis in axes] == ["bc, original: 0", "bc, stitched: 1"]
    for axis, colour in zip(axes, (report._LOST, report._ARRIVED), strict=True):
        assert {line.get_color() for line in axis.lines} == {colour} and len(axis.lines) == 4
