"""Goal relabelling in a real point maze: recomputed by the environment, and against a loop over clusters."""

import itertools

import minari
import numpy as np
import pytest
import toy
from mazes import assert_true_to_the_environment, written

import minari_stitch as ms
from minari_stitch.data import minari_io
from minari_stitch.errors import ConfigError
from minari_stitch.pipeline import augment
from minari_stitch.run import Run


@pytest.fixture
def run(tmp_path):
    return Run(directory=tmp_path, workers=1, threads=1)


@pytest.mark.parametrize("kwargs", [{}, {"continuing_task": False}, {"reward_type": "dense"}])
def test_relabelled_episodes_are_real_ones_with_another_goal(run, kwargs):
    source = written(**kwargs)
    made = augment(source, ms.Relabel(), run, n_steps=2000)
    dataset, goals = assert_true_to_the_environment(made.dataset_id)
    assert made.n_steps >= 2000 and made.n_synthetic == 0 and len(goals) > 20
    seen, through = minari_io.read(made.dataset_id, keep_infos=True).episodes, 0
    for part in seen:
        about, observations = part["metadata"], part["observations"]
        own, other = (source.episodes.episode(about[f"{whose}_episode"]) for whose in ("source", "goal"))
        steps = len(part["rewards"])
        np.testing.assert_array_equal(observations[:, 4:], own["observations"][: steps + 1, 4:])
        np.testing.assert_array_equal(part["actions"], own["actions"][:steps])
        np.testing.assert_array_equal(observations[0, 2:4], other["observations"][about["goal_step"], :2])
        assert about["goal_met"] <= about["goal_step"]
        through += about["goal_episode"] != about["source_episode"]
        if about["goal_episode"] == about["source_episode"]:
            near = np.linalg.norm(observations[-1, :2] - observations[-1, 2:4])
            assert near <= (0.45 if kwargs.get("continuing_task") is False else 0)  # the goal that it reaches itself
            assert about["return_beyond"] == 0
        togo = part["infos"]["return_to_go"][:, 0]
        rewards = part["rewards"]
        np.testing.assert_allclose(togo[:-1], rewards + 0.99 * togo[1:])
        assert togo[-1] > 0 or about["return_beyond"] == 0
    assert made.report == {"episodes": len(seen), "through_clusters": through, "clusters": 40}
    assert 0.3 < through / len(seen) < 0.5  # half of the draws, but for those that meet themselves


def test_trajectories_meet_in_a_cluster(run):
    source = written()
    fitted = ms.Relabel(share=1.0, clusters=12).fit(source, run)
    states = source.episodes.observations[:, 4:]
    states = (states - states.mean(0)) / states.std(0)
    labels = fitted.labels
    centres = np.array([states[labels == label].mean(0) for label in range(12)])
    # Nearly every state belongs to the nearest middle: what k-means is.
    nearest = ((states[:, None] - centres) ** 2).sum(-1).argmin(1)
    assert (nearest == labels).mean() > 0.9
    for part in itertools.islice(fitted.sample(1000).parts(), 100):
        about = part["metadata"]
        starts = source.episodes.state_offsets
        here = starts[about["source_episode"]] + len(part["rewards"])
        there = starts[about["goal_episode"]] + about["goal_met"]
        assert labels[here] == labels[there]


def test_same_seed_same_bytes_and_more_only_adds(run, tmp_path):
    source = written()

    def drawn(n_steps, seed=0):
        parts = ms.Relabel().fit(source, Run(directory=tmp_path, seed=seed, workers=1)).sample(n_steps).parts()
        return [
            (part["metadata"]["source_episode"], part["metadata"]["goal_step"], len(part["rewards"])) for part in parts
        ]

    short, long = drawn(500), drawn(1500)
    assert long[: len(short)] == short and len(long) > len(short) and drawn(500, seed=1)[:5] != short[:5]


def test_what_has_no_goals_or_too_few_states_is_named(run):
    toy.write()
    with pytest.raises(ConfigError, match="method relabel is not possible for 'toy/walk-v0'.*method resample"):
        ms.Relabel().fit(minari_io.read(toy.ID), run)
    with pytest.raises(ConfigError, match="clusters=100000 is not possible with .* states: use fewer"):
        ms.Relabel(clusters=100_000).fit(written(), run)


def test_its_datasets_are_shown_and_not_filtered(run):
    made = augment(written(), ms.Relabel(), run, n_steps=300)
    assert minari.load_dataset(made.dataset_id).total_steps == made.n_steps
    result = toy.invoke("filter", made.dataset_id, "--delta", 1)
    assert result.exit_code == 1 and "holds real steps, all consistent" in result.stderr


def test_without_goals_and_rewards_one_trajectory_goes_on_in_another(run):
    toy.write([part | {"rewards": np.zeros_like(part["rewards"])} for part in toy.walks(terminate=0)])
    source = minari_io.read(toy.ID)
    made = augment(source, ms.Relabel(clusters=6), run, n_steps=2000)
    assert made.n_steps >= 2000
    labels = ms.Relabel(clusters=6).fit(source, run).labels
    parts = list(minari_io.read(made.dataset_id, keep_infos=True).episodes)
    assert made.n_synthetic == len(parts) == made.report["episodes"]
    for part in parts:
        about = part["metadata"]
        own, other = (source.episodes.episode(about[f"{whose}_episode"]) for whose in ("source", "goal"))
        (stop,) = np.flatnonzero(part["infos"]["synthetic"][:, 0]) + 1
        met, end = about["goal_met"], about["goal_step"]
        for name in ("observations", "actions"):
            extra = name == "observations"
            expected = np.concatenate([own[name][:stop], other[name][met : end + extra]])
            np.testing.assert_array_equal(part[name], expected)
        assert about["source_episode"] != about["goal_episode"]
        assert len(part["rewards"]) <= toy.LIMIT and (end == len(other["rewards"]) or len(part["rewards"]) == toy.LIMIT)
        starts = source.episodes.state_offsets
        assert labels[starts[about["source_episode"]] + stop] == labels[starts[about["goal_episode"]] + met]
        places = part["infos"]["source_step"][:, 0].tolist()
        assert places == [*range(stop), *range(met, end + 1)]
        assert part["truncations"][-1] and not part["terminations"].any()
