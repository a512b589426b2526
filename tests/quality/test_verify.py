import json
from dataclasses import replace

import faults
import linear
import numpy as np
import pytest
import toy
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

import minari_stitch as ms
from minari_stitch.data import minari_io
from minari_stitch.data.episodes import Episodes
from minari_stitch.data.provenance import RECORD_KEY
from minari_stitch.errors import ConfigError, InvalidDataError, LowAcceptanceError
from minari_stitch.pool import Pool
from minari_stitch.quality import simulate
from minari_stitch.quality.bridges import Bridges
from minari_stitch.quality.verify import verify
from minari_stitch.sim import demo, oracle
from minari_stitch.sim.behaviour import make_env

SOURCE, MADE = "line/real-v0", "line/made-v0"


class Line:
    """The linear world as an oracle; episodes end beyond 9 in x, and there is a wall at 50 in z."""

    def __init__(self, spec):
        pass

    def outcomes(self, states, actions):
        following = linear.next_state(states, actions)
        return oracle.Outcomes(
            following=following,
            rewards=linear.reward(states, actions),
            terminated=(following[:, 0] > 9).astype(float),
        )

    def crossings(self, states, following):
        return (states[:, 2] < 50) & (following[:, 2] > 50)


def marked(part, first, stop, error=0.0):
    """The part as `augment` writes it, with the steps from `first` to `stop` generated."""
    states = len(part["observations"])
    synthetic = np.zeros((states, 1), bool)
    synthetic[first:stop] = True
    about = {"augmented": True, "dynamics_error": error, "error_bound": error, "disagreement": 0.0}
    infos = {"synthetic": synthetic, "dynamics_error": synthetic * error}
    return {**part, "infos": infos, "metadata": about}


@pytest.fixture
def line(datasets_path, monkeypatch):
    """A real dataset of the linear world, and one of which some steps are marked generated; all of it is true."""
    monkeypatch.setitem(oracle.ORACLES, "Line", Line)
    monkeypatch.setattr(simulate, "_CHUNK", 7)
    real = linear.episodes(lengths=[30] * 12, dtype=np.float32)
    parts = [part | {"terminations": part["terminations"] & False} for part in real]
    for part in parts:
        part["truncations"] = np.arange(30) == 29
    kind = {
        "observation_space": spaces.Box(-np.inf, np.inf, (3,), np.float32),
        "action_space": spaces.Box(linear.LOW.astype(np.float32), linear.HIGH.astype(np.float32), dtype=np.float32),
        "env_spec": EnvSpec("Line-v0", entry_point="nowhere:Line", max_episode_steps=30),
    }
    minari_io.write(parts, dataset_id=SOURCE, **kind)
    source = minari_io.read(SOURCE)
    record = {
        "version": "0", "method": "other", "source": SOURCE, "source_fingerprint": source.fingerprint, "seed": 0,
        "config": {"qualify": {"delta": 0.5}}, "report": {}, "n_steps": 360, "n_episodes": 12,
        "include_original": False,
    }  # fmt: skip
    made = [marked(part, 10, 20, error=0.01 * (n + 1)) for n, part in enumerate(parts)]
    minari_io.write(made, dataset_id=MADE, metadata={RECORD_KEY: record}, **kind)
    return source


def kinds(found):
    return {finding.kind for finding in found.findings if finding.level == "error"}


def test_what_is_true_is_confirmed(line):
    found = ms.verify(MADE, progress=False)
    assert found.ok and found.simulated and found.judge == "Line-v0" and found.delta == 0.5
    assert found.bridges["n"] == 12 and found.bridges["steps"] == 120 and found.bridges["confirmed"] == 1
    assert found.bridges["median"] < 1e-10 and found.real["exact"] == 1 and found.real["n"] == 240
    assert abs(found.rewards["synthetic"]["bias"]) < 1e-6 and found.ends["real"]["agree"] == 1
    assert found.bridges["through_walls"] == 0
    assert minari_io.read(MADE).metadata["minari_stitch_oracle"]["bridges"] == found.bridges


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (faults.shuffled_actions, "bridges"),
        (faults.shifted_states, "bridges"),
        (faults.reward_offset, "rewards"),
    ],
)
def test_planted_faults_are_found(line, fault, kind):
    found = ms.verify(fault(MADE), progress=False)
    assert kind in kinds(found) and ("bridges" in kinds(found)) == (kind == "bridges")


def test_rewards_that_a_method_lowers_on_purpose_are_no_error(line):
    low = faults.reward_offset(MADE, by=-2.0)
    assert "rewards" in kinds(ms.verify(low, progress=False))
    record = minari_io.read(MADE).metadata[RECORD_KEY]
    minari_io.annotate(low, {RECORD_KEY: record | {"config": record["config"] | {"pessimism": 1.0}}})
    found = ms.verify(low, progress=False)
    (finding,) = [finding for finding in found.findings if finding.kind == "rewards"]
    assert found.ok and finding.level == "warning" and "pessimism" in finding.what
    minari_io.annotate(
        high := faults.reward_offset(MADE, "spoilt/high-v0"), {RECORD_KEY: record | {"config": {"pessimism": 1}}}
    )
    assert "rewards" in kinds(ms.verify(high, progress=False)), "raised ones are"


def test_faults_show_in_the_figure_and_the_section_that_should_show_them(line):
    def said(dataset_id):
        report = ms.report(dataset_id, progress=False).reports[0]
        return report, {picture.title: picture.svg for pictures in report.pictures.values() for picture in pictures}

    sound, pictures = said(MADE)
    assert sound.verdicts["true"][0] == "good"
    errors, rewards = "Largest error of each bridge, by Line-v0", "Rewards of generated steps"
    for fault, title, other in (
        (faults.shuffled_actions, errors, rewards),
        (faults.shifted_states, errors, None),
        (faults.reward_offset, rewards, errors),
    ):
        spoilt, drawn = said(fault(MADE))
        assert spoilt.verdicts["true"][0] == "bad" and spoilt.advice[0] == "bad"
        assert drawn[title] != pictures[title]
        if fault is faults.reward_offset:
            assert drawn[other] == pictures[other], "states are as true as before"


def test_a_bridge_through_a_wall_or_over_an_end_is_found(line):
    def jump(part):
        part["observations"][15, 2] = 60.0
        return part

    def far(part):
        part["observations"][11:20, 0] = 20.0
        return part

    assert {"bridges", "walls"} <= kinds(ms.verify(faults.copied(MADE, "spoilt/wall-v0", jump), progress=False))
    assert "ends" in kinds(ms.verify(faults.copied(MADE, "spoilt/end-v0", far), progress=False))


def test_real_steps_of_another_environment_are_found(line, monkeypatch):
    class Other(Line):
        def outcomes(self, states, actions):
            found = super().outcomes(states, actions)
            return replace(found, following=found.following + 1)

    monkeypatch.setitem(oracle.ORACLES, "Line", Other)
    assert "real steps" in kinds(ms.verify(SOURCE, progress=False))


def test_errors_match_a_loop(line):
    made = minari_io.read(faults.shuffled_actions(MADE), keep_infos=True)
    found = verify(made, Pool(workers=1), scale=np.array([1.0, 2.0, 3.0]))
    worst = []
    for part in made.episodes:
        gaps = [
            ((linear.next_state(part["observations"][t], part["actions"][t]) - part["observations"][t + 1]) / [1, 2, 3])
            for t in range(10, 20)
        ]
        worst.append(max((gap**2).sum() for gap in gaps))
    np.testing.assert_allclose(found.arrays["worst"], worst, rtol=1e-5)
    few = verify(made, Pool(workers=1), n_steps=35, seed=1)
    assert few.bridges["n"] == 4 and few.bridges["steps"] == 40
    again = verify(made, Pool(workers=1), n_steps=35, seed=1)
    np.testing.assert_array_equal(few.arrays["bridge"], again.arrays["bridge"])


def test_verified_episodes_alone_are_kept_and_the_metadata_say_so(line):
    numbers = iter(range(12))

    def spoil(part):
        if next(numbers) % 3 == 0:
            part["observations"][15] += 5
        return part

    spoilt = faults.copied(MADE, "spoilt/some-v0", spoil)
    kept = ms.filter(spoilt, verified=True, progress=False)
    assert kept.dataset_id == "spoilt/some-v1" and kept.n_episodes == 8
    made = minari_io.read(kept.dataset_id, keep_infos=True)
    verified = made.metadata[RECORD_KEY]["verified"]
    assert verified == {"simulator": "Line-v0", "delta": 0.5, "confirmed": 8, "of": 12}
    assert "confirmed by the simulator Line-v0" in made.metadata["description"]
    both = ms.filter(spoilt, verified=True, delta=0.055, progress=False)
    assert both.n_episodes == 3  # of the five with a small learned error, two are spoilt
    with pytest.raises(LowAcceptanceError, match="the simulator confirms none"):
        ms.filter(faults.shifted_states(MADE), verified=True, delta=0.02, progress=False)
    with pytest.raises(ConfigError, match="nothing to filter by"):
        ms.filter(spoilt)


def test_without_a_simulator_learned_errors_stand_and_are_called_so(stitched):
    found = ms.verify(toy.STITCHED, progress=False)
    assert found.ok and not found.simulated and found.judge == "learned networks"
    assert [finding.kind for finding in found.findings] == ["no simulator"]
    errors = [about["dynamics_error"] for about in minari_io.read(toy.STITCHED, keep_infos=True).episodes.metadata]
    assert found.bridges["median"] == pytest.approx(np.median(errors))
    with pytest.raises(InvalidDataError, match="cannot be verified"):
        ms.verify(toy.ID, progress=False)
    with pytest.raises(InvalidDataError, match="has no simulator to ask"):
        ms.filter(toy.STITCHED, verified=True, progress=False)


def test_the_pen_is_judged_from_its_resets_on_and_pieces_behind_their_source(datasets_path):
    recipe = demo.RECIPES["demo/pen/medium-v0"]
    real = list(demo.rollout(recipe, n_steps=600, workers=1))
    env = make_env(recipe.spec)
    kind = {"observation_space": env.observation_space, "action_space": env.action_space, "env_spec": recipe.spec}
    minari_io.write(real, dataset_id="pen/real-v0", **kind)

    def piece(number, start, first, stop):
        """An episode from a step on, of which some steps are marked generated."""
        part = real[number]
        cut = {
            name: part[name][start:] for name in ("observations", "actions", "rewards", "terminations", "truncations")
        }
        made = marked(cut, first, stop, error=0.1)
        states = np.arange(start, 201)[:, None]
        made["infos"] |= {"source_step": np.where(made["infos"]["synthetic"], -1, states)}
        made["infos"] |= {"source_episode": np.full((len(states), 1), number)}
        return made

    source = minari_io.read("pen/real-v0")
    record = {
        "version": "0", "method": "other", "source": source.dataset_id, "source_fingerprint": source.fingerprint,
        "seed": 0, "config": {"qualify": {"delta": 0.5}}, "report": {}, "n_steps": 600, "n_episodes": 3,
        "include_original": False,
    }  # fmt: skip
    parts = [piece(0, 0, 50, 60), piece(1, 40, 3, 12), piece(2, 0, 100, 110)]
    minari_io.write(parts, dataset_id="pen/made-v0", metadata={RECORD_KEY: record}, **kind)
    found = ms.verify("pen/made-v0", progress=False)
    assert found.ok and found.judge == "AdroitHandPen-v1" and found.bridges["n"] == 3 and found.bridges["judged"] == 1
    assert found.bridges["median"] < 1e-6 and found.real["n"] == 50 + 3 + 100 and found.real["exact"] == 1
    spoilt = ms.verify(faults.shuffled_actions("pen/made-v0"), progress=False)
    assert "bridges" in kinds(spoilt) and spoilt.real["exact"] == 1
    assert ms.filter("pen/made-v0", verified=True, progress=False).n_episodes == 3
    # Without the source nobody knows how the hand moved where the piece begins; and where no episode begins at a reset
    # learned errors stand, and are called so.
    alone = {RECORD_KEY: record | {"source": "gone/real-v0"}}
    minari_io.write(parts, dataset_id="pen/alone-v0", metadata=alone, **kind)
    assert ms.verify("pen/alone-v0", progress=False).bridges["judged"] == pytest.approx(20 / 29)
    minari_io.write(parts[1:2], dataset_id="pen/piece-v0", metadata=alone, **kind)
    learned = ms.verify("pen/piece-v0", progress=False)
    assert learned.judge == "learned networks" and "known as a whole" in learned.findings[0].what
    with pytest.raises(InvalidDataError, match="known as a whole"):
        ms.filter("pen/piece-v0", verified=True, progress=False)


def test_the_command_fails_where_the_dataset_is_not_true(line):
    done = toy.ok("verify", MADE, "--workers", 1)
    assert "is true by Line-v0: 100.0% of its bridges are within delta 0.5" in " ".join(done.stdout.split())
    bad = faults.reward_offset(MADE)
    done = toy.invoke("verify", bad, "--json", "--workers", 1)
    assert done.exit_code == 1 and json.loads(done.stdout)["findings"][0]["kind"] == "rewards"
    assert "not true" in toy.invoke("verify", bad, "--workers", 1).stdout


def test_runs_of_generated_steps():
    flags = [[1, 1, 0, 0, 1], [1, 0, 0, 1, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]]
    parts = []
    for row in flags:
        part = linear.episodes(lengths=[5]).episode(0)
        parts.append(part | {"infos": {"synthetic": np.array([*row, 0], bool)[:, None]}})
    bridges = Bridges.of(Episodes.from_list(parts))
    assert list(zip(bridges.first.tolist(), bridges.stop.tolist(), strict=True)) == [
        (0, 2), (4, 5), (5, 6), (8, 10), (15, 20),
    ]  # fmt: skip
    assert bridges.rows(np.array([0, 3, 4])).tolist() == [0, 1, 8, 9, 15, 16, 17, 18, 19]
    assert len(Bridges.of(linear.episodes())) == 0


def test_a_bridge_through_the_wall_of_a_real_maze_is_found_and_drawn(datasets_path):
    recipe = demo.RECIPES["demo/pointmaze/umaze-play-v0"]
    real = list(demo.rollout(recipe, n_steps=400, workers=1))
    env = make_env(recipe.spec)
    kind = {"observation_space": env.observation_space, "action_space": env.action_space, "env_spec": recipe.spec}

    def through(part):
        """From one corridor straight into the other, and as fast as that takes."""
        way = np.linspace([0.0, 1.0], [0.0, -1.0], 11)[:, None].repeat(2, 1).reshape(11, 4)
        part["observations"][20:31, [0, 1, 4, 5]] = way
        part["observations"][20:30, 6:] = [0.0, -0.2 / 0.1]
        return part

    def bridge(part):
        made = marked(part, 20, 30)
        made["metadata"] |= {
            "bridge_start": 20, "bridge_states": 9, "target_step": 30, "source_episode": 0, "target_episode": 0,
            "source_step": 20, "return_before": 0.0, "return_after": 1.0,
        }  # fmt: skip
        return made

    minari_io.write([bridge(part) for part in real], dataset_id="maze/made-v0", **kind)
    sound, spoilt = (
        ms.report(name, progress=False).reports[0]
        for name in ("maze/made-v0", faults.copied("maze/made-v0", "maze/spoilt-v0", through))
    )
    assert sound.values["true"]["bridges"]["through_walls"] == 0 and sound.verdicts["true"][0] == "good"
    assert spoilt.values["true"]["bridges"]["through_walls"] == 1 and spoilt.advice[0] == "bad"
    assert "walls" in {finding["kind"] for finding in spoilt.values["true"]["findings"]}
    assert len(sound.strips) == len(spoilt.strips) == 3 and sound.strips[0].svg != spoilt.strips[0].svg
