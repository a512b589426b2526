"""Infos say of every state where it comes from, and what it is worth."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from minari_stitch.data import provenance as module
from minari_stitch.data.provenance import original, provenance

REWARDS = st.sampled_from([np.float32, np.float64]).flatmap(
    lambda dtype: arrays.arrays(dtype, st.integers(1, 30), elements={"min_value": -1e3, "max_value": 1e3})
)


def infos(rewards, discount=0.99):
    states = len(rewards) + 1
    synthetic = np.arange(states) % 2 == 1
    return provenance(
        synthetic, np.where(synthetic, -1, 7), np.arange(states), np.linspace(0, 1, states), rewards, discount
    )


@given(REWARDS, st.floats(0.01, 1))
def test_returns_to_go_are_those_of_a_loop_to_the_last_bit(rewards, discount):
    wanted = np.zeros(len(rewards) + 1)
    for t in reversed(range(len(rewards))):
        wanted[t] = rewards[t] + discount * wanted[t + 1]
    found = infos(rewards, discount)["return_to_go"]
    assert found.dtype == np.float64 and found[:, 0].tobytes() == wanted.tobytes()


def test_each_state_has_a_row_of_each_info():
    found = infos(np.ones(4, np.float32))
    assert {name: (column.shape, column.dtype) for name, column in found.items()} == {
        "synthetic": ((5, 1), bool),
        "source_episode": ((5, 1), np.int64),
        "source_step": ((5, 1), np.int64),
        "dynamics_error": ((5, 1), np.float32),
        "support": ((5, 1), np.float32),
        "return_to_go": ((5, 1), np.float64),
    }
    assert found["synthetic"][:, 0].tolist() == [False, True, False, True, False]
    assert found["source_episode"][:, 0].tolist() == [7, -1, 7, -1, 7]
    assert found["source_step"][:, 0].tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(found["dynamics_error"][:, 0], [0, 0.25, 0.5, 0.75, 1])
    rows = [line.split("|")[1] for line in module.__doc__.splitlines() if line.startswith("| `")]
    assert re.findall(r"`(\w+)`", " ".join(rows)) == list(found)  # what the table says


@pytest.mark.parametrize("augmented", [False, True])
def test_real_episodes_are_themselves_and_say_where_they_stood(make_episodes, augmented):
    source, ids = make_episodes(3), [4, -1, 9]
    found = list(original(source, ids, 0.9, augmented=augmented))
    returns = source.returns_to_go(0.9).reshape(3, -1)
    for number, (part, real) in enumerate(zip(found, source, strict=True)):
        for name in ("observations", "actions", "rewards", "terminations", "truncations"):
            np.testing.assert_array_equal(part[name], real[name])
        kept = {name: column[:, 0] for name, column in part["infos"].items()}
        assert not kept["synthetic"].any() and not kept["dynamics_error"].any()
        assert (kept["source_episode"] == ids[number]).all()
        assert kept["source_step"].tolist() == (list(range(11)) if ids[number] >= 0 else [-1] * 11)
        np.testing.assert_array_equal(kept["return_to_go"], returns[number])
        assert part["metadata"] == {"augmented": augmented, "source_episode": ids[number]}
