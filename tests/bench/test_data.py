"""The flat table, exact mixing, and what is refused."""

import numpy as np
import pytest
import torch
from naive import generators, stitched_version

from benchmarks.algos import dt, task
from benchmarks.batches import RatioError, parse_ratio
from benchmarks.data import (
    LearnerData,
    SourceMismatchError,
    SpaceMismatchError,
    TooFewStepsError,
    load,
)
from minari_stitch.data import minari_io
from minari_stitch.data.mix import mix
from minari_stitch.errors import ConfigError, DatasetNotFoundError, InvalidDataError


@pytest.fixture
def pair(write_dataset, make_episodes):
    """An original dataset of 4 episodes, and 3 stitched episodes (with a copy of an original one in front)."""
    source = write_dataset()
    return source, stitched_version(source, make_episodes(n_episodes=4, seed=1))


def test_table_against_episodes(pair):
    data = load(*pair)
    source, extra = minari_io.read(pair[0]), minari_io.read(pair[1], keep_infos=True)
    observations = source.episodes.observations[source.episodes.step_state].astype(np.float64)
    mean, std = observations.mean(0), observations.std(0) + 1e-3
    np.testing.assert_allclose(data.mean, mean, rtol=1e-6)
    np.testing.assert_allclose(data.std, std, rtol=1e-6)
    row = 0
    for part in [*source.episodes, *list(extra.episodes)[1:]]:
        togo = np.cumsum(part["rewards"][::-1])[::-1]
        for t in range(len(part["rewards"])):
            want = [
                (part["observations"][t] - mean) / std,
                part["actions"][t],
                [part["rewards"][t]],
                (part["observations"][t + 1] - mean) / std,
                [not part["terminations"][t]],
            ]
            np.testing.assert_allclose(data.table[row], np.concatenate(want), rtol=1e-4, atol=1e-5)
            assert data.returns_to_go[row] == pytest.approx(togo[t], rel=1e-5, abs=1e-5)
            row += 1
    assert row == len(data.table) == data.episodes.n_steps == 70
    assert (data.original_steps, data.original_episodes) == (40, 4)
    assert data.offsets.tolist() == [0, 10, 20, 30, 40, 50, 60, 70]
    assert torch.equal(data.states, data.table[:, :3]) and torch.equal(data.actions, data.table[:, 3:5])
    assert torch.equal(data.rewards, data.table[:, 5])
    assert data.synthetic.nonzero()[:, 0].tolist() == [42, 43, 44, 52, 53, 54, 62, 63, 64]
    assert data.step_episode.tolist() == sorted([*range(7)] * 10)


def test_returns_to_go_of_bridges_that_stand_alone(write_dataset, make_episodes):
    """They count what follows after the written part in the whole stitched episode, at every step."""
    source, parts, beyond = write_dataset(), make_episodes(n_episodes=4, seed=1), (360.5, 0.0)
    data = load(source, stitched_version(source, parts, beyond=beyond))
    want = []
    for part, follows in zip([*minari_io.read(source).episodes, *list(parts)[1:]], [0] * 4 + [*beyond, 0], strict=True):
        for t in range(len(part["rewards"])):
            togo = follows
            for reward in part["rewards"][t:]:
                togo += reward
            want.append(togo)
    np.testing.assert_allclose(data.returns_to_go, want, rtol=1e-5, atol=1e-5)
    steps = torch.tensor([[40, 49, 0]])
    windows = dt.sampler(dt.Config(batch_size=3), data, [(1, 1)], generators(1)).gather(steps)["returns_to_go"]
    np.testing.assert_allclose(windows[0, :, -1], [want[49], want[49], want[9]], rtol=1e-5, atol=1e-5)


def test_truncation_keeps_its_next_state_and_bootstraps(pair):
    data = load(pair[0])
    episodes = data.episodes
    for episode in range(4):
        last = episodes.offsets[episode + 1] - 1
        final = (episodes.observations[episodes.state_offsets[episode + 1] - 1] - data.mean.numpy()) / data.std.numpy()
        np.testing.assert_allclose(data.table[last, 6:9], final, rtol=1e-4, atol=1e-5)
        assert data.table[last, 9] == (episode % 2 == 0)  # odd ones terminate


def test_actions_are_scaled_to_unit_bounds(write_dataset, make_episodes):
    from gymnasium import spaces

    episodes = make_episodes()
    low, high = np.float32([-3, 0.0]), np.float32([1, 2])
    parts = [{**part, "actions": low + (part["actions"] + 1) / 2 * (high - low)} for part in episodes]
    data = load(write_dataset(episodes=type(episodes).from_list(parts), action_space=spaces.Box(low, high)))
    np.testing.assert_allclose(data.actions, episodes.actions, atol=1e-5)
    assert data.action_low.tolist() == [-3, 0] and data.action_high.tolist() == [1, 2]


@pytest.mark.parametrize("augmented", ["bridges", "episodes"])
def test_each_side_draws_from_its_own_rows(pair, augmented):
    data = load(*pair, augmented=augmented)
    rows = data.mixture([(1, 0), (0, 1)], generators(2), 64).draw(20)
    bridges = data.synthetic.nonzero()[:, 0].tolist()
    assert set(rows[:, 0].flatten().tolist()) == set(range(40))
    assert set(rows[:, 1].flatten().tolist()) == set(bridges if augmented == "bridges" else range(40, 70))


@pytest.mark.parametrize("ratio", [(4, 1), (1, 1), (1, 0), (0, 1), (2, 3), (1000, 1)])
@pytest.mark.parametrize("size", [1, 10, 256])
def test_ratios_are_exact(pair, ratio, size):
    data = load(*pair)
    mixture = data.mixture([ratio, (1, 1)], generators(2), size)
    blocks = [mixture.draw(steps) for steps in (7, 1, 12)]
    augmented = (torch.cat(blocks)[:, 0] >= 40).sum(-1)
    share = size * ratio[1] / sum(ratio)
    assert (augmented - share).abs().max() < 1
    totals = augmented.cumsum(0)
    assert totals.tolist() == [(t + 1) * size * ratio[1] // sum(ratio) for t in range(20)]
    if size % sum(ratio) == 0:
        assert (augmented == share).all()


def test_rows_are_uniform(pair):
    data = load(*pair)
    counts = torch.bincount(data.mixture([(1, 0)], generators(1), 400).draw(100).flatten(), minlength=40)
    assert (counts - 1000).abs().max() < 6 * 1000**0.5


def test_runs_are_independent_and_paired(pair):
    """A run's rows depend neither on K nor, on the original side, on its ratio."""
    data = load(*pair)
    both = data.mixture([(1, 0), (1, 1)], generators(2), 10).draw(3)
    alone = data.mixture([(1, 1)], generators(2)[1:], 10).draw(3)
    assert torch.equal(both[:, 1:], alone)
    plain = data.mixture([(1, 0)], generators(2)[1:], 10).draw(3)
    assert torch.equal(plain[:, :, 5:], alone[:, :, 5:])


def test_batches(pair):
    data = load(*pair)
    sampler = data.transitions([(4, 1), (1, 0)], generators(2), 10, reward_scale=2.0)
    rows = sampler.draw(3)[1]
    batch = sampler.gather(rows)
    assert {name: tuple(value.shape) for name, value in batch.items()} == {
        "states": (2, 10, 3),
        "actions": (2, 10, 2),
        "rewards": (2, 10),
        "next_states": (2, 10, 3),
        "continues": (2, 10),
    }
    assert torch.equal(batch["states"], data.states[rows])
    assert torch.equal(batch["rewards"], 2 * data.rewards[rows])
    assert torch.equal(batch["next_states"], data.table[rows][..., 6:9])
    assert torch.equal(batch["continues"], data.table[rows][..., 9])


def test_a_mix_of_what_was_made_from_the_source(pair, write_dataset, make_episodes):
    """Its parts are drawn from as if they were one dataset; what is real in it is not."""
    source, extra = pair
    parts = [minari_io.read(i, keep_infos=True) for i in (extra, extra, source)]
    both = mix(parts, output_id="test/both-v0").dataset_id
    one, two = load(source, extra), load(source, both)
    assert two.episodes.n_steps - two.original_steps == 2 * (one.episodes.n_steps - one.original_steps)
    assert int(two.synthetic.sum()) == 2 * int(one.synthetic.sum())
    assert torch.equal(two.table[: one.episodes.n_steps], one.table)
    other = write_dataset("test/other-v0", make_episodes(seed=9))
    with pytest.raises(SourceMismatchError, match=f"{both}.*{source}"):
        load(other, both)


def test_best_episodes(pair):
    """The returns of these episodes rise with their number."""
    data = load(*pair)
    rows = data.mixture([(1, 0), (0, 1)], generators(2), 50, best=0.5).draw(10)
    returns = data.episodes.returns
    original, stitched = np.argsort(-returns[:4])[:2], 4 + np.argsort(-returns[4:])[:1]
    assert set(data.step_episode[rows[:, 0]].flatten().tolist()) == set(original.tolist())
    assert set(data.step_episode[rows[:, 1]].flatten().tolist()) == set(stitched.tolist())


def test_reward_scale(pair, write_dataset, make_episodes):
    data = load(*pair)
    returns = data.episodes.returns[:4]
    assert data.reward_scale == pytest.approx(1000 / (returns.max() - returns.min()))
    one = load(write_dataset("test/one-v0", make_episodes(n_episodes=1)))
    with pytest.raises(ConfigError, match="normalize_rewards=False"):
        _ = one.reward_scale


@pytest.mark.parametrize("text", ["", "4", "4:1:0", "0:0", "-1:2", "a:b", "1.5:1"])
def test_malformed_ratios(text):
    with pytest.raises(RatioError, match="4:1"):
        parse_ratio(text)
    assert parse_ratio("4:1") == (4, 1)


def test_refusals(pair, write_dataset, make_episodes):
    source, extra = pair
    with pytest.raises(RatioError, match="4:1.*0 augmented steps"):
        load(source).mixture([(1, 0), (4, 1)], generators(2), 8)
    with pytest.raises(RatioError, match="-1:2"):
        load(source).mixture([(-1, 2)], generators(1), 8)
    with pytest.raises(ConfigError, match="best=0"):
        load(source).mixture([(1, 0)], generators(1), 8, best=0)
    with pytest.raises(ConfigError, match="nonsense"):
        load(*pair, augmented="nonsense")  # type: ignore[arg-type]
    with pytest.raises(InvalidDataError, match="was not written by minari-stitch"):
        load(source, source)
    with pytest.raises(TooFewStepsError, match="40 steps.*context is 41"):
        load(source).check_context(41)
    with pytest.raises(TooFewStepsError, match="augmented data hold 30"):
        load(*pair).check_context(31)
    load(source).check_context(40)
    other = write_dataset("test/other-v0", make_episodes(seed=9))
    with pytest.raises(SourceMismatchError, match=f"{extra}.*{source}"):
        load(other, extra)
    wide = write_dataset("test/wide-v0", make_episodes(obs_dim=4))
    with pytest.raises(SpaceMismatchError, match="observation_space"):
        load(wide, extra)
    damaged = stitched_version(source, make_episodes(), "test/damaged-v0", n_steps="lost")
    with pytest.raises(InvalidDataError, match="damaged record"):
        load(source, damaged)
    none = stitched_version(source, make_episodes(n_episodes=1), "test/none-v0")
    with pytest.raises(RatioError, match="no stitched episode"):
        load(source, none)
    with pytest.raises(ConfigError, match="keep_infos"):
        LearnerData(minari_io.read(source), minari_io.read(extra))


def test_missing_datasets(pair, datasets_path):
    import shutil

    source, extra = pair
    shutil.rmtree(datasets_path / source)
    with pytest.raises(DatasetNotFoundError, match=f"'{source}', the source of '{extra}', is missing"):
        load(source, extra)
    with pytest.raises(DatasetNotFoundError):
        load(source)


@pytest.mark.parametrize(
    ("dataset_id", "want"),
    [
        ("demo/hopper/medium-replay-v0", ("hopper", "medium-replay")),
        ("demo/hopper/medium-replay-stitched-v0", ("hopper", "medium-replay")),
        ("mujoco/halfcheetah/medium-v0", ("halfcheetah", "medium")),
        ("demo/walker2d/medium-expert-v1", ("walker2d", "medium-expert")),
        ("D4RL/pen/human-v2", ("pen", "human")),
        ("hopper-medium-v2", ("hopper", "medium")),
        ("D4RL/pointmaze/umaze-v2", ("", "")),
    ],
)
def test_task(dataset_id, want):
    assert task(dataset_id) == want
