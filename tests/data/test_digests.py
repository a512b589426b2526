"""A dataset that is not what was written is found out by whatever reads it."""

import json
import random

import minari
import pytest
import toy
from minari.data_collector import EpisodeBuffer

import minari_stitch as ms
from minari_stitch.data import minari_io
from minari_stitch.data.digests import DIGESTS_KEY, changed, seal
from minari_stitch.errors import StorageError


def flip(path, bit):
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


@pytest.fixture
def data(stitched, datasets_path):
    return datasets_path / toy.STITCHED / "data"


def test_a_dataset_is_sealed_from_the_start_and_stays_so(data):
    assert changed(data.parent) == []
    ms.verify(toy.STITCHED, progress=False)
    ms.scores(toy.STITCHED, low=0, high=9)
    assert changed(data.parent) == []
    assert set(json.loads((data / "metadata.json").read_text())[DIGESTS_KEY]) == {"main_data.hdf5", "metadata.json"}
    assert len(minari.load_dataset(toy.STITCHED)[0])


@pytest.mark.parametrize("name", ["main_data.hdf5", "metadata.json"])
@pytest.mark.parametrize(
    "command", [["show"], ["check"], ["verify"], ["filter", "--delta", 1], ["mix", "--fraction", 0.5], ["augment"]]
)
def test_a_change_is_named_by_every_command(data, name, command):
    if name == "metadata.json":
        path = data / name
        path.write_text(json.dumps(json.loads(path.read_text()) | {"max_episode_steps": 7}))
    else:
        flip(data / name, 8 * random.Random(0).randrange(4000, (data / name).stat().st_size))
    done = toy.invoke(command[0], toy.STITCHED, *command[1:])
    said = " ".join(done.stderr.split())
    assert done.exit_code == 1 and not done.stdout
    for part in ("StorageError", toy.STITCHED, f"{name} is not what was written", "make its card anew with force"):
        assert part in said


def test_ones_own_change_is_accepted(data):
    minari.load_dataset(toy.STITCHED).storage.update_metadata({"code_permalink": "https://example.org"})
    toy.spoil_unnoticed(toy.STITCHED)
    for read in (ms.read, ms.check, ms.card):
        with pytest.raises(StorageError, match="metadata.json is not what was written.*If you changed it yourself"):
            read(toy.STITCHED, progress=False)
    ms.card(toy.STITCHED, force=True, progress=False)
    assert changed(data.parent) == []
    assert not ms.check(toy.STITCHED, progress=False).ok  # what is wrong with the new values is another matter


def test_what_minari_itself_adds_is_no_damage(data):
    dataset = minari.load_dataset(toy.STITCHED)
    first = dataset[0]
    names = ("observations", "actions", "rewards", "terminations", "truncations", "infos")
    dataset.update_dataset_from_buffer([EpisodeBuffer(**{name: getattr(first, name) for name in names})])
    assert ms.check(toy.STITCHED, progress=False).n_episodes == dataset.total_episodes
    ms.scores(toy.STITCHED, low=0, high=9)
    assert changed(data.parent) == []


def test_a_strangers_dataset_is_taken_as_it_is(data):
    path = data / "metadata.json"
    metadata = json.loads(path.read_text())
    del metadata[DIGESTS_KEY]
    path.write_text(json.dumps(metadata))
    minari_io.annotate(toy.STITCHED, {"note": 1})
    seal(data.parent, {"other": 2})
    minari_io.annotate(toy.STITCHED, {}, accept=True)
    assert DIGESTS_KEY not in json.loads(path.read_text()) and changed(data.parent) == []
    assert minari_io.read(toy.STITCHED).metadata["note"] == 1


def test_metadata_are_replaced_whole_or_not_at_all(data, monkeypatch):
    before = (data / "metadata.json").read_bytes()
    torn = data / ".metadata.1.aside.json"
    torn.touch()

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("os.replace", killed)
        minari_io.annotate(toy.STITCHED, {"note": 1})
    assert (data / "metadata.json").read_bytes() == before and not torn.exists()
    assert sorted(path.name for path in data.iterdir()) == ["main_data.hdf5", "metadata.json"]


def test_a_damaged_twin_is_no_twin(data):
    words = [word for word in toy.tiny(toy.ID, "--delta", toy.DELTA, "--json") if word != "--force"]
    assert json.loads(toy.ok(*words).stdout)["existing"]
    flip(data / "main_data.hdf5", 100_000)
    made = json.loads(toy.ok(*words).stdout)
    assert not made["existing"] and made["dataset_id"] == "toy/walk-stitched-v1"
