"""Controls: return-weighted episodes of the source, and further ones of the same actors."""

import json

import minari
import numpy as np
import pytest
import toy

from minari_stitch.baselines.controls import Real, Resample
from minari_stitch.data import minari_io
from minari_stitch.errors import ConfigError
from minari_stitch.run import Run
from minari_stitch.sim import demo
from minari_stitch.sim.actors import ActorRecipe

RESAMPLED = "toy/walk-resampled-v0"
REAL = "demo/hopper/medium-replay-real-v0"


def read(dataset_id):
    return minari_io.read(dataset_id, download=False, keep_infos=True)


# Resample


def uneven(count=9):
    """Walks of different lengths."""
    parts = toy.walks(episodes=count)
    for index, part in enumerate(parts):
        length = 30 - 2 * index
        part |= {name: part[name][:length] for name in ("actions", "rewards", "terminations", "truncations")}
        part["observations"] = part["observations"][: length + 1]
        part["truncations"][-1] = not part["terminations"][-1]
    return parts


def drawn(n_steps, seed=0, **values):
    """Which episodes of the toy dataset are drawn."""
    dataset = minari_io.read(toy.ID)
    fitted = Resample(**values).fit(dataset, Run(directory=minari_io.datasets_path() / "none", seed=seed))
    sample = fitted.sample(n_steps)
    parts = list(sample.parts())
    assert sample.n_episodes == len(parts) and sample.n_steps == sum(len(part["rewards"]) for part in parts)
    return [part["metadata"]["source_episode"] for part in parts], sample


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1e6])
def test_episodes_are_drawn_by_their_return(temperature):
    toy.write(uneven())
    chosen, sample = drawn(200_000, temperature=temperature)
    returns = [sum(part["rewards"]) for part in uneven()]
    low, high = min(returns), max(returns)
    odds = [np.exp((value - low) / (high - low) / temperature) for value in returns]
    expected = np.array(odds) / sum(odds)
    share = np.bincount(chosen, minlength=9) / len(chosen)
    np.testing.assert_allclose(share, expected, atol=4 * np.sqrt(0.25 / len(chosen)))
    assert sample.report["mean_return"] == pytest.approx(np.mean([returns[e] for e in chosen]))
    assert sample.report["distinct_episodes"] == len(set(chosen)) and sample.report["episodes"] == len(chosen)


@pytest.mark.parametrize("n_steps", [1, 100, 3333, 60_000])
def test_no_more_episodes_than_needed_and_more_only_add(n_steps):
    toy.write(uneven())
    lengths = [len(part["rewards"]) for part in uneven()]
    chosen, sample = drawn(n_steps)
    assert sample.n_steps >= n_steps > sample.n_steps - lengths[chosen[-1]]
    more, _ = drawn(2 * n_steps)
    assert more[: len(chosen)] == chosen and len(more) >= len(chosen)
    other, _ = drawn(3333, seed=1)
    assert other[:50] != drawn(3333)[0][:50]


def test_equal_returns_are_drawn_evenly():
    toy.write([part | {"rewards": np.ones(30)} for part in toy.walks()])
    share = np.bincount(drawn(100_000)[0]) * 30 / 100_000
    np.testing.assert_allclose(share, 1 / 12, atol=0.02)


def test_what_is_written_is_the_source_and_says_so():
    parts = uneven()
    toy.write(parts)
    toy.spoil(toy.ID, episode=0)
    result = json.loads(toy.ok(*toy.other("resample", "--skip-invalid", "--steps", 500, "--json")).stdout)
    minari_io.check(RESAMPLED)
    made = read(RESAMPLED).episodes
    assert len(made) == result["n_episodes"] and made.n_steps == result["n_steps"] >= 500
    for part in made:
        number = part["metadata"]["source_episode"]
        assert part["metadata"] == {"augmented": True, "source_episode": number} and number != 0
        for name in ("observations", "actions", "rewards", "terminations", "truncations"):
            np.testing.assert_array_equal(part[name], parts[number][name])
        infos = part["infos"]
        assert not infos["synthetic"].any() and not infos["dynamics_error"].any()
        assert (infos["source_episode"] == number).all()
        assert infos["source_step"][:, 0].tolist() == list(range(len(part["rewards"]) + 1))
        togo = float((part["rewards"] * 0.99 ** np.arange(len(part["rewards"]))).sum())
        assert infos["return_to_go"][0, 0] == pytest.approx(togo)


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_impossible_temperatures_are_named(temperature):
    with pytest.raises(ConfigError, match=f"temperature={temperature} is not possible: .* greater than 0"):
        Resample(temperature=temperature)


# Real


def test_real_data_are_new_data_of_the_same_actors():
    results = [
        json.loads(toy.ok(*toy.other("real", "--steps", 300, "--seed", seed, "--json")).stdout) for seed in (0, 1)
    ]
    assert [result["dataset_id"] for result in results] == [REAL, REAL.replace("v0", "v1")]
    source, one, other = (read(name) for name in (toy.DEMO, REAL, REAL.replace("v0", "v1")))
    environments = [minari.load_dataset(each.dataset_id).env_spec for each in (source, one, other)]
    assert environments[0] == environments[1] == environments[2]
    firsts = [{tuple(row) for row in each.episodes.observations} for each in (source, one, other)]
    assert not (firsts[0] & firsts[1] or firsts[0] & firsts[2] or firsts[1] & firsts[2])
    for dataset in (one, other):
        episodes = dataset.episodes
        minari_io.check(dataset.dataset_id)
        assert episodes.n_steps == 300  # exactly
        assert not episodes.infos["synthetic"].any() and (episodes.infos["source_episode"] == -1).all()
        assert all(about == {"augmented": True, "source_episode": -1} for about in episodes.metadata)
        # Equal shares of five actors, each share cut at its end.
        assert set(np.arange(60, 301, 60)) <= set(episodes.offsets.tolist())
    assert results[0]["report"] == {
        "episodes": len(one.episodes),
        "mean_return": pytest.approx(one.episodes.returns.mean()),
    }


def test_real_chunks_are_beyond_those_of_the_source_and_of_other_seeds(monkeypatch):
    demo.ensure(toy.DEMO, n_steps=500, workers=1)
    dataset, calls = read(toy.DEMO), []
    episodes = dataset.episodes

    def rollout(recipe, **kwargs):
        calls.append(kwargs | {"recipe": recipe})
        return episodes

    monkeypatch.setattr(demo, "rollout", rollout)
    n_steps = 1_000_000  # 2,000 times the source
    for seed in range(3):
        run = Run(directory=minari_io.datasets_path() / "none", seed=seed, workers=1)
        Real().fit(dataset, run).sample(n_steps)
    chunks = [set(range(1))]
    for call in calls:
        assert call["recipe"] == demo.RECIPES[toy.DEMO] and call["seed"] == 0 and call["n_steps"] == n_steps
        chunks.append(set(range(call["first_chunk"], call["first_chunk"] + n_steps // 5 // 10_000)))
    assert sum(map(len, chunks)) == len(set().union(*chunks)) == 1 + 3 * 20


def test_what_was_made_of_demo_data_cannot_be_rolled_out_further():
    """It keeps the recipe in its metadata, but may already hold what a further rollout yields."""
    toy.ok(*toy.other("real", "--steps", 100))
    before = minari_io.local_ids()
    result = toy.invoke("augment", REAL, "--method", "real", "--steps", 100)
    assert result.exit_code == 1
    assert f"ConfigError: method real is not possible for '{REAL}': only demo datasets" in result.stderr
    assert minari_io.local_ids() == before


def test_other_actors_than_those_of_the_dataset_are_refused(monkeypatch):
    demo.ensure(toy.DEMO, n_steps=100, workers=1)
    recipe = ActorRecipe(dataset_id=toy.DEMO, env="hopper", actors=(0,))
    monkeypatch.setitem(demo.RECIPES, toy.DEMO, recipe)
    with pytest.raises(ConfigError, match="compare with method resample instead"):
        Real().fit(read(toy.DEMO), Run(directory=minari_io.datasets_path() / "none"))
