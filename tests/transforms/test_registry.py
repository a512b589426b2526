"""A transform from outside: one module, one class, one entry point."""

import dataclasses
import importlib
import json
import sys

import pytest
import toy

import minari_stitch as ms
from minari_stitch.data import minari_io
from minari_stitch.errors import ConfigError, InvalidDataError
from minari_stitch.transforms import registry

MODULE = '''
import numpy as np

import minari_stitch as ms
from minari_stitch.data.provenance import original


@ms.settings
class Best(ms.Transform):
    """The best episodes once more."""

    share: float = 0.25
    """Of the episodes by return."""

    name, suffix = "best episodes", "best"

    def fit(self, dataset, run):
        self.check(dataset)
        return Fitted(self, dataset)

    def check(self, dataset):
        assert len(dataset.episodes) > 1


class Fitted:
    def __init__(self, transform, dataset):
        self.transform, self.dataset = transform, dataset

    def sample(self, n_steps):
        episodes = self.dataset.episodes
        order = np.argsort(-episodes.returns)[: max(1, round(self.transform.share * len(episodes)))]
        needed = -(-n_steps // int(episodes.lengths[order].sum()))
        chosen = episodes.select(np.tile(order, needed))
        ids = self.dataset.episode_ids[np.tile(order, needed)].tolist()
        return ms.Sample(
            report={"distinct": len(order)},
            n_steps=chosen.n_steps,
            n_episodes=len(chosen),
            parts=lambda: original(chosen, ids, self.transform.gamma, augmented=True),
        )
'''


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """Installs `Best` as a package of somebody else's would; a function to add further entry points."""
    folder = tmp_path / "elsewhere"
    (folder / "best_episodes-1.0.dist-info").mkdir(parents=True)
    (folder / "best_episodes.py").write_text(MODULE)

    def install(**points):
        lines = [f"{name} = {value}" for name, value in {"best": "best_episodes:Best", **points}.items()]
        about = folder / "best_episodes-1.0.dist-info"
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: best-episodes\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text("\n".join([f"[{registry.GROUP}]", *lines]))
        importlib.invalidate_caches()

    install()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    yield install
    sys.modules.pop("best_episodes", None)


def command(*words):
    """The command line in a process of its own, which looks for transforms when it starts."""
    return toy.run(sys.executable, "-m", "minari_stitch", *words)


def test_a_transform_from_outside_runs_through_the_command_line(outside):
    toy.write()
    assert "best" in command("augment", "--help").stdout
    listed = command("settings", "best", "--json")
    assert json.loads(listed.stdout) == [
        {"name": "share", "kind": "float", "value": 0.25, "about": "Of the episodes by return."}
    ]
    done = command("augment", toy.ID, "--method", "best", "--set", "share=0.1", "--steps", "100", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["dataset_id"] == "toy/walk-best-v0" and result["report"] == {"distinct": 1}
    made = minari_io.read("toy/walk-best-v0", keep_infos=True)
    assert made.metadata["minari_stitch"]["config"] == {"share": 0.1}
    assert len({about["source_episode"] for about in made.episodes.metadata}) == 1
    shown = command("show", "toy/walk-best-v0")
    assert shown.returncode == 0 and "best episodes of toy/walk-v0" in shown.stdout and "distinct" in shown.stdout
    wrong = command("augment", toy.ID, "--method", "best", "--delta", "2")
    assert wrong.returncode == 1 and "delta is not possible with best episodes" in " ".join(wrong.stderr.split())


def test_benchmarks_know_it_by_name(outside):
    from benchmarks.suites import Variant

    assert (Variant(method="best").suffix, Variant(method="best").title) == ("best", "best episodes")


def test_a_record_finds_its_transform(outside):
    assert registry.from_record({"method": "best episodes", "config": {"share": 0.5}}).share == 0.5


def test_ours_are_there_without_being_imported():
    assert list(registry.found()) == ["diffstitch", "real", "relabel", "resample", "synther", "tatu"]
    code = "import sys; from minari_stitch.transforms.registry import found; found(); sys.exit('torch' in sys.modules)"
    assert toy.run(sys.executable, "-c", code).returncode == 0


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ("no_such_module:Best", "'broken' cannot be loaded from no_such_module:Best .*reinstall or remove"),
        ("json:loads", "'broken' is json:loads, which is not a class derived from Transform"),
    ],
)
def test_a_broken_one_is_named_and_spoils_no_other(outside, point, message):
    outside(broken=point)
    with pytest.raises(ConfigError, match=message):
        registry.transform_class("broken")
    assert registry.transform_class("diffstitch").name == "DiffStitch"
    with pytest.raises(ConfigError, match="no method 'magic': choose one of best, broken, diffstitch"):
        registry.transform_class("magic")
    for name in ("best episodes", "SER"):
        assert registry.from_record({"method": name, "config": {}}).name == name


def test_a_name_that_two_packages_give_is_refused(outside):
    outside(synther="best_episodes:Best")
    with pytest.raises(ConfigError, match="'synther' is provided twice, by best_episodes:Best and minari_stitch"):
        registry.transform_class("synther")


def test_a_class_without_settings_or_names_is_named(outside, tmp_path):
    folder = tmp_path / "elsewhere"
    (folder / "careless.py").write_text(
        "import minari_stitch as ms\n"
        "class Nameless(ms.Transform):\n    def fit(self, dataset, run): ...\n"
        "class Bare(ms.Transform):\n    name, suffix = 'bare', 'bare'\n    def fit(self, dataset, run): ...\n"
    )
    outside(nameless="careless:Nameless", bare="careless:Bare")
    with pytest.raises(ConfigError, match="'nameless' has no name and no suffix"):
        registry.transform_class("nameless")
    listed = command("settings", "bare")
    assert listed.returncode == 1 and "Bare has no settings: decorate the class" in " ".join(listed.stderr.split())


def test_a_sample_that_says_what_it_does_not_hold_is_refused(outside, datasets_path):
    import best_episodes

    toy.write()

    class Liar(best_episodes.Best):
        def fit(self, dataset, run):
            fitted = super().fit(dataset, run)
            real = fitted.sample
            fitted.sample = lambda n_steps: dataclasses.replace(real(n_steps), n_steps=7)
            return fitted

    with pytest.raises(
        InvalidDataError, match="best episodes says that it made 3 episodes of 7 steps, but yields 3 of"
    ):
        ms.augment(toy.ID, ms.settings(Liar)(), n_steps=50, progress=False)
    assert minari_io.local_ids() == [toy.ID]
