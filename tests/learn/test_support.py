import numpy as np
import pytest
import torch
from linear import episodes, exact
from scipy.spatial import cKDTree

from minari_stitch.learn import support as module
from minari_stitch.learn.support import Support
from minari_stitch.learn.tables import Tables


@pytest.fixture(scope="module")
def tables():
    data = episodes([14, 9, 20, 12, 6, 17] * 8)
    return Tables(data, exact(data).scales, 0)


def states_of(tables, steps):
    return tables.z[tables.state[steps]].numpy()


@pytest.mark.parametrize("block", [1, 1000, 2**24])
def test_distances_are_those_of_a_tree(tables, monkeypatch, block):
    monkeypatch.setattr(module, "_BLOCK", block)
    support = Support.of(tables, 0)
    tree = cKDTree(states_of(tables, tables.train))
    asked = np.random.default_rng(0).normal(size=(5, 7, 3)).astype(np.float32)
    expected = tree.query(asked)[0] ** 2 / support.unit
    np.testing.assert_allclose(support(torch.tensor(asked)), expected, rtol=1e-3, atol=1e-4)


def test_nine_of_ten_held_out_states_are_nearer_than_one(tables):
    support = Support.of(tables, 0)
    distances = support(torch.tensor(states_of(tables, tables.held)))
    assert (distances <= 1).float().mean() == pytest.approx(0.9, abs=0.03)
    assert support(tables.z[tables.state[tables.train]]).max() < 1e-4
    assert support(tables.z[:1] + 100).item() > 1000


def test_large_sources_are_compared_in_part(tables, monkeypatch):
    monkeypatch.setattr(module, "REFERENCE", 50)
    support = Support.of(tables, 0)
    assert support.reference.shape == (50, 3)
    rows = {tuple(row) for row in states_of(tables, tables.train).tolist()}
    assert all(tuple(row) in rows for row in support.reference.tolist())
    assert torch.equal(support.reference, Support.of(tables, 0).reference)
    assert not torch.equal(support.reference, Support.of(tables, 1).reference)


def test_twins_leave_a_unit(tables):
    twins = Tables.__new__(Tables)
    vars(twins).update(vars(tables) | {"z": torch.zeros_like(tables.z)})
    support = Support.of(twins, 0)
    assert support(torch.zeros(2, 3)).tolist() == [0, 0] and support(torch.ones(1, 3)).item() > 1e6
