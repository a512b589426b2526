"""OGBench's point mazes: ways and episodes against plain loops, tasks that are played, one command that goes on.

What needs OGBench's package runs in an environment of its own, too: see `clients.sh`. Elsewhere a maze without walls in
the way of a point stands in for its environments.
"""

import json

import gymnasium as gym
import mujoco
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import minari_stitch as ms
from benchmarks import experiment
from benchmarks.evaluate import SimulatorError
from benchmarks.ogbench import evaluate, generate, run
from benchmarks.ogbench.evaluate import TaskEvaluator
from benchmarks.ogbench.generate import REACH, STATES, Guide
from benchmarks.points import Points, displaced
from minari_stitch.data import minari_io
from minari_stitch.errors import ConfigError
from minari_stitch.sim.ogbench_tasks import env_spec

WALLS = np.array([[1, 1, 1, 1, 1, 1], [1, 0, 0, 0, 0, 1], [1, 0, 1, 1, 0, 1], [1, 0, 1, 0, 0, 1], [1, 1, 1, 1, 1, 1]])
TASKS = (((1, 1), (1, 4)), ((1, 4), (1, 1)), ((3, 1), (1, 1)), ((1, 1), (3, 1)), ((3, 3), (1, 4)))


POINT = """<mujoco><option gravity="0 0 0"/><worldbody><body><geom size=".5" mass="1"/>
<joint type="slide" axis="1 0 0"/><joint type="slide" axis="0 1 0"/></body></worldbody></mujoco>"""


class Point(gym.Env):
    """OGBench's point maze, as far as the benchmarks know it, but for its walls."""

    maze_map, num_tasks, fullpath, frame_skip, _goal_tol = WALLS, len(TASKS), "/nowhere/maze.xml", 5, 1.0

    def __init__(self, terminate_at_goal=True):
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = gym.spaces.Box(-1, 1, (2,), np.float32)
        self.ends, self.model = terminate_at_goal, mujoco.MjModel.from_xml_string(POINT)
        self.data = mujoco.MjData(self.model)

    def ij_to_xy(self, ij):
        return 4 * ij[1] - 4, 4 * ij[0] - 4

    def xy_to_ij(self, xy):
        return int((xy[1] + 6) / 4), int((xy[0] + 6) / 4)

    def reset_model(self):
        self.data.qpos = np.zeros(2)

    def set_state(self, qpos, qvel):
        self.data.qpos, self.data.qvel = np.array(qpos, float), np.array(qvel, float)

    def reset(self, *, seed=None, options=None):
        start, goal = TASKS[(options or {}).get("task_id", 1) - 1]
        self.data.qpos = np.array(self.ij_to_xy(start)) + np.random.uniform(-1, 1, 2)
        self.cur_goal_xy = np.array(self.ij_to_xy(goal)) + np.random.uniform(-1, 1, 2)
        return self.data.qpos.copy(), {"goal": self.cur_goal_xy}

    def step(self, action):
        self.data.qpos = self.data.qpos + 0.2 * np.asarray(action, float)
        success = float(np.linalg.norm(self.data.qpos - self.cur_goal_xy) <= 1) if hasattr(self, "cur_goal_xy") else 0.0
        return self.data.qpos.copy(), success, bool(self.ends and success), False, {"success": success}


@pytest.fixture
def points(monkeypatch):
    """Points instead of OGBench's environments."""
    monkeypatch.setattr(evaluate, "_kept", [])
    for module in (generate, evaluate):
        monkeypatch.setattr(module, "make", lambda env_id, **settings: Point(**settings))


@pytest.fixture
def package():
    """OGBench's own environments."""
    pytest.importorskip("ogbench", reason="runs in its own environment: make clients")


# Ways


def slow_distance(start, goal):
    """Cells between two, by a search for one of them at a time."""
    frontier, seen, steps = [start], {start}, 0
    while goal not in frontier:
        around = {(i + a, j + b) for i, j in frontier for a, b in ((-1, 0), (1, 0), (0, -1), (0, 1))}
        frontier, steps = [cell for cell in around - seen if WALLS[cell] == 0], steps + 1
        seen |= around
    return steps


def test_a_guide_knows_the_shortest_ways():
    guide = Guide(WALLS)
    assert len(guide.free) == (WALLS == 0).sum()
    for start in guide.free:
        assert set(guide.goals(start)) == {c for c in guide.free if slow_distance(start, c) == REACH} or {start}
        for goal in guide.free:
            cell, steps = start, 0
            while cell != goal:
                cell, steps = guide.following(cell, goal), steps + 1
            assert steps == slow_distance(start, goal)
    assert guide.following((0, 0), (1, 1)) == (0, 0)


# Data


def test_episodes_have_ogbenchs_form(points):
    (episode,) = generate.episodes("medium", range(1), seed=0)
    assert episode["observations"].shape == (STATES, 2) == (201, 2)
    np.testing.assert_array_equal(episode["observations"], episode["infos"]["qpos"])
    assert np.abs(episode["actions"]).max() <= 1 and episode["truncations"].tolist() == [False] * 199 + [True]
    moved = np.diff(episode["observations"], axis=0)
    np.testing.assert_allclose(moved, 0.2 * episode["actions"], atol=1e-5)
    noise = [e["actions"] for e in generate.episodes("medium", range(20), seed=0)]
    assert 0.4 < np.std([a[150:] for a in noise]) < 0.8  # around the goal: noise of 0.5 and steps to and fro


def test_episodes_depend_on_their_number_alone(points):
    def found(numbers, seed=0):
        return [episode["observations"] for episode in generate.episodes("medium", numbers, seed=seed)]

    np.testing.assert_array_equal(found(range(2, 4)), found(range(5))[2:4])
    assert not np.array_equal(found(range(1)), found(range(1), seed=1))


def test_a_dataset_is_two_files_that_can_be_imported(points, tmp_path):
    seen = []
    paths = generate.generate("medium", tmp_path, n_episodes=11, progress=lambda *done: seen.append(done))
    made = ms.import_ogbench(*paths, progress=False)
    assert (made.n_episodes, made.n_steps, made.validation.n_episodes) == (11, 2200, 1)
    minari_io.check(made.dataset_id)
    assert seen[-1] == (12, 12)
    again = generate.generate("medium", tmp_path / "again", n_episodes=11)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in paths]


def test_the_command_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ogbench", None)
    with pytest.raises(generate.PackageError, match="pip install ogbench"):
        generate.generate("medium", tmp_path, n_episodes=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore")
def test_the_real_maze_stops_no_episode_of_the_recipe(package):
    """Every state is in a free cell or touches its walls, and most episodes end at a cell 4 away from their start."""
    walls = generate.make("pointmaze-medium-v0").unwrapped
    guide, ends = Guide(walls.maze_map), []
    for episode in generate.episodes("medium", range(20), seed=0):
        cells = [walls.xy_to_ij(xy) for xy in episode["observations"]]
        assert all(walls.maze_map[cell] == 0 for cell in cells)
        ends.append(cells[-1] in guide.goals(cells[0]))
    assert np.mean(ends) > 0.9


# Tasks


def dataset(make_episodes, write_dataset, name="pointmaze-medium", dataset_id="ogbench/pointmaze-medium-stitch-v0"):
    write_dataset(dataset_id, make_episodes(4, 10, obs_dim=2), env_spec=env_spec(name))
    return minari_io.read(dataset_id)


def evaluator(source):
    play = TaskEvaluator(dataset=source)
    play._limit = 100  # no way is longer
    return play


def straight(observations):
    """Go to the goal."""
    way = observations[..., 2:] - observations[..., :2]
    return way / way.norm(dim=-1, keepdim=True)


def test_whoever_goes_to_the_goal_reaches_it(points, make_episodes, write_dataset):
    play = evaluator(dataset(make_episodes, write_dataset))
    assert play(straight, [0, 1], 10).tolist() == [[1.0] * 10] * 2
    assert not play(lambda observations: -straight(observations), [0, 1], 10).any()
    only = play(lambda o: straight(o) * torch.tensor([1.0, 0.0]), [0], 10)  # along x: tasks 1 and 2 alone
    assert only[0].reshape(5, 2).any(1)[:2].all() and not only[0].reshape(5, 2)[2:4].any()


def test_evaluations_are_seeded_and_leave_numpys_generator_alone(points, make_episodes, write_dataset):
    play = evaluator(dataset(make_episodes, write_dataset))
    starts = []

    def policy(observations):
        starts.append(observations.clone())
        return straight(observations)

    before = np.random.get_state()[1].tolist()
    play(policy, [3, 3], 5)
    first = starts[0]
    starts.clear()
    play(policy, [4, 3], 5)
    assert np.random.get_state()[1].tolist() == before
    torch.testing.assert_close(first[0], first[1])
    torch.testing.assert_close(first[0], starts[0][1])
    assert not torch.allclose(starts[0][0], starts[0][1])


def test_what_cannot_be_played_is_named(points, make_episodes, write_dataset):
    source = dataset(make_episodes, write_dataset)
    with pytest.raises(ConfigError, match="has 5 tasks"):
        evaluator(source)(straight, [0], 7)
    for number, spec in enumerate((gym.spec("Pendulum-v1"), env_spec("antmaze-medium"))):
        write_dataset(f"test/other{number}-v0", env_spec=spec)
        with pytest.raises(SimulatorError, match=f"in {spec.id}, which is none of OGBench's point mazes"):
            evaluator(minari_io.read(f"test/other{number}-v0"))


@pytest.mark.filterwarnings("ignore")
def test_what_is_played_is_what_ogbenchs_environment_plays(package):
    """Bit by bit, into walls and along them."""
    envs = [generate.make("pointmaze-medium-v0", terminate_at_goal=False) for _ in range(3)]
    inner = envs[0].unwrapped
    together = Points(inner.model, 3, displaced, inner.frame_skip)
    for row, env in enumerate(envs):
        env.reset(seed=row, options={"task_id": row + 1})
        together.place(row, env.unwrapped.data)
    random = np.random.default_rng(0)
    touched = 0
    for step in range(200):
        actions = random.uniform(-0.2, 1, (3, 2)).astype(np.float32) * (-1) ** (step // 100)
        expected = np.stack([env.step(action)[0] for env, action in zip(envs, actions, strict=True)])
        np.testing.assert_array_equal(together.step(range(3), actions)[:, :2], expected)
        touched += sum(env.unwrapped.data.ncon > 0 for env in envs)
    assert touched > 100


@pytest.mark.filterwarnings("ignore")
def test_ogbenchs_own_tasks_are_played(package, make_episodes, write_dataset):
    """Standing still, only the task whose goal is nearest could be reached, and is not."""
    play = evaluator(dataset(make_episodes, write_dataset))
    play._limit = 30
    assert play.tasks == 5 and not play(lambda o: 0 * straight(o), [0], 5).any()
    inputs = []
    play(lambda o: inputs.append(o) or 0 * straight(o), [0], 5)
    positions = inputs[0][0].numpy()
    infos = evaluate._kept[0].inner.task_infos
    wanted = np.array([[*info["init_xy"], *info["goal_xy"]] for info in infos])
    assert np.abs(positions - wanted).max() <= 1.0 + 1e-5


# One command


def command(*words, results):
    import typer

    app = typer.Typer()
    app.command()(run.main)
    return CliRunner().invoke(app, [*words, "--workers", "1", "--results", str(results)])


def test_one_command_makes_trains_plays_and_goes_on(points, tmp_path):
    words = ("--budget", "smoke", "--episodes", "10", "--seeds", "2", "--steps", "5", "--alone")
    done = command(*words, results=tmp_path)
    assert done.exit_code == 0, done.output
    found = json.loads(done.output.splitlines()[-1])
    assert found.keys() == set(run.GOAL_ALGORITHMS)
    for scores in found.values():
        ((mean, low, high),) = scores.values()
        assert 0 <= mean <= 100 and low <= mean <= high
    before = (tmp_path / "results.jsonl").read_bytes()
    again = command(*words, results=tmp_path)
    assert "0 of 6 cells to run" in again.output and again.output.splitlines()[-1] == done.output.splitlines()[-1]
    assert (tmp_path / "results.jsonl").read_bytes() == before


def ones(self, policy, seeds, episodes, watch):
    """Stands for an evaluator: run k reaches the goal of task k."""
    watch(np.zeros((len(seeds), 5, 2)), np.ones((len(seeds), 5), bool))
    return np.eye(5)[: len(seeds)]


def test_a_score_is_the_share_of_goals(points, monkeypatch, tmp_path):
    monkeypatch.setattr(TaskEvaluator, "__call__", ones)
    done = command("--budget", "smoke", "--algo", "gcbc", "--episodes", "10", "--alone", results=tmp_path)
    assert json.loads(done.output.splitlines()[-1]) == {"gcbc": {"ogbench/pointmaze-medium-stitch-10-v0": [20.0]}}
    assert "100 0 0 0 0" in done.output


def test_what_is_compared_is_made_once(points, monkeypatch, tmp_path):
    both = run.variants("giant")
    assert [variant.title for variant in both] == ["DiffStitch, chained", "relabel"]
    assert both[0].transform().stitch.hops == 2 * run.variants("large")[0].transform().stitch.hops == 16
    monkeypatch.setattr(run, "variants", lambda maze: both[1:])
    monkeypatch.setattr(TaskEvaluator, "__call__", ones)
    words = ("--budget", "smoke", "--algo", "gcbc", "--episodes", "10")
    done = command(*words, results=tmp_path)
    assert done.exit_code == 0, done.output
    source, made = "ogbench/pointmaze-medium-stitch-10-v0", "ogbench/pointmaze-medium-stitch-10-relabelled-v0"
    assert json.loads(done.output.splitlines()[-1])["gcbc"].keys() == {source, f"{made} 1:1 episodes"}
    assert "Making it, once: relabel" in done.output and "gcbc: +0.0" in " ".join(done.output.split())
    again = command(*words, "--augmented", made, results=tmp_path)
    assert "0 of 2 cells to run" in again.output and "Making" not in again.output


def test_a_maze_has_its_own_alpha_where_a_budget_does_not_leave_ogbenchs():
    for name, budget in run.BUDGETS.items():
        medium, large = (
            experiment.settings("gciql", f"ogbench/pointmaze-{maze}-stitch-v0", run.tuned(budget, maze)).alpha
            for maze in ("medium", "large")
        )
        assert (medium, large) == ((0.003, 0.003) if name in ("wide", "published") else (0.3, 0.1))
        assert run.tuned(budget, "large").settings.get("gcbc") == budget.settings.get("gcbc")


def test_learners_for_goals_are_known_by_name():
    for name in run.GOAL_ALGORITHMS:
        assert experiment.for_goals(experiment.algorithm(name)) and run.PUBLISHED["medium"][name]
    assert not experiment.for_goals(experiment.algorithm("iql"))
