import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minari_stitch.data.episodes import Episodes

FIELDS = ("observations", "actions", "rewards", "terminations", "truncations")


def parts_of(lengths, seed=0):
    """One mapping for each episode, with all that `from_list` takes."""
    rng = np.random.default_rng(seed)
    return [
        {
            "observations": rng.normal(size=(length + 1, 2)).astype(np.float32),
            "actions": rng.normal(size=(length, 3)),
            "rewards": rng.normal(size=length),
            "terminations": rng.random(length) < 0.5,
            "truncations": rng.random(length) < 0.5,
            "infos": {"mark": rng.normal(size=(length + 1, 1)), "row": np.arange(length + 1)},
            "metadata": {"name": f"e{index}"},
        }
        for index, length in enumerate(lengths)
    ]


def assert_equal(part, expected):
    assert part["metadata"] == expected["metadata"]
    assert part["infos"].keys() == expected["infos"].keys()
    for name in FIELDS:
        assert part[name].dtype == expected[name].dtype
        np.testing.assert_array_equal(part[name], expected[name])
    for name, array in expected["infos"].items():
        np.testing.assert_array_equal(part["infos"][name], array)


some_lengths = st.lists(st.integers(1, 7), min_size=1, max_size=7)


@settings(max_examples=40, deadline=None)
@given(lengths=some_lengths, seed=st.integers(0, 99))
def test_episodes_come_back_as_they_went_in(lengths, seed):
    parts = parts_of(lengths, seed)
    episodes = Episodes.from_list(parts)
    assert len(episodes) == len(lengths) and episodes.n_steps == sum(lengths)
    assert episodes.lengths.tolist() == lengths
    for part, expected in zip(episodes, parts, strict=True):
        assert_equal(part, expected)


@settings(max_examples=40, deadline=None)
@given(lengths=some_lengths)
def test_indices_point_at_the_right_states(lengths):
    episodes = Episodes.from_list(parts_of(lengths))
    owner = [e for e, length in enumerate(lengths) for _ in range(length)]
    assert episodes.step_episode.tolist() == owner
    step = 0
    for e, part in enumerate(episodes):
        assert episodes.state_offsets[e] == sum(length + 1 for length in lengths[:e])
        for t in range(lengths[e]):
            row = episodes.step_state[step]
            np.testing.assert_array_equal(episodes.observations[row], part["observations"][t])
            np.testing.assert_array_equal(episodes.observations[row + 1], part["observations"][t + 1])
            step += 1
    assert episodes.state_offsets[-1] == len(episodes.observations)


@settings(max_examples=40, deadline=None)
@given(lengths=some_lengths, seed=st.integers(0, 99), discount=st.sampled_from([0.1, 0.9, 0.99, 1.0]))
def test_returns_to_go_match_a_loop(lengths, seed, discount):
    episodes = Episodes.from_list(parts_of(lengths, seed))
    expected = []
    for part in episodes:
        rewards = part["rewards"]
        for t in range(len(rewards) + 1):
            expected.append(sum(discount**i * reward for i, reward in enumerate(rewards[t:])))
    np.testing.assert_allclose(episodes.returns_to_go(discount), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(episodes.returns, [part["rewards"].sum() for part in episodes], rtol=1e-12)


def test_returns_are_summed_in_float64():
    part = parts_of([1000])[0] | {"rewards": np.full(1000, 0.1, np.float32)}
    episodes = Episodes.from_list([part])
    exact = 1000 * float(np.float32(0.1))
    assert episodes.returns[0] == pytest.approx(exact, rel=1e-12)
    assert episodes.returns_to_go(1.0)[0] == pytest.approx(exact, rel=1e-12)


def test_select_copies_in_the_order_asked_for():
    parts = parts_of([3, 1, 5, 2])
    chosen = Episodes.from_list(parts).select([2, 0, 2])
    for part, expected in zip(chosen, [parts[2], parts[0], parts[2]], strict=True):
        assert_equal(part, expected)


def test_concatenate_joins_end_to_end():
    parts = parts_of([3, 1, 5, 2])
    joined = Episodes.concatenate([Episodes.from_list(parts[:1]), Episodes.from_list(parts[1:])])
    assert joined.offsets.tolist() == [0, 3, 4, 9, 11]
    for part, expected in zip(joined, parts, strict=True):
        assert_equal(part, expected)


def test_every_array_is_read_only():
    episodes = Episodes.from_list(parts_of([2, 3]))
    arrays = [getattr(episodes, name) for name in (*FIELDS, "offsets")]
    for array in (*arrays, *episodes.infos.values(), episodes.episode(0)["actions"]):
        with pytest.raises(ValueError, match="read-only"):
            array[:1] = 0


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("observations", lambda x: x[:-1]),
        ("observations", lambda x: x[:, 0]),
        ("actions", lambda x: x[:-1]),
        ("rewards", lambda x: x[1:]),
        ("terminations", lambda x: x[1:]),
        ("offsets", lambda x: x + 1),
        ("offsets", lambda x: np.array([0, 0, x[-1]])),
        ("infos", lambda x: {"mark": np.zeros(3)}),
        ("metadata", lambda x: [{}]),
    ],
)
def test_arrays_that_do_not_fit_are_refused(field, change):
    episodes = Episodes.from_list(parts_of([2, 3]))
    with pytest.raises(AssertionError):
        Episodes(**vars_of(episodes) | {field: change(getattr(episodes, field))})


def vars_of(episodes):
    return {name: getattr(episodes, name) for name in (*FIELDS, "offsets", "infos", "metadata")}


def test_saved_arrays_are_mapped_back_and_can_be_saved_again(tmp_path):
    episodes = Episodes.from_list(parts_of([2, 3]))
    episodes.save(tmp_path)
    episodes.save(tmp_path)
    loaded = Episodes.load(tmp_path)
    for name in (*FIELDS, "offsets"):
        array = getattr(loaded, name)
        assert isinstance(array, np.memmap) and array.dtype == getattr(episodes, name).dtype
        np.testing.assert_array_equal(array, getattr(episodes, name))
    assert loaded.fingerprint() == episodes.fingerprint()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"{name}.npy" for name in (*FIELDS, "offsets"))


def test_the_fingerprint_sees_each_value():
    base = Episodes.from_list(parts_of([2, 3]))
    assert Episodes.from_list(parts_of([2, 3])).fingerprint() == base.fingerprint()
    prints = {base.fingerprint()}
    for name in FIELDS:
        for position in (0, -1):
            array = getattr(base, name).copy()
            flat = array.reshape(-1)
            flat[position] = ~flat[position] if array.dtype == bool else flat[position] + 1
            prints.add(Episodes(**vars_of(base) | {name: array}).fingerprint())
    for changed in (
        {"offsets": np.array([0, 3, 5])},
        {"actions": base.actions.astype(np.float32)},
        {"actions": np.ascontiguousarray(base.actions[:, :2])},
    ):
        prints.add(Episodes(**vars_of(base) | changed).fingerprint())
    assert len(prints) == 1 + 2 * len(FIELDS) + 3


def test_the_fingerprint_sees_dtypes_and_shapes_where_the_bytes_are_equal():
    base = Episodes.from_list(parts_of([2, 3]))
    zeros = [np.zeros((5, 2), np.float32), np.zeros((5, 1), np.float64), np.zeros((5, 1, 2), np.float32)]
    assert len({Episodes(**vars_of(base) | {"actions": actions}).fingerprint() for actions in zeros}) == 3


def test_the_fingerprint_does_not_depend_on_memory_layout():
    base = Episodes.from_list(parts_of([2, 3]))
    layout = Episodes(**vars_of(base) | {"observations": np.asfortranarray(base.observations)})
    assert layout.fingerprint() == base.fingerprint()


def test_goal_dimensions_are_constant_in_each_episode_and_differ_between_them(make_episodes):
    episodes = make_episodes(n_episodes=3, obs_dim=4)
    observations = episodes.observations.copy()
    observations[:, 1] = np.repeat([1.0, 2.0, 1.0], episodes.lengths + 1)  # a goal
    observations[:, 2] = 5.0  # a constant
    changed = dataclasses.replace(episodes, observations=observations)
    assert changed.goal_dimensions().tolist() == [False, True, False, False]
    assert not make_episodes(n_episodes=1).goal_dimensions().any()
