import json
import re
from html.parser import HTMLParser

import faults
import numpy as np
import pytest
import toy

import minari_stitch as ms
from minari_stitch.data import minari_io
from minari_stitch.data.provenance import RECORD_KEY
from minari_stitch.quality import plots
from minari_stitch.quality.learners import identity, learners
from minari_stitch.quality.measures import correlations, marginals, novelty, usefulness
from minari_stitch.quality.origin import unit
from minari_stitch.transforms.again import again, filtering


class Reader(HTMLParser):
    """Ids, links, headings and text of a page; every element is closed."""

    VOID = {"meta", "link", "img", "br", "path", "use", "circle", "rect", "stop"}

    def __init__(self):
        super().__init__()
        self.ids, self.links, self.open, self.text = [], [], [], []

    def handle_starttag(self, tag, attrs):
        about = dict(attrs)
        self.ids += [about["id"]] if "id" in about else []
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href") and value]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        about = dict(attrs)
        self.ids += [about["id"]] if "id" in about else []

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def parsed(html):
    reader = Reader()
    reader.feed(html)
    assert not reader.open
    return reader, " ".join(" ".join(reader.text).split())


@pytest.fixture
def page(stitched):
    return ms.report(toy.STITCHED, progress=False)


def test_the_page_says_all_and_needs_nothing_else(page, tmp_path):
    html = page.save(tmp_path / "new" / "page.html").read_text()
    reader, text = parsed(html)
    for section in ("Valid", "True", "New", "Useful", "Seen", "Provenance"):
        assert re.search(rf"<h2[^>]*>{section}</h2>", html)
    assert len(set(reader.ids)) == len(reader.ids), "ids of different figures are different"
    assert all(link.startswith(("data:", "#")) for link in reader.links)
    assert not re.search(r"url\((?!#)|@import|<script", html)
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", html)
    assert "prefers-color-scheme: dark" in html and "var(--made)" in html and "#000000" not in html
    assert text.count("Good: ") >= 8, "each figure says what good looks like"
    for words in ("learned networks", "effective number of sources", "The worst accepted one", "States as curves"):
        assert words in text
    assert json.dumps(page.to_dict(), allow_nan=False)


def test_its_figures_are_those_of_the_dataset(page):
    said, made = page.to_dict(), minari_io.read(toy.STITCHED, keep_infos=True)
    synthetic = made.episodes.infos["synthetic"][made.episodes.step_state, 0]
    assert said["useful"]["synthetic_steps"] == synthetic.sum()
    assert said["useful"]["batch_share"]["4:1"] == pytest.approx(0.2 * synthetic.mean())
    raised = [about["return_after"] - about["return_before"] for about in made.episodes.metadata]
    assert said["useful"]["return_raised_by"] == pytest.approx(np.mean(raised))
    sources = [about["source_episode"] for about in made.episodes.metadata]
    share = np.array([sources.count(one) / len(sources) for one in set(sources)])
    assert said["useful"]["sources"]["effective"] == pytest.approx(np.exp(-(share * np.log(share)).sum()))
    assert said["valid"]["ok"] and said["new"]["copies"] == 0


def test_the_command_makes_the_dataset_again(page, stitched):
    (command,) = page.to_dict()["provenance"]["command"]
    assert command.startswith(f"minari-stitch augment {toy.ID} --preset fast --seed 0 --steps ")
    import shlex

    words = shlex.split(command)[1:]
    toy.ok(*words, "--workers", 1, "--dataset-id", "toy/again-v0")
    first, second = (minari_io.read(one).fingerprint for one in (toy.STITCHED, "toy/again-v0"))
    assert first == second
    record = minari_io.read(toy.STITCHED).metadata[RECORD_KEY]
    assert again({**record, "method": "lost"}) == []
    assert filtering("a/b-v0", 0.5, True) == ["minari-stitch filter a/b-v0 --delta 0.5 --verified"]


def test_two_reports_stand_beside_each_other_and_faults_show(stitched):
    copies = faults.passed_off(toy.ID, toy.STITCHED)
    page = ms.report(toy.STITCHED, copies, progress=False)
    said = page.to_dict()
    verdicts = {name: {k: v["verdict"] for k, v in said[name]["verdicts"].items()} for name in (toy.STITCHED, copies)}
    assert verdicts[toy.STITCHED]["valid"] == "good" and verdicts[copies]["valid"] == "bad"
    assert verdicts[copies]["new"] == "bad" and said[copies]["new"]["copies"] == 1
    advice = {name: said[name]["advice"] for name in (toy.STITCHED, copies)}
    assert advice[toy.STITCHED]["verdict"] == "fair" and "no simulator" in advice[toy.STITCHED]["what"]
    assert advice[copies] == {"verdict": "bad", "what": "Do not use it: it is not a sound dataset."}
    reader, text = parsed(page.html)
    assert len(set(reader.ids)) == len(reader.ids) and "are copies of real ones" in text


@pytest.mark.parametrize("name", [toy.ID, "resample"])
def test_datasets_without_bridges_have_a_page_too(datasets_path, name):
    toy.write()
    if name == "resample":
        name = ms.augment(toy.ID, ms.Resample(), n_steps=400, progress=False).dataset_id
    page = ms.report(name, progress=False)
    _, text = parsed(page.html)
    assert "There is no bridge to show" in text and page.to_dict()["verdicts"]["new"]["verdict"] == "unknown"


@pytest.mark.slow
@pytest.mark.parametrize("method", ["synther", "tatu"])
def test_baselines_have_a_page_too(datasets_path, method):
    toy.write()
    made = json.loads(toy.ok(*toy.other(method, "--json", "--steps", 200)).stdout)
    said = ms.report(made["dataset_id"], progress=False).to_dict()
    assert said["new"]["generated_states"] > 0 and said["true"]["judge"] == "learned networks"


def test_the_command(stitched, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = toy.ok("report", toy.STITCHED, "--workers", 1)
    assert (tmp_path / "toy-walk-stitched-v0-report.html").stat().st_size > 10_000
    assert "valid" in done.stdout and "Written to toy-walk-stitched-v0-report.html" in done.stdout
    said = json.loads(toy.ok("report", toy.STITCHED, "--json", "--workers", 1).stdout)
    assert said["dataset_id"] == toy.STITCHED and len(list(tmp_path.glob("*.html"))) == 1


def test_measures_match_loops(stitched):
    source, made = minari_io.read(toy.ID), minari_io.read(toy.STITCHED, keep_infos=True)
    new = novelty(made, source, unit(made, source))
    assert np.median(new.arrays["generated"]) == pytest.approx(new.values["distance_median"])
    scaled = source.episodes.observations / unit(made, source)
    flags = made.episodes.infos
    rows = np.flatnonzero(flags["source_step"][:, 0] < 0)
    closest = [np.sqrt(((scaled - state) ** 2).sum(1).min()) for state in made.episodes.observations[rows] / unit(made)]
    # A tenth of the real states is held out, so some are a little nearer to all of them.
    assert 0.999 * np.median(closest) <= new.values["distance_median"] <= 1.5 * np.median(closest)
    rng = np.random.default_rng(0)
    ours, real = rng.normal(size=(300, 2)), rng.normal(1, 1, size=(200, 2))
    for column in range(2):
        at = np.concatenate([ours[:, column], real[:, column]])
        gap = max(abs((ours[:, column] <= x).mean() - (real[:, column] <= x).mean()) for x in at)
        assert marginals(ours[:, [column]], real[:, [column]]) == pytest.approx(1 - gap)
    assert correlations(ours, ours) == 1
    assert usefulness(source, None).values["synthetic_steps"] == 0


def test_results_of_learners_are_found(stitched, tmp_path):
    source, made = identity(toy.ID), identity(toy.STITCHED)

    def row(augmented, ratio, seed, score, algo="iql", **other):
        cell = {"algo": algo, "augmented": "", "ratio": ratio, "seed": seed, "budget": "small", "source": source}
        cell |= {"augmented": toy.STITCHED, "made": made} if augmented else {}
        return json.dumps({"cell": cell | other, "score": score})

    rows = [row(False, "1:0", s, 10.0 + s) for s in range(3)] + [row(True, "4:1", s, 20.0 + s) for s in range(3)]
    rows += [row(True, "4:1", 0, 99.0, made="an earlier one"), row(False, "1:0", 0, 5.0, algo="bc"), '{"cell": ']
    (tmp_path / "results.jsonl").write_text("\n".join(rows))
    found = {row["data"]: (row["n"], row["mean"], row["spread"]) for row in learners(toy.STITCHED, tmp_path)}
    assert found == {"augmented": (3, 21.0, 1.0), "original": (3, 11.0, 1.0)}
    said = ms.report(toy.STITCHED, results=tmp_path, progress=False).to_dict()
    assert said["verdicts"]["useful"] == {"verdict": "good", "why": "scores of learners change by +10 to +10"}


def test_a_figure_follows_the_page():
    svg = plots.svg(lambda figure: figure.subplots().plot([0, 1], color=plots.MADE), "x")
    assert 'width="100%"' in svg and "var(--made)" in svg and plots.MADE not in svg
    assert all(name.startswith("x-") for name in re.findall(r'id="([^"]*)"', svg))
    assert svg == plots.svg(lambda figure: figure.subplots().plot([0, 1], color=plots.MADE), "x")
