import json

import faults
import gymnasium as gym
import numpy as np
import pytest
import toy
from gymnasium import spaces

import minari_stitch as ms
from minari_stitch.data import minari_io
from minari_stitch.quality.rows import digests


def kinds(dataset_id):
    found = ms.check(dataset_id, progress=False)
    return {finding.kind: finding for finding in found.findings}, found


def test_a_sound_dataset_has_no_error_and_says_what_it_lacks(write_dataset):
    found, all_of_it = kinds(write_dataset())
    assert all_of_it.ok and all_of_it.n_episodes == 4 and all_of_it.n_steps == 40
    assert found.keys() == {"environment", "reference scores"}
    assert "no environment is named" in found["environment"].what


@pytest.mark.parametrize(
    ("name", "row", "value", "kind"),
    [
        ("rewards", 3, np.nan, "not finite"),
        ("observations", 2, np.inf, "not finite"),
        ("actions", 1, 4.0, "actions"),
        ("terminations", 2, True, "early end"),
        ("truncations", -1, False, "open end"),
    ],
)
def test_every_spoilt_array_is_found_with_its_place(write_dataset, name, row, value, kind):
    dataset_id = write_dataset()
    toy.spoil(dataset_id, 2, name, row, value)
    found, all_of_it = kinds(dataset_id)
    assert not all_of_it.ok and found[kind].count == 1 and found[kind].where[0].startswith("episode 2")
    assert all_of_it.findings[0].kind == kind  # errors come first


def test_lengths_and_totals(write_dataset):
    dataset_id = write_dataset()
    minari_io.annotate(dataset_id, {"total_steps": 39})
    assert "metadata say 4 of 39" in kinds(dataset_id)[0]["totals"].what


def test_repeated_episodes_are_an_error_unless_they_say_so(write_dataset, make_episodes):
    found, all_of_it = kinds(write_dataset(episodes=make_episodes().select([0, 1, 0, 2, 0])))
    assert not all_of_it.ok and found["duplicates"].count == 2 and found["duplicates"].where == ["episodes 0, 2, 4"]
    toy.write()
    resampled = ms.augment(toy.ID, ms.Resample(), n_steps=600, progress=False).dataset_id
    found, all_of_it = kinds(resampled)
    assert all_of_it.ok and found["duplicates"].level == "warning"


def test_what_stands_still_or_never_changes(write_dataset, make_episodes):
    parts = [{k: np.array(v) if isinstance(v, np.ndarray) else v for k, v in p.items()} for p in make_episodes()]
    for part in parts:
        part["observations"][:, 1] = 7.0
    parts[3]["observations"][:] = parts[3]["observations"][0]
    from minari_stitch.data.episodes import Episodes

    found, all_of_it = kinds(write_dataset(episodes=Episodes.from_list(parts)))
    assert all_of_it.ok
    assert found["constant"].where == ["observations[1] is always 7"]
    assert found["standing still"].count == 10 and found["standing still"].where == ["nothing ever moves in episode 3"]


def test_episodes_cut_short_of_the_time_limit(datasets_path):
    toy.write()  # of 30 steps where the limit is 40; every third terminates
    found, _ = kinds(toy.ID)
    assert found["cut short"].count == 8
    assert "Toy-v0 cannot be made here" in found["environment"].what


def test_real_data_passed_off_as_new(stitched):
    assert ms.check(toy.STITCHED, progress=False).ok
    found, all_of_it = kinds(faults.passed_off(toy.ID, toy.STITCHED))
    assert not all_of_it.ok
    assert found["copied steps"].what == "240 of 240 steps that are marked synthetic are steps of the source"


class Reach(gym.Env):
    """Rewards say whether the goal is reached."""

    observation_space = spaces.Dict(
        dict.fromkeys(("achieved_goal", "desired_goal", "observation"), spaces.Box(-np.inf, np.inf, (2,), np.float64))
    )
    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def compute_reward(self, achieved, desired, info):
        return float(np.linalg.norm(achieved - desired) < 1.5)


def reach(late):
    """Walks to a goal; with `late` the reward of a step is that of the one before."""
    gym.register("Reach-v0", entry_point=f"{__name__}:Reach", max_episode_steps=20)
    rng = np.random.default_rng(0)
    try:
        env, parts = Reach(), []
        for _ in range(5):
            places, goal = rng.normal(size=(21, 2)).cumsum(0) / 3, rng.normal(size=2)
            rewards = np.array([env.compute_reward(place, goal, {}) for place in places])
            last = np.arange(20) == 19
            flat = np.concatenate([places, np.tile(goal, (21, 1)), places], 1)
            parts.append({
                "observations": flat, "actions": rng.uniform(-1, 1, (20, 2)).astype(np.float32),
                "rewards": rewards[:-1] if late else rewards[1:], "terminations": last & False, "truncations": last,
            })  # fmt: skip
        minari_io.write(
            parts, dataset_id="test/reach-v0", observation_space=Reach.observation_space,
            action_space=Reach.action_space, env_spec=gym.spec("Reach-v0"),
        )  # fmt: skip
        return kinds("test/reach-v0")
    finally:
        del gym.registry["Reach-v0"]


@pytest.mark.parametrize("late", [False, True])
def test_rewards_of_goal_data_are_those_of_their_goals(datasets_path, late):
    found, all_of_it = reach(late)
    assert all_of_it.ok != late and ("goals" in found) == late


def test_the_command_prints_findings_and_fails_where_it_should(write_dataset):
    dataset_id = write_dataset()
    done = toy.ok("check", dataset_id)
    assert "is sound: 4 episodes, 40 steps, 0 errors, 2 warnings" in done.output
    assert toy.invoke("check", dataset_id, "--strict").exit_code == 1
    toy.spoil(dataset_id)
    done = toy.invoke("check", dataset_id, "--json")
    said = json.loads(done.stdout)
    assert done.exit_code == 1 and not said["ok"] and said["findings"][0]["kind"] == "not finite"
    assert "not sound" in toy.invoke("check", dataset_id).output


def test_equal_rows_and_no_others_share_a_digest():
    table = np.random.default_rng(0).integers(-3, 4, (5000, 4)).astype(np.float32) / 7
    table[0, 0], table[1] = 0.0, table[0]
    table[1, 0] = -0.0
    same = np.unique(digests(table[:, :2], table[:, 2:]), return_inverse=True)[1]
    expected = np.unique(table + 0.0, axis=0, return_inverse=True)[1].ravel()
    assert same.max() == expected.max() and len(set(zip(same, expected, strict=True))) == same.max() + 1
