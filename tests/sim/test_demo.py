import json
import os
import signal
import subprocess
import sys
import time
from importlib import resources
from pathlib import Path

import minari
import numpy as np
import pytest
import toy

from minari_stitch.data import minari_io
from minari_stitch.errors import ConfigError, DatasetIdError, StitchError
from minari_stitch.sim import demo
from minari_stitch.sim.actors import ACTOR_RECIPES, policy_table
from minari_stitch.sim.behaviour import make_env

HOPPER_REPLAY = demo.RECIPES["demo/hopper/medium-replay-v0"]


@pytest.fixture(scope="module")
def replay():
    return demo.rollout(HOPPER_REPLAY, n_steps=600, workers=1)


def test_recipes_cover_four_environments():
    assert len(ACTOR_RECIPES) == 20
    for dataset_id, recipe in ACTOR_RECIPES.items():
        assert dataset_id == recipe.dataset_id and demo.is_demo_id(dataset_id) and demo.RECIPES[dataset_id] is recipe
        limit = 200 if recipe.env == "pen" else 1000
        assert make_env(recipe.env_id).spec.max_episode_steps == limit
        assert recipe.description
    assert not demo.is_demo_id("mujoco/hopper/medium-v0")


@pytest.mark.parametrize("env", ["hopper", "walker2d", "halfcheetah", "pen"])
def test_recipes_are_ordered_by_return(env):
    random, medium, expert = (
        demo.RECIPES[f"demo/{env}/{name}-v0"].actor_returns[0] for name in ("random", "medium", "expert")
    )
    assert (medium - random) / (expert - random) == pytest.approx(0.46, abs=0.1)
    replay = demo.RECIPES[f"demo/{env}/medium-replay-v0"].actor_returns
    assert list(replay) == sorted(replay) and replay[-1] == medium


@pytest.mark.parametrize("env", ["hopper", "walker2d", "halfcheetah", "pen"])
def test_rollout_has_the_shapes_and_dtypes_of_the_environment(env):
    recipe = demo.RECIPES[f"demo/{env}/medium-expert-v0"]
    episodes = demo.rollout(recipe, n_steps=50, workers=1)
    simulator = make_env(recipe.env_id)
    assert episodes.n_steps == 50 and len(episodes) == 2
    assert episodes.observations.dtype == simulator.observation_space.dtype == np.float64
    assert episodes.observations.shape == (52, *simulator.observation_space.shape)
    assert episodes.actions.dtype == simulator.action_space.dtype == np.float32
    assert episodes.actions.shape == (50, *simulator.action_space.shape)
    simulator.close()


def test_every_episode_ends_once_and_only_cut_shares_are_truncated_early(replay):
    ends = replay.offsets[1:] - 1
    done = replay.terminations | replay.truncations
    assert done[ends].all() and done.sum() == len(replay)
    early = replay.truncations[ends] & (replay.lengths < 1000)
    np.testing.assert_array_equal(replay.offsets[1:][early], [120, 240, 360, 480, 600])
    assert replay.n_steps == 600


def test_replays_exactly_in_the_simulator(replay):
    simulator = make_env("Hopper-v5")
    simulator.reset(seed=0)
    inner = simulator.unwrapped
    for step in range(0, replay.n_steps, 7):
        state, following = replay.observations[replay.step_state[step] + np.arange(2)]
        if np.abs(state[5:]).max() >= 10:
            continue  # the environment clips velocities at 10, so the state is not known
        inner.set_state(np.concatenate([[0.0], state[:5]]), state[5:])
        observation, reward, terminated, _, _ = inner.step(replay.actions[step])
        np.testing.assert_allclose(observation, following, atol=1e-6)
        assert reward == pytest.approx(replay.rewards[step], abs=1e-6)
        assert terminated == replay.terminations[step]
    simulator.close()


def test_same_bytes_for_any_number_of_workers(replay):
    progress = []
    again = demo.rollout(HOPPER_REPLAY, n_steps=600, workers=2, progress=lambda *done: progress.append(done))
    assert again.fingerprint() == replay.fingerprint()
    assert progress == [(done, 600) for done in (120, 240, 360, 480, 600)]


def test_more_steps_extend_a_share(monkeypatch):
    monkeypatch.setattr(demo, "_CHUNK_STEPS", 100)
    recipe = demo.RECIPES["demo/hopper/random-v0"]
    short, long = (demo.rollout(recipe, n_steps=n, workers=1) for n in (250, 400))
    np.testing.assert_array_equal(short.rewards, long.rewards[:250])


def test_seed_recipe_and_first_chunk_change_the_data():
    recipe, other = (demo.RECIPES[f"demo/hopper/{name}-v0"] for name in ("medium", "medium-expert"))
    parts = [
        demo.rollout(recipe, n_steps=100, workers=1),
        demo.rollout(recipe, n_steps=100, workers=1, seed=1),
        demo.rollout(recipe, n_steps=100, workers=1, first_chunk=1),
        demo.rollout(other, n_steps=200, workers=1),
    ]
    assert len({part.actions[:100].tobytes() for part in parts}) == 4


def test_ensure_writes_an_ordinary_dataset_once(monkeypatch):
    name = "demo/hopper/medium-replay-v0"
    demo.ensure(name, n_steps=600, workers=1)
    minari_io.check(name)
    dataset = minari.load_dataset(name)
    assert dataset.total_steps == 600
    environment = dataset.recover_environment()
    assert environment.spec.id == "Hopper-v5" and environment.spec.max_episode_steps == 1000
    environment.close()
    dataset.recover_environment(eval_env=True).close()
    low, high = HOPPER_REPLAY.actor_returns[0], demo.RECIPES["demo/hopper/expert-v0"].actor_returns[0]
    assert 0 < minari.get_normalized_score(dataset, np.array(low)) < 0.1
    assert minari.get_normalized_score(dataset, np.array(high)) == 1
    metadata = dataset.storage.metadata
    assert metadata["demo"]["steps"] == 600 and metadata["demo"]["seed"] == 0
    assert "seed 0" in metadata["description"]

    monkeypatch.setattr(demo, "rollout", lambda *args, **kwargs: pytest.fail("made again"))
    demo.ensure(name)
    demo.ensure(name, n_steps=600, seed=0)
    with pytest.raises(StitchError, match=r"steps 600 and not 700.*minari delete demo/hopper/medium-replay-v0"):
        demo.ensure(name, n_steps=700)
    with pytest.raises(StitchError, match="seed 0 and not 3"):
        demo.ensure(name, seed=3)


def test_the_pen_is_stitched_from_start_to_end():
    name, options = "demo/pen/medium-replay-v0", ["--set", "models.diffusion.horizon=56"]
    options += ["--demo-steps", 3000, "--steps", 400, "--delta", 1e6, "--json"]
    result = json.loads(toy.ok(*toy.tiny(name, *options)).stdout)
    source, made = (minari.load_dataset(each) for each in (name, result["dataset_id"]))
    assert source.total_steps == 3000 and made.total_steps >= 400
    assert source[0].observations.shape[1:] == (45,) and source[0].actions.shape[1:] == (24,)
    assert source.storage.metadata["requirements"] == ["gymnasium-robotics"]
    assert "3 linear ARS actors in equal shares" in source.storage.metadata["description"]
    for dataset in (source, made):
        minari_io.check(dataset.id)
        environment = dataset.recover_environment()
        assert environment.spec.id == "AdroitHandPen-v1" and environment.spec.max_episode_steps == 200
        assert environment.observation_space == dataset.observation_space
        environment.close()
    # The goal is part of each observation, and stays what it is in an episode of the source.
    goals = source[0].observations[:, 36:39]
    np.testing.assert_allclose(goals, np.tile(goals[:1], (len(goals), 1)), atol=1e-12)


def test_pen_actors_act_alike_in_any_number_of_processes():
    recipe = demo.RECIPES["demo/pen/medium-expert-v0"]
    one, two = (demo.rollout(recipe, n_steps=80, workers=workers) for workers in (1, 2))
    assert one.fingerprint() == two.fingerprint()
    assert np.abs(one.actions).max() <= 1 and np.abs(one.actions).std() > 0.01


ENDLESS = """
from minari_stitch.sim import demo
from minari_stitch.sim.actors import ACTOR_RECIPES, policy_table

demo.rollout(demo.RECIPES["demo/hopper/medium-v0"], n_steps=10**7, workers=2)
"""


def children(parent):
    """Worker processes of another process."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent_of, command = stat.read_text().rpartition(")")[2].split()[1], stat.with_name("cmdline").read_bytes()
        except OSError:  # it ended meanwhile
            continue
        if int(parent_of) == parent and b"spawn_main" in command:
            yield int(stat.parent.name)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system does not tell whose child a process is")
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
def test_roll_outs_do_not_outlive_a_killed_parent(tmp_path, name):
    (tmp_path / "script.py").write_text(ENDLESS)
    parent = subprocess.Popen([sys.executable, "script.py"], cwd=tmp_path, stderr=subprocess.DEVNULL)
    workers = []
    try:
        assert wait_for(lambda: len(list(children(parent.pid))) == 2, 60)
        workers = list(children(parent.pid))
        time.sleep(2)  # until they are at work
        assert all(map(alive, workers))
        parent.send_signal(getattr(signal, name))
        assert parent.wait(30) == -getattr(signal, name)
        assert wait_for(lambda: not any(map(alive, workers)), 10)
    finally:
        parent.kill()
        parent.wait()
        for worker in filter(alive, workers):
            os.kill(worker, signal.SIGKILL)


def test_unknown_id_lists_the_valid_ones():
    with pytest.raises(DatasetIdError, match=r"demo/ant/medium-v0.*demo/hopper/medium-v0"):
        demo.ensure("demo/ant/medium-v0")


def test_impossible_settings_are_named():
    with pytest.raises(ConfigError, match="n_steps=4"):
        demo.ensure("demo/hopper/medium-replay-v0", n_steps=4)
    with pytest.raises(ConfigError, match="workers=0"):
        demo.ensure("demo/hopper/medium-replay-v0", workers=0)


def test_missing_mujoco_names_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco", None)
    with pytest.raises(StitchError, match=r"Hopper-v5 needs MuJoCo.*gymnasium\[mujoco\]"):
        demo.ensure("demo/hopper/medium-v0")


def test_policies_are_packed_and_small():
    folder = resources.files("minari_stitch.policies")
    sizes = {path.name: len(path.read_bytes()) for path in folder.iterdir() if path.name.endswith((".npz", ".json"))}
    files = {row["file"] for entry in policy_table().values() for row in entry["policies"] if row["file"]}
    assert files | {"policies.json"} == set(sizes)
    assert sum(sizes.values()) < 1_300_000


@pytest.mark.slow
@pytest.mark.parametrize("dataset_id", ACTOR_RECIPES)
def test_returns_are_those_measured(dataset_id):
    recipe = demo.RECIPES[dataset_id]
    shares = len(recipe.actors)
    episodes = demo.rollout(recipe, n_steps=20_000 * shares, workers=2)
    actor = (episodes.offsets[1:] - 1) // 20_000
    limit = make_env(recipe.env_id).spec.max_episode_steps
    whole = (episodes.lengths == limit) | ~episodes.truncations[episodes.offsets[1:] - 1]
    for share, expected in enumerate(recipe.actor_returns):
        returns = episodes.returns[whole & (actor == share)]
        error = returns.std() / np.sqrt(len(returns))
        assert abs(returns.mean() - expected) < 4 * error + 0.02 * abs(expected) + 5
