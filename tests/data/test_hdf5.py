"""What Minari stores we read, and what we store Minari reads: the same arrays, types and attributes."""

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import minari
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_storage import MinariStorage

from minari_stitch.data import hdf5, minari_io
from minari_stitch.data.episodes import Episodes
from minari_stitch.errors import StorageError

ACTIONS = spaces.Box(-1, 1, (2,), np.float32)
NAMES = st.text("abzéß_ .1", min_size=1, max_size=6).filter(lambda name: name != "." and not name.endswith(" "))
BOXES = st.builds(
    lambda shape, dtype: spaces.Box(-5, 5, shape, dtype),
    hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3),
    st.sampled_from([np.float32, np.float64, np.int64, np.int8]),
)
SPACES = st.one_of(
    BOXES,
    st.recursive(
        st.dictionaries(NAMES, BOXES, min_size=1, max_size=3).map(spaces.Dict),
        lambda inner: st.dictionaries(NAMES, st.one_of(BOXES, inner), min_size=1, max_size=3).map(spaces.Dict),
        max_leaves=4,
    ),
)
DTYPES = st.sampled_from([np.bool_, np.int8, np.uint16, np.int64, np.float16, np.float32, np.float64, ">f8"])
NUMBERS = st.one_of(st.booleans(), st.integers(-(2**40), 2**40), st.floats(allow_nan=False))
WORDS = st.text("abé ß", max_size=5)
METADATA = st.dictionaries(
    NAMES.filter(lambda name: name not in ("id", "total_steps")),
    st.one_of(NUMBERS, WORDS, st.lists(st.integers(-9, 9), max_size=4), st.lists(WORDS, min_size=1, max_size=3)),
    max_size=12,
)


def points(space, rows, rng):
    """That many points of a space, stacked as Minari stores them."""
    if isinstance(space, spaces.Dict):
        return {name: points(part, rows, rng) for name, part in space.spaces.items()}
    return rng.uniform(-5, 5, (rows, *space.shape)).astype(space.dtype)


@st.composite
def datasets(draw):
    """A space and some episodes of it, with the same infos in each."""
    space, rng = draw(SPACES), np.random.default_rng(draw(st.integers(0, 99)))
    infos = draw(st.dictionaries(NAMES, st.tuples(DTYPES, hnp.array_shapes(max_dims=2, max_side=2)), max_size=4))
    episodes = []
    for number, steps in enumerate(draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))):
        episodes.append(
            {
                "id": number,
                "observations": points(space, steps + 1, rng),
                "actions": points(ACTIONS, steps, rng),
                "rewards": rng.normal(size=steps),
                "terminations": rng.random(steps) > 0.5,
                "truncations": rng.random(steps) > 0.5,
                "infos": {
                    name: rng.uniform(0, 9, (steps + 1, *shape)).astype(kind) for name, (kind, shape) in infos.items()
                },
                "metadata": draw(METADATA),
            }
        )
    return space, episodes


def assert_same(left, right):
    """Equal keys, types, dtypes, shapes and values, however nested."""
    assert type(left) is type(right), (left, right)
    if isinstance(left, dict):
        assert left.keys() == right.keys()
        for name in left:
            assert_same(left[name], right[name])
    elif isinstance(left, np.ndarray | np.generic):
        assert left.dtype == right.dtype and left.shape == right.shape
        np.testing.assert_array_equal(left, right)
    else:
        assert left == right


def by_minari(storage, numbers):
    """What Minari's storage says, in the form of `hdf5.read`."""
    for raw, metadata in zip(storage.get_episodes(numbers), storage.get_episode_metadata(numbers), strict=True):
        yield {**raw, "metadata": {k: v for k, v in metadata.items() if k not in ("id", "total_steps")}}


def write_by_minari(storage, episodes):
    storage.update_episodes(
        EpisodeBuffer(**{key: value for key, value in episode.items() if key != "metadata"}) for episode in episodes
    )
    storage.update_episode_metadata([episode["metadata"] for episode in episodes])


def contents(path):
    """Every dataset and attribute of a file: name -> type, and kind of space and shape; None for a group."""
    found = {}

    def describe(item):
        return h5py.h5t.decode(item.get_type().encode()), item.get_space().get_simple_extent_type(), item.shape

    def add(name, item):
        found[name] = describe(item.id) if isinstance(item, h5py.Dataset) else None
        found.update({f"{name}@{key}": describe(item.attrs.get_id(key)) for key in item.attrs})

    with h5py.File(path) as file:
        file.visititems(add)
    return found


def assert_same_contents(left, right):
    left, right = contents(left), contents(right)
    assert left.keys() == right.keys()
    for name, (one, other) in {name: (left[name], right[name]) for name in left if left[name]}.items():
        assert one[0].equal(other[0]) and one[1:] == other[1:], name


@settings(max_examples=30, deadline=None)
@given(datasets())
def test_both_ways_of_writing_and_both_of_reading_agree(dataset):
    space, episodes = dataset
    numbers = range(len(episodes))
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = (MinariStorage.new(Path(folder) / name, space, ACTIONS) for name in ("ours", "theirs"))
        files = [storage.data_path / hdf5.FILE for storage in (ours, theirs)]
        hdf5.append(files[0], episodes)
        write_by_minari(theirs, episodes)
        assert_same_contents(*files)
        read = [list(hdf5.read(file, numbers)) for file in files]
        read += [list(by_minari(storage, numbers)) for storage in (ours, theirs)]
        for one in zip(*read, strict=True):
            for other in one[1:]:
                assert_same(one[0], other)
        for episode, back in zip(episodes, read[0], strict=True):
            assert_same({**episode, "metadata": {}}, {**back, "metadata": {}})
        for plain, full in zip(hdf5.read(files[1], numbers, extras=False), read[1], strict=True):
            assert_same(plain, {**full, "infos": {}, "metadata": {}})


def episode(number=0, **changes):
    parts = {
        "id": number,
        "observations": np.full((2, 3), number, np.float32),
        "actions": np.zeros((1, 2), np.float32),
        "rewards": np.ones(1),
        "terminations": np.zeros(1, bool),
        "truncations": np.ones(1, bool),
        "infos": {"flag": np.ones((2, 1), bool), "place": np.arange(2)[:, None]},
        "metadata": {"augmented": True, "source_episode": 3},
    }
    return parts | changes


def test_what_only_minari_writes_is_read_as_minari_reads_it(tmp_path):
    storage = MinariStorage.new(tmp_path / "data", spaces.Box(-9, 9, (3,)), ACTIONS)
    kinds = np.ones(2, h5py.enum_dtype({"a": 1}, "i1"))
    infos = {"words": ["a", "é"], "deep": {"er": {"x": np.zeros((2, 1))}}, "one": 3.5, "kinds": kinds}
    options = {"goal": np.ones(2), "more": {"name": "x"}}
    parts = [episode(infos=infos, seed=5, options=options), episode(1, infos=None), episode(2, infos={})]
    write_by_minari(storage, [{**part, "metadata": {"a/b": 1}} for part in parts])
    file = tmp_path / "data" / hdf5.FILE
    for ours, theirs in zip(hdf5.read(file, range(3)), by_minari(storage, range(3)), strict=True):
        theirs["metadata"] |= {"seed": np.int64(5)} if "seed" in theirs["metadata"] else {}
        assert_same(ours, theirs)
    # The dtype of an enumeration equals that of its numbers, which are still written as such.
    (tmp_path / "plain").touch()
    hdf5.append(tmp_path / "plain", [episode(infos={"kinds": np.ones(2, "i1")})])
    assert contents(tmp_path / "plain")["episode_0/infos/kinds"][0].equal(h5py.h5t.NATIVE_INT8)


def test_files_are_small_and_of_an_old_format(tmp_path):
    path = tmp_path / "file"
    path.touch()
    for first in (0, 200):
        hdf5.append(path, [episode(number) for number in range(first, first + 200)])
    assert path.stat().st_size < 400 * 4000
    with h5py.File(path) as file:
        assert len(file) == 400 and file.id.get_create_plist().get_version()[0] == 2  # since HDF5 1.8
        assert file["episode_399/infos/flag"].chunks is None


def test_more_than_64_kb_of_an_array_and_many_infos(tmp_path):
    infos = {f"info{i}": np.full((2, 1), i) for i in range(40)}
    metadata = {f"value{i}": list(range(900)) for i in range(40)}
    big = np.random.default_rng(0).normal(size=(3000, 11))
    written = episode(observations=big[::-1], infos=infos, metadata=metadata)
    (tmp_path / "file").touch()
    hdf5.append(tmp_path / "file", [written])
    (back,) = hdf5.read(tmp_path / "file", [0])
    np.testing.assert_array_equal(back["observations"], big[::-1])
    assert_same(back["infos"], infos)
    assert {name: value.tolist() for name, value in back["metadata"].items()} == metadata


def test_what_is_missing_or_there_already_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    hdf5.append(tmp_path / "file", [episode()])
    with pytest.raises(KeyError, match="episode_1"):
        list(hdf5.read(tmp_path / "file", [1]))
    with pytest.raises(ValueError, match="already exists"):
        hdf5.append(tmp_path / "file", [episode()])
    with h5py.File(tmp_path / "file", "a") as file:
        del file["episode_0/rewards"]
    with pytest.raises(KeyError):
        list(hdf5.read(tmp_path / "file", [0]))
    with pytest.raises(OSError):
        list(hdf5.read(tmp_path / "none", [0]))


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system cannot tell beforehand")
def test_room_is_asked_for_before_the_file_is_touched(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.touch()
    hdf5.append(file, [episode()])
    before = file.read_bytes()

    def refuse(code):
        def fallocate(descriptor, offset, size):
            assert offset == len(before) and size > episode()["observations"].nbytes
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "posix_fallocate", fallocate)

    refuse(errno.ENOSPC)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        hdf5.append(file, [episode(1)])
    assert file.read_bytes() == before
    refuse(errno.EOPNOTSUPP)  # which says nothing about the room
    hdf5.append(file, [episode(1)])
    assert len(list(hdf5.read(file, range(2)))) == 2


# Through `minari_io`


def short(n_episodes=30, seed=0):
    """Episodes of one to three steps with infos and metadata."""
    rng = np.random.default_rng(seed)
    parts = []
    for number in range(n_episodes):
        steps = number % 3 + 1
        parts.append(
            {
                "observations": rng.normal(size=(steps + 1, 3)).astype(np.float32),
                "actions": rng.uniform(-1, 1, (steps, 2)).astype(np.float32),
                "rewards": rng.normal(size=steps),
                "terminations": np.zeros(steps, bool),
                "truncations": np.arange(steps) == steps - 1,
                "infos": {"synthetic": np.ones((steps + 1, 1), bool), "place": np.arange(steps + 1)[:, None]},
                "metadata": {"augmented": True, "number": number, "score": 0.5, "kind": "short", "pair": [1, number]},
            }
        )
    return Episodes.from_list(parts)


def arrays(dataset):
    episodes = dataset.episodes
    return {**vars(episodes), "infos": dict(episodes.infos), "metadata": list(map(dict, episodes.metadata))}


def test_other_formats_are_read_through_minari_to_the_same_dataset(write_dataset, monkeypatch):
    write_dataset(episodes=short())
    ours = minari_io.read("test/walk-v0", keep_infos=True)
    real = minari_io._open

    def another_format(dataset_id, path, **_):
        dataset = real(dataset_id, path)
        dataset.storage.FORMAT = "another"
        return dataset

    monkeypatch.setattr(hdf5, "BATCH", 7)
    monkeypatch.setattr(minari_io, "_open", another_format)
    monkeypatch.delattr(hdf5, "read")
    theirs = minari_io.read("test/walk-v0", keep_infos=True)
    assert_same(arrays(ours), arrays(theirs))
    assert ours.metadata == theirs.metadata and ours.fingerprint == minari_io.read("test/walk-v0").fingerprint
    minari_io.check("test/walk-v0")


def test_minari_samples_filters_and_counts_what_was_written(write_dataset, datasets_path):
    dataset = minari.load_dataset(write_dataset(episodes=short()))
    assert (dataset.total_episodes, dataset.total_steps, len(dataset)) == (30, 60, 30)
    dataset.set_seed(0)
    for drawn in dataset.sample_episodes(5):
        assert drawn.infos["place"][:, 0].tolist() == list(range(len(drawn.rewards) + 1))
        assert drawn.rewards.shape == drawn.truncations.shape and drawn.truncations[-1]
    longest = dataset.filter_episodes(lambda episode: len(episode.rewards) == 3)
    assert [episode.id for episode in longest] == list(range(2, 30, 3))
    size = (datasets_path / "test/walk-v0/data/main_data.hdf5").stat().st_size / 1e6
    assert abs(dataset.storage.metadata["dataset_size"] - size) < 0.1


def test_minari_combines_and_extends_what_was_written(write_dataset):
    for version in (0, 1):
        write_dataset(f"test/walk-v{version}", short(seed=version))
    dataset = minari.load_dataset("test/walk-v0")
    added = list(short(4, seed=2))
    dataset.update_dataset_from_buffer(
        [EpisodeBuffer(**{key: value for key, value in part.items() if key != "metadata"}) for part in added]
    )
    assert dataset.total_episodes == 34 and len(list(dataset)) == 34
    dataset.storage.update_episode_metadata([{"later": 1, "number": 99}], [3])
    minari_io.check("test/walk-v0")
    grown = minari_io.read("test/walk-v0", keep_infos=True).episodes
    assert grown.metadata[3]["later"] == 1 and grown.metadata[3]["number"] == 99 and grown.metadata[33] == {}
    np.testing.assert_array_equal(grown.episode(33)["observations"], added[3]["observations"])

    minari.combine_datasets([dataset, minari.load_dataset("test/walk-v1")], "test/both-v0")
    minari_io.check("test/both-v0")
    assert len(minari_io.read("test/both-v0").episodes) == 64


def test_a_file_without_one_of_its_episodes_is_named(write_dataset, datasets_path):
    write_dataset()
    with h5py.File(datasets_path / "test/walk-v0/data" / hdf5.FILE, "a") as file:
        del file["episode_2/actions"]
    with pytest.raises(StorageError, match="test/walk-v0.*cannot be read"):
        minari_io.read("test/walk-v0")


FILLS = """
import resource, sys
sys.path.insert(0, {tests!r})
import numpy as np
from gymnasium import spaces
from minari_stitch.data import minari_io
from minari_stitch.errors import StorageError
from test_hdf5 import ACTIONS, short

resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
box = spaces.Box(-np.inf, np.inf, (3,), np.float32)
try:
    minari_io.write(short(), dataset_id="test/walk-v0", observation_space=box, action_space=ACTIONS)
except StorageError as error:
    print(error)
"""


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system cannot tell beforehand")
def test_a_file_that_cannot_grow_is_named_and_leaves_nothing_behind(datasets_path):
    code = FILLS.format(tests=str(Path(__file__).parent))
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")  # HDF5 would crash at the end of the process
    assert "Free some space" in ended.stdout and str(datasets_path) in ended.stdout
    assert list(datasets_path.iterdir()) == []
