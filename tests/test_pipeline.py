"""Reading, training, stitching, qualifying and writing as one: what a stitched dataset promises."""

import json
import os
import shutil
from pathlib import Path

import minari
import numpy as np
import pytest
import toy
from gymnasium import spaces

import minari_stitch as ms
from minari_stitch.config import adjust, parse
from minari_stitch.data import minari_io
from minari_stitch.data.provenance import RECORD_KEY
from minari_stitch.diffstitch.models import NETWORKS
from minari_stitch.diffstitch.transform import DiffStitch
from minari_stitch.errors import ConfigError, DatasetIdError, LowAcceptanceError
from minari_stitch.pipeline import augment as run_augment
from minari_stitch.pipeline import default_run_directory
from minari_stitch.run import Run
from minari_stitch.transforms.registry import from_record

DISCOUNT = 0.99
MARGIN = 5


def read(dataset_id):
    return minari_io.read(dataset_id, download=False, keep_infos=True)


def fingerprint(dataset_id):
    return read(dataset_id).fingerprint


def discounted(rewards):
    return float((np.asarray(rewards, np.float64) * DISCOUNT ** np.arange(len(rewards))).sum())


def column(part, name):
    values = part["infos"][name]
    assert values.shape == (len(part["rewards"]) + 1, 1), name
    return values[:, 0]


def assert_traceable(source, part, form="full", limit=toy.LIMIT, delta=toy.DELTA):
    """Check one stitched episode against the source, from what was written alone; say how it ends."""
    about = part["metadata"]
    positions = {number: index for index, number in enumerate(source.episode_ids.tolist())}
    before = source.episodes.episode(positions[about["source_episode"]])
    after = source.episodes.episode(positions[about["target_episode"]])
    begin, n = about["bridge_start"], about["bridge_states"]
    junction, entry = about["source_step"], about["target_step"]
    length = len(part["rewards"])
    rest = begin + n + 1  # the step at which the real suffix begins
    suffix = length - rest
    first = junction - begin
    assert n >= 1 and suffix >= 0 and len(part["observations"]) == length + 1
    assert first == (max(0, junction - MARGIN) if form == "bridge" else 0)

    # Prefix and suffix are exact copies.
    copied = {"observations": 1, "actions": 0, "rewards": 0}
    for name, extra in copied.items():
        written = part[name]
        np.testing.assert_array_equal(written[: begin + extra], before[name][first : junction + extra], err_msg=name)
        np.testing.assert_array_equal(written[rest:], after[name][entry : entry + suffix + extra], err_msg=name)
        assert np.isfinite(written).all()
    assert not part["terminations"][:-1].any() and not part["truncations"][:-1].any()

    # The same from the infos.
    synthetic = column(part, "synthetic")
    assert np.flatnonzero(synthetic).tolist() == list(range(begin, rest))
    episode, step = column(part, "source_episode"), column(part, "source_step")
    real = np.r_[np.arange(begin + 1), np.arange(rest, length + 1)]
    assert (np.delete(episode, real) == -1).all() and (np.delete(step, real) == -1).all()
    for state in real:
        stored = source.episodes.episode(positions[int(episode[state])])["observations"][int(step[state])]
        np.testing.assert_array_equal(part["observations"][state], stored)
    error = column(part, "dynamics_error")
    assert error[begin:rest].max() == pytest.approx(about["dynamics_error"], rel=1e-6)
    assert not error[:begin].any() and not error[rest:].any()
    assert max(about["dynamics_error"], about["error_bound"]) < delta
    returns = column(part, "return_to_go")
    assert (returns[-1] == 0) if form == "full" else (returns[-1] >= 0)  # what follows a bridge written alone
    togo = [discounted([*part["rewards"][t:], returns[-1]]) for t in range(length + 1)]
    np.testing.assert_allclose(returns, togo, atol=1e-9)

    # The time limit, counted from the start of the source's episode, and the end of the episode.
    left = len(after["rewards"]) - entry
    room = limit - (junction + n + 1)
    whole = min(left, MARGIN) if form == "bridge" else left
    assert suffix == min(whole, room) and first + length <= limit
    if suffix == left:
        assert part["terminations"][-1] == after["terminations"][-1]
        assert part["terminations"][-1] or part["truncations"][-1]
    else:
        assert part["truncations"][-1] and not part["terminations"][-1]
    return "cut" if suffix < whole else "terminated" if part["terminations"][-1] else "truncated"


def assert_raises_the_return(source, part):
    about = part["metadata"]
    (index,) = np.flatnonzero(source.episode_ids == about["source_episode"])
    was = discounted(source.episodes.episode(int(index))["rewards"][about["source_step"] :])
    now = discounted(part["rewards"][about["bridge_start"] :])
    assert now > was
    assert about["return_before"] == pytest.approx(was, rel=1e-5)
    assert about["return_after"] == pytest.approx(now, rel=1e-4, abs=1e-4)


# What is written


def test_the_dataset_is_whole(stitched):
    assert stitched["dataset_id"] == toy.STITCHED
    assert set(minari_io.local_ids()) == {toy.STITCHED, toy.ID}
    minari_io.check(toy.STITCHED)
    source, result = minari.load_dataset(toy.ID), minari.load_dataset(toy.STITCHED)
    assert (result.total_episodes, result.total_steps) == (stitched["n_episodes"], stitched["n_steps"])
    assert result.observation_space == source.observation_space and result.action_space == source.action_space
    assert result.env_spec == source.env_spec and result.env_spec.max_episode_steps == toy.LIMIT
    assert all(len(e) <= toy.LIMIT for e in result) and stitched["n_steps"] >= source.total_steps


def test_the_record_says_how_it_was_made(stitched):
    source, result = read(toy.ID), read(toy.STITCHED)
    record = result.metadata[RECORD_KEY]
    assert (record["source"], record["source_fingerprint"]) == (toy.ID, source.fingerprint)
    assert (record["method"], record["version"], record["seed"]) == ("DiffStitch", ms.__version__, 0)
    assert (record["device"], record["precision"], record["threads"]) == ("cpu", "fp32", 1)
    assert record["n_steps"] == stitched["n_steps"] and record["n_episodes"] == stitched["n_episodes"]
    assert record["include_original"] is False
    report = record["report"]
    assert report == stitched["report"]
    outcomes = ("accepted", "unreachable", "terminated", "inconsistent", "not_better")
    assert sum(report[name] for name in outcomes) == report["proposed"] > 0
    shares = list(report["acceptance"].values())
    assert shares == sorted(shares) and list(report["acceptance"]) == ["0.25", "0.5", "1", "2", "4", "8", "16"]
    assert report["acceptance"]["8"] == report["accepted"] / report["proposed"]


def test_the_record_repeats_the_run(stitched, tmp_path):
    record = read(toy.STITCHED).metadata[RECORD_KEY]
    transform = from_record(record)
    assert transform.qualify.delta == toy.DELTA and transform.models.diffusion.horizon == 16
    run = Run(directory=tmp_path / "elsewhere", seed=record["seed"], workers=1, threads=record["threads"])
    again = run_augment(minari_io.read(record["source"]), transform, run, force=True)
    assert again.dataset_id == "toy/walk-stitched-v1"
    assert fingerprint(again.dataset_id) == fingerprint(toy.STITCHED)


def test_what_the_source_says_travels_and_the_rest_is_new(stitched):
    metadata = minari.load_dataset(toy.STITCHED).storage.metadata
    assert metadata["author"] == {"A. Tester"} and metadata["ref_min_score"] == 0.0
    assert metadata["algorithm_name"] == "DiffStitch" and metadata["dataset_id"] == toy.STITCHED
    for word in (toy.ID, "delta 8", "standardised", f"{stitched['n_episodes']:,} episodes made from", "seed 0"):
        assert word in metadata["description"]


def test_every_episode_is_traceable_and_better(stitched):
    source = read(toy.ID)
    ends = []
    for part in read(toy.STITCHED).episodes:
        assert part["metadata"]["augmented"] is True
        assert part["metadata"]["source_episode"] != part["metadata"]["target_episode"]
        ends.append(assert_traceable(source, part))
        assert_raises_the_return(source, part)
    assert {"cut", "truncated"} <= set(ends)


@pytest.mark.parametrize(
    "words",
    [
        ("--pairs", "paper"),
        ("--pairs", "reference"),
        ("--set", "stitch.fixed_steps=5"),
        ("--set", "stitch.repair_steps=0", "--set", "models.diffusion.context=3"),
        ("--seed", "3"),
    ],
    ids=" ".join,
)
def test_every_way_to_choose_and_bridge_is_traceable_and_better(words):
    toy.write(toy.walks(terminate=1))  # every suffix that is whole terminates
    result = toy.augment(*words, "--steps", 200)
    source, made = read(toy.ID), read(result["dataset_id"])
    assert len(made.episodes) == result["n_episodes"] >= 5
    ends = set()
    for part in made.episodes:
        ends.add(assert_traceable(source, part))
        assert_raises_the_return(source, part)
    assert ends <= {"cut", "terminated"} and "terminated" in ends
    if "stitch.fixed_steps=5" in words:
        assert {part["metadata"]["bridge_states"] for part in made.episodes} == {5}


def test_what_the_time_limit_leaves_too_little_of_is_rejected():
    """A target may be worth more than the source, and the few steps of it that are left less."""
    toy.write([part | {"rewards": part["rewards"] + 2} for part in toy.walks()], limit=31)
    result = toy.augment("--steps", 500, "--pairs", "paper", "--set", "stitch.target_fraction=1.0")
    assert result["report"]["not_better"] > 2
    source = read(toy.ID)
    for part in read(result["dataset_id"]).episodes:
        assert_traceable(source, part, limit=31)
        assert_raises_the_return(source, part)


def test_bridges_alone_keep_a_little_context(stitched):
    result = toy.augment("--form", "bridge")
    assert result["dataset_id"] == "toy/walk-bridges-v0"
    source, made = read(toy.ID), read("toy/walk-bridges-v0")
    minari_io.check("toy/walk-bridges-v0")
    generated = [part["metadata"]["bridge_states"] + 1 for part in made.episodes]
    assert result["n_synthetic"] == sum(generated) < result["n_steps"] == made.episodes.n_steps
    wanted = source.episodes.n_steps  # which synthetic steps alone fill
    assert sum(generated[:-1]) < wanted <= sum(generated)
    for part in made.episodes:
        assert_traceable(source, part, form="bridge")
        assert len(part["rewards"]) <= part["metadata"]["bridge_states"] + 1 + 2 * MARGIN
    whole = read(toy.STITCHED).episodes
    for part, full in zip(made.episodes, whole, strict=False):  # the same bridges in the same order
        begin, n = full["metadata"]["bridge_start"], full["metadata"]["bridge_states"]
        own = part["metadata"]["bridge_start"]
        np.testing.assert_array_equal(
            part["observations"][own : own + n + 2], full["observations"][begin : begin + n + 2]
        )
        ours, theirs = column(part, "return_to_go")[own:], column(full, "return_to_go")[begin:]
        np.testing.assert_allclose(ours, theirs[: len(ours)], rtol=1e-9)  # the return of the whole episode


def test_the_source_can_be_written_too(stitched):
    result = toy.augment("--include-original")
    source, made, alone = read(toy.ID), read(result["dataset_id"]), read(toy.STITCHED)
    originals = len(source.episodes)
    assert len(made.episodes) == originals + result["n_episodes"] and result["n_episodes"] == len(alone.episodes)
    assert made.metadata[RECORD_KEY]["include_original"] is True
    assert made.metadata[RECORD_KEY]["n_episodes"] == result["n_episodes"]
    parts = list(made.episodes)
    for number, (part, real) in enumerate(zip(parts, source.episodes, strict=False)):
        for name in ("observations", "actions", "rewards", "terminations", "truncations"):
            np.testing.assert_array_equal(part[name], real[name])
        assert part["metadata"] == {"augmented": False, "source_episode": number}
        assert not column(part, "synthetic").any() and not column(part, "dynamics_error").any()
        assert (column(part, "source_episode") == number).all()
        np.testing.assert_array_equal(column(part, "source_step"), np.arange(len(part["rewards"]) + 1))
        assert column(part, "return_to_go")[0] == pytest.approx(discounted(real["rewards"]))
    for part, other in zip(parts[originals:], alone.episodes, strict=True):
        np.testing.assert_array_equal(part["observations"], other["observations"])


@pytest.mark.parametrize("steps", [1, 100, 500])
def test_as_many_steps_as_asked_for_in_whole_episodes(stitched, steps):
    result = toy.augment("--steps", steps)
    made = read(result["dataset_id"]).episodes
    assert made.n_steps == result["n_steps"] >= steps > made.n_steps - made.lengths[-1]


def test_more_steps_only_add_episodes(stitched):
    few, many = (read(toy.augment("--steps", steps)["dataset_id"]).episodes for steps in (100, 300))
    assert len(few) < len(many)
    assert many.select(range(len(few))).fingerprint() == few.fingerprint()


def test_versions_go_up_and_an_own_id_is_taken_as_it_is(stitched):
    assert [toy.augment("--steps", 1)["dataset_id"] for _ in range(2)] == [
        "toy/walk-stitched-v1",
        "toy/walk-stitched-v2",
    ]
    assert toy.augment("--steps", 1, "--dataset-id", "other/name-v7")["dataset_id"] == "other/name-v7"
    assert minari_io.exists("other/name-v7")


# Kinds of data


def dict_space(dtype):
    box = {"low": -np.inf, "high": np.inf, "dtype": dtype}
    return spaces.Dict(
        speed=spaces.Dict(along=spaces.Box(shape=(1,), **box)),
        place=spaces.Box(shape=(2, 1), **box),
    )


def box_space(dtype):
    return spaces.Box(-np.inf, np.inf, (3,), dtype)


def arrays(data, path=""):
    if isinstance(data, dict):
        for key, part in data.items():
            yield from arrays(part, f"{path}/{key}")
    else:
        yield path, data


@pytest.mark.parametrize(
    ("space", "dtype", "rewards"),
    [
        (box_space, np.float32, np.float64),
        (box_space, np.float64, np.float32),
        (dict_space, np.float32, np.float32),
        (dict_space, np.float64, np.float64),
    ],
)
def test_dtypes_and_spaces_are_those_of_the_source(space, dtype, rewards):
    actions = spaces.Box(-1, 1, (2,), dtype)
    parts = [
        part | {"actions": part["actions"].astype(dtype), "rewards": part["rewards"].astype(rewards)}
        for part in toy.walks(dtype=dtype)
    ]
    toy.write(parts, observation_space=space(dtype), action_space=actions)
    result = toy.augment("--steps", 100)
    minari_io.check(result["dataset_id"])
    source, made = minari.load_dataset(toy.ID), minari.load_dataset(result["dataset_id"])
    assert made.observation_space == source.observation_space and made.action_space == actions
    wanted = {path: (array.dtype, array.shape[1:]) for path, array in arrays(source[0].observations)}
    for episode in made:
        assert {path: (a.dtype, a.shape[1:]) for path, a in arrays(episode.observations)} == wanted
        assert episode.actions.dtype == dtype and episode.rewards.dtype == rewards
        assert all(action in actions for action in episode.actions)
    for part in read(result["dataset_id"]).episodes:
        assert_traceable(read(toy.ID), part)


def test_actions_keep_to_the_bounds_of_their_space():
    space = spaces.Box(np.float32([-0.25, 3]), np.float32([0.5, 5]))
    middle, half = (space.high + space.low) / 2, (space.high - space.low) / 2
    toy.write([part | {"actions": middle + half * part["actions"]} for part in toy.walks()], action_space=space)
    made = minari.load_dataset(toy.augment("--steps", 200)["dataset_id"])
    everything = np.concatenate([episode.actions for episode in made])
    assert (everything >= space.low).all() and (everything <= space.high).all()
    assert np.ptp(everything[:, 1]) > 0.5  # and they are in the units of the space


def test_episodes_of_different_lengths_and_left_out_ones_keep_their_numbers():
    parts = toy.walks(episodes=14)
    for index, part in enumerate(parts):
        length = 30 - index % 5
        ended = np.arange(length) == length - 1
        part |= {name: part[name][:length] for name in ("actions", "rewards")}
        part |= {"observations": part["observations"][: length + 1], "truncations": ended}
        part |= {"terminations": np.zeros(length, bool)}
        parts[index] = part
    toy.write(parts)
    toy.spoil(toy.ID, episode=2)
    result = toy.augment("--skip-invalid", "--include-original")
    source, made = minari_io.read(toy.ID, skip_invalid=True), read(result["dataset_id"])
    assert source.episode_ids.tolist() == [0, 1, *range(3, 14)]
    used = set()
    for part in list(made.episodes)[13:]:
        assert_traceable(source, part)
        used |= {part["metadata"]["source_episode"], part["metadata"]["target_episode"]}
    assert 2 not in used and max(used) > 9
    assert [part["metadata"]["source_episode"] for part in list(made.episodes)[:13]] == source.episode_ids.tolist()


def test_without_a_time_limit_nothing_is_cut():
    toy.write(limit=None)
    made = read(toy.augment("--steps", 300)["dataset_id"])
    assert made.env_spec is None
    ends = {assert_traceable(read(toy.ID), part, limit=10**9) for part in made.episodes}
    assert "cut" not in ends and made.episodes.lengths.max() > toy.LIMIT


# What is kept for the next run


def kept(folder):
    """Identity of all files in a run directory: a file that is written again has another one."""
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


@pytest.fixture
def run_directory(stitched):
    return default_run_directory(minari_io.read(toy.ID))


def networks(files):
    return {name: identity for name, identity in files.items() if name.startswith("models-")}


def chunks(files):
    return {name: identity for name, identity in files.items() if name.startswith("chunks-")}


def test_the_run_directory_is_hidden_beside_the_datasets(run_directory, datasets_path):
    files = kept(run_directory)
    assert run_directory.parent == datasets_path / ".stitch-runs"
    names = {Path(name).name for name in networks(files)}
    assert names == {f"{name}.pt" for name in NETWORKS}
    assert {Path(name).name for name in chunks(files)} >= {"000000.npz"}


@pytest.mark.parametrize(
    "words", [("--delta", "0.5"), ("--steps", "50"), ("--form", "bridge"), ("--include-original",)], ids=" ".join
)
def test_delta_amount_and_form_reuse_models_and_proposals(run_directory, words):
    before = kept(run_directory)
    toy.augment(*words)
    after = kept(run_directory)
    assert networks(after) == networks(before)
    assert chunks(before).items() <= chunks(after).items()
    assert {name.split("/")[0] for name in after} == {name.split("/")[0] for name in before}


@pytest.mark.parametrize(
    ("words", "trains"),
    [
        (("--set", "stitch.draws=1"), False),
        (("--set", "stitch.discount=0.9"), False),
        (("--pairs", "paper"), False),
        (("--set", "models.dynamics.steps=50"), True),
        (("--set", "models.diffusion.mask=paper"), True),
        (("--seed", "1"), True),
    ],
    ids=str,
)
def test_a_changed_setting_reuses_nothing_that_depends_on_it(run_directory, words, trains):
    before = kept(run_directory)
    toy.augment(*words, "--steps", 100)
    after = kept(run_directory)
    assert networks(before).items() <= networks(after).items()
    assert chunks(before).items() <= chunks(after).items()
    new = {name.split("/")[0].split("-")[0] for name in after.keys() - before.keys()}
    assert new == ({"models", "chunks"} if trains else {"chunks"})
    if trains:
        assert len(networks(after)) == 2 * len(networks(before))


def test_changed_data_reuse_nothing(stitched, datasets_path):
    runs = datasets_path / ".stitch-runs"
    (before,) = runs.iterdir()
    toy.write(toy.walks(seed=9), dataset_id="toy/walk-v1")
    toy.augment("--steps", 50, source="toy/walk-v1")
    assert len(list(runs.iterdir())) == 2 and before.exists()


def test_other_bounds_of_the_actions_train_anew(run_directory, datasets_path):
    before = kept(run_directory)
    shutil.rmtree(datasets_path / toy.ID)
    toy.write(action_space=spaces.Box(-2, 2, (2,), np.float32))
    toy.augment("--steps", 50)
    assert len(networks(kept(run_directory))) == 2 * len(networks(before))


def test_another_run_directory_is_used_alone(stitched, datasets_path, tmp_path):
    own = tmp_path / "mine"
    before = kept(datasets_path / ".stitch-runs")
    toy.augment("--run-dir", own, "--steps", 50)
    assert kept(datasets_path / ".stitch-runs") == before
    assert {Path(name).name for name in networks(kept(own))} >= {"diffusion.pt"}


# Determinism


def test_the_same_seed_gives_the_same_arrays(stitched, tmp_path):
    again = toy.augment("--run-dir", tmp_path / "fresh")["dataset_id"]
    other = toy.augment("--run-dir", tmp_path / "fresh", "--seed", 1)["dataset_id"]
    assert fingerprint(again) == fingerprint(toy.STITCHED) != fingerprint(other)
    rows = [
        [(m["source_episode"], m["source_step"]) for m in read(dataset_id).episodes.metadata]
        for dataset_id in (again, other)
    ]
    assert rows[0][:4] != rows[1][:4]  # another draw, not only other models
    infos = [read(dataset_id).episodes.infos for dataset_id in (again, toy.STITCHED)]
    assert infos[0].keys() == infos[1].keys()
    for name in infos[0]:
        np.testing.assert_array_equal(infos[0][name], infos[1][name])


def test_the_number_of_workers_changes_nothing(stitched, tmp_path):
    words = toy.tiny(toy.ID, "--delta", toy.DELTA, "--run-dir", tmp_path / "fresh", workers=2)
    toy.ok(*words)
    assert fingerprint("toy/walk-stitched-v1") == fingerprint(toy.STITCHED)


def test_a_rerun_says_that_it_is_there_and_stops(stitched, datasets_path):
    words = [word for word in toy.tiny(toy.ID, "--delta", toy.DELTA) if word != "--force"]
    before = {path: path.stat().st_mtime_ns for path in datasets_path.rglob("*")}
    said = toy.ok(*words).stdout
    assert f"{toy.STITCHED} is what this command writes" in said and "--force" in said
    again = ms.augment(toy.ID, from_record(read(toy.STITCHED).metadata[RECORD_KEY]), threads=1)
    assert again.existing and again.dataset_id == toy.STITCHED and again.n_steps == stitched["n_steps"]
    assert {path: path.stat().st_mtime_ns for path in datasets_path.rglob("*")} == before
    for more in (
        ["--steps", 100],
        ["--seed", 1],
        ["--include-original"],
        ["--delta", 7.5],
        ["--dataset-id", "aa/b-v0"],
    ):
        assert not json.loads(toy.ok(*words, *more, "--json").stdout)["existing"], more


def test_a_filter_says_that_it_is_there_and_stops(stitched):
    first, second = (ms.filter(toy.STITCHED, delta=4) for _ in range(2))
    assert (first.existing, second.existing, second.dataset_id) == (False, True, first.dataset_id)
    assert ms.filter(toy.STITCHED, delta=4, force=True).dataset_id != first.dataset_id


# Other methods

METHODS = {"synther": ("SER", "ser"), "tatu": ("TATU", "tatu"), "resample": ("resample", "resampled")}
METHODS["real"] = ("real", "real")
LEARNED = ["synther", "tatu"]
STEPS = 150


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """A datasets folder with what each of the other methods makes, and what it printed."""
    path = tmp_path_factory.mktemp("others") / "datasets"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(path))
        toy.write()
        return path, {method: json.loads(toy.ok(*toy.other(method, "--steps", STEPS, "--json")).stdout)
                      for method in METHODS}  # fmt: skip


@pytest.fixture
def made_otherwise(others, datasets_path):
    """The same in this test's own folder."""
    shutil.copytree(others[0], datasets_path, copy_function=shutil.copy2)
    return others[1]


def again(method, *words, **kwargs):
    return json.loads(toy.ok(*toy.other(method, "--steps", STEPS, "--json", *words, **kwargs)).stdout)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_writes_a_whole_dataset_that_says_what_it_is(made_otherwise, method):
    name, suffix = METHODS[method]
    result, source_id = made_otherwise[method], toy.DEMO if method == "real" else toy.ID
    assert result["dataset_id"] == source_id.replace("-v0", f"-{suffix}-v0")
    minari_io.check(result["dataset_id"])
    source, made = minari.load_dataset(source_id), minari.load_dataset(result["dataset_id"])
    assert (made.total_episodes, made.total_steps) == (result["n_episodes"], result["n_steps"])
    assert made.total_steps >= STEPS
    assert made.observation_space == source.observation_space and made.action_space == source.action_space
    assert made.env_spec == source.env_spec
    record = read(result["dataset_id"]).metadata[RECORD_KEY]
    assert (record["method"], record["source"], record["seed"]) == (name, source_id, 0)
    assert record["source_fingerprint"] == fingerprint(source_id) and record["include_original"] is False
    assert record["report"] == result["report"] and record["config"]["discount"] == DISCOUNT
    assert made.storage.metadata["algorithm_name"] == name
    description = made.storage.metadata["description"]
    assert f"made from {source_id} by {name}; seed 0" in description and "delta" not in description
    if method == "tatu":
        assert record["config"]["members"] == 3 and record["config"]["ensemble"]["steps"] == 20
    for part in read(result["dataset_id"]).episodes:
        returns = column(part, "return_to_go")
        np.testing.assert_allclose(returns, [discounted(part["rewards"][t:]) for t in range(len(returns))], atol=1e-6)


def assert_same(one, two):
    one, two = (read(each["dataset_id"]).episodes for each in (one, two))
    assert one.fingerprint() == two.fingerprint() and list(one.metadata) == list(two.metadata)
    for name, info in one.infos.items():
        np.testing.assert_array_equal(two.infos[name], info, err_msg=name)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_the_same_arrays_for_the_same_seed(made_otherwise, tmp_path, method):
    assert_same(made_otherwise[method], again(method, "--run-dir", tmp_path / "fresh"))


@pytest.mark.parametrize("method", METHODS)
def test_the_number_of_workers_changes_nothing_of_any_method(made_otherwise, run_directory_of_toy, method):
    for folder in run_directory_of_toy.glob("chunks-*"):
        shutil.rmtree(folder)
    if method == "synther":  # of one method the networks too: each start of a worker takes seconds
        for folder in run_directory_of_toy.glob("models-*"):
            shutil.rmtree(folder)
    assert_same(made_otherwise[method], again(method, workers=2))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_draws_by_its_seed(made_otherwise, method):
    result = again(method, "--seed", 1)
    assert fingerprint(result["dataset_id"]) != fingerprint(made_otherwise[method]["dataset_id"])


@pytest.mark.parametrize("method", LEARNED)
def test_more_steps_reuse_networks_and_chunks_and_only_add_episodes(made_otherwise, run_directory_of_toy, method):
    before = kept(run_directory_of_toy)
    result = json.loads(toy.ok(*toy.other(method, "--steps", 4 * STEPS, "--json")).stdout)
    after = kept(run_directory_of_toy)
    assert networks(before) == networks(after) and chunks(before).items() < chunks(after).items()
    few, many = (read(each["dataset_id"]).episodes for each in (made_otherwise[method], result))
    assert many.select(range(len(few))).fingerprint() == few.fingerprint() and len(many) > len(few)
    assert many.n_steps >= 4 * STEPS > many.n_steps - many.lengths[-1]  # and no more than needed


@pytest.fixture
def run_directory_of_toy(made_otherwise):
    return default_run_directory(minari_io.read(toy.ID))


@pytest.mark.parametrize(
    ("method", "word", "trains"),
    [
        ("synther", "sampler_steps=5", False),
        ("synther", "train.steps=25", True),
        ("synther", "whitening=full", True),
        ("synther", "noise.largest=50", True),
        ("synther", "noise.log_mean=-0.5", True),
        ("tatu", "strictness=0.2", False),
        ("tatu", "pessimism=2", False),
        ("tatu", "discount=0.9", False),
        ("tatu", "elites=1", False),
        ("tatu", "policy.steps=25", True),
        ("tatu", "members=4", True),
    ],
)
def test_a_changed_setting_of_a_method_reuses_nothing_that_depends_on_it(
    made_otherwise, run_directory_of_toy, method, word, trains
):
    before = kept(run_directory_of_toy)
    result = again(method, "--set", word)
    after = kept(run_directory_of_toy)
    assert networks(before).items() <= networks(after).items()
    assert chunks(before).items() < chunks(after).items()
    new = {name.split("/")[0].split("-")[0] for name in after.keys() - before.keys()}
    assert new == ({"models", "chunks"} if trains else {"chunks"})
    assert fingerprint(result["dataset_id"]) != fingerprint(made_otherwise[method]["dataset_id"])


@pytest.mark.parametrize("method", METHODS)
def test_every_method_can_be_shown(made_otherwise, method):
    dataset_id, report = made_otherwise[method]["dataset_id"], made_otherwise[method]["report"]
    shown = json.loads(toy.ok("show", dataset_id, "--json").stdout)
    assert shown["report"] == report and shown["bridges"] == {} and shown["method"] == METHODS[method][0]
    text = toy.ok("show", dataset_id).stdout
    assert f"{dataset_id}: {METHODS[method][0]} of" in text
    for name in report.keys() - {"acceptance"}:
        assert name.replace("_", " ") in text, name
    assert ("Acceptance by delta" in text) == (method in LEARNED)


@pytest.mark.parametrize("method", LEARNED)
def test_what_a_method_made_can_be_filtered(made_otherwise, method):
    whole = read(made_otherwise[method]["dataset_id"]).episodes
    errors = np.array([max(about["dynamics_error"], about["disagreement"]) for about in whole.metadata])
    delta = float(np.median(errors))
    result = json.loads(toy.ok("filter", made_otherwise[method]["dataset_id"], "--delta", delta, "--json").stdout)
    made = read(result["dataset_id"])
    minari_io.check(result["dataset_id"])
    assert result["n_episodes"] == (errors < delta).sum() == len(made.episodes) > 10
    assert made.episodes.fingerprint() == whole.select(np.flatnonzero(errors < delta)).fingerprint()
    assert made.metadata[RECORD_KEY]["config"]["qualify"] == {"delta": delta}
    looser = toy.invoke("filter", result["dataset_id"], "--delta", 2 * delta)
    assert looser.exit_code == 1 and "ConfigError: delta=" in looser.stderr
    strict = toy.invoke("filter", result["dataset_id"], "--delta", errors.min() / 2)
    assert strict.exit_code == 1 and "LowAcceptanceError" in strict.stderr


@pytest.mark.parametrize("method", ["resample", "real"])
def test_real_steps_are_not_filtered(made_otherwise, method):
    before = minari_io.local_ids()
    result = toy.invoke("filter", made_otherwise[method]["dataset_id"], "--delta", 1)
    assert result.exit_code == 1 and minari_io.local_ids() == before
    assert f"was made by {method}: it holds real steps, all consistent" in result.stderr


@pytest.mark.parametrize("method", METHODS)
def test_every_method_can_write_the_source_too(made_otherwise, method):
    result = again(method, "--include-original")
    source = read(toy.DEMO if method == "real" else toy.ID).episodes
    made, alone = (read(each["dataset_id"]).episodes for each in (result, made_otherwise[method]))
    assert len(made) == len(source) + result["n_episodes"] and result["n_episodes"] == len(alone)
    assert made.select(range(len(source))).fingerprint() == source.fingerprint()
    assert made.select(range(len(source), len(made))).fingerprint() == alone.fingerprint()
    assert [about["augmented"] for about in made.metadata] == [False] * len(source) + [True] * len(alone)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("synther", "--delta", 2), "delta is not possible with SER, which has no such setting"),
        (("real", "--form", "bridge"), "form is not possible with real"),
        (("tatu", "--delta", 1, "--pairs", "paper"), "delta, pairs is not possible with TATU"),
        (("synther", "--set", "qualify.delta=2"), "there is no setting 'qualify.delta'"),
        (("synther", "--set", "sampler_steps=1"), "sampler_steps=1 is not possible"),
        (("synther", "--set", "noise.smallest=100"), "noise.smallest=100.0 is not possible"),
        (("synther", "--set", "whitening=none"), "whitening='none' is not possible"),
        (("synther", "--set", "train.steps=0"), "train.steps=0 is not possible"),
        (("tatu", "--set", "elites=4"), "elites=4 is not possible: use 1 to members=3"),
        (("tatu", "--set", "horizon=0"), "horizon=0 is not possible"),
        (("resample", "--set", "temperature=0"), "temperature=0 is not possible"),
        (("resample", "--set", "members=3"), "there is no setting 'members'"),
        (("resample", "--steps", 0), "--steps=0 is not possible"),
    ],
    ids=str,
)
def test_what_a_method_cannot_do_is_named(datasets_path, words, message):
    toy.write()
    result = toy.invoke(*toy.other(*words))
    assert result.exit_code == 1 and f"ConfigError: {message}" in " ".join(result.stderr.split())
    assert not result.stdout
    assert [path.name for path in datasets_path.iterdir()] == ["toy"] and minari_io.local_ids() == [toy.ID]


def test_only_demo_datasets_are_rolled_out_further(datasets_path):
    toy.write()
    result = toy.invoke("augment", toy.ID, "--method", "real")
    assert result.exit_code == 1 and not result.stdout
    assert f"ConfigError: method real is not possible for '{toy.ID}'" in result.stderr
    assert "--method" in result.stderr or "method resample" in result.stderr
    assert [path.name for path in datasets_path.iterdir()] == ["toy"] and minari_io.local_ids() == [toy.ID]


# The library


def tiny_transform():
    return adjust(DiffStitch(), dict(map(parse, toy.TINY[1::2])))


def test_augment_as_a_function_reports_its_stages(datasets_path, tmp_path):
    toy.write()
    seen = []
    run = Run(directory=tmp_path / "run", workers=1, threads=1, progress=lambda *report: seen.append(report))
    transform = adjust(tiny_transform(), {"qualify.delta": toy.DELTA})
    result = run_augment(minari_io.read(toy.ID), transform, run, n_steps=100, include_original=True)
    assert result.path == datasets_path / toy.STITCHED and result.dataset_id == toy.STITCHED
    stages = list(dict.fromkeys(stage for stage, _, _ in seen))
    assert stages == [*(f"train {name}" for name in NETWORKS), "stitch", "write"]
    for stage in stages:
        done = [done for name, done, _ in seen if name == stage]
        (total,) = {total for name, _, total in seen if name == stage}
        assert done == sorted(done) and done[-1] == total, stage
    with pytest.raises(DatasetIdError, match="taken"):
        run_augment(minari_io.read(toy.ID), transform, run, output_id=toy.STITCHED)
    with pytest.raises(ConfigError, match="steps=0"):
        run_augment(minari_io.read(toy.ID), transform, run, n_steps=0)


def test_an_id_that_another_run_takes_meanwhile_costs_nothing(datasets_path, tmp_path):
    toy.write()
    ids = []

    def progress(stage, done, total):
        if stage == "write" and not ids:
            ids.append(toy.write(dataset_id=toy.STITCHED))  # another run ends

    run = Run(directory=tmp_path / "run", workers=1, threads=1, progress=progress)
    transform = adjust(tiny_transform(), {"qualify.delta": toy.DELTA})
    result = run_augment(minari_io.read(toy.ID), transform, run, n_steps=60)
    assert (result.dataset_id, result.path) == ("toy/walk-stitched-v1", datasets_path / "toy/walk-stitched-v1")
    assert minari.load_dataset("toy/walk-stitched-v1").total_steps == result.n_steps


def test_too_few_acceptances_say_what_was_reached(stitched):
    source = minari_io.read(toy.ID)
    transform = adjust(tiny_transform(), {"qualify.delta": 1e-9})
    with pytest.raises(LowAcceptanceError) as caught:
        run_augment(source, transform, Run(directory=default_run_directory(source), workers=1, threads=1))
    message = str(caught.value)
    for word in ("only 0 of 512 pairs", "delta 1e-09", "0 of 360 steps", "16.0:", "Raise delta", "fewer steps"):
        assert word in message, message


def test_the_datasets_folder_is_that_of_the_test(datasets_path):
    """Nothing above may touch what a developer has."""
    assert os.environ["MINARI_DATASETS_PATH"] == str(datasets_path)
    assert not minari_io.exists(toy.ID)


def test_a_goal_in_the_observations_is_reported():
    """Which bridges move, so that a raised return may be an easier goal."""
    parts = toy.walks()
    for number, part in enumerate(parts):
        goal = np.full((len(part["observations"]), 1), number % 3, np.float32)
        part["observations"] = np.concatenate([part["observations"], goal], 1)
    result = toy.augment("--steps", 100, source=toy.write(parts, "toy/goal-v0"), delta=1e6)
    assert result["report"]["goal_dimensions"] == 1
    shown = " ".join(toy.ok("show", result["dataset_id"]).stdout.split())
    assert "1 observations never change within an episode" in shown
