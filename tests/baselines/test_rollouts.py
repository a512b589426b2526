"""Rollouts become valid episodes that say where they come from, and judges say how far off they are."""

from itertools import count, repeat
from types import SimpleNamespace

import linear
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from minari_stitch.baselines.judged import FittedRollouts
from minari_stitch.baselines.rollouts import End, Rollouts
from minari_stitch.data.episodes import Episodes
from minari_stitch.data.spaces import FlatSpace
from minari_stitch.data.validation import find_problems
from minari_stitch.errors import LowAcceptanceError
from minari_stitch.learn.judging import DELTAS
from minari_stitch.run import Run

SOURCE = linear.episodes((14, 9, 20, 12), dtype=np.float32)
IDS = [3, 4, 7, 11]
DISCOUNT = 0.9
HORIZON = 4
SPACES = {
    "observation_space": FlatSpace(spaces.Box(-np.inf, np.inf, (3,), np.float32)),
    "action_space": FlatSpace(spaces.Box(np.float32(linear.LOW), np.float32(linear.HIGH)), "action"),
}


def rollouts(lengths, ends=None, sources=None, seed=0):
    """Made-up ones that begin where they say, at steps of the source or (-1) nowhere."""
    rng, count = np.random.default_rng(seed), len(lengths)
    sources = np.full(count, -1) if sources is None else np.asarray(sources)
    states = rng.normal(size=(count, HORIZON + 1, 3))
    states[:, 0] = np.where((sources >= 0)[:, None], SOURCE.observations[sources], states[:, 0])
    alive = np.arange(HORIZON) < np.asarray(lengths)[:, None]
    return Rollouts(
        source=sources,
        length=np.asarray(lengths),
        end=np.full(count, End.COMPLETE) if ends is None else np.asarray(ends),
        states=states,
        actions=rng.uniform(linear.LOW, linear.HIGH, (count, HORIZON, 2)),
        rewards=rng.normal(size=(count, HORIZON)),
        errors=rng.exponential(1.0, (count, HORIZON)) * alive,
        disagreement=rng.exponential(1.0, count),
    )


@st.composite
def batches(draw):
    count = draw(st.integers(1, 12))
    ends = st.sampled_from(list(End))
    starts = st.sampled_from([-1, *SOURCE.step_state.tolist()])
    return rollouts(
        draw(st.lists(st.integers(0, HORIZON), min_size=count, max_size=count)),
        draw(st.lists(ends, min_size=count, max_size=count)),
        draw(st.lists(starts, min_size=count, max_size=count)),
        draw(st.integers(0, 1000)),
    )


@settings(max_examples=60, deadline=None)
@given(batch=batches())
def test_every_rollout_with_a_step_is_a_valid_traceable_episode(batch):
    parts = list(batch.episodes(SOURCE, IDS, DISCOUNT))
    rows = np.flatnonzero(batch.length)
    assert len(parts) == len(rows)
    for number, (row, part) in enumerate(zip(rows, parts, strict=True)):
        steps = batch.length[row]
        assert not find_problems(part, episode=number, **SPACES)
        for name in ("observations", "actions", "rewards"):
            wanted = {"observations": batch.states}.get(name, getattr(batch, name, None))
            extra = name == "observations"
            assert part[name].dtype == getattr(SOURCE, name).dtype
            np.testing.assert_array_equal(part[name], wanted[row, : steps + extra].astype(part[name].dtype))
        # It ends once, at its last step, and says why.
        done = part["terminations"].astype(int) + part["truncations"]
        assert done.tolist() == [0] * (steps - 1) + [1]
        assert part["terminations"][-1] == (batch.end[row] == End.TERMINATED)
        # Infos have a row for each state.
        infos, about = part["infos"], part["metadata"]
        assert all(info.shape == (steps + 1, 1) for info in infos.values())
        assert infos["synthetic"][:, 0].tolist() == [True] * steps + [False]
        error = batch.errors[row, :steps]
        np.testing.assert_allclose(infos["dynamics_error"][:, 0], [*error, 0], rtol=1e-6)
        togo = [float((part["rewards"][t:] * DISCOUNT ** np.arange(steps - t)).sum()) for t in range(steps + 1)]
        np.testing.assert_allclose(infos["return_to_go"][:, 0], togo, atol=1e-6)
        assert about["augmented"] is True
        assert about["dynamics_error"] == error.max() and about["disagreement"] == batch.disagreement[row]
        # The first state is one of the source, or none is.
        for name in ("source_episode", "source_step"):
            assert infos[name][0, 0] == about[name] and (infos[name][1:] == -1).all()
        if batch.source[row] < 0:
            assert about["source_episode"] == about["source_step"] == -1
        else:
            real = SOURCE.episode(IDS.index(about["source_episode"]))["observations"][about["source_step"]]
            np.testing.assert_array_equal(part["observations"][0], real)
    if parts:
        assert Episodes.from_list(parts).n_steps == batch.length.sum()


@settings(max_examples=100, deadline=None)
@given(lengths=st.lists(st.integers(0, HORIZON), min_size=1, max_size=20), wanted=st.integers(1, 40))
def test_the_head_is_the_fewest_that_are_enough(lengths, wanted):
    batch = rollouts(lengths)
    head = batch.head(wanted)
    assert all(np.array_equal(getattr(head, name), value[: len(head)]) for name, value in vars(batch).items())
    if sum(lengths) < wanted:
        assert len(head) == len(batch)
    else:
        assert head.length.sum() >= wanted > head.length[:-1].sum()


def test_the_report_counts_all_and_judges_what_is_written():
    batch = rollouts([0, 4, 2, 4, 0, 1], [2, 0, 1, 1, 2, 2])
    report = batch.report()
    assert report["rollouts"] == 6 == sum(report["ends"].values()) == sum(report["lengths"].values())
    assert report["ends"] == {"complete": 1, "terminated": 2, "uncertain": 3}
    assert report["lengths"] == {"0": 2, "1": 1, "2": 1, "3": 0, "4": 2}
    worst = [max(batch.errors[row].max(), batch.disagreement[row]) for row in (1, 2, 3, 5)]
    for delta in DELTAS:
        assert report["acceptance"][f"{delta:g}"] == sum(error < delta for error in worst) / 4
    assert report["acceptance"]["0.25"] == 0 < report["acceptance"]["2"] < 1


def test_judges_say_how_far_a_rollout_is_from_their_prediction():
    """With exact networks, two of which are off by a constant, all of it is known."""
    offsets = (0.0, 0.0, 0.3, -0.1)
    models, rng = linear.exact(SOURCE, offsets=offsets), np.random.default_rng(0)
    s, count = models.scales, 6
    z = torch.tensor(rng.normal(size=(count, HORIZON + 1, 3)), dtype=torch.float32)
    u = torch.tensor(rng.uniform(-1, 1, (count, HORIZON, 2)), dtype=torch.float32)
    length, rewards = torch.tensor([4, 0, 1, 3, 4, 2]), torch.tensor(rng.normal(size=(count, HORIZON)))
    source, end = torch.arange(count), torch.arange(count) % 3
    batch = Rollouts.judged(
        models.dynamics_net, s, source=source, length=length, end=end, states=z, actions=u, rewards=rewards
    )
    assert len(batch) == count
    for name, tensor in {"source": source, "length": length, "end": end, "rewards": rewards}.items():
        np.testing.assert_array_equal(getattr(batch, name), tensor.numpy())
    mean, std, change = (x.double().numpy() for x in (s.state.shift, s.state.scale, s.change))
    np.testing.assert_allclose(batch.states, z.numpy() * std + mean, rtol=1e-5, atol=1e-5)
    low, high = linear.LOW, linear.HIGH
    np.testing.assert_allclose(batch.actions, low + (u.numpy() + 1) / 2 * (high - low), atol=1e-5)
    for row in range(count):
        spread = []
        for t in range(HORIZON):
            if t >= length[row]:
                assert batch.errors[row, t] == 0
                continue
            true = linear.next_state(batch.states[row, t].astype(float), batch.actions[row, t].astype(float))
            predicted = [(true - mean) / std + change * offset for offset in offsets]
            middle = np.mean(predicted, 0)
            expected = ((z[row, t + 1].numpy() - middle) ** 2).sum()
            assert batch.errors[row, t] == pytest.approx(expected, rel=1e-3, abs=1e-4)
            spread.append(np.mean([((p - middle) ** 2).sum() for p in predicted]))
        assert batch.disagreement[row] == pytest.approx(max(spread, default=0.0), rel=1e-3)


def test_rollouts_come_back_from_disk_and_join(tmp_path):
    one, two = rollouts([1, 0, 3]), rollouts([4], seed=1)
    one.save(tmp_path / "000000.npz")
    joined = Rollouts.concatenate([Rollouts.load(tmp_path / "000000.npz"), two])
    assert len(joined) == 4 and joined.length.tolist() == [1, 0, 3, 4]
    for name, value in vars(one).items():
        np.testing.assert_array_equal(getattr(joined, name)[:3], value)


@pytest.mark.parametrize("wanted", [1, 5, 11, 40])
def test_chunk_after_chunk_until_there_is_enough(tmp_path, wanted):
    lengths, seen = [0, 3, 0, 1, 4, 0], []

    def made_of(seeds):
        for seed in seeds:
            rollouts(lengths, seed=seed).save(tmp_path / f"{seed}.npz")
            yield tmp_path / f"{seed}.npz"

    job = SimpleNamespace(transform=SimpleNamespace(gamma=DISCOUNT, name="TATU"), made=lambda run: made_of(count()))
    fitted = FittedRollouts(
        dataset=SimpleNamespace(episodes=SOURCE, episode_ids=np.array(IDS)),
        run=Run(directory=tmp_path, workers=1, progress=lambda *report: seen.append(report)),
        job=job,
    )
    sample = fitted.sample(wanted)
    chunks = -(-wanted // sum(lengths))
    assert seen == [("sample", min(sum(lengths) * n, wanted), wanted) for n in range(1, chunks + 1)]
    for _ in range(2):  # the parts begin anew at each call
        parts = list(sample.parts())
        made = [len(part["rewards"]) for part in parts]
        assert made == [length for length in lengths * chunks if length][: len(made)]
        assert (sample.n_episodes, sample.n_steps) == (len(made), sum(made))
        assert sum(made) >= wanted > sum(made[:-1])
    assert sample.report["rollouts"] > len(made) and sample.report["lengths"]["0"] > 0
    assert all(part["infos"]["return_to_go"].any() for part in parts)
    job.made = lambda run: made_of(repeat(0))
    lengths[:] = [0] * 6
    with pytest.raises(LowAcceptanceError, match=rf"only 0 of 516 rollouts of TATU .* gave 0 of {wanted} steps"):
        fitted.sample(wanted)
