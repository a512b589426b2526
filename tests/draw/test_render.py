"""Pictures of stitched episodes. Where a machine has no OpenGL, the error that says what to install is checked."""

import dataclasses
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import toy
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from matplotlib.figure import Figure
from PIL import Image, ImageSequence

from minari_stitch.data import minari_io
from minari_stitch.data.spaces import FlatSpace
from minari_stitch.draw import camera, figures, render
from minari_stitch.draw.render import render_episode
from minari_stitch.errors import RenderError, StitchError
from minari_stitch.sim import demo
from minari_stitch.sim.behaviour import make_env, play_episode, uniform
from minari_stitch.sim.maze import Maze
from minari_stitch.sim.poses import poser

ABOUT = {"source_episode": 0, "target_episode": 1, "bridge_states": 6, "return_before": 5.0, "return_after": 9.0}


def join(source, target, junction=20, entry=15, **about):
    """A stitched episode whose bridge is drawn straight between two real ones, and its metadata."""
    left, right = source["observations"][: junction + 1], target["observations"][entry:]
    share = np.linspace(0, 1, ABOUT["bridge_states"] + 2)[1:-1, None]
    bridge = (1 - share) * left[-1] + share * right[0]
    observations = np.concatenate([left, bridge, right]).astype(left.dtype)
    length = len(observations) - 1
    last = np.arange(length) == length - 1
    return {
        "observations": observations,
        "actions": np.zeros((length, source["actions"].shape[1]), np.float32),
        "rewards": np.ones(length),
        "terminations": np.zeros(length, bool),
        "truncations": last,
        "metadata": ABOUT | {"augmented": True, "bridge_start": junction, "source_step": junction, **about}
        | {"target_step": entry},
    }  # fmt: skip


def write(parts, stitched, env_id="Toy-v0", dataset_id="test/joined-v0", **kwargs):
    """Write a source and what was stitched from it; both as `render` reads them."""
    observations, actions = parts[0]["observations"], parts[0]["actions"]
    common = {
        "observation_space": spaces.Box(-np.inf, np.inf, observations.shape[1:], observations.dtype.type),
        "action_space": spaces.Box(-1, 1, actions.shape[1:], np.float32),
        "env_spec": EnvSpec(env_id, entry_point="toy:Toy", max_episode_steps=200),
        **kwargs,
    }
    minari_io.write(parts, dataset_id="test/source-v0", **common)
    minari_io.write(stitched, dataset_id=dataset_id, metadata={"minari_stitch": toy.record("test/source-v0")}, **common)
    return minari_io.read(dataset_id, keep_infos=True), minari_io.read("test/source-v0")


@pytest.fixture(scope="module")
def hops():
    """Two hopper episodes of 40 steps."""
    return list(demo.rollout(demo.RECIPES["demo/hopper/medium-expert-v0"], n_steps=80, workers=1))


@pytest.fixture
def gl():
    """The OpenGL of this machine; without one, the error is what is tested."""
    try:
        return camera.backend()
    except RenderError as error:
        assert "libegl1" in str(error) and "libosmesa6" in str(error) and "MUJOCO_GL" in str(error)
        pytest.skip("no OpenGL here; its error names what to install")


@pytest.mark.parametrize("env_id", ["Hopper-v5", "Hopper-v4"])
def test_a_robot_gets_a_filmstrip_and_an_animation(gl, hops, tmp_path, env_id):
    write(hops, [join(*hops), join(*hops, junction=10)], env_id=env_id)
    options = ["--episode", 0, "--output", tmp_path / "new", "--frames", 6, "--context", 10, "--every", 4]
    files = toy.ok("render", "test/joined-v0", *options).stdout.split()
    assert [Path(file).name for file in files] == [f"test-joined-v0-episode-0.{kind}" for kind in ("png", "gif")]
    with Image.open(files[0]) as strip:
        assert strip.width > 900 and strip.height > 300
        colours = strip.convert("RGB").getcolors(maxcolors=1 << 24)
    shown = {"#%02x%02x%02x" % colour for count, colour in colours if count > 500}  # noqa: UP031
    assert set(figures.COLOURS.values()) <= shown
    with Image.open(files[1]) as animation:
        shots = [np.asarray(frame.convert("RGB")).astype(int) for frame in ImageSequence.Iterator(animation)]
    # Steps 10 to 37 by 4: the bridge is 21 to 26, so of 10, 14, 18, 22, 26, 30, 34 two are generated.
    frames = [shot[2, 2] for shot in shots]
    wanted = ["source"] * 3 + ["bridge"] * 2 + ["target"] * 2
    for frame, part in zip(frames, wanted, strict=True):
        colour = figures.COLOURS[part]
        assert np.abs(frame - [int(colour[i : i + 2], 16) for i in (1, 3, 5)]).max() < 12
    # Below, a mark goes from one end to the other, over the colours of the three parts.
    marks = [np.flatnonzero(shot[-5].sum(1) < 60).mean() for shot in shots]
    assert (np.diff(marks) > 20).all() and marks[0] < 5 and marks[-1] > shots[0].shape[1] - 60


def test_a_ghost_shows_the_source_only_where_it_went_another_way(gl, hops):
    stitched, source = write(hops, [join(*hops)], env_id="Hopper-v5")
    episode = figures.StitchedEpisode.of(stitched, 0, source)
    states = [episode.begin, episode.end + 5]
    jobs = [(episode.observations, states), (episode.source, states, episode.observations)]
    own, ghosts = render.draw_states("Hopper-v5", jobs)
    np.testing.assert_array_equal(own[0], ghosts[0])
    assert np.abs(own[1].astype(int) - ghosts[1]).mean() > 0.5
    alone, both = (np.asarray(render._shot(episode, states, states[1], own[1], ghost)) for ghost in (None, ghosts[1]))
    inner = slice(10, 200), slice(10, 200)
    expected = 0.7 * own[1] + 0.3 * ghosts[1].astype(float)
    np.testing.assert_allclose(both[5:-43, 5:-5], expected, atol=1)
    assert (alone[inner] != both[inner]).any()


def test_without_its_source_an_episode_is_drawn_alone(gl, hops, tmp_path):
    stitched, _ = write(hops, [join(*hops)], env_id="Hopper-v5")
    seen = []
    (file,) = render_episode(stitched, None, tmp_path, frames=4, every=None, progress=lambda *done: seen.append(done))
    assert seen == [(done, 4) for done in (1, 2, 3, 4)]
    with Image.open(file) as strip:
        assert strip.height < strip.width


def test_two_cameras_draw_the_same(gl, hops):
    body = poser("Hopper-v5")
    drawn = []
    for _ in range(2):
        with camera.camera(body, gl) as draw:
            drawn.append(draw(hops[0]["observations"][7], 0.3))
    np.testing.assert_array_equal(*drawn)
    assert drawn[0].std() > 10


def test_missing_opengl_names_what_to_install(monkeypatch, hops, tmp_path):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(camera.sys, "platform", "linux")
    tried = []
    monkeypatch.setattr(camera, "_works", lambda name: tried.append(name))
    write(hops, [join(*hops)], env_id="Hopper-v5")
    result = toy.invoke("render", "test/joined-v0", "--output", tmp_path)
    assert result.exit_code == 1 and tried == ["egl", "osmesa"]
    for word in ("RenderError", "egl or osmesa", "libegl1", "libosmesa6", "MUJOCO_GL=egl", "returns need neither"):
        assert word in result.stderr
    # What needs no OpenGL is drawn all the same.
    (file,) = toy.ok("render", "test/joined-v0", "--returns", "--output", tmp_path).stdout.split()
    with Image.open(file) as plot:
        assert plot.size == (728, 754)


def test_a_wrong_backend_is_named_before_mujoco_is_imported(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "nonsense")
    with pytest.raises(RenderError, match="no OpenGL with nonsense"):
        camera.backend()
    monkeypatch.setattr(camera, "_works", lambda name: True)
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    assert camera.backend() == "osmesa"


def test_a_display_is_preferred(monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(camera.sys, "platform", "linux")
    monkeypatch.setattr(camera, "_works", lambda name: True)
    monkeypatch.setenv("DISPLAY", ":0")
    assert camera.backend() == "glfw"
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert camera.backend() == "egl"


def test_the_probe_does_not_believe_in_what_is_not_there():
    assert not camera._works("no_such_backend")


# what is drawn


def test_an_informative_episode_is_chosen():
    parts = toy.walks(episodes=2, length=199)
    long = {"bridge_states": 6}
    choices = [join(*parts, junction=5), join(*parts, junction=60, return_after=6.0), join(*parts, junction=61)]
    stitched, source = write(parts, [{**each, "metadata": each["metadata"] | long} for each in choices])
    episode = figures.StitchedEpisode.of(stitched, None, source)
    assert episode.number == 2  # enough on both sides, and the larger gain
    assert (episode.begin, episode.end) == (61, 68)
    assert [episode.part(state) for state in (0, 61, 62, 67, 68)] == ["source", "source", "bridge", "bridge", "target"]
    np.testing.assert_array_equal(episode.source, parts[0]["observations"])
    np.testing.assert_array_equal(episode.observations[68], episode.target[15])


def test_a_bridge_written_alone_is_shown_at_its_time():
    parts = toy.walks(episodes=2, length=60)
    alone = join(*parts)
    cut = {key: alone[key][15:] for key in ("observations", "actions", "rewards", "terminations", "truncations")}
    stitched, source = write(parts, [cut | {"metadata": alone["metadata"] | {"bridge_start": 5}}])
    episode = figures.StitchedEpisode.of(stitched, 0, source)
    np.testing.assert_array_equal(episode.source[:6], episode.observations[:6])


@pytest.mark.parametrize("count", [3, 5, 10, 12])
def test_pictures_spread_over_all_three_parts(count):
    parts = toy.walks(episodes=2, length=60)
    stitched, _ = write(parts, [join(*parts)])
    episode = figures.StitchedEpisode.of(stitched)
    states = episode.spread(count, 12)
    assert states == sorted(set(states)) and len(states) <= count
    assert {episode.part(state) for state in states} == {"source", "bridge", "target"}
    assert {20, 27} <= set(states) and states[0] >= 8 and states[-1] <= 39
    assert len(states) == count


def test_a_bridge_at_the_very_start_still_has_its_three_parts():
    parts = toy.walks(episodes=2, length=30)
    stitched, _ = write(parts, [join(*parts, junction=0, entry=30)])
    episode = figures.StitchedEpisode.of(stitched)
    assert episode.spread(10, 50) == [0, 1, 3, 4, 6, 7]


def test_returns_are_those_of_the_metadata():
    figure = Figure()
    axes = figure.subplots()
    rows = [ABOUT, ABOUT | {"return_before": -3.0, "return_after": 4.0}]
    figures.returns(axes, rows)
    np.testing.assert_array_equal(axes.collections[0].get_offsets(), [[5, 9], [-3, 4]])
    above, beside = axes.child_axes
    assert "2 bridge starts, +6 on average" in above.get_title()
    assert axes.get_xlim() == axes.get_ylim() and len(above.patches) == len(beside.patches) == 39


def test_a_maze_is_drawn_as_paths_without_opengl(monkeypatch, tmp_path):
    monkeypatch.setattr(camera, "_works", lambda name: pytest.fail("asked for OpenGL"))
    place = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    space = spaces.Dict(
        {"achieved_goal": place, "desired_goal": place, "observation": spaces.Box(-np.inf, np.inf, (4,), np.float64)}
    )
    parts = toy.walks(episodes=2, length=60, dtype=np.float64)
    for part in parts:
        walk = part["observations"].cumsum(0)
        part["observations"] = np.concatenate([walk[:, :2], np.ones_like(walk[:, :2]), walk, walk[:, :1]], 1)
    stitched, source = write(parts, [join(*parts)], observation_space=space)
    assert FlatSpace(stitched.observation_space).plane == slice(0, 2)
    (file,) = toy.ok("render", "test/joined-v0", "--output", tmp_path).stdout.split()
    with Image.open(file) as plot:
        assert plot.width > plot.height

    axes = Figure().subplots()
    figures.paths(axes, figures.StitchedEpisode.of(stitched, 0, source), slice(0, 2), source.episodes.observations)
    lines = {line.get_label(): line.get_xydata() for line in axes.lines}
    bridge = lines["generated bridge: 6 states"]
    np.testing.assert_array_equal(bridge, stitched.episodes.observations[20:28, :2])
    np.testing.assert_array_equal(lines["how the source went on"], source.episodes.observations[20:61, :2])
    np.testing.assert_array_equal(lines["how the target came here"], source.episodes.observations[61:77, :2])


def test_walls_are_drawn_where_they_are():
    maze, axes = Maze([[1, 1, 1, 1], [1, 0, 0, 1], [1, 1, 0, 1], [1, 1, 1, 1]]), Figure().subplots()
    figures.walls(axes, maze)
    (picture,) = axes.images
    left, right, bottom, top = picture.get_extent()
    for place in np.random.default_rng(0).uniform(-2, 2, (200, 2)):
        across, down = (place[0] - left) / (right - left), (top - place[1]) / (top - bottom)
        assert picture.get_array()[int(down * 4), int(across * 4)] == maze.blocked(place)


# errors


def test_errors_name_the_value_and_the_remedy(stitched, tmp_path):
    count = len(minari_io.read(toy.STITCHED).episodes)
    for words, message in {
        ("--episode", count): f"no episode {count}: choose one of 0 to {count - 1}",
        ("--episode", -1): f"no episode -1: choose one of 0 to {count - 1}",
        ("--returns", "--output", "/dev/null/folder"): "choose another folder",
    }.items():
        result = toy.invoke("render", toy.STITCHED, *words)
        assert result.exit_code == 1 and "RenderError" in result.stderr and message in result.stderr
    result = toy.invoke("render", toy.ID)
    assert result.exit_code == 1 and "not written by minari-stitch" in result.stderr
    toy.ok("render", toy.STITCHED, "--returns", "--output", tmp_path)


def test_an_original_episode_has_no_bridge():
    parts = toy.walks(episodes=2, length=60)
    stitched, _ = write(parts, [parts[0] | {"metadata": {"augmented": False}}, join(*parts)])
    with pytest.raises(RenderError, match=r"episode 0 of test/joined-v0 is an original one.*such as 1"):
        figures.StitchedEpisode.of(stitched, 0)
    assert figures.StitchedEpisode.of(stitched).number == 1
    with pytest.raises(RenderError, match="test/source-v0 has no stitched episode"):
        figures.stitched_metadata(minari_io.read("test/source-v0", keep_infos=True))


def test_other_environments_are_named(gl, tmp_path):
    parts = toy.walks(episodes=2, length=60)
    stitched, source = write(parts, [join(*parts)])
    with pytest.raises(StitchError, match=r"Toy-v0 cannot be put .* Hopper, Walker2d, HalfCheetah, AdroitHandPen"):
        render_episode(stitched, source, tmp_path)
    stitched = dataclasses.replace(stitched, env_spec=None)
    with pytest.raises(RenderError, match="does not say its environment"):
        render_episode(stitched, source, tmp_path)


# observations back in the simulator


ROBOTS = [f"{name}-v{version}" for name in ("Hopper", "Walker2d", "HalfCheetah") for version in (4, 5)]


@pytest.mark.parametrize("env_id", [*ROBOTS, "AdroitHandPen-v1"])
def test_an_observation_puts_the_simulator_where_it_was(env_id):
    env = make_env(env_id)
    policy = uniform(env.action_space, np.random.default_rng(0))
    observations = play_episode(env, policy, seed=0)["observations"][:41]
    body = poser(env_id)
    for observation in observations[::3]:
        body.set(observation, 0.5)
        np.testing.assert_allclose(body.env._get_obs(), observation, atol=1e-9)
    assert len(body.travelled(observations)) == len(observations)


def test_the_robot_travels_as_far_as_it_did():
    env = make_env("HalfCheetah-v5")
    env.reset(seed=0)
    env.action_space.seed(0)
    inner, observations, x = env.unwrapped, [], []
    for _ in range(100):
        observations.append(inner._get_obs())
        x.append(inner.data.qpos[0])
        env.step(env.action_space.sample())
    travelled = poser("HalfCheetah-v5").travelled(np.array(observations))
    # The velocity is known at each step only, not between.
    assert np.abs(travelled - (np.array(x) - x[0])).max() < 0.3


def test_a_generated_axis_of_the_pen_need_not_be_a_unit_vector():
    body = poser("AdroitHandPen-v1")
    observation, _ = body.env.reset(seed=0)
    body.set(np.concatenate([observation[:33], 1.1 * observation[33:36], 0.9 * observation[36:39], observation[39:]]))
    np.testing.assert_allclose(body.env._get_obs()[33:39], observation[33:39], atol=1e-9)
    body.set(np.zeros(45))
    assert np.isfinite(body.env._get_obs()).all()


def test_what_cannot_be_posed_is_named():
    with pytest.raises(StitchError, match="Ant-v5 cannot be put where an observation says"):
        poser("Ant-v5")
    with pytest.raises(StitchError, match="Hopper-v99 cannot be made here"):
        poser("Hopper-v99")
    assert gym.spec("AdroitHandPen-v1").max_episode_steps == 200
