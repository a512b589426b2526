"""D4RL files in every layout come back step for step, and what is none is refused."""

import json
from functools import partial
from importlib import resources

import gymnasium as gym
import h5py
import minari
import numpy as np
import pytest
import toy
from hypothesis import given
from hypothesis import strategies as st

from minari_stitch.data import minari_io
from minari_stitch.data.d4rl_rows import Cut, Rows, episodes
from minari_stitch.errors import DatasetIdError, StitchError
from minari_stitch.sim import d4rl as d4rl_io
from minari_stitch.sim.behaviour import load_actor, make_env, play_episode
from minari_stitch.sim.d4rl import BENCHMARKS, default_id, import_d4rl
from minari_stitch.sim.poses import poser

LAYOUTS = [(timeouts, following) for timeouts in (True, False) for following in (True, False)]
SIZES = {"hopper": (11, 3), "halfcheetah": (17, 6), "walker2d": (17, 6), "pen": (45, 24), "Pendulum-v1": (3, 1)}


def known(ends, size=(3, 1), seed=0):
    """An episode for each (steps, terminated), in float32."""
    rng = np.random.default_rng(seed)
    parts = []
    for steps, terminated in ends:
        last = np.arange(steps) == steps - 1
        parts.append(
            {
                "observations": rng.normal(size=(steps + 1, size[0])).astype(np.float32),
                "actions": rng.uniform(-0.9, 0.9, (steps, size[1])).astype(np.float32),
                "rewards": rng.normal(size=steps).astype(np.float32),
                "terminations": last & terminated,
                "truncations": last & (not terminated),
            }
        )
    return parts


def table(parts, timeouts=True, following=True):
    """The episodes as D4RL stores them."""
    tables = {
        "observations": np.concatenate([part["observations"][:-1] for part in parts]),
        "actions": np.concatenate([part["actions"] for part in parts]),
        "rewards": np.concatenate([part["rewards"] for part in parts]),
        "terminals": np.concatenate([part["terminations"] for part in parts]),
    }
    if timeouts:
        tables["timeouts"] = np.concatenate([part["truncations"] for part in parts])
    if following:
        tables["next_observations"] = np.concatenate([part["observations"][1:] for part in parts])
    return tables


def expected(parts, following):
    """What can be told from a file: without next observations, the state after an episode's last step cannot."""
    for part in parts:
        if following:
            yield part
        elif part["terminations"][-1]:
            observations = part["observations"]
            yield {**part, "observations": np.concatenate([observations[:-1], observations[-2:-1]])}
        elif len(part["rewards"]) > 1:
            shorter = {name: array[:-1].copy() for name, array in part.items()}
            shorter["truncations"][-1] = True
            yield shorter


def assert_same(found, wanted):
    found, wanted = list(found), list(wanted)
    assert [len(part["rewards"]) for part in found] == [len(part["rewards"]) for part in wanted]
    for left, right in zip(found, wanted, strict=True):
        for name in ("observations", "actions", "rewards", "terminations", "truncations"):
            np.testing.assert_array_equal(left[name], right[name], err_msg=name)


def save(path, tables, **infos):
    """Write a file with what else D4RL keeps there; None leaves a table out."""
    with h5py.File(path, "w") as file:
        for name, array in {"metadata/algorithm": "SAC", "metadata/iterations": 3, **infos, **tables}.items():
            if array is not None:
                file[name] = array
    return path


def files(path):
    return sorted(path.rglob("*"))


def read(dataset_id):
    return minari_io.read(dataset_id, download=False)


# Where episodes end


LIMIT = 7


@st.composite
def marked(draw):
    """Episodes whose ends a layout shows: (timeouts, following, ends)."""
    timeouts, following = draw(st.sampled_from(LAYOUTS))
    ends = draw(st.lists(st.tuples(st.integers(1, LIMIT), st.booleans()), min_size=1, max_size=8))
    if not (timeouts or following):  # only the time limit tells, save at the end of the file
        ends = [(steps if terminated else LIMIT, terminated) for steps, terminated in ends[:-1]] + ends[-1:]
    return timeouts, following, ends


@given(marked(), st.integers(0, 99))
def test_known_episodes_come_back_from_every_layout(layout, seed):
    timeouts, following, ends = layout
    parts = known(ends, seed=seed)
    rows = Rows(**table(parts, timeouts, following))
    cut = Cut.of(rows, LIMIT)
    assert_same(episodes(rows, cut), expected(parts, following))
    assert sum(cut.counts.values()) == len(ends) and cut.counts["terminal"] == sum(end for _, end in ends)
    assert cut.drops.sum() == (0 if following else sum(not end for _, end in ends))
    assert cut.repeats.sum() == (0 if following else sum(end for _, end in ends))


def rows(n=10, **kwargs):
    part = known([(n, False)])
    return Rows(**(table(part, timeouts=False) | kwargs))


def marks(n, *where):
    return np.isin(np.arange(n), where)


def test_a_row_with_a_terminal_and_a_timeout_is_a_termination():
    cut = Cut.of(rows(terminals=marks(10, 4), timeouts=marks(10, 4, 9)), None)
    assert cut.stops.tolist() == [5, 10] and cut.terminated.tolist() == [True, False]


def test_a_break_that_no_timeout_marks_ends_an_episode():
    table_of_one = rows(timeouts=marks(10))
    table_of_one.next_observations[3] += 0.01
    cut = Cut.of(table_of_one, None)
    assert cut.stops.tolist() == [4, 10] and not cut.terminated.any()
    assert cut.counts == {"terminal": 0, "timeout": 0, "break": 1, "time limit": 0, "end of file": 1}


def test_rounding_is_no_break():
    rounded = rows()
    rounded.next_observations[:] = rounded.next_observations.astype(np.float64) * (1 + 1e-6)
    assert Cut.of(rounded, None).stops.tolist() == [10]


def test_the_time_limit_counts_from_the_last_end():
    cut = Cut.of(rows(20, terminals=marks(20, 2)), 7)
    assert cut.stops.tolist() == [3, 10, 17, 20]
    assert cut.counts == {"terminal": 1, "timeout": 0, "break": 0, "time limit": 2, "end of file": 1}


def test_a_timeout_before_the_time_limit_counts():
    cut = Cut.of(rows(20, timeouts=marks(20, 3, 9)), 7)
    assert cut.stops.tolist() == [4, 10, 17, 20]


def test_a_step_whose_next_state_is_lost_at_the_time_limit_is_dropped():
    """Even with timeouts: D4RL's replay data do not mark every reset."""
    unmarked = rows(10, timeouts=marks(10), next_observations=None)
    cut = Cut.of(unmarked, 7)
    assert cut.lengths.tolist() == [6, 2] and cut.drops.all()
    first, _ = episodes(unmarked, cut)
    np.testing.assert_array_equal(first["observations"], unmarked.observations[:7])


def test_an_episode_of_one_lost_step_disappears():
    lone = rows(4, timeouts=marks(4, 0, 3), next_observations=None)
    cut = Cut.of(lone, None)
    assert cut.lengths.tolist() == [0, 2] and len(list(episodes(lone, cut))) == 1


# Files


ENDS = [(5, False), (200, False), (3, True), (1, True), (4, False)]


@pytest.mark.parametrize(("timeouts", "following"), LAYOUTS)
def test_a_file_of_every_layout_comes_back_step_for_step(tmp_path, timeouts, following):
    parts = known(ENDS if timeouts or following else ENDS[1:])
    infos = {"infos/qpos": np.zeros((213, 2)), "infos/qvel": np.zeros((213, 2))}
    path = save(tmp_path / "pendulum_swing-v1.hdf5", table(parts, timeouts, following), **infos)
    made = json.loads(toy.ok("import-d4rl", path, "--env", "Pendulum-v1", "--json").stdout)
    assert made["dataset_id"] == "d4rl/pendulum/swing-v1" and made["env_id"] == "Pendulum-v1"
    dataset = read(made["dataset_id"])
    wanted = list(expected(parts, following))
    assert_same(dataset.episodes, wanted)
    minari_io.check(made["dataset_id"])
    steps = sum(len(part["rewards"]) for part in wanted)
    assert (made["n_episodes"], made["n_steps"]) == (len(wanted), steps)
    assert dataset.env_spec == gym.spec("Pendulum-v1") and "ref_min_score" not in dataset.metadata
    record = dataset.metadata["d4rl"]
    assert record == made["record"] and record["rows"] == sum(len(part["rewards"]) for part in parts)
    assert ("timeouts" in record["layout"], "next_observations" in record["layout"]) == (timeouts, following)
    lost = 0 if following else len(parts)
    assert record["dropped_steps"] + record["repeated_observations"] == lost
    assert ("repeats the one before" in dataset.metadata["description"]) == (not following)
    stored = minari.load_dataset(made["dataset_id"])
    assert stored[0].observations.dtype == np.float32 == stored.observation_space.dtype
    assert all(not episode.infos for episode in stored)


@pytest.mark.parametrize("env", BENCHMARKS)
def test_environment_and_reference_scores_are_those_of_the_benchmark(tmp_path, monkeypatch, env):
    monkeypatch.chdir(tmp_path)  # where MuJoCo leaves a log, of HalfCheetah's old model file
    path = save(tmp_path / f"{env}_medium_replay-v2.hdf5", table(known([(20, True), (10, False)], SIZES[env])))
    toy.ok("import-d4rl", path, "--env", env)
    dataset_id = f"d4rl/{env}/medium-replay-v2"
    dataset = read(dataset_id)
    assert dataset.env_spec.id == BENCHMARKS[env].env_id
    assert dataset.max_episode_steps == (200 if env == "pen" else 1000)
    assert dataset.episodes.observations.dtype == np.float64 == dataset.observation_space.dtype
    low, high = BENCHMARKS[env].scores
    stored = minari.load_dataset(dataset_id)
    np.testing.assert_allclose(minari.get_normalized_score(stored, np.array([low, high])), [0, 1], atol=1e-12)
    made = stored.recover_environment(eval_env=True)
    assert made.spec.id == BENCHMARKS[env].env_id and made.observation_space == dataset.observation_space
    made.close()
    assert "D4RL" in dataset.metadata["author"] and path.name in dataset.metadata["description"]
    # D4RL has a licence for what it published, and no medium-replay of the pen is among that.
    assert dataset.metadata.get("license") == (None if env == "pen" else "cc-by-4.0")


def test_a_gymnasium_id_of_a_benchmark_has_its_scores(tmp_path):
    path = save(tmp_path / "hopper_medium.hdf5", table(known([(20, True)], SIZES["hopper"])))
    assert import_d4rl(path, env="Hopper-v5").dataset_id == "d4rl/hopper/medium-v0"
    dataset = read("d4rl/hopper/medium-v0")
    assert dataset.env_spec.id == "Hopper-v5" and dataset.metadata["ref_max_score"] == 3234.3
    assert "Hopper-v5 may differ" in dataset.metadata["description"]


def test_only_where_an_environment_is_named_on_purpose_is_its_age_no_news():
    make_env("Hopper-v4").close()
    with pytest.warns(DeprecationWarning, match="Hopper-v4 is out of date"):
        gym.make("Hopper-v4").close()


def test_columns_of_width_one_and_numbers_for_flags_are_read(tmp_path):
    """As in some v0 files."""
    parts = known([(5, True), (5, False)])
    tables = table(parts)
    tables["terminals"] = tables["terminals"].astype(np.float32)[:, None]
    tables["timeouts"] = tables["timeouts"].astype(np.uint8)
    tables["rewards"] = tables["rewards"].astype(np.float64)[:, None]
    import_d4rl(save(tmp_path / "x.hdf5", tables), env="Pendulum-v1", dataset_id="my/swing-v0")
    assert_same(read("my/swing-v0").episodes, parts)


def test_actions_outside_the_action_space_are_clipped_and_counted(tmp_path):
    parts = known([(10, False)], SIZES["pen"])
    parts[0]["actions"][3:5, :2] = 1.5, -1.2
    parts[0]["actions"][7, 0] = 1 + 1e-6  # rounding, which is not counted
    path = save(tmp_path / "pen-v0_demos_clipped.hdf5", table(parts))
    result = toy.ok("import-d4rl", path, "--env", "pen")
    assert "Clipped actions: 2" in result.stdout and "minari-stitch augment d4rl/pen/human-v0" in result.stdout
    dataset = read("d4rl/pen/human-v0")
    np.testing.assert_array_equal(dataset.episodes.actions, np.clip(parts[0]["actions"], -1, 1))
    assert "clipped to the action space: 2." in dataset.metadata["description"]


def test_the_command_says_how_the_episodes_ended(tmp_path):
    path = save(tmp_path / "pendulum_swing-v1.hdf5", table(known(ENDS), following=False))
    text = " ".join(toy.ok("import-d4rl", path, "--env", "Pendulum-v1").stdout.split())
    assert "d4rl/pendulum/swing-v1: 5 episodes, 210 steps of Pendulum-v1" in text
    assert "Episodes ended: 2 by terminal, 3 by timeout" in text
    assert "Dropped steps: 3 Repeated observations: 2" in text


def test_a_program_of_its_own_writes_json_and_nothing_else(tmp_path):
    path = save(tmp_path / "pen-cloned-v1.hdf5", table(known([(20, False)], SIZES["pen"]), following=False))
    result = toy.run("minari-stitch", "import-d4rl", path, "--env", "pen", "--json")
    assert result.returncode == 0 and not result.stderr
    assert json.loads(result.stdout)["dataset_id"] == "d4rl/pen/cloned-v1"


# The environment that a file was recorded in


ACTORS = {"hopper": "hopper-0140000", "halfcheetah": "halfcheetah-0040000", "walker2d": "walker2d-0300000"}


def recorded(env):
    """Two episodes with D4RL's physics and rewards, but in double precision; robots that can fall do so in the end."""
    with resources.as_file(resources.files("minari_stitch.policies") / f"{ACTORS[env]}.npz") as path:
        actor = partial(load_actor(path), rng=np.random.default_rng(0))
    made = make_env({"hopper": "Hopper-v4", "halfcheetah": "HalfCheetah-v4", "walker2d": "Walker2d-v4"}[env])
    return [play_episode(made, actor, seed=seed) for seed in range(2)]


def deviations(episodes, spec, n_steps=300):
    """What an environment makes of the last recorded steps: errors of observations and of rewards, `(n_steps,)`."""
    body = poser(spec.id)
    clip = np.inf if spec.name == "HalfCheetah" else 10  # of a clipped velocity the state is not known
    states, following = (episodes.observations[episodes.step_state + later] for later in (0, 1))
    steps = np.flatnonzero((np.abs(states[:, body.positions :]) < clip).all(1))[-n_steps:]
    assert steps[-1] == episodes.n_steps - 1
    errors = []
    for step in steps:
        body.set(states[step])
        observation, reward, terminated, *_ = body.env.step(episodes.actions[step])
        errors.append((np.abs(observation - following[step]).max(), reward - episodes.rewards[step]))
        assert terminated == episodes.terminations[step]
    return np.array(errors).T


@pytest.mark.parametrize("env", ACTORS)
def test_recorded_steps_come_back_in_the_environment_of_the_dataset(tmp_path, env):
    parts = recorded(env)
    import_d4rl(save(tmp_path / f"{env}_medium-v2.hdf5", table(parts)), env=env)
    dataset = read(f"d4rl/{env}/medium-v2")
    assert_same(dataset.episodes, parts)
    spec = dataset.env_spec
    outcome, reward = deviations(dataset.episodes, spec)
    assert outcome.max() < 1e-6 and np.abs(reward).max() < 1e-5
    assert f"recorded in {spec.name}-v2, whose physics and rewards {spec.id} has" in dataset.metadata["description"]

    # Its successor rewards no fall, and has another friction under the walker's right foot.
    outcome, reward = deviations(dataset.episodes, gym.spec(f"{spec.name}-v5"))
    assert dataset.episodes.terminations[-1] == (env != "halfcheetah")
    assert reward[-1] == pytest.approx(0.0 if env == "halfcheetah" else -1.0, abs=0.1 if env == "walker2d" else 1e-5)
    assert np.mean(outcome > 0.01) > 0.1 if env == "walker2d" else outcome.max() < 1e-6


# Names


@pytest.mark.parametrize(
    ("name", "env_id", "dataset_id"),
    [
        ("hopper_medium_replay-v2", "Hopper-v5", "d4rl/hopper/medium-replay-v2"),
        ("halfcheetah_medium_expert-v1", "HalfCheetah-v5", "d4rl/halfcheetah/medium-expert-v1"),
        ("hopper-medium-v2", "Hopper-v4", "d4rl/hopper/medium-v2"),
        ("hopper_mixed", "Hopper-v5", "d4rl/hopper/medium-replay-v0"),
        ("walker_mixed", "Walker2d-v5", "d4rl/walker2d/medium-replay-v0"),
        ("pen-human-v1", "AdroitHandPen-v1", "d4rl/pen/human-v1"),
        ("pen-human-v0-clipped", "AdroitHandPen-v1", "d4rl/pen/human-v0"),
        ("pen-v0_demos_clipped", "AdroitHandPen-v1", "d4rl/pen/human-v0"),
        ("pen-demos-v0-bc-combined", "AdroitHandPen-v1", "d4rl/pen/cloned-v0"),
        ("pen-v0_expert_clipped", "AdroitHandPen-v1", "d4rl/pen/expert-v0"),
        ("ant_medium-v2", "Ant-v5", "d4rl/ant/medium-v2"),
    ],
)
def test_the_id_comes_from_the_name(tmp_path, name, env_id, dataset_id):
    assert default_id(tmp_path / f"{name}.hdf5", env_id) == dataset_id


@pytest.mark.parametrize("name", ["data", "hopper", "hopper-v2", "hopper_medium-v2 (1)", "medium-hopper-v2", "x-y"])
def test_a_name_that_says_nothing_asks_for_an_id(tmp_path, name):
    with pytest.raises(DatasetIdError, match="does not say which data of Hopper-v5.*Choose a dataset id"):
        default_id(tmp_path / f"{name}.hdf5", "Hopper-v5")


@pytest.mark.parametrize("env_id", ["Walker2d-v5", "Ant-v5"])
def test_a_name_of_another_environment_is_refused(tmp_path, env_id):
    """HalfCheetah and Walker2d have the same widths: nothing else would tell."""
    with pytest.raises(DatasetIdError, match=f"says halfcheetah, but the environment named is {env_id}"):
        default_id(tmp_path / "halfcheetah_medium-v2.hdf5", env_id)


# Errors


def broken(**changes):
    return table(known([(20, True)], SIZES["hopper"])) | changes


NAN = broken()["observations"].copy()
NAN[7, 2] = np.nan
WRONG = {
    "no rewards": (broken(rewards=None), "it has no rewards, only actions, metadata, next_observations"),
    "a folder": (broken(rewards=None) | {"rewards/values": np.zeros(20)}, "it has no rewards"),
    "nothing": (dict.fromkeys(broken()), "it has no observations, actions, rewards, terminals, only metadata"),
    "no rows": (
        {name: array[:0] for name, array in broken().items()},
        "the same number of rows, but have {'observations': 0",
    ),
    "lengths": (broken(actions=np.zeros((19, 3))), "but have {'observations': 20, 'actions': 19"),
    "observations": (
        table(known([(20, True)], (17, 3))),
        "observations have shape (20, 17), but Hopper-v4 wants (N, 11)",
    ),
    "actions": (table(known([(20, True)], (11, 6))), "actions have shape (20, 6), but Hopper-v4 wants (N, 3)"),
    "next": (broken(next_observations=np.zeros((20, 5))), "next_observations have shape (20, 5), and observations"),
    "images": (broken(observations=np.zeros((20, 11, 2))), "observations have shape (20, 11, 2)"),
    "rewards": (broken(rewards=np.zeros((20, 2))), "rewards have shape (20, 2)"),
    "text": (broken(actions=np.full((20, 3), b"left")), "dtype |S4"),
    "scalar": (broken(rewards="high"), "rewards have shape ()"),
    "nan": (broken(observations=NAN), "row 7 of observations holds nan (1 such values in all)"),
    "infinite": (broken(rewards=np.full(20, np.inf)), "row 0 of rewards holds inf (20 such values in all)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_file_that_does_not_fit_is_refused(tmp_path, datasets_path, name):
    tables, message = WRONG[name]
    path = save(tmp_path / "hopper_medium-v2.hdf5", tables)
    refused(datasets_path, path, "--env", "hopper", kind="InvalidDataError", says=[str(path), message])


def refused(datasets_path, *words, kind, says):
    result = toy.invoke("import-d4rl", *words)
    assert result.exit_code == 1, result.output
    assert f"{kind}: " in result.stderr and not result.stdout
    for part in says:
        assert part in result.stderr
    assert files(datasets_path) == []


@pytest.mark.parametrize("content", [b"", b"not HDF5", "truncated"])
def test_a_file_that_is_not_hdf5_is_named(tmp_path, datasets_path, content):
    path = save(tmp_path / "hopper_medium-v2.hdf5", broken())
    path.write_bytes(path.read_bytes()[:3000] if content == "truncated" else content)
    says = [str(path), "is not a readable HDF5 file"]
    refused(datasets_path, path, "--env", "hopper", kind="InvalidDataError", says=says)


def test_a_missing_file_is_named(tmp_path, datasets_path):
    for path in (tmp_path / "hopper_medium-v2.hdf5", tmp_path):
        says = [f"There is no file {path}"]
        refused(datasets_path, path, "--env", "hopper", kind="DatasetNotFoundError", says=says)


@pytest.mark.parametrize("env", ["hoper", "Hopper-v99", "two words", "Nowhere/Hopper-v5"])
def test_an_unknown_environment_lists_the_choices(tmp_path, datasets_path, env):
    path = save(tmp_path / "hopper_medium-v2.hdf5", broken())
    says = [f"There is no environment '{env}'", "hopper, halfcheetah, walker2d, pen, or a Gymnasium id"]
    refused(datasets_path, path, "--env", env, kind="ConfigError", says=says)


def test_an_environment_that_cannot_be_built_is_named(tmp_path, datasets_path, monkeypatch):
    def fail(env_id):
        raise ImportError("no simulator")

    monkeypatch.setattr(d4rl_io, "make_env", fail)
    path = save(tmp_path / "hopper_medium-v2.hdf5", broken())
    says = ["Environment Hopper-v4 cannot be built (ImportError: no simulator)", "pip install"]
    refused(datasets_path, path, "--env", "hopper", kind="StitchError", says=says)


def test_an_environment_of_goals_is_refused(tmp_path, datasets_path):
    path = save(tmp_path / "maze_large-v1.hdf5", broken())
    says = ["PointMaze_UMaze-v3 has no Box observations"]
    refused(datasets_path, path, "--env", "PointMaze_UMaze-v3", kind="ConfigError", says=says)


def test_an_id_is_checked_before_the_file_is_read(tmp_path, datasets_path):
    path = save(tmp_path / "data.hdf5", {})
    refused(datasets_path, path, "--env", "hopper", kind="DatasetIdError", says=["'data.hdf5' does not say"])
    malformed = [path, "--env", "hopper", "--dataset-id", "a b"]
    refused(datasets_path, *malformed, kind="DatasetIdError", says=["Malformed dataset id 'a b'"])


def test_a_taken_id_is_refused(tmp_path):
    path = save(tmp_path / "hopper_medium-v2.hdf5", broken())
    import_d4rl(path, env="hopper")
    with pytest.raises(StitchError, match="'d4rl/hopper/medium-v2' is taken.*Choose another dataset id"):
        import_d4rl(path, env="hopper")


def test_a_failure_half_way_leaves_nothing_behind(tmp_path, datasets_path):
    path = save(tmp_path / "hopper_medium-v2.hdf5", broken())

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_d4rl(path, env="hopper", progress=stop)
    assert files(datasets_path) == []
