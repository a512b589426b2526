"""OGBench's files come back state for state, in both directions, and what is none is refused."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import toy
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

import minari_stitch as ms
from minari_stitch.data import minari_io
from minari_stitch.data.ogbench_rows import Spans
from minari_stitch.errors import StitchError
from minari_stitch.sim.ogbench import default_id
from minari_stitch.sim.ogbench_tasks import env_spec, successes

NAME = "pointmaze-medium-stitch-v0"
LENGTHS = (3, 5, 2)  # states of each trajectory


def tables(lengths=LENGTHS, width=2, seed=0, **changes):
    """A file of OGBench's: trajectories of so many states in a point maze, whose observation is qpos."""
    rng = np.random.default_rng(seed)
    rows = sum(lengths)
    last = np.zeros(rows, bool)
    last[np.cumsum(lengths) - 1] = True
    observations = rng.uniform(0, 20, (rows, width)).astype(np.float32)
    made = {
        "observations": observations,
        "actions": rng.uniform(-1, 1, (rows, 2)).astype(np.float32),
        "terminals": last,
        "qpos": observations[:, :2],
        "qvel": rng.normal(size=(rows, 2)).astype(np.float32),
    }
    return {name: table for name, table in (made | changes).items() if table is not None}


def save(folder, name=NAME, **content):
    path = folder / f"{name}.npz"
    np.savez_compressed(path, **(content or tables()))
    return path


def imported(path, **options):
    return ms.import_ogbench(path, progress=False, **options)


def read(dataset_id):
    return minari_io.read(dataset_id, download=False, keep_infos=True)


# Files to datasets


def test_a_file_comes_back_state_for_state(tmp_path):
    content = tables()
    result = imported(save(tmp_path, **content))
    assert (result.dataset_id, result.env_id) == (f"ogbench/{NAME}", "pointmaze-medium-v0")
    assert (result.n_episodes, result.n_steps) == (3, 7)
    minari_io.check(result.dataset_id)
    dataset = read(result.dataset_id)
    begin = 0
    for states, part in zip(LENGTHS, dataset.episodes, strict=True):
        rows = slice(begin, begin + states)
        for name in ("observations", "qpos", "qvel"):
            found = part["observations"] if name == "observations" else part["infos"][name]
            assert found.dtype == content[name].dtype
            np.testing.assert_array_equal(found, content[name][rows])
        np.testing.assert_array_equal(part["actions"], content["actions"][rows][:-1])
        assert not part["rewards"].any() and not part["terminations"].any() and part["truncations"][-1]
        begin += states
    assert "no rewards: all are 0" in dataset.metadata["description"]
    assert dataset.metadata["ogbench"]["rewards"] == "none (zeros)"


def test_the_environment_is_recorded_without_the_package():
    import minari

    result = imported(save(Path(minari.storage.get_dataset_path("x")).parent.parent))
    spec = minari.load_dataset(result.dataset_id).spec.env_spec
    assert spec.entry_point == "ogbench.locomaze.maze:make_maze_env" and spec.max_episode_steps == 1000
    assert spec.kwargs == {"loco_env_type": "point", "maze_env_type": "maze", "maze_type": "medium"}
    assert env_spec("humanoidmaze-giant").max_episode_steps == 4000


def test_a_file_of_no_known_environment_has_none(tmp_path):
    path = save(tmp_path, "nothing-known-play-v0", **tables(qpos=None, qvel=None))
    result = imported(path)
    assert result.env_id == "" and read(result.dataset_id).env_spec is None


def test_a_validation_file_is_a_dataset_of_its_own(tmp_path):
    path, val = save(tmp_path), save(tmp_path, f"{NAME}-val", **tables((4,), seed=1))
    result = imported(path, val=val)
    assert result.validation.dataset_id == "ogbench/pointmaze-medium-stitch-val-v0"
    assert result.validation.n_steps == 3 and result.n_steps == 7


@pytest.mark.parametrize(
    ("name", "task", "dataset_id"),
    [
        (NAME, None, f"ogbench/{NAME}"),
        (NAME, 2, "ogbench/pointmaze-medium-stitch-task2-v0"),
        (f"{NAME}-val", None, "ogbench/pointmaze-medium-stitch-val-v0"),
        ("scene-play-v0", None, "ogbench/scene-play-v0"),
        ("puzzle-4x5-noisy-v0", None, "ogbench/puzzle-4x5-noisy-v0"),
    ],
)
def test_ids_follow_from_names(name, task, dataset_id):
    assert default_id(Path(f"{name}.npz"), task) == dataset_id


# Rewards of a task


def test_a_task_has_the_rewards_of_its_goal(tmp_path):
    goal = np.array([20.0, 20.0])  # task 1 of the medium maze: cell (6, 6), cells of width 4, the first at -4
    path = np.array([[10, 10], [19.5, 20.5], [20, 20], [10, 10], [11, 10], [20, 20.9], [20, 21.1]])
    rows = tables((len(path),), observations=path.astype(np.float32), qpos=path.astype(np.float32))
    result = imported(save(tmp_path, **rows), task=1)
    parts = list(read(result.dataset_id).episodes)
    assert [part["rewards"].tolist() for part in parts] == [[-1, 0], [-1, -1, 0]]
    assert [bool(part["terminations"][-1]) for part in parts] == [True, True]
    assert result.record["steps_after_success"] == 1
    spec = read(result.dataset_id).env_spec
    assert spec.id == "pointmaze-medium-singletask-task1-v0" and spec.kwargs["reward_task_id"] == 1
    for part in parts:
        inside = np.linalg.norm(part["infos"]["qpos"][:-1] - goal, axis=1) <= 1
        np.testing.assert_array_equal(part["rewards"], inside - 1.0)


@given(st.lists(st.lists(st.booleans(), min_size=2, max_size=8), min_size=1, max_size=4))
def test_task_episodes_hold_each_transition_up_to_its_end(trajectories):
    """Against a loop over transitions as OGBench has them: state, reward and mask."""
    success = np.concatenate(trajectories)
    last = np.concatenate([np.arange(len(t)) == len(t) - 1 for t in trajectories])
    wanted, dropped, row = [], 0, 0
    for trajectory in trajectories:
        episode = []
        for step in range(len(trajectory) - 1):
            if trajectory[step] and step and trajectory[step - 1]:
                dropped += 1
            else:
                episode.append(row + step)
            if trajectory[step] or step == len(trajectory) - 2:
                if episode:
                    wanted.append((episode, trajectory[step]))
                episode = []
        row += len(trajectory)
    spans = Spans.of_task(last, success)
    assert spans.dropped == dropped
    spanned = zip(spans.starts, spans.ends, spans.terminated, strict=True)
    assert [(list(range(s, e)), bool(t)) for s, e, t in spanned] == wanted


def test_success_has_the_size_that_the_body_has():
    xy = np.array([[20.0, 20.7]])
    assert successes("pointmaze-medium", 1, xy) and not successes("antmaze-medium", 1, xy)


# Bad input


def _cut(path):
    path.write_bytes(path.read_bytes()[:-200])


def _flipped(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 255
    path.write_bytes(bytes(data))


BAD = {
    "no terminals": (tables(terminals=None), "it has no terminals"),
    "one state": (tables((3, 1, 2)), "trajectory 1 (row 3) has one state"),
    "two terminals": (tables(terminals=np.array([0, 1, 1, 0, 0, 0, 1, 1, 1, 1])), "two terminals"),
    "unequal": (tables(actions=np.zeros((4, 2), np.float32)), "'actions': 4"),
    "objects": (tables(actions=np.array([None] * 10)), "without pickles"),
    "strings": (tables(observations=np.full((10, 2), "x")), "observations have shape (10, 2) and dtype <U1"),
    "discrete": (tables(actions=np.zeros((10, 1), np.int32)), "discrete"),
    "images": (tables(observations=np.zeros((10, 8, 8, 3), np.uint8)), "images"),
    "nan": (tables(qpos=np.full((10, 2), np.nan)), "row 0 of qpos holds nan"),
    "unscaled": (tables(actions=np.full((10, 2), 50.0)), "row 0 of actions holds 50"),
    "counts": (tables(terminals=np.arange(10)), "row 2 of terminals holds 2"),
    "cut rows": ({k: v[:7] for k, v in tables().items()}, "the last of 7 rows is no terminal"),
    "no rows": ({k: v[:0] for k, v in tables().items()}, "must have the same number of rows"),
    "loaded": (tables(next_observations=np.zeros((10, 2))), "what OGBench's loader makes"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_files_are_named(kind, tmp_path, datasets_path):
    content, message = BAD[kind]
    path = save(tmp_path, **content)
    with pytest.raises(StitchError) as raised:
        imported(path)
    assert message in str(raised.value) and str(path) in str(raised.value)
    assert str(raised.value).endswith((".", "returns."))
    assert not list(datasets_path.rglob("*"))


@pytest.mark.parametrize(
    "damage", [_cut, _flipped, lambda path: path.write_bytes(b""), lambda p: p.write_text("<html>")]
)
def test_damaged_files_are_named(damage, tmp_path):
    path = save(tmp_path)
    damage(path)
    with pytest.raises(StitchError, match="is not a readable npz file"):
        imported(path)


def test_a_pickle_runs_no_code(tmp_path):
    path = tmp_path / f"{NAME}.npz"
    path.write_bytes(pickle.dumps({"observations": 1}))
    with pytest.raises(StitchError, match="without pickles"):
        imported(path)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (NAME, {"task": 6}, "has tasks 1 to 5"),
        (NAME, {"task": 0}, "has tasks 1 to 5"),
        ("scene-play-v0", {"task": 1}, "only the tasks of mazes are known"),
        ("mine", {}, "does not say what it holds"),
        ("mine", {"task": 1}, "names no maze"),
        (NAME, {"dataset_id": "bad"}, "has no version"),
    ],
)
def test_what_is_not_possible_is_named(name, options, message, tmp_path):
    with pytest.raises(StitchError, match=message):
        imported(save(tmp_path, name), **options)


def test_rewards_need_positions(tmp_path):
    with pytest.raises(StitchError, match="has no qpos"):
        imported(save(tmp_path, **tables(qpos=None)), task=1)


def test_two_files_of_different_datasets_are_refused(tmp_path):
    with pytest.raises(StitchError, match="two files of one dataset"):
        imported(save(tmp_path), val=save(tmp_path, f"{NAME}-val", **tables(width=3)))


# Datasets to files


def loaded(path):
    """What OGBench's loader takes from a file, by its published rule: all but last states, and what follows them."""
    with np.load(path) as file:
        keep = file["terminals"].astype(np.float32) == 0
        after = np.append(False, keep[:-1])
        found = {name: file[name][keep] for name in file.files}
        return found | {"next_observations": file["observations"][after]}


def test_there_and_back(tmp_path):
    content = tables((3,) * 12)
    result = imported(save(tmp_path, **content))
    done = ms.export_ogbench(result, tmp_path / "out" / "again.npz", val=result)
    assert done.name == NAME and (done.n_episodes, done.n_steps) == (12, 24)
    for path in (done.path, done.validation_path):
        with np.load(path) as file:
            assert {name: file[name].dtype for name in ("observations", "actions", "terminals")} == {
                "observations": np.float32,
                "actions": np.float32,
                "terminals": bool,
            }
            for name in ("observations", "terminals", "qpos", "qvel"):
                np.testing.assert_array_equal(file[name], content[name])
            stays = ~content["terminals"]
            np.testing.assert_array_equal(file["actions"][stays], content["actions"][stays])
    assert sorted(path.name for path in done.path.parent.iterdir()) == ["again-val.npz", "again.npz"]


def test_every_tenth_episode_validates(tmp_path):
    content = tables((3,) * 20)
    result = imported(save(tmp_path, **content))
    done = ms.export_ogbench(result, tmp_path / "out.npz")
    assert (done.n_episodes, done.n_validation) == (18, 2)
    found = loaded(done.validation_path)["observations"]
    rows = [3 * 9, 3 * 9 + 1, 3 * 19, 3 * 19 + 1]
    np.testing.assert_array_equal(found, content["observations"][rows])


def test_a_stitched_dataset_says_what_was_generated(stitched, tmp_path):
    done = ms.export_ogbench(stitched["dataset_id"], tmp_path / "stitched.npz")
    dataset = read(stitched["dataset_id"])
    train, held = loaded(done.path), loaded(done.validation_path)
    assert len(train["observations"]) + len(held["observations"]) == dataset.episodes.n_steps
    synthetic = int(dataset.episodes.infos["synthetic"][dataset.episodes.step_state].sum())
    assert train["synthetic"].sum() + held["synthetic"].sum() == synthetic > 0
    states = dataset.episodes.observations
    following = {row.tobytes() for row in states.astype(np.float32)}
    assert all(row.tobytes() in following for row in train["next_observations"])


def test_positions_follow_from_the_observations_of_a_maze(make_episodes, write_dataset, tmp_path):
    episodes = make_episodes(obs_dim=2)
    write_dataset("test/maze-v0", episodes, env_spec=env_spec("pointmaze-large"))
    done = ms.export_ogbench("test/maze-v0", tmp_path / "maze.npz")
    assert done.name == "pointmaze-large-stitch-v0"
    found = loaded(done.path)
    np.testing.assert_array_equal(found["qpos"], found["observations"])


def test_goal_observations_are_left_out(make_episodes, tmp_path):
    episodes = make_episodes(obs_dim=6)
    box = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    space = spaces.Dict(dict.fromkeys(("achieved_goal", "desired_goal", "observation"), box))
    actions = spaces.Box(-1, 1, (2,), np.float32)
    minari_io.write(episodes, dataset_id="test/goal-v0", observation_space=space, action_space=actions)
    done = ms.export_ogbench("test/goal-v0", tmp_path / "goal.npz", val="test/goal-v0")
    np.testing.assert_array_equal(np.load(done.path)["observations"], episodes.observations[:, 4:])


def test_no_file_is_written_over(tmp_path):
    result = imported(save(tmp_path))
    ms.export_ogbench(result, tmp_path / "out.npz")
    before = (tmp_path / "out.npz").read_bytes()
    with pytest.raises(StitchError, match="is there already"):
        ms.export_ogbench(result, tmp_path / "out.npz")
    assert (tmp_path / "out.npz").read_bytes() == before


@pytest.mark.parametrize("name", ["out.npy", "a.npz/out.npz"])
def test_a_path_that_the_loader_could_not_read_is_refused(name, tmp_path):
    result = imported(save(tmp_path))
    with pytest.raises(StitchError, match="npz once, at its end"):
        ms.export_ogbench(result, tmp_path / name)


def test_the_command_line_goes_there_and_back(tmp_path):
    path, val = save(tmp_path, **tables((3,) * 12)), save(tmp_path, f"{NAME}-val")
    done = toy.invoke("import-ogbench", str(path), "--val", str(val))
    assert done.exit_code == 0 and "rewards: none (zeros)" in done.output
    done = toy.invoke("import-ogbench", str(path), "--task", "1", "--json")
    assert json.loads(done.stdout)["env_id"] == "pointmaze-medium-singletask-task1-v0"
    out = tmp_path / "out.npz"
    done = toy.invoke("export-ogbench", f"ogbench/{NAME}", str(out), "--val", "ogbench/pointmaze-medium-stitch-val-v0")
    assert done.exit_code == 0 and f'make_env_and_datasets("{NAME}", dataset_path="{out}")' in done.output
    assert toy.invoke("export-ogbench", f"ogbench/{NAME}", str(out)).exit_code == 1
