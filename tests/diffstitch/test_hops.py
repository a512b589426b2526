"""Chains through the real command line: what is written holds together, step by step."""

import json
from pathlib import Path

import mazes
import numpy as np
import pytest
import toy

from minari_stitch.data import minari_io
from minari_stitch.data.segments import segments

LONG = ["--pairs", "connect", "--hops", 4, "--set", "stitch.regions=24", "--set", "stitch.max_bridge=4"]


def unpaid():
    return [part | {"rewards": np.zeros_like(part["rewards"])} for part in toy.walks(episodes=16)]


@pytest.fixture(params=["rewards", "no rewards"])
def chained(request):
    toy.write(toy.walks(episodes=16) if request.param == "rewards" else unpaid())
    return toy.augment(*LONG, "--steps", 400, delta=50)


def test_an_episode_crosses_several_bridges_and_every_step_says_where_it_is_from(chained):
    source = minari_io.read(toy.ID)
    made = minari_io.read(chained["dataset_id"], keep_infos=True)
    minari_io.check(chained["dataset_id"])
    crossed = []
    for number, part in zip(made.episode_ids.tolist(), made.episodes, strict=True):
        about, pieces = part["metadata"], segments(made, number)
        bridges = [piece for piece in pieces if piece.synthetic]
        crossed.append(len(bridges))
        assert about.get("bridges", 1) == len(bridges)
        assert pieces[0].source == about["source_episode"] and pieces[0].first == 0 or pieces[0].synthetic
        assert (bridges[0].start, bridges[0].n_steps) == (about["bridge_start"], about["bridge_states"] + 1)
        assert about["dynamics_error"] == pytest.approx(max(piece.error for piece in bridges), rel=1e-5)
        infos = {name: values[:, 0] for name, values in part["infos"].items()}
        real = infos["source_step"] >= 0
        for t in np.flatnonzero(real):
            there = source.episodes.episode(int(infos["source_episode"][t]))
            step = int(infos["source_step"][t])
            np.testing.assert_array_equal(part["observations"][t], there["observations"][step])
            if t < len(part["rewards"]) and not infos["synthetic"][t]:
                np.testing.assert_array_equal(part["actions"][t], there["actions"][step])
                assert part["rewards"][t] == there["rewards"][step]
        # A generated state lies inside a bridge, and no bridge touches another.
        assert (infos["synthetic"][:-1] | real[:-1]).all() and real[-1]
        ends = part["terminations"] | part["truncations"]
        assert ends[-1] and not ends[:-1].any() and len(ends) <= toy.LIMIT
    assert max(crossed) > 1 and max(crossed) <= 4
    if not np.ptp(source.episodes.rewards):
        assert not made.episodes.rewards.any()  # nothing is predicted where all rewards are equal
    assert made.metadata["minari_stitch"]["config"]["stitch"]["hops"] == 4


def test_chains_are_filtered_shown_and_drawn_like_pairs(chained):
    made = chained["dataset_id"]
    worst = sorted(about["error_bound"] for about in minari_io.read(made, keep_infos=True).episodes.metadata)
    delta = worst[len(worst) // 2]
    fewer = json.loads(toy.ok("filter", made, "--delta", delta, "--json").stdout)
    kept = minari_io.read(fewer["dataset_id"], keep_infos=True).episodes.metadata
    assert 0 < len(kept) < len(worst) and all(about["error_bound"] < delta for about in kept)
    broken = minari_io.read(made).metadata["minari_stitch"]["report"]["broken"]
    assert ("broken" in toy.ok("show", made).output) == (broken > 0)
    toy.ok("show", made, "--episode", "0")


def test_the_same_command_writes_the_same_bytes_whatever_the_workers(chained, tmp_path):
    one = minari_io.read(chained["dataset_id"])
    again = toy.augment(*LONG, "--steps", 400, "--run-dir", tmp_path / "other", "--workers", 2, delta=50)
    assert again["dataset_id"] != chained["dataset_id"]
    assert minari_io.read(again["dataset_id"]).fingerprint == one.fingerprint


def test_where_nothing_is_rewarded_no_learner_of_rewards_is_recommended():
    toy.write(unpaid())
    said = " ".join(toy.ok(*toy.tiny(toy.ID, *LONG, "--delta", 50, "--steps", 100)).stdout.split())
    assert "learners that pursue goals in hindsight" in said and "run.py" not in said and "d3rlpy" not in said


@pytest.mark.parametrize("kwargs", [{}, {"continuing_task": False}])
def test_in_a_maze_a_chain_pursues_one_goal(tmp_path, kwargs):
    mazes.written("test/maze-v0", count=40, **kwargs)
    made = json.loads(
        toy.ok(
            *toy.tiny("test/maze-v0", *LONG, "--delta", 1e9, "--steps", 1500, "--json"),
            *("--set", "stitch.max_bridge=8", "--set", "qualify.termination=1"),
        ).stdout
    )
    mazes.assert_true_to_the_environment(made["dataset_id"])
    bridges = [
        about.get("bridges", 1) for about in minari_io.read(made["dataset_id"], keep_infos=True).episodes.metadata
    ]
    assert max(bridges) > 1
    drawn = toy.ok("render", made["dataset_id"], "--output", tmp_path)
    assert list(Path(tmp_path).glob("*.png")), drawn.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--hops", 0), "hops"),
        (("--hops", 2, "--pairs", "reach"), "use pairs=connect, or hops=1"),
        (("--hops", 2, "--pairs", "connect", "--form", "bridge"), "form=full or onward, or hops=1"),
    ],
)
def test_what_chains_cannot_be_is_refused_with_the_remedy(words, said):
    toy.write()
    result = toy.invoke(*toy.tiny(toy.ID, *words))
    assert result.exit_code == 1 and said in " ".join(result.output.split())
