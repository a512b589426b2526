import json

import minari
import numpy as np
import pytest
import toy
from gymnasium import spaces

import minari_stitch as ms
from minari_stitch.data import minari_io
from minari_stitch.data.provenance import ORACLE_KEY, RECORD_KEY
from minari_stitch.errors import ConfigError, InvalidDataError


def to_goals(hits, dataset_id="test/goals-v0", infos=True):
    """Episodes of 20 steps along a line to a goal at 0, which is reached at the given steps (None: never)."""
    parts = []
    for hit in hits:
        place = np.linspace(5, 2, 21)
        if hit is not None:
            place[hit:] = np.linspace(0.2, 0.4, 21 - hit)
        flat = np.stack([place, np.zeros(21), np.arange(21.0)], 1).astype(np.float32)
        last = np.arange(20) == 19
        parts.append({
            "observations": flat, "actions": np.full((20, 1), len(parts) / 10, np.float32), "rewards": np.ones(20),
            "terminations": last & False, "truncations": last, "infos": {"far": place * 2} if infos else {},
            "metadata": {"hit": -1 if hit is None else hit},
        })  # fmt: skip
    box = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    minari_io.write(
        parts, dataset_id=dataset_id, action_space=spaces.Box(-1, 1, (1,), np.float32),
        observation_space=spaces.Dict({"achieved_goal": box, "desired_goal": box, "observation": box}),
        metadata={"ref_min_score": 0.0, "author": "A. Tester"},
    )  # fmt: skip
    return dataset_id


def test_episodes_are_cut_where_they_reach_their_goal(datasets_path):
    made = ms.trim(to_goals([7, None, 1, 20]), progress=False)
    assert made.dataset_id == "test/goals-trimmed-v0" and made.n_steps == 7 + 20 + 1 + 20
    data = minari_io.read(made.dataset_id, keep_infos=True)
    assert data.episodes.lengths.tolist() == [7, 20, 1, 20]
    assert data.episodes.truncations[data.episodes.offsets[1:] - 1].all() and data.episodes.truncations.sum() == 4
    assert data.metadata["ref_min_score"] == 0 and data.metadata["author"] == ["A. Tester"]
    assert [about["hit"] for about in data.episodes.metadata] == [7, -1, 1, 20]
    np.testing.assert_allclose(data.episodes.infos["far"][:, 0], 2 * data.episodes.observations[:, 0], rtol=1e-6)
    assert "2 of 4 cut where their goal is reached" in data.metadata["description"]
    assert ms.check(made.dataset_id, progress=False).ok
    assert ms.trim("test/goals-v0", within=0.1, progress=False).n_steps == 80
    assert ms.trim("test/goals-v0", extra=3, progress=False).n_steps == 10 + 20 + 4 + 20


def test_success_infos_count_before_distances(datasets_path, make_episodes, write_dataset):
    parts = list(make_episodes(3))
    for hit, part in zip((4, 10, None), parts, strict=True):
        success = np.zeros(11, bool)
        success[slice(hit, None) if hit is not None else slice(0, 0)] = True
        part["infos"] = {"success": success[:, None]}
    from minari_stitch.data.episodes import Episodes

    name = write_dataset(episodes=Episodes.from_list(parts))
    assert minari_io.read(ms.trim(name, progress=False).dataset_id).episodes.lengths.tolist() == [4, 10, 10]
    assert ms.select(name, success=True, progress=False).n_episodes == 2
    assert ms.select(name, success=False, progress=False).n_episodes == 1


def test_the_end_is_cut_where_nothing_moves(write_dataset, make_episodes):
    parts = [{k: np.array(v) if isinstance(v, np.ndarray) else v for k, v in p.items()} for p in make_episodes(3)]
    parts[0]["observations"][6:] = parts[0]["observations"][6]
    parts[1]["observations"][:] = 1.0
    from minari_stitch.data.episodes import Episodes

    name = write_dataset(episodes=Episodes.from_list(parts))
    assert minari_io.read(ms.trim(name, at="still", progress=False).dataset_id).episodes.lengths.tolist() == [6, 1, 10]
    with pytest.raises(ConfigError, match="neither an info 'success'"):
        ms.trim(name)
    with pytest.raises(ConfigError, match="tolerance=-1 are not possible"):
        ms.trim(name, tolerance=-1)


def test_episodes_are_selected_by_return_length_and_share(stitched):
    source = minari_io.read(toy.ID)
    returns = source.episodes.returns
    made = ms.select(toy.ID, min_return=float(np.median(returns)), progress=False)
    kept = minari_io.read(made.dataset_id).episodes.returns
    np.testing.assert_array_equal(kept, returns[returns >= np.median(returns)])
    assert ms.select(toy.ID, top=0.25, max_return=float(returns.max()) - 1e-9, progress=False).n_episodes == 3
    with pytest.raises(InvalidDataError, match="nothing is left of 'toy/walk-v0'"):
        ms.select(toy.ID, min_length=1000)
    with pytest.raises(ConfigError, match="top=2"):
        ms.select(toy.ID, top=2)


def test_a_part_of_a_stitched_dataset_stays_one(stitched):
    minari_io.annotate(toy.STITCHED, {ORACLE_KEY: {"judge": "x"}})
    made = minari_io.read(ms.select(toy.STITCHED, top=0.5, progress=False).dataset_id, keep_infos=True)
    record = made.metadata[RECORD_KEY]
    best = round(stitched["n_episodes"] / 2)
    assert record["n_episodes"] == len(made.episodes) == best and record["n_steps"] == made.episodes.n_steps
    assert record["n_synthetic"] == made.episodes.infos["synthetic"].sum() and ORACLE_KEY not in made.metadata
    assert ms.filter(made, delta=7.9).n_episodes <= best
    toy.ok("show", made.dataset_id)


def test_a_view_becomes_a_dataset(datasets_path):
    toy.write()
    view = minari.load_dataset(toy.ID).filter_episodes(lambda episode: episode.rewards.sum() > 30)
    made = ms.select(view, "toy/view-v0", progress=False)
    assert made.n_episodes == len(view) < 12


def test_reference_scores(datasets_path):
    toy.write()
    assert ms.scores(toy.ID, low=1, high=5) == (1, 5)
    assert minari.load_dataset(toy.ID).storage.metadata["ref_max_score"] == 5
    to_goals([3])
    with pytest.raises(ConfigError, match="high missing"):
        ms.scores("test/goals-v0")
    assert ms.scores("test/goals-v0", like=toy.ID, low=2) == (2, 5)
    assert ms.scores("test/goals-v0", d4rl="hopper") == pytest.approx((-20.272305, 3234.3))
    with pytest.raises(ConfigError, match="low=9 is not below high=5"):
        ms.scores(toy.ID, low=9)
    with pytest.raises(InvalidDataError, match="names no environment"):
        ms.scores("test/goals-v0", random=3)
    with pytest.raises(InvalidDataError, match="Toy-v0 cannot be made here"):
        ms.scores(toy.ID, random=3)


def test_random_actions_are_measured(datasets_path):
    import gymnasium as gym

    spec = gym.spec("Pendulum-v1")
    toy.write(limit=None)
    source = minari_io.read(toy.ID)
    minari_io.write(
        source.episodes, dataset_id="test/swing-v0", observation_space=source.observation_space,
        action_space=source.action_space, env_spec=spec,
    )  # fmt: skip
    low, _ = ms.scores("test/swing-v0", random=2, high=0, seed=1)
    assert -4000 < low < -300 and ms.scores("test/swing-v0", random=2, high=0, seed=1)[0] == low


def test_the_commands(datasets_path):
    name = to_goals([7, None])
    assert json.loads(toy.ok("trim", name, "--json").stdout)["n_steps"] == 27
    assert json.loads(toy.ok("select", name, "--success", "--json").stdout)["n_episodes"] == 1
    assert "2 episodes, 40 steps" in toy.ok("select", name, "--max-length", 20).stdout
    assert "0 to 9" in toy.ok("scores", name, "--high", 9).stdout
