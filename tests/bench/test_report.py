"""Intervals, pairing by seed, Markdown and pictures."""

import numpy as np
import pytest

from benchmarks import comparison, report
from benchmarks.results import Cell, Results


def record(score, curve=None, source="dataset"):
    return {"score": score, "curve": curve or [[10, score / 2], [20, score]], "reference": {"source": source}}


def cells(originals, mixed, **kwargs):
    """Cells of one comparison with these scores by seed."""
    common = {"algo": "dt", "dataset": "test/walk-v0", "protocol": "the last evaluation, of 2", **kwargs}
    mix = {"augmented": "test/walk-stitched-v0", "kind": "episodes", "ratio": "4:1"}
    return {Cell(**common, seed=seed): record(score) for seed, score in originals.items()} | {
        Cell(**common, **mix, seed=seed): record(score) for seed, score in mixed.items()
    }


def test_interval_is_students():
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    mean, half = comparison.interval(values)
    assert mean == 3 and half == pytest.approx(2.7764 * np.sqrt(2.5 / 5), rel=1e-4)
    assert np.isnan(comparison.interval(values[:1])[1])


@pytest.mark.parametrize(
    ("values", "quantile"),  # closed forms of Student's t with one and two degrees of freedom
    [([0.0, 3.0], np.tan(0.475 * np.pi)), ([1.0, 5.0, 3.0], 0.95 / np.sqrt(2 * 0.975 * 0.025))],
)
def test_interval_of_few_seeds(values, quantile):
    half = quantile * np.std(values, ddof=1) / np.sqrt(len(values))
    assert comparison.interval(np.array(values)) == pytest.approx((np.mean(values), half))


def test_interval_of_an_average():
    """Two seeds a dataset: a resampled mean is low, middle or high with chances 1/4, 1/2, 1/4, and nothing else."""
    assert comparison.average_interval([np.array([0.0, 2.0])]) == (0, 2)
    assert comparison.average_interval([np.array([1.0, 1.0]), np.array([4.0, 4.0, 4.0])]) == (2.5, 2.5)
    assert np.isnan(comparison.average_interval([np.array([1.0, 2.0]), np.array([1.0])])).all()
    rng = np.random.default_rng(0)
    strata = [rng.normal(mean, 3, 200) for mean in (0, 50)]  # seeds do not cross datasets: 50 apart, and yet narrow
    low, high = comparison.average_interval(strata)
    half = 1.96 * np.sqrt(sum(values.var() / 200 for values in strata)) / 2
    center = np.mean([values.mean() for values in strata])
    assert (low, high) == pytest.approx((center - half, center + half), abs=0.1 * half)
    assert (low, high) == comparison.average_interval(strata)


def test_pairs_by_seed():
    (pair,) = comparison.compare(cells({0: 10.0, 1: 30.0, 2: 99.0}, {1: 33.0, 0: 11.0, 7: 0.0}))
    assert pair.original.tolist() == [10, 30] and pair.augmented.tolist() == [11, 33]
    mean, half = pair.difference
    assert mean == 2 and half == pytest.approx(12.7062 * np.sqrt(2) / np.sqrt(2), rel=1e-4)
    (row,) = comparison.rows([pair])
    assert row[4:] == ("20.0 ± 14.1", "22.0 ± 15.6", "+2.0", "[-10.7, +14.7]", "+2.0", "75%", "0.295", "2")
    # Student's t with one degree of freedom is Cauchy's distribution; here t = 2.
    assert pair.p_value == pytest.approx(1 - 2 / np.pi * np.arctan(2))


def test_statistics_of_few_seeds():
    assert comparison.iqm(np.array([0.0, 1.0, 3.0, 99.0])) == 2
    assert comparison.improvement(np.array([1.0, 2.0]), np.array([2.0, 3.0])) == pytest.approx(3.5 / 4)
    (same,) = comparison.compare(cells({0: 1.0, 1: 2.0}, {0: 1.0, 1: 2.0}))
    (sure,) = comparison.compare(cells({0: 1.0, 1: 2.0}, {0: 3.0, 1: 4.0}))
    assert (same.p_value, sure.p_value) == (1, 0)


def test_p_values_are_corrected_for_the_number_of_rows():
    """Benjamini and Hochberg (1995): the k-th smallest of m p-values times m / k, monotone."""
    pairs = [comparison.compare(cells({0: 0.0, 1: 0.0}, {0: d - 1, 1: d + 1}))[0] for d in (0.5, 2.0, 9.0)]
    single = comparison.compare(cells({0: 0.0}, {0: 1.0}))
    p = np.array([pair.p_value for pair in pairs])
    wanted = np.minimum.accumulate(p * 3 / [3, 2, 1])
    np.testing.assert_allclose(comparison.q_values(pairs + single), [*wanted, np.nan])


def test_other_protocols_settings_and_sources_do_not_mix():
    finished = cells({0: 1.0}, {0: 2.0}) | cells({0: 5.0}, {0: 7.0}, settings="b")
    finished |= cells({0: 9.0}, {}, source="changed") | cells({}, {0: 50.0}, protocol="another")
    assert sorted(c.difference[0] for c in comparison.compare(finished)) == [1, 2]


def test_markdown_says_how():
    finished = cells({0: 1.0}, {0: 2.0}) | {k: record(1.0, source="raw") for k in cells({0: 1}, {0: 1}, algo="bc")}
    text = report.markdown(comparison.compare(finished))
    assert "| dt | test/walk-v0 | test/walk-stitched-v0 (episodes) | 4:1 | 1.0 ± 0.0 | 2.0 ± 0.0 | +1.0 |" in text
    assert "corrected for the 2 rows" in text
    assert "unknown (n = 1)" in text and "RAW RETURNS" in text and "the last evaluation" in text
    assert "No finished pair" in report.markdown([])


def test_command(tmp_path, capsys):
    for cell, values in cells({0: 1.0, 1: 2.0}, {0: 2.0, 1: 4.0}).items():
        Results(tmp_path / "in").append(cell, values)
    report.main(results=tmp_path / "in")
    assert "| +1.5 |" in capsys.readouterr().out
    report.main(results=tmp_path / "in", output=tmp_path / "out" / "report.md", plots=tmp_path / "plots")
    assert "test-walk-v0-small.png" in (tmp_path / "out" / "report.md").read_text()
    assert (tmp_path / "plots" / "test-walk-v0-small.png").stat().st_size > 5000
    assert (tmp_path / "plots" / "differences.png").stat().st_size > 5000
