import json
import shutil

import minari
import numpy as np
import pytest
import toy
import yaml
from minari.storage import remotes
from minari.storage.hosting import upload_dataset
from minari.storage.remotes.cloud_storage import CloudStorage

import minari_stitch as ms
from minari_stitch.data import minari_io
from minari_stitch.data.card import CARD
from minari_stitch.data.digests import DIGESTS_KEY
from minari_stitch.data.ids import datasets_path
from minari_stitch.data.provenance import RECORD_KEY
from minari_stitch.errors import ConfigError


def read(dataset_id):
    """Front matter and text of a card."""
    _, front, text = (datasets_path() / dataset_id / CARD).read_text().split("---\n", 2)
    return yaml.safe_load(front), text


def test_a_stitched_dataset_has_a_card_from_the_start(stitched):
    front, text = read(toy.STITCHED)
    assert front["size_categories"] == ["n<1K"] and front["source_datasets"] == [toy.ID]
    assert front["license"] == "unknown" and front["task_categories"] == ["reinforcement-learning"]
    assert {"minari", "Toy-v0", "diffstitch", "synthetic"} <= set(front["tags"])
    made = minari_io.read(toy.STITCHED)
    returns = made.episodes.returns
    assert f"# {toy.STITCHED}" in text and f"median {np.median(returns):,.6g}, mean {returns.mean():,.6g} |" in text
    assert f"| generated steps | {stitched['n_synthetic']:,} (" in text
    assert f"| episodes | {len(returns):,} |" in text and "| episodes that terminate |" in text
    assert made.metadata[RECORD_KEY]["command"][0] in text and f'load_dataset("{toy.STITCHED}"' in text


def test_every_writer_writes_one_and_it_speaks_of_its_own_dataset(stitched):
    filtered = ms.filter(toy.STITCHED, delta=7.9).dataset_id
    mixed = ms.mix([toy.ID, toy.ID], "toy/both-v0", progress=False).dataset_id
    assert read(toy.ID)[0]["source_datasets"] == ["original"]
    assert read(mixed)[0]["source_datasets"] == [toy.ID, toy.ID]
    assert f"filter {toy.STITCHED} --delta 7.9" in read(filtered)[1] and f"# {filtered}" in read(filtered)[1]
    assert "| generated steps |" not in read(toy.ID)[1]


def test_an_id_that_is_taken_meanwhile_is_not_on_the_card(datasets_path, monkeypatch):
    from minari_stitch.data import publish

    toy.write()
    real = publish._move
    taken = iter([True])

    def move(folder, dataset_id):
        if next(taken, False):
            shutil.copytree(datasets_path / toy.ID, datasets_path / dataset_id)
        return real(folder, dataset_id)

    monkeypatch.setattr(publish, "_move", move)
    made = ms.augment(toy.ID, ms.Resample(), n_steps=60, progress=False)
    assert made.dataset_id == "toy/walk-resampled-v1" and "# toy/walk-resampled-v1" in read(made.dataset_id)[1]


def test_verify_renews_the_card(stitched):
    assert "## Is it true" not in read(toy.STITCHED)[1]
    found = ms.verify(toy.STITCHED, progress=False)
    text = read(toy.STITCHED)[1]
    assert f"By learned networks, 100.0% of {found.bridges['n']} bridges are within delta 8" in text


def test_an_old_dataset_gets_one_and_a_strangers_is_left_alone(stitched):
    path = datasets_path() / toy.STITCHED / CARD
    before = path.read_text()
    metadata = json.loads((path.parent / "data/metadata.json").read_text())
    del metadata["minari_stitch_figures"], metadata[RECORD_KEY]["command"], metadata[DIGESTS_KEY]
    (path.parent / "data/metadata.json").write_text(json.dumps(metadata))
    path.unlink()
    said = json.loads(toy.ok("card", toy.STITCHED, "--json").stdout)
    assert said["path"] == str(path) and path.read_text() == said["text"] == before
    path.write_text("Mine.")
    minari_io.annotate(toy.STITCHED, {"note": 1})
    with pytest.raises(ConfigError, match="written by somebody else"):
        ms.card(toy.STITCHED, progress=False)
    assert path.read_text() == "Mine."
    assert ms.card(toy.STITCHED, force=True, progress=False).read_text() == before


class Shelf(CloudStorage):
    """A folder as a remote, into which datasets are pushed as they are."""

    def __init__(self, name, token=None):
        self.root = Shelf.path

    def upload_dataset(self, dataset_id):
        shutil.copytree(datasets_path() / dataset_id, self.root / dataset_id)

    def upload_namespace(self, namespace):
        (self.root / namespace).mkdir(parents=True)

    def list_datasets(self, prefix=None):
        return [path.parent.parent.relative_to(self.root).as_posix() for path in self.root.rglob("data/metadata.json")]

    def get_dataset_metadata(self, dataset_id):
        return json.loads((self.root / dataset_id / "data/metadata.json").read_text())

    def download_dataset(self, dataset_id, path):
        shutil.copytree(self.root / dataset_id, path / dataset_id)

    def list_namespaces(self):
        return []

    def download_namespace_metadata(self, namespace, path):
        raise NotImplementedError


def test_minaris_own_upload_pushes_the_card(stitched, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Shelf, "path", tmp_path / "shelf", raising=False)
    monkeypatch.setitem(remotes._registry, "file", lambda: Shelf)
    monkeypatch.setenv("MINARI_REMOTE", "file://shelf")
    upload_dataset(toy.STITCHED, token="none")
    assert (tmp_path / "shelf" / toy.STITCHED / CARD).read_text() == (datasets_path() / toy.STITCHED / CARD).read_text()
    shutil.rmtree(datasets_path() / toy.STITCHED)
    assert len(minari_io.read(toy.STITCHED).episodes) == stitched["n_episodes"]
    assert (datasets_path() / toy.STITCHED / CARD).is_file()
    assert toy.STITCHED in minari.list_local_datasets()


def test_the_licence_is_that_of_the_source(datasets_path):
    toy.write()
    first = ms.augment(toy.ID, ms.Resample(), n_steps=60, progress=False).dataset_id
    front, text = read(first)
    assert front["license"] == "unknown" and "| licence | not known: ask" in text
    done = toy.ok("card", toy.ID, "--license", "cc-by-4.0")
    assert done.exit_code == 0 and read(toy.ID)[0]["license"] == "cc-by-4.0"
    assert "| licence | cc-by-4.0 |" in read(toy.ID)[1]
    second = ms.augment(toy.ID, ms.Resample(), n_steps=70, seed=1, progress=False).dataset_id
    part = ms.select(toy.ID, top=0.5, progress=False).dataset_id
    assert read(second)[0]["license"] == read(part)[0]["license"] == "cc-by-4.0"
    with pytest.raises(ConfigError, match="Hugging Face's word for it"):
        ms.card(toy.ID, license="CC BY 4.0", progress=False)


def test_a_licence_of_its_own_is_asked_for_and_kept(datasets_path):
    toy.write()
    ms.card(toy.ID, license="cc-by-4.0", progress=False)
    asked = toy.other("resample", "--steps", 50, "--license", "mit")
    asked.remove("--force")
    own = json.loads(toy.ok(*asked, "--json").stdout)["dataset_id"]
    assert read(own)[0]["license"] == "mit" and "--license mit" in read(own)[1]
    for again in (asked, ["augment", "--config", datasets_path / own, "--workers", 1]):
        assert json.loads(toy.ok(*again, "--json").stdout)["existing"]
    other = ms.augment(own, ms.Resample(), n_steps=50, progress=False).dataset_id
    assert read(other)[0]["license"] == "mit"
    plain = [word for word in asked if word not in ("--license", "mit")]
    assert read(json.loads(toy.ok(*plain, "--json").stdout)["dataset_id"])[0]["license"] == "cc-by-4.0"
    for more in ([], ["--dry-run"]):
        result = toy.invoke(*plain, "--license", "CC BY 4.0", *more)
        assert result.exit_code == 1 and "license='CC BY 4.0' is not possible" in result.stderr


def test_a_mix_has_all_licences_or_none_that_is_known(datasets_path):
    ids = [toy.ID, "toy/other-v0", "toy/third-v0"]
    for dataset_id, license in zip(ids, ("mit", "cc-by-4.0", None), strict=True):
        toy.write(dataset_id=dataset_id)
        if license:
            ms.card(dataset_id, license=license, progress=False)

    def of(name, *parts):
        return read(ms.mix(parts, f"mixed/{name}-v0", progress=False).dataset_id)[0]["license"]

    assert of("one", ids[0], ids[0]) == "mit" and of("two", *ids[:2]) == ["mit", "cc-by-4.0"]
    assert of("three", *ids) == "unknown"


def test_a_strangers_card_says_the_licence(datasets_path):
    toy.write()
    (datasets_path / toy.ID / CARD).write_text("---\nlicense: apache-2.0\ntags:\n- x\n---\n\nTheirs.\n")
    made = ms.augment(toy.ID, ms.Resample(), n_steps=60, progress=False).dataset_id
    assert read(made)[0]["license"] == "apache-2.0"
    ms.card(toy.ID, force=True, progress=False)
    assert read(toy.ID)[0]["license"] == "apache-2.0"
