"""Other packages read what is written here.

They pin packages of their own, so each runs in an environment of its own, on a dataset made beforehand: see
`clients.sh`.
"""

import os
import re
from pathlib import Path

import numpy as np
import pytest

ID = "clients/pendulum-stitched-v0"
MAZE = "pointmaze-medium-stitch-v0"


def make_dataset():
    """Three real Pendulum episodes with infos and metadata, 50 steps each, as `augment` writes them."""
    import gymnasium as gym

    from minari_stitch.data import minari_io

    env = gym.make("Pendulum-v1", max_episode_steps=50)
    parts = []
    for seed in range(3):
        env.action_space.seed(seed)
        observations, actions, rewards = [env.reset(seed=seed)[0]], [], []
        for _ in range(50):
            actions.append(env.action_space.sample())
            observation, reward, _, _, _ = env.step(actions[-1])
            observations.append(observation)
            rewards.append(reward)
        part = {
            "observations": np.array(observations),
            "actions": np.array(actions),
            "rewards": np.array(rewards),
        }
        part |= {"terminations": np.zeros(50, bool), "truncations": np.arange(50) == 49}
        part["infos"] = {"synthetic": np.arange(51) > 30, "dynamics_error": np.linspace(0, 1, 51)}
        parts.append(part | {"metadata": {"source": seed, "bridge": [30, 50]}})
    minari_io.write(
        parts,
        dataset_id=ID,
        observation_space=env.observation_space,
        action_space=env.action_space,
        env_spec=env.spec,
        metadata={"description": "Made by a test.", "author": "minari-stitch", "stitching": {"delta": 2.0}},
    )


def make_ogbench():
    """A file of OGBench's, what is imported from it, and what is exported again, all in the datasets folder."""
    from pathlib import Path

    import minari_stitch as ms

    folder = Path(os.environ["MINARI_DATASETS_PATH"]) / "files"
    folder.mkdir(parents=True)
    rng, rows = np.random.default_rng(0), 200
    walk = np.clip(20 + rng.normal(0, 0.5, (rows, 2)).cumsum(0), 0, 20).astype(np.float32)
    content = {
        "observations": walk,
        "actions": rng.uniform(-1, 1, (rows, 2)).astype(np.float32),
        "terminals": np.arange(rows) % 20 == 19,
        "qpos": walk,
        "qvel": rng.normal(size=(rows, 2)).astype(np.float32),
    }
    for suffix in ("", "-val"):
        np.savez_compressed(folder / f"{MAZE}{suffix}.npz", **content)
    source = ms.import_ogbench(folder / f"{MAZE}.npz", progress=False)
    ms.import_ogbench(folder / f"{MAZE}.npz", task=1, progress=False)
    ms.export_ogbench(source, folder / "exported.npz", val=source)


@pytest.fixture
def made(monkeypatch):
    """The dataset, as Minari reads it: made beforehand for another environment, or here."""
    import minari

    if path := os.environ.get("MINARI_STITCH_CLIENT_DATASETS"):
        monkeypatch.setenv("MINARI_DATASETS_PATH", path)
    else:
        make_dataset()
    dataset = minari.load_dataset(ID)
    assert (dataset.total_episodes, dataset.total_steps) == (3, 150)
    return dataset


def test_minari_recovers_the_environment(made):
    env = made.recover_environment()
    assert env.spec.id == "Pendulum-v1" and env.spec.max_episode_steps == 50
    for episode in made:
        assert all(observation in env.observation_space for observation in episode.observations)
        assert all(action in env.action_space for action in episode.actions)
        assert len(episode.infos["synthetic"]) == 51


def test_d3rlpy_reads_a_written_dataset(made):
    datasets = pytest.importorskip("d3rlpy.datasets", reason="runs in its own environment: make clients")
    buffer, env = datasets.get_minari(ID)
    assert env.spec.id == "Pendulum-v1" and len(buffer.episodes) == 3
    for ours, theirs in zip(made, buffer.episodes, strict=True):
        np.testing.assert_array_equal(theirs.actions, ours.actions)
        np.testing.assert_allclose(theirs.rewards[:, 0], ours.rewards, rtol=1e-6)
        assert not theirs.terminated
    # Of the first episode only: d3rlpy 2.8.1 lays T + 1 observations of each episode beside T actions, whoever
    # wrote the dataset, so that later episodes drift. `benchmarks/_d3rlpy.py` builds its buffer by hand.
    np.testing.assert_allclose(buffer.episodes[0].observations, next(iter(made)).observations[:-1])
    assert buffer.sample_transition_batch(8).observations.shape == (8, 3)


def shown(package):
    """The block of the how-to page on learners that imports a package, on the dataset made here."""
    text = (Path(__file__).parents[1] / "docs" / "howto" / "learners.md").read_text(encoding="utf-8")
    (code,) = re.findall(
        rf"```python\n((?:(?!```).)*?(?:import|from) {package}.*?)^```$", text, re.DOTALL | re.MULTILINE
    )
    return code.replace("demo/hopper/medium-replay-stitched-v0", ID).replace("1000", "10")


def test_d3rlpy_trains_as_the_page_says(made, tmp_path, monkeypatch):
    pytest.importorskip("d3rlpy", reason="runs in its own environment: make clients")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(shown("d3rlpy"), "learners.md", "exec"), names)
    for ours, theirs in zip(made, names["dataset"].episodes, strict=True):
        np.testing.assert_allclose(theirs.observations, ours.observations[:-1], rtol=1e-6)
        np.testing.assert_array_equal(theirs.actions, ours.actions)
    assert names["learner"].predict(ours.observations[:1]).shape == (1, 1)


def test_torchrl_samples_as_the_page_says(made, tmp_path, monkeypatch):
    pytest.importorskip("torchrl", reason="runs in its own environment: make clients")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(shown("torchrl"), "learners.md", "exec"), names)
    assert names["batch"]["observation"].shape == (256, 3)


def test_torchrl_reads_a_written_dataset(made, tmp_path):
    pytest.importorskip("torchrl", reason="runs in its own environment: make clients")
    from torchrl.data.datasets.minari_data import MinariExperienceReplay

    replay = MinariExperienceReplay(ID, batch_size=8, root=tmp_path, load_from_local_minari=True)
    everything = replay[:]
    assert len(replay) == 150 and everything["episode"].unique().tolist() == [0, 1, 2]
    for index, ours in enumerate(made):
        theirs = everything[everything["episode"] == index]
        np.testing.assert_array_equal(theirs["observation"], ours.observations[:-1])
        np.testing.assert_array_equal(theirs["next", "observation"], ours.observations[1:])
        np.testing.assert_array_equal(theirs["action"], ours.actions)
        np.testing.assert_array_equal(theirs["next", "reward"][:, 0], ours.rewards)
        np.testing.assert_array_equal(theirs["info", "synthetic"], ours.infos["synthetic"][:-1])
    assert replay.sample()["next", "truncated"].shape == (8, 1)


@pytest.fixture
def ogbench(made):
    if (folder := os.environ.get("MINARI_STITCH_CLIENT_DATASETS")) is None:
        pytest.skip("runs in its own environment: make clients")
    return pytest.importorskip("ogbench"), f"{folder}/files"


@pytest.mark.parametrize("options", [{}, {"compact_dataset": True}, {"add_info": True}])
def test_ogbench_loads_an_exported_dataset_like_its_own_file(ogbench, options):
    module, folder = ogbench
    _, *ours = module.make_env_and_datasets(MAZE, dataset_path=f"{folder}/exported.npz", **options)
    _, *theirs = module.make_env_and_datasets(MAZE, dataset_path=f"{folder}/{MAZE}.npz", **options)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.keys() == other.keys() and len(mine["observations"]) in (190, 200)
        for name in mine:
            kept = mine["valids"] > 0 if name == "actions" and "valids" in mine else slice(None)
            np.testing.assert_array_equal(mine[name][kept], other[name][kept], err_msg=name)


@pytest.mark.parametrize("maze", ["pointmaze-medium", "pointmaze-large", "pointmaze-giant", "antmaze-teleport"])
def test_ogbench_has_the_tasks_that_are_known_here(ogbench, maze):
    import gymnasium as gym

    from minari_stitch.sim.ogbench_tasks import env_spec, successes

    for task in (None, *range(1, 6)):
        ours = env_spec(maze, task)
        theirs = gym.spec(ours.id)
        for name in ("entry_point", "max_episode_steps", "kwargs"):
            assert getattr(ours, name) == getattr(theirs, name)
    env = gym.make(f"{maze}-v0").unwrapped
    for task, info in enumerate(env.task_infos, start=1):
        goal, far = np.array(info["goal_xy"], float), np.array([env._goal_tol, 0.0])
        inside = successes(maze, task, np.stack([goal, goal + 0.99 * far, goal + 1.01 * far]))
        assert inside.tolist() == [True, True, False]


def test_ogbench_gives_the_rewards_that_were_imported(ogbench):
    import minari

    module, folder = ogbench
    env, theirs, _ = module.make_env_and_datasets(
        "pointmaze-medium-singletask-task1-v0".replace("medium", "medium-stitch"), dataset_path=f"{folder}/{MAZE}.npz"
    )
    dataset = minari.load_dataset("ogbench/pointmaze-medium-stitch-task1-v0")
    rows = {row.tobytes(): k for k, row in enumerate(theirs["observations"])}
    successes = 0
    for episode in dataset:
        for step, observation in enumerate(episode.observations[:-1]):
            row = rows[observation.tobytes()]
            assert episode.rewards[step] == theirs["rewards"][row]
            assert episode.terminations[step] == 1 - theirs["masks"][row]
            successes += episode.terminations[step]
    assert successes and dataset.total_steps < len(rows)
    built = dataset.recover_environment()
    assert built.spec.id == env.spec.id and built.spec.kwargs == env.spec.kwargs
    observation, info = built.reset(seed=0)
    assert observation.shape == (2,) and built.step(built.action_space.sample())[1] == -1


def closing_lines(library, dataset_id, **changes):
    """What `augment` prints in the end, run as it stands but for the sizes."""
    import runpy
    from pathlib import Path

    code = "\n".join(
        runpy.run_path(str(Path(__file__).parents[1] / "cli" / "clients.py"))["lines"](library, dataset_id)
    )
    for before, after in changes.items():
        assert before in code
        code = code.replace(before, after)
    names = {}
    exec(code, names)
    return names


def test_d3rlpy_trains_by_the_closing_lines(made, tmp_path, monkeypatch):
    pytest.importorskip("d3rlpy", reason="runs in its own environment: make clients")
    monkeypatch.chdir(tmp_path)  # where it logs
    names = closing_lines("d3rlpy", ID, **{"10_000": "3, n_steps_per_epoch=3"})
    for ours, theirs in zip(made, names["episodes"], strict=True):
        np.testing.assert_array_equal(theirs.observations, ours.observations[:-1])
        np.testing.assert_array_equal(theirs.actions, ours.actions)
        assert not theirs.terminated and len(theirs.rewards) == 50
    assert list(tmp_path.rglob("*.d3"))  # it has trained, and kept what came of it


def test_torchrl_trains_by_the_closing_lines(made, tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    pytest.importorskip("torchrl", reason="runs in its own environment: make clients")
    monkeypatch.setenv("HOME", str(tmp_path))  # where it keeps its copy
    batch = closing_lines("TorchRL", ID)["batch"]
    policy = torch.nn.Linear(3, 1).double()
    loss = (policy(batch["observation"].double()) - batch["action"]).square().mean()
    loss.backward()
    assert batch.shape == (256,) and policy.weight.grad.abs().sum() > 0
    assert batch["next", "reward"].shape == (256, 1) and set(batch["info", "synthetic"].unique().tolist()) <= {0, 1}
