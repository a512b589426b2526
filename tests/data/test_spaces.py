from collections import OrderedDict

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from minari_stitch.data.spaces import FlatSpace
from minari_stitch.errors import InvalidDataError, UnsupportedSpaceError

boxes = st.builds(
    lambda shape, dtype: spaces.Box(-10, 10, shape, dtype),
    st.lists(st.integers(1, 3), max_size=3).map(tuple),
    st.sampled_from([np.float32, np.float64]),
)
keys = st.text("abcXYZ_09", min_size=1, max_size=4)
observation_spaces = st.recursive(
    boxes, lambda inner: st.dictionaries(keys, inner, min_size=1, max_size=3).map(spaces.Dict), max_leaves=6
)


def sample(space, length, rng):
    if isinstance(space, spaces.Dict):
        return {key: sample(inner, length, rng) for key, inner in space.items()}
    return rng.uniform(-10, 10, (length, *space.shape)).astype(space.dtype)


def assert_same(left, right):
    if isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_same(left[key], right[key])
    else:
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)


@settings(max_examples=60, deadline=None)
@given(space=observation_spaces, length=st.integers(1, 4), seed=st.integers(0, 99))
def test_flatten_and_unflatten_are_inverse(space, length, seed):
    flat = FlatSpace(space)
    data = sample(space, length, np.random.default_rng(seed))
    array = flat.flatten(data)
    assert array.shape == (length, flat.size) == (length, flat.low.size) == (length, flat.high.size)
    assert_same(flat.unflatten(array), data)


def test_a_dict_is_flattened_by_key_name_whatever_its_order():
    parts = {"goal": spaces.Box(0, 1, (2,)), "at": spaces.Box(-1, 1, (1,), np.float64)}
    data = {"goal": np.ones((3, 2), np.float32), "at": np.zeros((3, 1))}
    arrays = [
        FlatSpace(spaces.Dict(OrderedDict(order))).flatten(data) for order in (parts.items(), reversed(parts.items()))
    ]
    np.testing.assert_array_equal(arrays[0], arrays[1])
    flat = FlatSpace(spaces.Dict(parts))
    assert flat.slices == {"at": slice(0, 1), "goal": slice(1, 3)}
    assert flat.low.tolist() == [-1, 0, 0] and flat.high.tolist() == [1, 1, 1]
    assert arrays[0].dtype == np.float64 and arrays[0][0].tolist() == [0, 1, 1]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_box_keeps_its_dtype_and_is_not_copied(dtype):
    data = np.arange(6, dtype=dtype).reshape(2, 3)
    array = FlatSpace(spaces.Box(-1, 1, (3,), np.float32)).flatten(data)
    assert array.dtype == dtype and np.shares_memory(array, data)


def test_integers_come_back_rounded_and_inside_their_bounds():
    flat = FlatSpace(spaces.Box(0, 9, (2,), np.uint8))
    assert flat.flatten(np.array([[1, 2]], np.uint8)).dtype.kind == "f"
    back = flat.unflatten(np.array([[3.6, -2.0], [11.0, 0.4]]))
    assert back.dtype == np.uint8 and back.tolist() == [[4, 0], [9, 0]]


@pytest.mark.parametrize(
    ("space", "role", "names"),
    [
        (spaces.Discrete(4), "action", ["Discrete(4)", "action", "Box of floats"]),
        (spaces.MultiDiscrete([2, 3]), "action", ["MultiDiscrete"]),
        (spaces.Box(0, 9, (2,), np.int64), "action", ["int64"]),
        (spaces.Dict(a=spaces.Box(-1, 1)), "action", ["Dict"]),
        (spaces.Box(0, 255, (64, 64, 3), np.uint8), "observation", ["uint8", "not an image"]),
        (spaces.Tuple([spaces.Box(-1, 1)]), "observation", ["Tuple", "Dict of Boxes"]),
        (spaces.Dict(a=spaces.Dict(text=spaces.Text(5))), "observation", ["Text", "'a/text'"]),
        (spaces.Dict(), "observation", ["Dict()"]),
    ],
)
def test_unsupported_spaces_are_named(space, role, names):
    with pytest.raises(UnsupportedSpaceError) as error:
        FlatSpace(space, role)
    assert all(name in str(error.value) for name in names), error.value


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"a": np.zeros((3, 2))}, r"\['b'\] is missing"),
        ({"a": np.zeros((3, 1)), "b": np.zeros((3, 1))}, r"\['a'\] has shape \(3, 1\)"),
        ({"a": np.zeros((3, 2)), "b": np.zeros((2, 1))}, "differ in length: {'a': 3, 'b': 2}"),
        ({"a": np.zeros((3, 2)), "b": np.full((3, 1), "x")}, "dtype <U1"),
        (np.zeros((3, 3)), "is missing"),
    ],
)
def test_data_that_does_not_fit_the_space_is_named(data, message):
    flat = FlatSpace(spaces.Dict(a=spaces.Box(-1, 1, (2,)), b=spaces.Box(-1, 1, (1,))))
    with pytest.raises(InvalidDataError, match=message):
        flat.flatten(data)
