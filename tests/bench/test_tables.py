"""Suites: what they hold, how missing datasets are made, and their tables beside the paper's numbers."""

from types import SimpleNamespace

import pytest
import toy
from typer.testing import CliRunner

import minari_stitch as ms
from benchmarks import paper, prepare, report, run, suites, tables
from benchmarks.data import load
from benchmarks.results import Cell
from benchmarks.suites import SUITES, Experiment, Variant, dataset, subset
from minari_stitch.config import adjust, parse
from minari_stitch.data import minari_io
from minari_stitch.transforms import registry

FAMILIES = ("demo", "d4rl")
PAPER = ("table1", "table2", "table3", "table4")


@pytest.mark.parametrize("family", FAMILIES)
def test_suites_hold_what_the_paper_runs(family):
    sizes = {name: len(suite.experiments(family)) for name, suite in SUITES.items()}
    assert sizes == {
        **{"smoke": 4, "demo": 4, "methods": 5 + 5 + 3},
        **{"table1": 11 * 7, "table2": 5 * 3, "table3": 4 * 3, "table4": 2 * 7, "figure5": 3 * 2 * 3},
        **{"development": 2 * 2, "confirmation": 8 * 2 * 2, "dt": 3 * 3, "figure1": 4 * 3, "figure1ab": 2 * 4},
    }
    for name in PAPER:
        experiments = SUITES[name].experiments(family)
        assert len(set(experiments)) == len(experiments)
        assert all(e.dataset.startswith(f"{family}/") for e in experiments)


def test_every_number_of_the_paper_has_a_place():
    """Each printed score belongs to an experiment on D4RL's data or to its original side, and the other way round."""
    for name in PAPER:
        keys = set()
        for item in SUITES[name].experiments("d4rl"):
            which = tables._which(item.dataset)
            keys |= {
                (item.algo, which, "original", "1:0"),
                (item.algo, which, item.variant.suffix, item.ratio or "4:1"),
            }
        printed = paper.scores(name)
        assert set(printed) <= keys
        if name in ("table1", "table2", "table4"):
            assert set(printed) == keys
    assert paper.scores("table1")["iql", "hopper/medium-replay", "stitched", "4:1"] == "102.1±0.4"
    assert paper.scores("table4")["dt", "hopper/medium-replay", "original", "1:0"] == "49.3±8.3"
    assert len(paper.scores("table1")) == 110 and not paper.scores("figure5")


def test_ids():
    assert dataset("d4rl", "pen", "human") == "d4rl/pen/human-v1"
    assert dataset("demo", "pen", "human") == "demo/pen/medium-replay-v0"
    assert subset("d4rl/hopper/medium-v2") == "d4rl/hopper/medium-20pct-v0"
    assert Variant(method="synther", label="x-1").suffix == "ser-x-1"
    share = subset(dataset("d4rl", "hopper", "medium-replay"))
    assert prepare.how_to_get(share).endswith("hopper_medium_replay-v2.hdf5 --env hopper")


def test_what_is_made_is_what_the_variant_says(monkeypatch):
    calls = []

    def augment(dataset_id, method, **kwargs):
        calls.append((dataset_id, method, kwargs["output_id"]))
        return SimpleNamespace(dataset_id="made")

    monkeypatch.setattr(prepare.api, "augment", augment)
    for variant in (Variant(), Variant(method="tatu"), Variant(label="delta-3", settings=(("qualify.delta", 3),))):
        assert prepare.augment("aa/b-v1", variant, lambda text: None) == "made"
    assert [call[::2] for call in calls[:2]] == [("aa/b-v1", None)] * 2
    assert calls[0][1] == ms.DiffStitch() and calls[1][1] == ms.TATU()
    assert calls[2][1].qualify.delta == 3 and calls[2][2] == "aa/b-stitched-delta-3-v0"


VARIANTS = sorted({item.variant for suite in SUITES.values() for item in suite.experiments("demo")})


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.suffix)
def test_every_variant_of_a_suite_is_possible(variant):
    for one in variant.parts or (variant,):
        assert one.transform("fast").suffix in (one.suffix, one.suffix.partition("-")[0], "stitched")


def test_a_share_and_a_labelled_variant_are_made_with_their_own_ids(monkeypatch):
    toy.write()
    said = []
    tiny = adjust(ms.DiffStitch(), dict(map(parse, toy.TINY[1::2])))
    monkeypatch.setattr(suites, "preset", lambda name, size: tiny)
    monkeypatch.setattr(prepare.os, "cpu_count", lambda: 1)
    share = subset(toy.ID, 50)
    variant = Variant(label="all", settings=(("qualify.delta", 1e9),))
    found = prepare.find(Experiment(algo="bc", dataset=share, variant=variant), said.append)
    assert (share, found) == ("toy/walk-50pct-v0", "toy/walk-50pct-stitched-all-v0")
    assert said == [f"Making it, once: 50 % of {toy.ID}", f"Making it, once: DiffStitch, all of {share}"]
    assert prepare.find(Experiment(algo="bc", dataset=share, variant=variant), said.append) == found and len(said) == 2


def test_what_is_made_beside_it_is_mixed_with_it(monkeypatch):
    toy.write()
    said = []
    tiny = adjust(ms.DiffStitch(), dict(map(parse, toy.TINY[1::2])))
    monkeypatch.setattr(suites, "preset", lambda name, size: ms.Resample() if name == "resample" else tiny)
    monkeypatch.setattr(prepare.os, "cpu_count", lambda: 1)
    variant = Variant(label="all", settings=(("qualify.delta", 1e9),), beside=(Variant(method="resample"),))
    found = prepare.find(Experiment(algo="bc", dataset=toy.ID, variant=variant), said.append)
    assert found == "toy/walk-stitched-all-and-resampled-v0" and variant.title == "DiffStitch, all and resample"
    assert said == [f"Making it, once: DiffStitch, all of {toy.ID}", f"Making it, once: resample of {toy.ID}"]
    parts = [minari_io.read(f"toy/walk-{name}-v0").episodes for name in ("stitched-all", "resampled")]
    assert load(toy.ID, found).episodes.n_steps == sum(
        part.n_steps for part in (minari_io.read(toy.ID).episodes, *parts)
    )


def finished(suite, family, scores):
    """Results of experiments: one list of scores by seed for the original data and one for the augmented."""
    records = {}
    for item, (originals, mixed) in scores.items():
        assert item in SUITES[suite].experiments(family)
        name = item.dataset.rpartition("-v")[0]
        mix = {"augmented": f"{name}-{item.variant.suffix}-v0", "kind": "episodes", "ratio": item.ratio or "4:1"}
        for extra, values in (({}, originals), (mix, mixed)):
            for seed, score in enumerate(values):
                cell = Cell(algo=item.algo, dataset=item.dataset, protocol="the last, of 2", seed=seed, **extra)
                records[cell] = {"score": score, "curve": [[1, score]], "reference": {"source": "dataset"}}
    return records


def test_a_table_beside_the_paper():
    experiments = SUITES["table2"].experiments("demo")
    half, whole = (next(e for e in experiments if (e.algo, e.ratio) == ("iql", r)) for r in ("1:2", "4:1"))
    text = tables.markdown(
        "table2", finished("table2", "demo", {half: ([1.0, 3.0], [2.0, 6.0]), whole: ([1.0, 3.0], [5.0, 7.0])})
    )
    rows = [line for line in text.splitlines() if line.startswith("| demo")]
    name = "demo/halfcheetah/medium-expert-v0"
    assert rows == [
        f"| {name} | iql | original | 1:0 | 2.0 ± 1.4 | 2 |  | 92.7±2.5 |",
        f"| {name} | iql | DiffStitch | 1:2 | 4.0 ± 2.8 | 2 | [-10.7, +14.7] | 91.5±3.7 |",
        f"| {name} | iql | DiffStitch | 4:1 | 6.0 ± 1.4 | 2 | [+4.0, +4.0] | 94.4±1.4 |",
    ]
    assert "2 of 15 comparisons are finished" in text and "Paper, D4RL" in text
    assert "No finished pair" in tables.markdown("table2", {}) and "No finished pair" in tables.markdown(
        "table2", finished("table2", "demo", {half: ([1.0], [2.0])}), budget="paper"
    )


def test_averages_are_over_datasets_that_have_everything():
    experiments = [e for e in SUITES["table4"].experiments("demo") if e.algo == "iql"]
    scores = {item: ([10.0 * i], [20.0 * i]) for i, item in enumerate(experiments)}
    first, second = experiments[:3], experiments[3:]
    for group in (first, second):  # the original side is the same for the methods on a dataset
        for item in group:
            scores[item] = (scores[group[0]][0], scores[item][1])
    text = tables.markdown("table4", finished("table4", "demo", scores))
    assert "| average of 2 datasets | iql | original | 1:0 | 15.0 |" in text
    assert "| average of 2 datasets | iql | SER | 4:1 | 50.0 |  | unknown (n = 1) |  |" in text
    several = {item: ([low, low + 1], [high, high + 1]) for item, ((low,), (high,)) in scores.items()}
    text = tables.markdown("table4", finished("table4", "demo", several))
    assert "| average of 2 datasets | iql | original | 1:0 | 15.5 |  |  |  |" in text
    assert "| average of 2 datasets | iql | SER | 4:1 | 50.5 |  | [+35.0, +35.0] |  |" in text
    assert "bootstrap's, over seeds within each dataset" in text
    scores.pop(second[2])
    assert "average" not in tables.markdown("table4", finished("table4", "demo", scores))


def test_bars(tmp_path):
    experiments = [e for e in SUITES["figure5"].experiments("demo")][:4]
    records = finished("figure5", "demo", {item: ([1.0, 3.0], [2.0, 6.0]) for item in experiments})
    (path,) = tables.plot("figure5", records, tmp_path)
    assert path.name == "figure5-demo-small.png" and path.stat().st_size > 5000
    assert tables.plot("table2", records, tmp_path) == []


def test_the_report_prints_a_suite(tmp_path, capsys):
    report.main(results=tmp_path, suite="table3")
    assert "No finished pair of runs of suite 'table3'" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("suite", [*PAPER, "figure5", "methods", "development", "confirmation", "dt", "figure1ab"])
def test_a_suite_runs_end_to_end(suite, tmp_path, monkeypatch):
    """Real environments and real augmentation, with tiny datasets, networks and budgets."""
    from minari_stitch.sim import demo

    augment, preset = prepare.api.augment, registry.preset

    def small(name, size):
        tiny = toy.TINY[1::2] if name == "diffstitch" else toy.other(name)[2:]
        settings = [word for word in tiny if "=" in str(word)]
        return adjust(preset(name, size), dict(map(parse, settings)))

    def short(dataset_id, method, **kwargs):
        if isinstance(method, ms.DiffStitch):  # tiny models meet no useful delta
            method = adjust(method, {"qualify.delta": 1e6})
        return augment(dataset_id, method, **kwargs | {"n_steps": 200, "workers": 1, "threads": 1})

    monkeypatch.setattr(suites, "preset", small)
    monkeypatch.setattr(prepare.api, "augment", short)
    monkeypatch.setattr(demo, "DEFAULT_STEPS", 3000)
    ensure = demo.ensure
    monkeypatch.setattr(demo, "ensure", lambda dataset_id, **kwargs: ensure(dataset_id, **kwargs | {"workers": 1}))
    experiments = SUITES[suite].experiments("demo")
    results = tmp_path / "results"
    words = ["--suite", suite, "--budget", "smoke", "--seeds", "1", "--results", str(results), "--workers", "2"]
    done = CliRunner().invoke(run.app, [*words, "--device", "cpu"])
    assert done.exit_code == 0 and "Missing" not in done.stdout, done.output
    text = tables.markdown(suite, report.Results(results).finished(), budget="smoke")
    print(text)
    assert f"{len(experiments)} of {len(experiments)} comparisons are finished" in text
