"""EDM against diffusers, the formulas of the paper written out, and flows that have a closed form."""

import math

import pytest
import torch
from diffusers import EDMEulerScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from minari_stitch.baselines.edm import NoiseConfig, denoised, draw_rows, levels, loss
from minari_stitch.errors import ConfigError

DEFAULT = NoiseConfig()


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def diffusers(config=DEFAULT):
    return EDMEulerScheduler(
        sigma_min=config.smallest, sigma_max=config.largest, rho=config.rho, sigma_data=1.0, prediction_type="epsilon"
    )


def smooth(rows, level):
    """A stand-in for a trained network, in which rows, their columns and their noise levels all matter."""
    return torch.tanh(rows + 0.5 * rows.roll(1, -1) + level[:, None])


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("sigma", [0.002, 0.3, 1.0, 7.0, 80.0])
def test_preconditioning_is_that_of_diffusers(sigma):
    x, other = torch.randn(6, 3, generator=seeded()) * math.hypot(1, sigma), diffusers()
    output = smooth(other.precondition_inputs(x, sigma), other.precondition_noise(sigma))
    expected = other.precondition_outputs(x, output, sigma)
    for shape in (1, 6):  # one level for all rows, or one for each
        torch.testing.assert_close(denoised(smooth, x, torch.full((shape,), sigma)), expected)


def test_each_row_has_a_level_of_its_own():
    x, sigma = torch.randn(5, 3, generator=seeded()), torch.tensor([0.002, 0.1, 1.0, 5.0, 80.0])
    together = denoised(smooth, x, sigma)
    for row in range(5):
        torch.testing.assert_close(denoised(smooth, x[row : row + 1], sigma[row : row + 1])[0], together[row])


@pytest.mark.parametrize("sigma", [0.01, 0.7, 20.0])
def test_the_network_sees_and_learns_unit_variance_at_every_level(sigma, double):
    """Karras et al., appendix B.6: what c_in, c_skip, c_out and the weight are there for."""
    clean, noise = torch.randn(2, 200_000, 1, generator=seeded())
    seen = []

    def spy(rows, level):
        seen.append((rows, level))
        return torch.zeros_like(rows)

    skipped = denoised(spy, clean + sigma * noise, torch.tensor([sigma]))
    ((rows, level),) = seen
    assert level.item() == pytest.approx(math.log(sigma) / 4)
    assert rows.std().item() == pytest.approx(1, rel=0.01)
    out = (denoised(lambda rows, level: torch.ones_like(rows), clean, torch.tensor([sigma]))
           - denoised(spy, clean, torch.tensor([sigma]))).mean().item()  # fmt: skip
    target = (clean - skipped) / out
    assert target.std().item() == pytest.approx(1, rel=0.01)
    # c_skip is the one that makes what is left to learn, c_out times the target, the smallest.
    share = (skipped / (clean + sigma * noise)).mean().item()
    left = [(clean - (share + d) * (clean + sigma * noise)).square().mean().item() for d in (-0.01, 0.0, 0.01)]
    assert left[1] < min(left[0], left[2])
    weight = (sigma**2 + 1) / sigma**2
    assert weight * out**2 == pytest.approx(1)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), log_mean=st.floats(-2, 1), log_std=st.floats(0.1, 1.5))
def test_the_loss_is_that_of_a_loop_over_rows(seed, log_mean, log_std):
    config = NoiseConfig(log_mean=log_mean, log_std=log_std)
    rows = torch.randn(7, 3, generator=seeded(seed))
    generator = seeded(seed + 1)
    draws, noises = torch.randn(7, generator=generator), torch.randn(7, 3, generator=generator)
    total = 0.0
    for row, draw, noise in zip(rows, draws.tolist(), noises, strict=True):
        sigma = math.exp(log_mean + log_std * draw)
        noised, other = row + sigma * noise, diffusers()
        output = smooth(other.precondition_inputs(noised, sigma)[None], other.precondition_noise(sigma))[0]
        error = other.precondition_outputs(noised, output, sigma) - row
        total += (sigma**2 + 1) / sigma**2 * error.square().mean().item()
    assert loss(smooth, rows, config, seeded(seed + 1)).item() == pytest.approx(total / 7, rel=1e-3)


def test_the_loss_has_unit_weight_at_every_level():
    """What knows nothing but the skip connection has a loss of 1 on rows of unit variance, whatever the noise."""
    rows = torch.randn(100_000, 2, generator=seeded())
    for log_mean in (-4.0, 0.0, 3.0):
        config = NoiseConfig(log_mean=log_mean, log_std=0.5)
        assert loss(lambda rows, level: 0 * rows, rows, config, seeded(1)).item() == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize("steps", [2, 3, 18, 128])
@pytest.mark.parametrize("config", [DEFAULT, NoiseConfig(smallest=0.1, largest=5.0, rho=3.0)], ids=["edm", "other"])
def test_levels_are_those_of_diffusers(steps, config):
    other = diffusers(config)
    other.set_timesteps(steps)
    mine = levels(steps, config)
    torch.testing.assert_close(torch.tensor(mine), other.sigmas.to(torch.float32), rtol=1e-4, atol=1e-6)
    assert mine[0] == pytest.approx(config.largest) and mine[-2] == pytest.approx(config.smallest) and mine[-1] == 0
    assert mine == sorted(mine, reverse=True) and len(mine) == steps + 1


MEAN, STD = torch.tensor([0.3, -1.0, 0.0]), torch.tensor([0.5, 1.0, 2.0])


def best(rows, level):
    """The network that denoises rows of N(MEAN, STD^2) as well as can be."""
    sigma = (4 * level).exp()[:, None]
    noised = rows * (sigma**2 + 1).sqrt()
    mean, std = MEAN.to(rows), STD.to(rows)
    clean = mean + std**2 / (std**2 + sigma**2) * (noised - mean)
    return (clean - noised / (sigma**2 + 1)) * (sigma**2 + 1).sqrt() / sigma


def flow(generator, rows=64):
    """Where the probability flow of that data takes the sampler's initial noise."""
    start = torch.randn(rows, 3, generator=generator) * DEFAULT.largest
    mean, std = MEAN.to(start), STD.to(start)
    return mean + std / (std**2 + DEFAULT.largest**2).sqrt() * (start - mean)


def test_the_sampler_follows_the_probability_flow_to_second_order(double):
    exact, errors = flow(seeded()), []
    for steps in (16, 32, 64, 128):
        rows = draw_rows(best, (64, 3), steps, DEFAULT, seeded())
        errors.append((rows - exact).square().mean().sqrt().item())
    orders = [math.log2(one / two) for one, two in zip(errors[:-1], errors[1:], strict=True)]
    assert errors[0] < 0.1 and errors[-1] < 2e-3
    assert all(1.7 < order < 2.5 for order in orders), (errors, orders)


def test_samples_have_the_moments_of_the_data():
    rows = draw_rows(best, (20_000, 3), 32, DEFAULT, seeded(3))
    torch.testing.assert_close(rows.mean(0), MEAN, rtol=0, atol=0.05)
    torch.testing.assert_close(rows.std(0), STD, rtol=0.03, atol=0)


def test_each_level_but_the_last_takes_two_evaluations():
    seen = []

    def spy(rows, level):
        assert rows.shape == (4, 3) and level.shape == (1,)
        seen.append(math.exp(4 * level.item()))
        return smooth(rows, level)

    draw_rows(spy, (4, 3), 5, DEFAULT, seeded())
    above = levels(5, DEFAULT)[:-1]
    expected = [above[0], *(level for level in above[1:] for _ in range(2))]
    assert seen == pytest.approx(expected, rel=1e-3)


def test_samples_depend_on_the_generator_alone():
    one, same, other = (draw_rows(smooth, (8, 3), 4, DEFAULT, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_sampling_begins_with_noise_of_the_largest_level():
    seen = []

    def spy(rows, level):
        seen.append(rows)
        return rows

    draw_rows(spy, (8, 3), 2, NoiseConfig(largest=2.0), seeded(1))
    torch.testing.assert_close(seen[0], 2 * torch.randn(8, 3, generator=seeded(1)) / 5**0.5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"smallest": 0.0}, "smallest=0.0 is not possible: .* greater than 0"),
        ({"largest": 0.001}, "smallest=0.002 .* largest=0.001"),
        ({"rho": 0.0}, "rho=0.0"),
        ({"log_std": -1.0}, "log_std=-1.0"),
    ],
)
def test_impossible_noise_is_named(values, message):
    with pytest.raises(ConfigError, match=message):
        NoiseConfig(**values)
