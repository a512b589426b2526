import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from linear import episodes, exact

from minari_stitch.learn.calibration import COVERAGE, UNCALIBRATED, Calibration, calibrate
from minari_stitch.learn.tables import Tables


@given(st.integers(0, 2**32 - 1), st.integers(1, 400), st.floats(0.0, 1.5), st.floats(-3.0, 3.0), st.floats(0.01, 2.0))
def test_nine_of_ten_windows_are_within_the_bound(seed, count, slope, scale, noise):
    rng = np.random.default_rng(seed)
    disagreement = rng.lognormal(-3, 1, count)
    errors = np.exp(scale) * disagreement**slope * rng.lognormal(0, noise, count)
    fitted = Calibration.of(disagreement, errors)
    bound = fitted(torch.tensor(disagreement)).numpy()
    assert (errors <= bound * (1 + 1e-6)).mean() >= COVERAGE - 1 / count
    assert fitted.windows == count and fitted.slope >= 0
    # As few as possible: nine of ten and no more, but for the finite number.
    assert (errors < bound * (1 - 1e-6)).mean() <= COVERAGE + 2 / count


def test_new_windows_are_within_the_bound_as_often():
    rng = np.random.default_rng(0)

    def windows(count):
        disagreement = rng.lognormal(-3, 1, count)
        return disagreement, 7 * disagreement**0.8 * rng.lognormal(0, 0.7, count)

    fitted = Calibration.of(*windows(4000))
    assert fitted.slope == pytest.approx(0.8, abs=0.05)
    assert fitted.scale == pytest.approx(7 * np.exp(0.7 * 1.2816), rel=0.1)  # 90 % of a normal distribution
    disagreement, errors = windows(20_000)
    assert (errors < fitted(torch.tensor(disagreement)).numpy()).mean() == pytest.approx(COVERAGE, abs=0.01)


def test_where_judges_agree_the_bound_holds_as_often():
    """Errors spread wider where the disagreement is small: a line through their mean would promise too much there."""
    rng = np.random.default_rng(1)

    def windows(count):
        disagreement = rng.lognormal(-3, 1.5, count)
        spread = np.interp(np.log(disagreement), [-6, 0], [1.5, 0.3])
        return disagreement, 7 * disagreement**0.9 * rng.lognormal(0, 1, count) ** spread

    fitted = Calibration.of(*windows(8000))
    disagreement, errors = windows(40_000)
    within = (errors < fitted(torch.tensor(disagreement)).numpy())[np.argsort(disagreement)]
    assert [part.mean() for part in np.array_split(within, 5)] == pytest.approx([COVERAGE] * 5, abs=0.025)


def test_a_single_judge_has_one_bound_for_all():
    errors = np.arange(1.0, 100.0)
    fitted = Calibration.of(np.zeros(99), errors)
    assert fitted.slope == 0 and fitted.scale == pytest.approx(90.0, rel=0.01)
    assert fitted(torch.tensor([0.0, 3.0])).tolist() == pytest.approx([fitted.scale] * 2)


def test_without_calibration_judges_are_taken_at_their_word():
    assert UNCALIBRATED(torch.tensor([0.0, 5.0])).tolist() == [0.0, 0.0]


def test_only_held_out_windows_of_one_episode_count():
    """Judges that are off by a known amount at held-out steps, and by more where windows may not look."""
    data = episodes([14, 9, 20, 12, 6, 17] * 4)
    models = exact(data)
    tables = Tables(data, models.scales, 0)
    held = torch.zeros(len(tables.z), dtype=torch.bool)
    held[tables.state[tables.held]] = True
    asked = []

    def judges(z, u):
        row = (z[:, None] == tables.z).all(-1).int().argmax(1)
        asked.append(row)
        off = torch.where(held[row], 0.5, 10.0)
        return torch.stack([models.judges(z, u).mean(0) + off[:, None]])

    fitted = calibrate(judges, tables, 2, 6, seed=3)
    assert held[torch.cat(asked)].all()
    width = tables.z.shape[1]
    assert fitted.slope == 0 and fitted.scale == pytest.approx(0.25 * width, rel=0.02)
    assert fitted.windows > 1000
    again = calibrate(judges, tables, 2, 6, seed=3)
    assert again == fitted
