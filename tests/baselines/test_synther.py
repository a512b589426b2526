"""SynthER: rows that whiten and come back, and one-step episodes made of them."""

import dataclasses
import json

import linear
import minari
import numpy as np
import pytest
import torch
import toy

from minari_stitch.baselines import edm
from minari_stitch.baselines.synther import Rows, SynthER, SynthERJob
from minari_stitch.data import minari_io
from minari_stitch.errors import ConfigError
from minari_stitch.learn.loop import save_atomically
from minari_stitch.learn.scales import Scales
from minari_stitch.run import Run

SER = "toy/walk-ser-v0"
LOW, HIGH = linear.LOW, linear.HIGH


def rows_of(episodes, whitening):
    scales = Scales.of(episodes, LOW, HIGH)
    return Rows(episodes, scales, whitening), scales


@pytest.fixture
def noisy(make_episodes):
    """Random walks, in which no column follows from others."""
    return make_episodes(n_episodes=8, length=40)


@pytest.mark.parametrize("whitening", ["columns", "full"])
def test_rows_come_back_as_transitions(noisy, whitening):
    rows, scales = rows_of(noisy, whitening)
    assert rows.rows.shape == (noisy.n_steps, rows.width) and rows.width == 3 + 2 + 1 + 3 + 1
    z, u, reward, z_next, terminal = rows.split(rows.rows)
    state = noisy.step_state
    np.testing.assert_allclose(scales.state.decode(z), noisy.observations[state], atol=1e-4)
    np.testing.assert_allclose(scales.action.decode(u), noisy.actions, atol=1e-5)
    np.testing.assert_allclose(scales.reward.decode(reward)[:, 0], noisy.rewards, atol=1e-4)
    np.testing.assert_allclose(scales.state.decode(z_next), noisy.observations[state + 1], atol=1e-4)
    np.testing.assert_allclose(terminal[:, 0], noisy.terminations, atol=1e-5)
    assert 0 < noisy.terminations.sum() < len(noisy)


def test_full_whitening_leaves_no_covariance(noisy):
    rows = rows_of(noisy, "full")[0].rows.double().numpy()
    np.testing.assert_allclose(rows.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(np.cov(rows.T), np.eye(rows.shape[1]), atol=1e-3)


def test_whitened_columns_have_unit_variance_and_stay_columns(noisy):
    rows, scales = rows_of(noisy, "columns")
    whitened = rows.rows.double().numpy()
    np.testing.assert_allclose(whitened.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(whitened.var(0), 1, atol=1e-3)
    table = np.concatenate([part.numpy() for part in rows.split(rows.rows)], 1)
    correlation = np.abs(np.corrcoef(whitened.T, table.T)[: rows.width, rows.width :])
    # Up to their order, which does not matter, each is one of the columns.
    assert sorted(correlation.argmax(1)) == list(range(rows.width))
    np.testing.assert_allclose(correlation.max(1), 1, atol=1e-4)


@pytest.mark.parametrize("whitening", ["columns", "full"])
def test_what_does_not_vary_survives(noisy, whitening):
    """A constant column, and one that follows from another: nothing is blown up, and both come back."""
    observations = noisy.observations.copy()
    observations[:, 1], observations[:, 2] = 4.0, 1.0 - 2.0 * observations[:, 0]
    episodes = dataclasses.replace(noisy, observations=observations)
    rows, scales = rows_of(episodes, whitening)
    assert rows.rows.isfinite().all() and rows.rows.abs().max() < 100
    z, _, _, z_next, _ = rows.split(rows.rows)
    for part, shift in ((z, 0), (z_next, 1)):
        np.testing.assert_allclose(scales.state.decode(part), observations[episodes.step_state + shift], atol=1e-3)
    # Noise in the directions without variance is as small as the source's rounding makes them, and not larger.
    if whitening == "full":
        variance = np.linalg.eigvalsh(np.cov(rows.rows.double().numpy().T))
        assert (variance < 1e-4).sum() == 4 and np.allclose(variance[4:], 1, atol=1e-2)


def test_without_terminations_there_is_no_such_column(noisy):
    none = np.zeros(noisy.n_steps, bool)
    rows, _ = rows_of(dataclasses.replace(noisy, terminations=none), "full")
    assert rows.width == 9 and len(rows.split(rows.rows)) == 4


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hidden": 0}, "hidden=0 is not possible: .* greater than or equal to 1"),
        ({"blocks": 0}, "blocks=0"),
        ({"sampler_steps": 1}, "sampler_steps=1 is not possible: .* greater than or equal to 2"),
        ({"chunk": 0}, "chunk=0"),
    ],
)
def test_impossible_settings_are_named(values, message):
    with pytest.raises(ConfigError, match=message):
        SynthER(**values)


# What is written


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A datasets folder with the toy dataset and what SynthER makes of it, and what the command printed."""
    path = tmp_path_factory.mktemp("synther") / "datasets"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(path))
        toy.write()
        return path, json.loads(toy.ok(*toy.other("synther", "--steps", 200, "--json")).stdout)


@pytest.fixture
def made(run, monkeypatch):
    """The same for reading alone."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(run[0]))
    return run[1]


def test_each_episode_is_one_generated_step(made):
    assert made["dataset_id"] == SER and made["n_episodes"] == made["n_steps"] == 200
    minari_io.check(SER)
    dataset = minari_io.read(SER, keep_infos=True)
    episodes, source = dataset.episodes, minari_io.read(toy.ID)
    assert (episodes.lengths == 1).all() and episodes.n_steps == 200
    assert (episodes.terminations ^ episodes.truncations).all()
    assert 0 < episodes.terminations.sum() == made["report"]["ends"]["terminated"] < 200
    assert made["report"]["lengths"] == {"0": 0, "1": 200} and made["report"]["ends"]["uncertain"] == 0
    for name in ("source_episode", "source_step"):
        assert (episodes.infos[name] == -1).all()
        assert all(about[name] == -1 for about in episodes.metadata)
    assert (episodes.infos["synthetic"][:, 0].reshape(-1, 2) == [True, False]).all()
    assert (episodes.infos["dynamics_error"][::2] > 0).all()
    for name in ("observations", "actions", "rewards"):
        assert getattr(episodes, name).dtype == getattr(source.episodes, name).dtype
    assert minari.load_dataset(SER).env_spec == minari.load_dataset(toy.ID).env_spec


def test_all_of_them_are_different_and_chunks_too(made):
    states = minari_io.read(SER).episodes.observations[::2]
    assert len(states) > 3 * 64  # of several chunks
    assert len(np.unique(states, axis=0)) == len(states)


@pytest.mark.parametrize("whitening", ["columns", "full"])
def test_what_a_perfect_model_samples_is_the_source(monkeypatch, whitening):
    """With the source's own rows in place of samples, its transitions are written; ends may be unsure of themselves."""
    toy.write()

    def perfect(net, shape, steps, config, generator):
        assert steps == 4 and shape[0] == 64
        rows = jobs[0].rows
        assert shape == (64, rows.width)
        *columns, terminal = rows.split(rows.rows[250:314])
        return (torch.cat([*columns, 0.4 + 0.2 * terminal], 1) - rows.maps[0]) @ rows.maps[1]

    def remember(job, chunk):
        jobs.append(job)
        return make(job, chunk)

    jobs, make = [], SynthERJob.make
    monkeypatch.setattr(edm, "draw_rows", perfect)
    monkeypatch.setattr(SynthERJob, "make", remember)
    toy.ok(*toy.other("synther", "--steps", 64, "--set", f"whitening={whitening}"))
    source, result = (minari_io.read(name).episodes for name in (toy.ID, SER))
    steps = np.arange(250, 314)
    state = source.step_state[steps]
    np.testing.assert_allclose(result.observations[::2], source.observations[state], atol=1e-4)
    np.testing.assert_allclose(result.observations[1::2], source.observations[state + 1], atol=1e-4)
    np.testing.assert_allclose(result.actions, source.actions[steps], atol=1e-5)
    np.testing.assert_allclose(result.rewards, source.rewards[steps], atol=1e-4)
    np.testing.assert_array_equal(result.terminations, source.terminations[steps])
    assert result.terminations.sum() == 1


def test_every_seed_and_chunk_draws_noise_of_its_own(monkeypatch):
    toy.write()
    seeds = []

    def none(net, shape, steps, config, generator):
        seeds.append(generator.initial_seed())
        return torch.zeros(shape)

    monkeypatch.setattr(edm, "draw_rows", none)
    for seed in range(2):
        toy.ok(*toy.other("synther", "--steps", 128, "--seed", seed))
    assert len(seeds) == len(set(seeds)) == 4


def test_the_model_learns_the_source():
    """A little longer training, and states, actions and rewards are spread as in the source."""
    toy.write(toy.walks(episodes=40))
    settings = {"train.steps": 600, "train.batch_size": 256, "hidden": 64, "sampler_steps": 16, "chunk": 1024}
    words = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    toy.ok(*toy.other("synther", "--steps", 500, *words))
    source, result = (minari_io.read(name).episodes for name in (toy.ID, SER))
    tables = [
        np.concatenate([e.observations[e.step_state], e.observations[e.step_state + 1], e.rewards[:, None]], 1)
        for e in (source, result)
    ]
    scale = tables[0].std(0)
    np.testing.assert_allclose(tables[1].mean(0) / scale, tables[0].mean(0) / scale, atol=0.25)
    np.testing.assert_allclose(tables[1].std(0) / scale, 1, atol=0.25)
    # A reward that follows from the next state does so here too, which no independent draw of columns would give.
    assert np.corrcoef(tables[1][:, 3], tables[1][:, 6])[0, 1] > 0.9


def test_networks_keep_their_frequencies():
    """The random features of the noise level are drawn once and are part of the weights."""
    toy.write()
    toy.ok(*toy.other("synther", "--steps", 10))
    (path,) = minari_io.datasets_path().glob(".stitch-runs/*/models-*/denoiser.pt")
    weights = torch.load(path, weights_only=True)["weights"]
    assert weights["frequencies"].std() == pytest.approx(2 * np.pi, rel=0.5)


def test_axes_are_those_of_training(tmp_path):
    """Another linear-algebra library may turn an axis round: what was trained is kept with the network."""
    toy.write()
    source = minari_io.read(toy.ID)
    job, later = (SynthERJob.of(SynthER(), source, Run(directory=tmp_path), trained=[], sampled=[]) for _ in range(2))
    first = job.rows
    mean, encode, decode = first.maps
    save_atomically((mean, -encode, -decode), job.network("whitening"))
    again = later.rows
    torch.testing.assert_close(again.maps[1], -encode)
    for ours, theirs in zip(again.split(-first.rows), first.split(first.rows), strict=True):
        torch.testing.assert_close(ours, theirs)
