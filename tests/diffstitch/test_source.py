import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from linear import TINY, episodes, scales

from minari_stitch.diffstitch.config import StitchConfig
from minari_stitch.diffstitch.source import Source
from minari_stitch.errors import NothingToStitchError

DISCOUNT = 0.9


def source_of(lengths, limit=None, context=1, seed=0):
    data = episodes(lengths, seed)
    return data, Source(data, scales(data), DISCOUNT, context, limit)


def rows_of(data):
    """(row, episode, time, length, return-to-go) of each state."""
    row = 0
    for e, part in enumerate(data):
        for t in range(len(part["rewards"]) + 1):
            ahead = sum(DISCOUNT**i * r for i, r in enumerate(part["rewards"][t:]))
            yield row, e, t, len(part["rewards"]), ahead
            row += 1


some_lengths = st.lists(st.integers(1, 14), min_size=2, max_size=6)


@settings(max_examples=30, deadline=None)
@given(lengths=some_lengths, seed=st.integers(0, 99))
def test_each_state_knows_its_place(lengths, seed):
    data, source = source_of(lengths, seed=seed)
    z = (data.observations - data.observations.mean(0)) / data.observations.std(0).clip(1e-9)
    for row, e, t, length, ahead in rows_of(data):
        assert (source.episode[row], source.step[row], source.last[row]) == (e, t, row - t + length)
        assert source.returns[row].item() == pytest.approx(ahead, rel=1e-9, abs=1e-9)
        np.testing.assert_allclose(source.z[row], z[row], atol=1e-4)
        assert torch.equal(source.windows[row], source.z[row])
    assert len(source.z) == row + 1


def slow_share(allowed, share, highest):
    ranked = sorted(allowed, key=lambda item: -item[1] if highest else item[1])
    return sorted(row for row, _ in ranked[: max(1, round(share * len(ranked)))])


@settings(max_examples=60, deadline=None)
@given(
    lengths=some_lengths,
    limit=st.none() | st.integers(8, 20),
    context=st.integers(1, 4),
    shortest=st.integers(1, 4),
    share=st.sampled_from([0.05, 0.3, 0.5, 1.0]),
    pairs=st.sampled_from(["reach", "paper", "reference"]),
    left=st.none() | st.integers(0, 6),
    latest=st.none() | st.integers(0, 6),
)
def test_starts_match_a_loop(lengths, limit, context, shortest, share, pairs, left, latest):
    data, source = source_of(lengths, limit, context)
    config = StitchConfig(
        pairs=pairs, min_bridge=shortest, source_fraction=share, steps_left=left, latest_source=latest
    )
    allowed = [
        (row, ahead)
        for row, _, t, length, ahead in rows_of(data)
        if t < length  # it has an action
        and t + 1 >= context  # and a past
        and (latest is None or t <= latest)
        # By default the dataset goes on as long as the shortest bridge has transitions.
        and length - t > (shortest if left is None else left)
        and (limit is None or t + (shortest + 1) + 1 <= limit)  # bridge and one real step fit in the time limit
    ]
    if not allowed:
        with pytest.raises(NothingToStitchError, match="lower stitch.min_bridge to 1"):
            source.starts(config)
        return
    assert source.starts(config).tolist() == slow_share(allowed, share, highest=pairs == "reference")


@settings(max_examples=30, deadline=None)
@given(lengths=some_lengths, share=st.sampled_from([0.02, 0.3, 1.0]))
def test_targets_match_a_loop(lengths, share):
    data, source = source_of(lengths)
    allowed = [(row, ahead) for row, _, t, length, ahead in rows_of(data) if t < length]
    config = StitchConfig(target_fraction=share)
    assert source.targets(config).tolist() == slow_share(allowed, share, highest=True)


@settings(max_examples=20, deadline=None)
@given(lengths=some_lengths, limit=st.none() | st.integers(8, 20), shortest=st.integers(1, 4))
def test_may_follow_matches_a_loop(lengths, limit, shortest):
    data, source = source_of(lengths, limit)
    rows = torch.arange(len(source.z))
    answers = source.fits(rows[:, None], shortest) & source.may_follow(rows[:, None], rows[None])
    table = list(rows_of(data))
    for a, e, t, _, ahead in table:
        room = limit is None or t + shortest + 2 <= limit
        for b, other, _, _, theirs in table:
            assert answers[a, b] == (room and e != other and theirs > ahead), (a, b)


def test_a_single_episode_may_be_stitched_to_itself():
    data, source = source_of([12])
    rows = torch.arange(13)
    answers = source.may_follow(rows[:, None], rows[None])
    assert torch.equal(answers, source.returns[None] > source.returns[:, None]) and answers.any()


@settings(max_examples=30, deadline=None)
@given(lengths=some_lengths, limit=st.none() | st.integers(6, 20), n=st.integers(0, 5), seed=st.integers(0, 99))
def test_suffix_returns_match_a_loop(lengths, limit, n, seed):
    data, source = source_of(lengths, limit)
    table = list(rows_of(data))
    rng = np.random.default_rng(seed)
    for _ in range(10):
        a, b = (table[i] for i in rng.integers(len(table), size=2))
        # n states between them: the target is arrived at n + 1 steps after the source.
        time, expected = a[2] + n + 1, 0.0
        rewards = data.episode(b[1])["rewards"][b[2] :]
        for i, reward in enumerate(rewards):
            if limit is not None and time + i >= limit:
                break
            expected += DISCOUNT**i * reward
        value = source.suffix_return(torch.tensor([a[0]]), torch.tensor([b[0]]), torch.tensor([n]))
        assert value.dtype == torch.float64 and value.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_states_are_seen_in_the_space_of_the_diffusion_model():
    data = episodes()
    config = dataclasses.replace(TINY, diffusion=dataclasses.replace(TINY.diffusion, normalizer="minmax"))
    source = Source(data, scales(data, config), DISCOUNT, 1, None)
    torch.testing.assert_close(source.windows.amax(0), torch.ones(3))
    assert (source.z.amax(0) - 1).abs().min() > 0.1


def test_a_device_without_float64_gets_float32(monkeypatch):
    data = episodes((14, 9, 20))
    s = scales(data)
    exact = Source(data, s, DISCOUNT, 1, None)
    made = []

    class Low:  # stands for tensors of a device that is not here
        device = type("Device", (), {"type": "mps"})()

    monkeypatch.setattr(torch, "tensor", _on_cpu(torch.tensor, made))
    monkeypatch.setattr(torch, "empty", _on_cpu(torch.empty, made))
    monkeypatch.setattr(torch, "arange", _on_cpu(torch.arange, made))
    other = Source(data, dataclasses.replace(s, low=Low()), DISCOUNT, 1, None)
    assert torch.float64 not in made
    assert other.returns.dtype == torch.float32 and other.power(torch.tensor([2])).dtype == torch.float32
    torch.testing.assert_close(other.returns.double(), exact.returns, rtol=1e-6, atol=1e-6)


def _on_cpu(make, made):
    def wrapped(*args, device=None, **kwargs):
        result = make(*args, **kwargs)
        made.append(result.dtype)
        return result

    return wrapped


@settings(max_examples=30, deadline=None)
@given(lengths=some_lengths, steps=st.integers(1, 20), seed=st.integers(0, 99))
def test_the_pace_is_what_so_many_steps_change(lengths, steps, seed):
    data, source = source_of(lengths, seed=seed)
    changes = [
        (source.z[row + steps] - source.z[row]).double().numpy()
        for row, _, t, length, _ in rows_of(data)
        if t + steps <= length
    ]
    expected = np.sqrt(np.mean(np.square(changes), axis=0)) if changes else np.ones(source.z.shape[1])
    np.testing.assert_allclose(source.pace(steps), expected, rtol=1e-4, atol=1e-5)
