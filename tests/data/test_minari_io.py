import errno
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import gymnasium as gym
import minari
import numpy as np
import pytest
from gymnasium import spaces
from minari.storage import remotes
from minari.storage.remotes.cloud_storage import CloudStorage

from minari_stitch.data import hdf5, minari_io, publish
from minari_stitch.data.episodes import Episodes
from minari_stitch.data.ids import id_of
from minari_stitch.data.locks import held
from minari_stitch.errors import (
    ConfigError,
    DatasetIdError,
    DatasetNotFoundError,
    InvalidDataError,
    StorageError,
    UnsupportedSpaceError,
)

BOX = spaces.Box(-np.inf, np.inf, (3,), np.float32)
ACTIONS = spaces.Box(-1, 1, (2,), np.float32)


def files(path):
    return sorted(str(file.relative_to(path)) for file in path.rglob("*"))


def assert_same_steps(left, right):
    for name in ("observations", "actions", "rewards", "terminations", "truncations", "offsets"):
        a, b = getattr(left, name), getattr(right, name)
        assert a.dtype == b.dtype, name
        np.testing.assert_array_equal(a, b, err_msg=name)


# Reading and writing


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_round_trip(make_episodes, write_dataset, dtype):
    episodes = make_episodes(7, dtype=dtype)
    dataset = minari_io.read(write_dataset("test/deep/walk-v3", episodes))
    assert_same_steps(dataset.episodes, episodes)
    assert dataset.fingerprint == episodes.fingerprint()
    assert dataset.episode_ids.tolist() == list(range(7))
    assert dataset.dataset_id == "test/deep/walk-v3" and dataset.max_episode_steps is None
    assert dataset.action_space == ACTIONS and dataset.observation_space.dtype == dtype
    assert not dataset.skipped.problems and dataset.skipped.n_episodes == 7
    minari_io.check("test/deep/walk-v3")
    assert minari_io.local_ids() == ["test/deep/walk-v3"] and minari_io.exists("test/deep/walk-v3")


def test_minari_reads_what_was_written(make_episodes, write_dataset):
    episodes = make_episodes(5, 12)
    dataset = minari.load_dataset(write_dataset(episodes=episodes))
    assert (dataset.total_episodes, dataset.total_steps) == (5, 60)
    for index, episode in enumerate(dataset):
        assert episode.id == index and episode.infos == {} and "total_steps=12" in repr(episode)
        np.testing.assert_array_equal(episode.observations, episodes.episode(index)["observations"])
        assert all(action in dataset.action_space for action in episode.actions)


def test_a_dict_observation_comes_back_as_it_was(write_dataset, make_episodes):
    space = spaces.Dict(
        observation=spaces.Box(-np.inf, np.inf, (2,), np.float64),
        desired_goal=spaces.Box(-np.inf, np.inf, (1, 1), np.float32),
        nested=spaces.Dict(b=spaces.Box(-np.inf, np.inf, (1,)), a=spaces.Box(-np.inf, np.inf, (1,))),
    )
    episodes = make_episodes(3, obs_dim=5, dtype=np.float64)
    write_dataset("test/goals-v0", episodes, observation_space=space)
    minari_io.check("test/goals-v0")
    stored = minari.load_dataset("test/goals-v0")[1]
    assert stored.observations["desired_goal"].shape == (11, 1, 1)
    assert stored.observations["desired_goal"].dtype == np.float32
    assert set(stored.observations["nested"]) == {"a", "b"}
    expected = episodes.episode(1)["observations"]
    np.testing.assert_array_equal(stored.observations["observation"], expected[:, 3:])  # last by name
    np.testing.assert_array_equal(stored.observations["nested"]["b"][:, 0], expected[:, 2].astype(np.float32))
    again = minari_io.read("test/goals-v0")
    assert again.episodes.observations.dtype == np.float64
    np.testing.assert_allclose(again.episodes.observations, episodes.observations, rtol=1e-6)


def test_metadata_and_reference_scores_travel(write_dataset, make_episodes):
    spec = gym.spec("Pendulum-v1")
    metadata = {
        "description": "A walk.",
        "algorithm_name": "walker",
        "author": "A. Author",
        "author_email": ["a@example.org", "b@example.org"],
        "ref_min_score": np.float32(0),
        "ref_max_score": np.int64(20),
        "requirements": ["numpy"],
        "eval_env_spec": spec.to_json(),
        "stitching": {"delta": np.float64(2), "sizes": (1, np.int32(2)), "names": {"b", "a"}},
        "code_permalink": None,
        "total_steps": 99,
    }
    write_dataset("test/walk-v0", metadata=metadata, env_spec=spec)
    first = minari_io.read("test/walk-v0")
    assert first.max_episode_steps == 200 and first.env_spec == spec
    assert first.metadata["stitching"] == {"delta": 2.0, "sizes": [1, 2], "names": ["a", "b"]}
    assert json.loads(json.dumps(first.metadata)) == first.metadata

    write_dataset("test/walk-v1", metadata=first.metadata, env_spec=first.env_spec)
    second = minari.load_dataset("test/walk-v1")
    assert minari_io.read("test/walk-v1").metadata == first.metadata
    assert second.storage.metadata["author"] == {"A. Author"} and second.total_steps == 40
    np.testing.assert_allclose(minari.get_normalized_score(second, np.array([5.0])), [0.25])
    assert second.recover_environment(eval_env=True).spec.id == "Pendulum-v1"


def test_annotate_adds_metadata_and_keeps_the_rest(write_dataset):
    write_dataset(metadata={"author": ["A", "B"], "mine": 1})
    minari_io.annotate("test/walk-v0", {"mine": np.float32(2), "other": {"x": [np.int64(3)]}})
    metadata = minari_io.read("test/walk-v0").metadata
    assert metadata == {"author": ["A", "B"], "mine": 2.0, "other": {"x": [3]}}
    with pytest.raises(InvalidDataError, match="'mine' cannot be stored"):
        minari_io.annotate("test/walk-v0", {"mine": object()})
    minari_io.check("test/walk-v0")


@pytest.mark.parametrize("value", [object(), [np.array([object()])], {"a": b"bytes"}])
def test_metadata_without_a_json_form_is_refused_before_anything_is_written(write_dataset, datasets_path, value):
    with pytest.raises(InvalidDataError, match="'mine' cannot be stored"):
        write_dataset(metadata={"mine": value})
    assert not datasets_path.exists()


def test_infos_and_episode_metadata_come_back_on_request(make_episodes, write_dataset):
    parts = [
        {
            **part,
            "infos": {"synthetic": np.arange(11) > 4, "source": np.full((11, 2), index)},
            "metadata": {
                "pair": [index, np.int64(3)],
                "kind": "bridge",
                "names": ["a", "b"],
                "ok": True,
                "score": 0.5,
            },
        }
        for index, part in enumerate(make_episodes(3))
    ]
    write_dataset(episodes=Episodes.from_list(parts))
    minari_io.check("test/walk-v0")
    plain = minari_io.read("test/walk-v0").episodes
    assert not plain.infos and plain.metadata[0] == {}
    kept = minari_io.read("test/walk-v0", keep_infos=True).episodes
    assert kept.infos["synthetic"].shape == (33, 1) and kept.infos["synthetic"].dtype == bool
    assert kept.infos["source"][22:].tolist() == [[2, 2]] * 11
    assert kept.metadata[1] == {
        "pair": [1, 3],
        "kind": "bridge",
        "names": ["a", "b"],
        "ok": True,
        "score": 0.5,
    }
    write_dataset("test/walk-v1", kept)
    assert minari_io.read("test/walk-v1", keep_infos=True).episodes.metadata == kept.metadata


@pytest.mark.parametrize(
    "metadata",
    [{"a": None}, {"a": {"b": 1}}, {"a": [1, "x"]}, {"a": [0] * 2000}, {"total_steps": 3}, {"a/b": 1}],
)
def test_episode_metadata_that_hdf5_cannot_keep_is_refused(make_episodes, write_dataset, datasets_path, metadata):
    parts = [{**part, "metadata": metadata} for part in make_episodes(1)]
    with pytest.raises(InvalidDataError, match="Episode metadata"):
        write_dataset(episodes=Episodes.from_list(parts))
    assert files(datasets_path) == []


def test_infos_of_real_datasets_are_ignored(datasets_path, make_episodes):
    storage = minari_storage(datasets_path, "real/hand-v0")
    part = make_episodes(1).episode(0)
    del part["metadata"]
    infos = {"success": np.zeros(10, bool), "deep": {"x": np.zeros((11, 1))}, "whole": np.zeros((11, 1))}
    storage.update_episodes([minari.data_collector.EpisodeBuffer(**{**part, "infos": infos})])
    assert minari_io.read("real/hand-v0").episodes.n_steps == 10
    assert list(minari_io.read("real/hand-v0", keep_infos=True).episodes.infos) == ["whole"]


def minari_storage(datasets_path, dataset_id, **kwargs):
    path = datasets_path / dataset_id / "data"
    path.mkdir(parents=True)
    storage = minari.dataset.minari_storage.MinariStorage.new(
        path, **{"observation_space": BOX, "action_space": ACTIONS, **kwargs}
    )
    storage.update_metadata({"dataset_id": dataset_id, "minari_version": minari.__version__, "dataset_size": 0.1})
    return storage


@pytest.fixture
def broken(datasets_path, make_episodes):
    """Five episodes, of which 1 to 3 are broken, and 4 does not end."""
    parts = list(make_episodes(5))
    parts[1]["observations"] = parts[1]["observations"][:-1]
    parts[2]["actions"] = parts[2]["actions"] * 5
    parts[3]["rewards"] = np.full(10, np.nan)
    parts[4]["truncations"] = np.zeros(10, bool)
    storage = minari_storage(datasets_path, "test/broken-v0")
    storage.update_episodes(
        [minari.data_collector.EpisodeBuffer(**{k: v for k, v in part.items() if k != "metadata"}) for part in parts]
    )
    return "test/broken-v0"


def test_an_invalid_dataset_is_refused_with_the_places_and_the_remedy(broken):
    with pytest.raises(InvalidDataError) as error:
        minari_io.read(broken)
    message = str(error.value)
    assert "3 of 5 episodes are invalid" in message and "Leave them out with skip_invalid." in message
    assert "episode 1: observations have shape (10, 3) where 10 rewards want (11, 3)" in message
    assert "episode 2, step" in message and "episode 3, step 0: rewards is nan" in message
    with pytest.raises(InvalidDataError, match="the last step does not end the episode"):
        minari_io.check(broken)


def test_skip_invalid_leaves_the_broken_episodes_out_and_says_so(broken):
    dataset = minari_io.read(broken, skip_invalid=True)
    assert dataset.episode_ids.tolist() == [0, 4]
    assert dataset.skipped.invalid_episodes == [1, 2, 3] and dataset.skipped.n_episodes == 5
    assert dataset.episodes.truncations[-1] and not dataset.episodes.truncations[-2]


def test_nothing_valid_left_is_an_error(datasets_path, make_episodes):
    storage = minari_storage(datasets_path, "test/broken-v0")
    part = {**make_episodes(1).episode(0), "actions": np.full((10, 2), 7.0)}
    del part["metadata"]
    storage.update_episodes([minari.data_collector.EpisodeBuffer(**part)])
    with pytest.raises(InvalidDataError, match="nothing valid: 1 of 1"):
        minari_io.read("test/broken-v0", skip_invalid=True)


def test_an_unsupported_space_is_refused(datasets_path):
    minari_storage(datasets_path, "test/atari-v0", action_space=spaces.Discrete(4))
    with pytest.raises(UnsupportedSpaceError, match=r"Discrete\(4\)"):
        minari_io.read("test/atari-v0")


@pytest.mark.parametrize("damage", ["data/metadata.json", "data/main_data.hdf5"])
def test_a_damaged_dataset_is_named(write_dataset, datasets_path, damage):
    write_dataset()
    file = datasets_path / "test/walk-v0" / damage
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(StorageError, match="test/walk-v0.*cannot be read.*minari download --force"):
        minari_io.read("test/walk-v0")


# Datasets that are open


def test_an_open_dataset_is_read_as_its_id_would_be(write_dataset):
    by_id = minari_io.read(write_dataset(metadata={"mine": 1}, env_spec=gym.spec("Pendulum-v1")))
    for source in (minari.load_dataset("test/walk-v0"), minari_io.load("test/walk-v0")):
        dataset = minari_io.read(source, download=False)
        assert_same_steps(dataset.episodes, by_id.episodes)
        assert dataset.dataset_id == "test/walk-v0" and dataset.fingerprint == by_id.fingerprint
        assert dataset.metadata == by_id.metadata and dataset.env_spec == by_id.env_spec
        assert dataset.episode_ids.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("batch", [2, 500])
def test_a_view_stays_one(write_dataset, make_episodes, monkeypatch, batch):
    monkeypatch.setattr(hdf5, "BATCH", batch)
    episodes = make_episodes(7)
    view = minari_io.load(write_dataset(episodes=episodes)).filter_episodes(lambda episode: episode.terminations[-1])
    dataset = minari_io.read(view)
    assert_same_steps(dataset.episodes, episodes.select([1, 3, 5]))
    assert dataset.episode_ids.tolist() == [1, 3, 5] and dataset.skipped.n_episodes == 3
    assert dataset.fingerprint != minari_io.read("test/walk-v0").fingerprint
    view.episode_indices = np.array([5, 0])
    assert_same_steps(minari_io.read(view).episodes, episodes.select([5, 0]))
    first, _ = minari.split_dataset(minari_io.load("test/walk-v0"), [3, 4], seed=0)
    assert minari_io.read(first).episode_ids.tolist() == first.episode_indices.tolist()


def test_only_what_is_in_view_must_be_valid(broken):
    whole = minari_io.load(broken)
    assert minari_io.read(minari.MinariDataset(whole.storage, np.array([4, 0]))).episode_ids.tolist() == [4, 0]
    with pytest.raises(InvalidDataError, match="2 of 3 episodes are invalid"):
        minari_io.read(minari.MinariDataset(whole.storage, np.array([0, 1, 3])))


@pytest.mark.parametrize("skip_invalid", [False, True])
def test_a_view_of_nothing_is_an_error(write_dataset, skip_invalid):
    view = minari_io.load(write_dataset()).filter_episodes(lambda episode: False)
    with pytest.raises(InvalidDataError, match="'test/walk-v0' holds no episode, or this view of it holds none"):
        minari_io.read(view, skip_invalid=skip_invalid)


def test_a_dataset_outside_the_datasets_folder_is_read_where_it_is(
    write_dataset, make_episodes, datasets_path, tmp_path
):
    write_dataset(episodes=make_episodes(seed=1))
    shutil.move(datasets_path / "test/walk-v0", tmp_path / "elsewhere")
    write_dataset()  # of the same id
    away = minari.MinariDataset(tmp_path / "elsewhere/data")
    dataset = minari_io.read(away)
    assert_same_steps(dataset.episodes, make_episodes(seed=1))
    assert dataset.dataset_id == "test/walk-v0" and dataset.fingerprint != minari_io.read("test/walk-v0").fingerprint
    shutil.rmtree(datasets_path)
    assert_same_steps(minari_io.read(away).episodes, make_episodes(seed=1))
    assert not datasets_path.exists()


def test_an_open_dataset_whose_folder_is_gone_is_named(write_dataset, datasets_path):
    source = minari_io.load(write_dataset())
    shutil.rmtree(datasets_path / "test/walk-v0")
    with pytest.raises(DatasetNotFoundError, match="'test/walk-v0' was opened in .*walk-v0/data, which is gone. Open"):
        minari_io.read(source)


@pytest.mark.parametrize("damage", ["metadata.json", "main_data.hdf5"])
def test_an_open_dataset_that_was_damaged_is_named(write_dataset, datasets_path, damage):
    source = minari_io.load(write_dataset())
    (datasets_path / "test/walk-v0/data" / damage).unlink()
    with pytest.raises(StorageError, match="test/walk-v0.*cannot be read"):
        minari_io.read(source)


@pytest.mark.parametrize("wrong", [None, 3, Path("test/walk-v0"), ["test/walk-v0"], BOX])
def test_what_is_no_dataset_is_named(write_dataset, wrong):
    write_dataset()
    message = f"type {type(wrong).__name__} is no dataset: give a Minari dataset id or a minari.MinariDataset"
    for take in (minari_io.read, minari_io.load):
        with pytest.raises(ConfigError, match=message):
            take(wrong)


def test_loading_fetches_nothing(datasets_path):
    with pytest.raises(DatasetNotFoundError, match="'test/walk-v0' is not in .*downloading is off"):
        minari_io.load("test/walk-v0")
    with pytest.raises(DatasetIdError, match="no version"):
        minari_io.load("test/walk")
    assert not datasets_path.exists()


# Writing: whole or not at all


def test_batches_are_streamed_and_counted(write_dataset, make_episodes, monkeypatch):
    monkeypatch.setattr(hdf5, "BATCH", 2)
    counts, consumed = [], []
    episodes = make_episodes(5)

    def parts():
        for index, part in enumerate(episodes):
            consumed.append((index, list(counts)))
            yield part

    minari_io.write(
        parts(), dataset_id="test/a-v0", observation_space=BOX, action_space=ACTIONS, progress=counts.append
    )
    assert counts == [2, 4, 5] and consumed[2] == (2, [2])
    assert_same_steps(minari_io.read("test/a-v0").episodes, episodes)
    minari_io.check("test/a-v0")


def test_rounding_errors_are_clipped_into_the_action_space(make_episodes, write_dataset):
    part = make_episodes(1).episode(0)
    actions = np.full((10, 2), 1 + 5e-7)
    write_dataset(episodes=Episodes.from_list([{**part, "actions": actions}]))
    assert all(action in ACTIONS for action in minari.load_dataset("test/walk-v0")[0].actions)


FULL = [
    OSError(errno.ENOSPC, "No space left on device"),
    ValueError("Unable to create group (errno = 28, error message = 'No space left on device')"),  # h5py
]


@pytest.mark.parametrize("failure", [*FULL, KeyboardInterrupt()])
def test_a_failure_half_way_leaves_nothing_behind(write_dataset, datasets_path, monkeypatch, failure):
    append, calls = hdf5.append, []

    def fail_the_second_time(path, episodes):
        calls.append(1)
        if len(calls) == 2:
            raise failure
        append(path, episodes)

    monkeypatch.setattr(hdf5, "BATCH", 2)
    monkeypatch.setattr(hdf5, "append", fail_the_second_time)
    expected = StorageError if failure in FULL else KeyboardInterrupt
    with pytest.raises(expected) as error:
        write_dataset()
    assert len(calls) == 2 and files(datasets_path) == []
    if expected is StorageError:
        assert "Free some space" in str(error.value) and str(datasets_path) in str(error.value)


def test_an_invalid_episode_is_not_written(write_dataset, make_episodes, datasets_path):
    part = make_episodes(1).episode(0)
    with pytest.raises(InvalidDataError, match="episode 0, step 0: actions"):
        write_dataset(episodes=Episodes.from_list([{**part, "actions": part["actions"] + 9}]))
    with pytest.raises(InvalidDataError, match="no episode"):
        minari_io.write([], dataset_id="test/walk-v0", observation_space=BOX, action_space=ACTIONS)
    assert files(datasets_path) == []


def test_an_error_of_the_source_of_episodes_passes_as_it_is(datasets_path, make_episodes):
    def parts():
        yield make_episodes(1).episode(0)
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        minari_io.write(parts(), dataset_id="test/walk-v0", observation_space=BOX, action_space=ACTIONS)
    assert files(datasets_path) == []


def test_an_unwritable_path_is_named(write_dataset, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "file" / "datasets"))
    with pytest.raises(StorageError, match=r"Cannot write to .*file/datasets.*MINARI_DATASETS_PATH"):
        write_dataset()


def test_leftovers_of_killed_runs_go_and_what_another_is_writing_stays(write_dataset, datasets_path):
    for name in ("killed", "alive"):
        (datasets_path / f".minari-stitch-{name}").mkdir(parents=True)
    with held(datasets_path / ".minari-stitch-alive"):
        write_dataset()
        assert sorted(path.name for path in datasets_path.iterdir()) == [".minari-stitch-alive", "test"]
    write_dataset("test/other-v0")
    assert sorted(path.name for path in datasets_path.iterdir()) == ["test"]


# Ids


def test_next_id_is_the_next_free_version(write_dataset):
    assert minari_io.next_id("mujoco/hopper/medium-v0") == "mujoco/hopper/medium-stitched-v0"
    write_dataset("mujoco/hopper/medium-stitched-v0")
    assert minari_io.next_id("mujoco/hopper/medium-v2") == "mujoco/hopper/medium-stitched-v1"
    assert minari_io.next_id("walk-v0", "small") == "walk-small-v0"
    assert minari_io.next_id("mujoco/hopper/medium-stitched-v0", "") == "mujoco/hopper/medium-stitched-v1"


@pytest.mark.parametrize(
    "bad", ["", "a b-v0", "../x-v0", "/x-v0", "test//x-v0", "test/x-v", "a/x-v0", "x-v0\n", "é.-v0"]
)
def test_malformed_ids_touch_no_disk(datasets_path, bad, make_episodes, write_dataset):
    for call in (minari_io.read, minari_io.next_id, minari_io.check_output_id, write_dataset):
        with pytest.raises(DatasetIdError, match="write|Malformed"):
            call(bad)
    assert not datasets_path.exists()


def test_an_id_without_a_version_says_how_to_write_it():
    with pytest.raises(DatasetIdError, match=r"'test/walk' has no version: write for example test/walk-v0"):
        minari_io.read("test/walk")


def test_a_taken_id_is_refused_and_not_overwritten(write_dataset, make_episodes):
    write_dataset()
    before = minari_io.read("test/walk-v0").fingerprint
    with pytest.raises(DatasetIdError, match=r"taken.*test/walk-v1.*minari delete"):
        write_dataset(episodes=make_episodes(seed=1))
    assert minari_io.read("test/walk-v0").fingerprint == before


def test_an_id_taken_while_writing_is_refused(write_dataset, make_episodes):
    def parts():
        yield from make_episodes(2)
        write_dataset()

    with pytest.raises(DatasetIdError, match="taken"):
        minari_io.write(parts(), dataset_id="test/walk-v0", observation_space=BOX, action_space=ACTIONS)
    assert len(minari_io.read("test/walk-v0").episodes) == 4


def test_an_automatic_id_taken_while_writing_gives_way_to_the_next(write_dataset, make_episodes, datasets_path):
    def parts():
        yield from make_episodes(2)
        write_dataset()

    path = minari_io.write(
        parts(), dataset_id="test/walk-v0", observation_space=BOX, action_space=ACTIONS, automatic=True
    )
    assert path == datasets_path / "test" / "walk-v1" and id_of(path) == "test/walk-v1"
    assert len(minari_io.read("test/walk-v0").episodes) == 4 and len(minari_io.read("test/walk-v1").episodes) == 2
    assert minari.load_dataset("test/walk-v1").id == "test/walk-v1"


def test_an_id_taken_at_the_very_last_moment(write_dataset, make_episodes, monkeypatch):
    """Between the last look and the move."""
    look = publish.check_output_id
    looks = []

    def late(dataset_id):
        look(dataset_id)
        looks.append(dataset_id)
        if len(looks) == 1:
            write_dataset()

    monkeypatch.setattr(publish, "check_output_id", late)
    path = minari_io.write(
        make_episodes(2), dataset_id="test/walk-v0", observation_space=BOX, action_space=ACTIONS, automatic=True
    )
    assert id_of(path) == "test/walk-v1" and len(minari_io.read("test/walk-v0").episodes) == 4


@pytest.mark.parametrize("bad", ["test/walk-v0/inner-v0", "data/walk-v0", "test/data/walk-v0"])
def test_an_id_that_minari_would_take_for_part_of_a_dataset_is_refused(write_dataset, bad):
    write_dataset()
    with pytest.raises(DatasetIdError, match="namespace"):
        minari_io.check_output_id(bad)


# Remotes


class FileStorage(CloudStorage):
    """A folder as a remote."""

    fail = None

    def __init__(self, name, token=None):
        self.path = FileStorage.root / name

    def get_dataset_metadata(self, dataset_id):
        return json.loads((self.path / dataset_id / "data/metadata.json").read_text())

    def download_dataset(self, dataset_id, path):
        shutil.copytree(self.path / dataset_id, path / dataset_id)
        if self.fail:
            (path / dataset_id / "data/main_data.hdf5").unlink()
            raise self.fail

    def list_datasets(self, prefix=None):
        raise NotImplementedError

    upload_dataset = list_namespaces = download_namespace_metadata = upload_namespace = list_datasets


@pytest.fixture
def remote(write_dataset, datasets_path, tmp_path, monkeypatch):
    """A remote that holds test/deep/walk-v0, and an empty local folder."""
    write_dataset("test/deep/walk-v0")
    datasets_path.rename(tmp_path / "remote")
    monkeypatch.setattr(FileStorage, "root", tmp_path, raising=False)
    monkeypatch.setitem(remotes._registry, "file", lambda: FileStorage)
    monkeypatch.setenv("MINARI_REMOTE", "file://remote")


def test_what_is_not_local_is_fetched(remote, datasets_path):
    assert len(minari_io.read("test/deep/walk-v0").episodes) == 4
    assert minari_io.local_ids() == ["test/deep/walk-v0"]
    assert minari.namespace.list_local_namespaces() == ["test", "test/deep"]
    shutil.rmtree(FileStorage.root / "remote")
    assert len(minari_io.read("test/deep/walk-v0").episodes) == 4
    assert [path.name for path in datasets_path.iterdir()] == ["test"]


def test_an_unknown_id_names_the_remote_and_the_ways_on(remote, datasets_path):
    with pytest.raises(DatasetNotFoundError) as error:
        minari_io.read("test/other-v0")
    for part in (
        "file://remote",
        "FileNotFoundError",
        "minari download test/other-v0",
        "MINARI_DATASETS_PATH",
        "demo",
    ):
        assert part in str(error.value)
    with pytest.raises(DatasetNotFoundError, match="downloading is off"):
        minari_io.read("test/deep/walk-v0", download=False)
    assert not datasets_path.exists() or files(datasets_path) == []


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (ConnectionError("reset by peer"), DatasetNotFoundError),
        (OSError(errno.ENOSPC, "No space left on device"), StorageError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_a_failed_download_leaves_nothing_behind(remote, datasets_path, monkeypatch, failure, expected):
    monkeypatch.setattr(FileStorage, "fail", failure)
    with pytest.raises(expected):
        minari_io.read("test/deep/walk-v0")
    assert files(datasets_path) == []


def test_a_remote_that_does_not_answer_is_given_up_soon(remote, monkeypatch):
    monkeypatch.setattr(FileStorage, "get_dataset_metadata", lambda self, dataset_id: time.sleep(30))
    monkeypatch.setattr(minari_io, "_PATIENCE", 0.2)
    start = time.monotonic()
    with pytest.raises(DatasetNotFoundError, match="no answer within 0.2 seconds"):
        minari_io.read("test/deep/walk-v0")
    assert time.monotonic() - start < 2


@pytest.mark.parametrize("name", ["hf://farama-minari", "nonsense", "ftp://x"])
def test_an_unusable_remote_is_named(monkeypatch, name):
    monkeypatch.setenv("MINARI_REMOTE", name)
    start = time.monotonic()
    with pytest.raises(DatasetNotFoundError, match=name):
        minari_io.read("mujoco/hopper/medium-v0")
    assert time.monotonic() - start < 10


# Minari's own command line


def run_minari(*arguments):
    code = "import sys; from minari.cli import app; sys.exit(app(sys.argv[1:]))"
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_minari_lists_shows_and_combines_what_was_written(write_dataset):
    for version in (0, 1):
        write_dataset(f"test/walk-v{version}", metadata={"description": "A short walk.", "author": "Me"})
    assert "test/walk-v1" in run_minari("list", "local")
    shown = run_minari("show", "test/walk-v0")
    assert "A short walk." in shown and "40" in shown
    run_minari("combine", "test/walk-v0", "test/walk-v1", "--dataset-id", "test/both-v0")
    assert len(minari_io.read("test/both-v0").episodes) == 8
