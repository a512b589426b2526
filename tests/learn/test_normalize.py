import numpy as np
import pytest
import torch

from minari_stitch.learn import normalize
from minari_stitch.learn.normalize import Affine, fit_affine, fit_normalizer

KINDS = ("standard", "minmax", "cdf")


@pytest.fixture
def rows():
    """Columns of very different shape: normal, skewed, constant, far from 0, with ties."""
    rng = np.random.default_rng(0)
    return np.stack(
        [
            rng.normal(3, 2, 4000),
            rng.exponential(1, 4000) ** 2,
            np.full(4000, 0.1),
            rng.normal(1e4, 1, 4000),
            rng.integers(0, 3, 4000),
        ],
        1,
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_data_come_back(rows, kind, dtype):
    norm = fit_normalizer(rows.astype(dtype), kind)
    x = torch.tensor(rows, dtype=torch.float32)
    z = norm.encode(x)
    assert z.shape == x.shape and z.dtype == torch.float32 and z.isfinite().all()
    spread = torch.tensor(np.ptp(rows, 0).clip(0.1)).float()
    assert ((norm.decode(z) - x).abs() / spread).max() < 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_any_leading_shape_is_kept(rows, kind):
    norm = fit_normalizer(rows, kind)
    x = torch.tensor(rows[:24], dtype=torch.float32)
    for shape in ((4, 6, 5), (2, 3, 4, 5)):
        torch.testing.assert_close(norm.encode(x.reshape(shape)), norm.encode(x).reshape(shape), rtol=0, atol=0)
        z = norm.encode(x)
        torch.testing.assert_close(norm.decode(z.reshape(shape)), norm.decode(z).reshape(shape), rtol=0, atol=0)
    torch.testing.assert_close(norm.encode(x[0]), norm.encode(x)[0], rtol=0, atol=0)


def test_standard_gives_zero_mean_and_unit_variance(rows):
    z = fit_normalizer(rows).encode(torch.tensor(rows, dtype=torch.float32)).double().numpy()
    varied = [0, 1, 3, 4]
    np.testing.assert_allclose(z[:, varied].mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(z[:, varied].std(0), 1, atol=1e-3)


def test_standard_statistics_are_those_of_float64():
    # In float32 the mean of many equal large values drifts.
    rows = np.tile(np.float32([16777.1, 16777.3]), 100_000)[:, None]
    norm = fit_normalizer(rows)
    assert norm.shift.item() == np.float32(rows.astype(np.float64).mean())
    assert norm.scale.item() == pytest.approx(rows.astype(np.float64).std(), rel=1e-6)


def test_minmax_maps_the_extremes_to_minus_one_and_one(rows):
    z = fit_normalizer(rows, "minmax").encode(torch.tensor(rows, dtype=torch.float32))
    varied = [0, 1, 3, 4]
    torch.testing.assert_close(z[:, varied].amin(0), -torch.ones(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(z[:, varied].amax(0), torch.ones(4), atol=1e-3, rtol=0)


@pytest.mark.parametrize("kind", ["standard", "minmax"])
@pytest.mark.parametrize("value", [0.0, 0.1, -3.7e5])
def test_a_constant_column_keeps_its_scale(kind, value):
    norm = fit_affine(np.full((1000, 1), value), kind)
    assert norm.scale.item() == 1
    x = torch.tensor([[value], [value + 1]], dtype=torch.float32)
    torch.testing.assert_close(norm.encode(x), torch.tensor([[0.0], [1.0]]), atol=0.05, rtol=0)


def test_a_nearly_constant_column_is_still_scaled():
    rows = np.linspace(1, 1 + 1e-5, 100)[:, None]
    assert fit_affine(rows).scale.item() == pytest.approx(rows.std(), rel=1e-5)


def test_cdf_is_monotone_and_uniform_on_the_data(rows):
    norm = fit_normalizer(rows, "cdf")
    grid = np.linspace(rows.min(0) - 1, rows.max(0) + 1, 5000)
    z = norm.encode(torch.tensor(grid, dtype=torch.float32))
    assert (z.diff(dim=0) >= 0).all() and z.min() == -1 and z.max() == 1
    ranks = norm.encode(torch.tensor(rows, dtype=torch.float32)).sort(0).values
    uniform = torch.linspace(-1, 1, len(rows))
    assert (ranks[:, [0, 1]] - uniform[:, None]).abs().max() < 5e-3
    # 1e4 in float32 has steps of 1e-3 of this column's deviation.
    assert (ranks[:, 3] - uniform).abs().max() < 2e-2


def test_cdf_agrees_with_interpolation_between_quantiles():
    rows = np.random.default_rng(1).gamma(2, size=(500, 2))
    norm = fit_normalizer(rows, "cdf")
    shares = np.linspace(0, 1, 1001)
    for column in range(2):
        knots = np.quantile(rows[:, column], shares)
        x = np.linspace(-1, rows.max() + 1, 333)
        expected = np.interp(x, knots, 2 * shares - 1)
        both = torch.tensor(np.stack([x, x], 1), dtype=torch.float32)
        np.testing.assert_allclose(norm.encode(both)[:, column], expected, atol=1e-3)
        z = np.linspace(-1.5, 1.5, 333)
        both = torch.tensor(np.stack([z, z], 1), dtype=torch.float32)
        np.testing.assert_allclose(norm.decode(both)[:, column], np.interp(z, 2 * shares - 1, knots), atol=1e-4)


def test_affine_is_what_it_says_and_moves_to_a_device():
    norm = Affine(torch.tensor([1.0, 2.0]), torch.tensor([0.5, 4.0]))
    assert norm.encode(torch.tensor([2.0, 2.0])).tolist() == [2.0, 0.0]
    assert norm.decode(torch.tensor([2.0, -1.0])).tolist() == [2.0, -2.0]
    for moved in (norm.to("meta"), fit_normalizer(np.eye(3), "cdf").to("meta")):
        assert all(value.device.type == "meta" for value in vars(moved).values())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_blocks_leave_no_trace(monkeypatch, dtype):
    """Moments, and what is normalised, are those of the whole table, bit by bit."""
    monkeypatch.setattr(normalize, "_BLOCK", 7)
    rows = (np.random.default_rng(0).normal(3, 2, (100, 5)) * [1, 10, 100, 1e-3, 5]).astype(dtype)
    mean, std = normalize.mean_and_std(lambda: normalize.blocks(rows))
    np.testing.assert_array_equal(mean, rows.mean(0, dtype=np.float64))
    np.testing.assert_array_equal(std, rows.std(0, dtype=np.float64))
    for kind in ("standard", "cdf"):
        normalizer = normalize.fit_normalizer(rows, kind)
        whole = normalizer.encode(torch.tensor(rows, dtype=torch.float32))
        torch.testing.assert_close(normalize.encode_rows(normalizer, rows), whole, rtol=0, atol=0)
