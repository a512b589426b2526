"""TATU: its parts against slow ones, and its rollouts in a world that is known."""

import json

import linear
import numpy as np
import pytest
import torch
import toy
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence

from minari_stitch.baselines import tatu
from minari_stitch.baselines.rollouts import End
from minari_stitch.baselines.tatu import (
    TATU,
    Policy,
    TATUJob,
    accumulate,
    gaussians,
    likelihood_loss,
    truncate,
    uncertainty,
)
from minari_stitch.data import minari_io
from minari_stitch.errors import ConfigError
from minari_stitch.learn.judging import JudgeConfig
from minari_stitch.learn.loop import save_atomically
from minari_stitch.learn.nets import MLP

MADE = "toy/walk-tatu-v0"


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def ensemble(members=3):
    """Of 3 states and 2 actions, with outputs large enough to reach both bounds of the log-variance."""
    net = MLP(5, 8, hidden=8, layers=2, members=members, generator=seeded())
    with torch.no_grad():
        net.weights[-1].mul_(100)
    return net


# Its parts


def test_the_log_variance_is_bounded_softly():
    net, (z, u) = ensemble(), (torch.randn(50, 3, generator=seeded(1)), torch.randn(50, 2, generator=seeded(2)))
    mean, log_variance = gaussians(net, z, u)
    raw = net(torch.cat([z, u], -1))
    assert mean.shape == log_variance.shape == (3, 50, 4) and torch.equal(mean, raw[..., :4])
    # As in PETS: an upper bound, then a lower one.
    upper = 0.5 - torch.log1p(torch.exp(0.5 - raw[..., 4:].double()))
    lower = -10 + torch.log1p(torch.exp(upper + 10))
    torch.testing.assert_close(log_variance.double(), lower, rtol=1e-4, atol=1e-4)
    assert log_variance.min() < -8 and log_variance.max() > 0
    assert log_variance.min() > -10.001 and log_variance.max() < 0.501


def test_the_likelihood_is_that_of_torch_up_to_its_constant():
    generator = seeded(3)
    z, u, targets = (torch.randn(3, 20, size, generator=generator) for size in (3, 2, 4))
    net = ensemble()
    mean, log_variance = gaussians(net, z, u)
    expected = -Normal(mean, (log_variance / 2).exp()).log_prob(targets).mean()
    # Twice the negative log-likelihood, without ln(2 pi).
    assert likelihood_loss(net, z, u, targets).item() == pytest.approx(
        2 * expected.item() - np.log(2 * np.pi), rel=1e-4
    )


def test_uncertainty_is_the_largest_norm_over_members():
    log_variance, scale = torch.randn(3, 6, 4, generator=seeded()), torch.tensor([0.5, 1.0, 2.0, 10.0])
    for row, value in enumerate(uncertainty(log_variance, scale).tolist()):
        norms = []
        for member in range(3):
            deviations = [np.sqrt(np.exp(v)) for v in log_variance[member, row].tolist()]
            norms.append(np.sqrt(sum((d * c) ** 2 for d, c in zip(deviations, scale.tolist(), strict=True))))
        assert value == pytest.approx(max(norms), rel=1e-5)


@pytest.mark.parametrize("discount", [1.0, 0.99, 0.5])
def test_uncertainty_accumulates_with_a_discount(discount):
    steps = torch.rand(4, 6, generator=seeded())
    total = accumulate(steps, discount)
    for row in range(4):
        running = 0.0
        for t in range(6):
            running += discount**t * steps[row, t].item()
            assert total[row, t].item() == pytest.approx(running, rel=1e-5)


def slow_truncation(totals, threshold, ended):
    """One rollout, step by step: what is taken, until something stops it."""
    steps = 0
    for total, end in zip(totals, ended, strict=True):
        if not total <= threshold:
            return steps, End.UNCERTAIN
        steps += 1
        if end:
            return steps, End.TERMINATED
    return steps, End.COMPLETE


@settings(max_examples=100, deadline=None)
@given(data=st.data(), horizon=st.integers(1, 6), threshold=st.floats(0.125, 5, width=32))
def test_rollouts_are_cut_where_a_slow_loop_cuts_them(data, horizon, threshold):
    row = st.lists(st.floats(0, 2) | st.just(float("nan")), min_size=horizon, max_size=horizon)
    doubts = data.draw(st.lists(row, min_size=1, max_size=8))
    total = accumulate(torch.tensor(doubts), 0.9)
    flags = st.lists(st.sampled_from([False, False, False, True]), min_size=horizon, max_size=horizon)
    ended = data.draw(st.lists(flags, min_size=len(doubts), max_size=len(doubts)))
    length, end = truncate(total, threshold, torch.tensor(ended))
    expected = [slow_truncation(t, threshold, e) for t, e in zip(total.tolist(), ended, strict=True)]
    assert list(zip(length.tolist(), end.tolist(), strict=True)) == expected


def test_the_threshold_itself_is_allowed():
    length, end = truncate(torch.tensor([[1.0, 2.0, 3.0]]), 2.0, torch.zeros(1, 3, dtype=torch.bool))
    assert length.tolist() == [2] and end.tolist() == [End.UNCERTAIN]


# The policy


def policy(seed=0):
    return Policy(3, 2, 16, seeded(seed))


def test_the_policy_loss_is_that_of_bcq():
    net, z, u = policy(), torch.randn(40, 3, generator=seeded(1)), torch.rand(40, 2, generator=seeded(2)) * 2 - 1
    mean, log_std = net.encoder(torch.cat([z, u], -1))[0].chunk(2, -1)
    code = mean + log_std.exp() * torch.randn(40, 4, generator=seeded(3))
    error = ((net.decode(z, code) - u) ** 2).mean()
    divergence = kl_divergence(Normal(mean, log_std.exp()), Normal(0.0, 1.0)).mean()
    assert net.loss(z, u, seeded(3)).item() == pytest.approx((error + divergence / 2).item(), rel=1e-5)
    assert divergence > 1e-3


def test_the_policy_learns_all_its_weights_and_to_imitate():
    net, z, u = policy(), torch.randn(256, 3, generator=seeded(1)), torch.randn(256, 2, generator=seeded(2))
    u = torch.tanh(z[:, :2] + 0.1 * u)
    before = net.loss(z, u, seeded(3))
    before.backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in net.parameters())
    optimizer, generator = torch.optim.Adam(net.parameters(), lr=1e-2), seeded(4)
    for _ in range(150):
        optimizer.zero_grad()
        net.loss(z, u, generator).backward()
        optimizer.step()
    assert net.loss(z, u, seeded(3)) < before / 4
    assert np.corrcoef(net.decode(z, torch.zeros(256, 4)).detach()[:, 0], u[:, 0])[0, 1] > 0.95


def test_actions_lie_in_their_box_and_depend_on_state_and_code():
    net, z, code = policy(), torch.randn(30, 3, generator=seeded(1)), torch.randn(30, 4, generator=seeded(2))
    u = net.decode(z * 100, code)
    assert u.shape == (30, 2) and (u.abs() <= 1).all() and u.abs().max() > 0.9
    assert not torch.equal(net.decode(z, code), net.decode(z + 1, code))
    assert not torch.equal(net.decode(z, code), net.decode(z, code + 1))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"horizon": 0}, "horizon=0 is not possible: .* greater than or equal to 1"),
        ({"hidden": 0}, "hidden=0"),
        ({"chunk": 0}, "chunk=0"),
        ({"elites": 8}, "elites=8 is not possible: use 1 to members=7"),
        ({"elites": 0}, "elites=0"),
        ({"strictness": 0.0}, "strictness=0.0"),
        ({"pessimism": -1.0}, "pessimism=-1.0"),
    ],
)
def test_impossible_settings_are_named(values, message):
    with pytest.raises(ConfigError, match=message):
        TATU(**values)


# Rollouts in the linear world, with networks that know it

OFFSETS = (0.0, 5.0, 40.0)  # of the members' predictions, in units of a step's change
NOISE = np.exp(-5)  # the least standard deviation, in the same units


class Spy(Policy):
    """Remembers the codes."""

    def __init__(self):
        super().__init__(3, 2, 16, seeded())
        self.codes = []

    def decode(self, z, code):
        self.codes.append(code)
        return super().decode(z, code)


def make_job(folder, transform, data, seed=0):
    arrays = folder / f"source-{data.fingerprint()}"
    for path in (arrays, folder / "networks", folder / "chunks"):
        path.mkdir(parents=True)
    data.save(arrays)
    return TATUJob(
        transform=transform,
        arrays=arrays,
        networks=folder / "networks",
        chunks=folder / "chunks",
        seed=seed,
        device="cpu",
        autocast=None,
        limit=None,
        low=tuple(linear.LOW),
        high=tuple(linear.HIGH),
        widths=(data.observations.shape[1], data.actions.shape[1]),
    )


DATA = linear.episodes((14, 9, 20, 12), dtype=np.float32)
JUDGES = JudgeConfig(hidden=16, dynamics=linear.FIT, termination=linear.FIT)
SETTINGS = {"horizon": 6, "members": 3, "elites": 2, "chunk": 200, "judges": JUDGES, "discount": 0.9}


@pytest.fixture
def roll(tmp_path, monkeypatch):
    """A function that rolls out with settings; returns the rollouts, the job, and the policy used."""

    def roll(largest=np.inf, order=(0, 1, 2), seed=0, chunk=0, **values):
        job = make_job(tmp_path / str(len(list(tmp_path.iterdir()))), TATU(**SETTINGS | values), DATA, seed)
        models = linear.exact(DATA)
        s = models.scales
        mean, std, change = (x.double().numpy() for x in (s.state.shift, s.state.scale, s.change))
        middle, half = s.action.shift.double().numpy(), s.action.scale.double().numpy()

        def outcome(zu):
            states, actions = zu[:, :3] * std + mean, zu[:, 3:] * half + middle
            moved = (linear.next_state(states, actions) - states) / std / change
            reward = (linear.reward(states, actions)[:, None] - s.reward.shift.numpy()) / s.reward.scale.numpy()
            return np.concatenate([moved, reward, np.full((len(zu), 4), -200.0)], 1)

        nets = linear.affine(outcome, 5, 8, OFFSETS), Spy(), models.dynamics_net, models.termination_net
        vars(job)["nets"] = nets
        save_atomically({"order": torch.tensor(order), "largest": float(largest)}, job.network("limits"))
        with torch.no_grad():
            return job.make(chunk), s, nets[1]

    return roll


def residuals(batch, scales):
    """What states and rewards are off the world's law, in units of the source's change and reward."""
    states, actions = batch.states.astype(float), batch.actions.astype(float)
    units = (scales.change * scales.state.scale).double().numpy()
    moved = (states[:, 1:] - linear.next_state(states[:, :-1], actions)) / units
    reward = (batch.rewards - linear.reward(states[:, :-1], actions)) / scales.reward.scale.item()
    return np.concatenate([moved, reward[..., None]], -1)


def test_rollouts_follow_a_random_elite_and_its_noise(roll):
    batch, s, _ = roll(pessimism=0.0)
    assert len(batch) == 200 and batch.states.shape == (200, 7, 3)
    off = residuals(batch, s)
    kept = np.arange(6) < batch.length[:, None]
    assert kept.sum() > 300
    # The third member is no elite, the other two take turns.
    member = np.abs(off.mean(-1)[..., None] - np.array(OFFSETS)).argmin(-1)
    assert set(member[kept]) == {0, 1} and 0.4 < member[kept].mean() < 0.6
    assert (member[batch.length > 1, 0] != member[batch.length > 1, 1]).mean() > 0.3
    noise = (off - np.array(OFFSETS)[member][..., None])[kept] / NOISE
    assert noise.std() == pytest.approx(1, rel=0.1) and abs(noise.mean()) < 0.1


def test_other_elites_are_those_that_came_first(roll):
    off = residuals(*roll(order=(2, 0, 1), pessimism=0.0, elites=1)[:2])
    assert np.abs(off[:, 0] - 40).max() < 0.1


def test_rollouts_begin_at_any_step_of_the_source(roll):
    batch, _, _ = roll()
    assert set(batch.source) <= set(DATA.step_state) and len(set(batch.source)) > 45
    np.testing.assert_allclose(batch.states[:, 0], DATA.observations[batch.source], atol=1e-4)


def test_every_seed_and_chunk_draws_rollouts_of_its_own(roll):
    batches = [roll(seed=seed, chunk=chunk)[0] for seed in range(2) for chunk in range(2)]
    assert len({batch.source.tobytes() for batch in batches}) == 4
    np.testing.assert_array_equal(roll(seed=1, chunk=1)[0].states, batches[3].states)


def test_an_end_is_where_the_classifier_sees_one(roll):
    batch, s, _ = roll()
    z = (batch.states - s.state.shift.numpy()) / s.state.scale.numpy()
    beyond = z[:, 1:, 0] > 2
    for row in range(200):
        where = np.flatnonzero(beyond[row])
        assert batch.length[row] == (where[0] + 1 if len(where) else 6)
        assert batch.end[row] == (End.TERMINATED if len(where) else End.COMPLETE)
    assert 20 < (batch.end == End.TERMINATED).sum() < 200


@pytest.mark.parametrize("allowed", [0, 1, 3])
def test_rollouts_end_before_the_step_that_is_too_uncertain(roll, allowed):
    _, s, _ = roll()
    doubt = NOISE * np.sqrt(((s.change * s.state.scale).numpy() ** 2).sum() + s.reward.scale.item() ** 2)
    sums = np.cumsum([0, *(doubt * 0.9**t for t in range(6))])
    threshold = (sums[allowed] + sums[allowed + 1]) / 2
    batch, _, _ = roll(largest=threshold * 4, strictness=4.0)
    beyond = ((batch.states - s.state.shift.numpy()) / s.state.scale.numpy())[:, 1:, 0] > 2
    ended = beyond[:, :allowed].any(1)
    assert (batch.length[~ended] == allowed).all() and (batch.end[~ended] == End.UNCERTAIN).all()
    assert (batch.end[ended] == End.TERMINATED).all()
    assert (batch.errors[~ended, allowed:] == 0).all()


def test_pessimism_lowers_rewards_by_the_uncertainty(roll):
    plain, s, _ = roll(pessimism=0.0)
    careful, _, _ = roll(pessimism=100.0)
    doubt = NOISE * np.sqrt(((s.change * s.state.scale).numpy() ** 2).sum() + s.reward.scale.item() ** 2)
    np.testing.assert_array_equal(plain.states, careful.states)
    np.testing.assert_allclose(plain.rewards - careful.rewards, 100 * doubt, rtol=1e-3)


def test_codes_are_drawn_from_the_middle(roll):
    _, _, spy = roll()
    codes = torch.stack(spy.codes)
    assert codes.shape == (6, 200, 4) and codes.abs().max() == 0.5
    assert (codes.abs() == 0.5).float().mean().item() == pytest.approx(2 * 0.3085, abs=0.03)


def test_judges_see_what_no_elite_knows(roll):
    batch, s, _ = roll()
    off = residuals(batch, s)[..., :3] * s.change.numpy()
    expected = np.where(np.arange(6) < batch.length[:, None], (off**2).sum(-1), 0)
    np.testing.assert_allclose(batch.errors, expected, rtol=1e-2, atol=1e-3)


def test_networks_are_trained_on_transitions_of_the_source(tmp_path, monkeypatch):
    """What the losses are given obeys the world's law, in the units in which it is said to be."""
    fits = {"ensemble": linear.FIT, "policy": linear.FIT, "hidden": 16}
    jobs = [make_job(tmp_path / str(seed), TATU(**SETTINGS, **fits), DATA, seed) for seed in range(2)]
    seen = {"ensemble": [], "policy": []}

    def spy(name, loss):
        def record(net, *inputs):
            seen[name].append(inputs)
            return loss(net, *inputs)

        return record

    monkeypatch.setattr(tatu, "likelihood_loss", spy("ensemble", likelihood_loss))
    monkeypatch.setattr(Policy, "loss", spy("policy", Policy.loss))
    weights = []
    for job in jobs:
        for name in seen:
            job.train(name, None)
            weights.append(torch.load(job.network(name), weights_only=True)["weights"])
    s = jobs[0].scales
    known = torch.cat([s.state.encode(torch.tensor(DATA.observations[DATA.step_state])),
                       s.action.encode(torch.tensor(DATA.actions))], 1)  # fmt: skip
    for calls in seen.values():
        for z, u, *_ in calls:
            pairs = torch.cat([z, u], -1).reshape(-1, 5)
            assert torch.cdist(pairs, known).amin(1).max() < 1e-2
    for z, u, targets in seen["ensemble"]:
        states, actions = s.state.decode(z).double().numpy(), s.action.decode(u).double().numpy()
        moved = (linear.next_state(states, actions) - states) / (s.change * s.state.scale).numpy()
        reward = (linear.reward(states, actions) - s.reward.shift.item()) / s.reward.scale.item()
        np.testing.assert_allclose(targets, np.concatenate([moved, reward[..., None]], -1), atol=1e-3)
    batches = [seen["ensemble"][0][0][member] for member in range(3)]  # each member has batches of its own
    assert not torch.equal(batches[0], batches[1]) and not torch.equal(batches[1], batches[2])
    # Another seed draws other weights and other batches.
    assert all(not torch.equal(weights[0][name], weights[2][name]) for name in weights[0])
    half = len(seen["policy"]) // 2
    assert not torch.equal(seen["policy"][0][0], seen["policy"][half][0])


def test_limits_are_those_of_slow_loops(tmp_path, monkeypatch):
    monkeypatch.setattr(tatu, "_BATCH", 2)
    job = make_job(tmp_path / "job", TATU(**SETTINGS | {"members": 7}, hidden=16), DATA)
    net = job._ensemble(seeded(5))
    save_atomically({"weights": net.state_dict()}, job.network("ensemble"))
    job.measure()
    limits = torch.load(job.network("limits"), weights_only=True)
    tables, episodes, s = job.tables, job.episodes, job.scales
    errors, largest = np.zeros(7), 0.0
    units = [*(s.change * s.state.scale).tolist(), s.reward.scale.item()]
    for step in range(episodes.n_steps):
        row = episodes.step_state[step]
        z, z_next = (s.state.encode(torch.tensor(episodes.observations[at]))[None] for at in (row, row + 1))
        u = s.action.encode(torch.tensor(episodes.actions[step]))[None]
        mean, log_variance = gaussians(net, z, u)
        target = [*((z_next - z) / s.change)[0].tolist(), s.reward.encode(torch.tensor(episodes.rewards[step])).item()]
        for member in range(7):
            deviations = np.exp(log_variance[member, 0].detach().numpy() / 2) * units
            largest = max(largest, np.sqrt((deviations**2).sum()))
            if step in tables.held.tolist():
                errors[member] += ((mean[member, 0].detach().numpy() - target) ** 2).sum()
    assert limits["order"].tolist() == np.argsort(errors).tolist() != list(range(7))
    assert limits["largest"] == pytest.approx(largest, rel=1e-4)


# What is written


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A datasets folder with the toy dataset and what TATU makes of it, and what the command printed."""
    path = tmp_path_factory.mktemp("tatu") / "datasets"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(path))
        toy.write()
        words = ["--set", "ensemble.steps=150", "--set", "strictness=0.5", "--json"]
        return path, json.loads(toy.ok(*toy.other("tatu", *words)).stdout)


def test_episodes_are_short_and_begin_in_the_source(run, monkeypatch):
    path, result = run
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(path))
    minari_io.check(MADE)
    source, made = (minari_io.read(name, keep_infos=True).episodes for name in (toy.ID, MADE))
    report = result["report"]
    assert made.n_steps == result["n_steps"] >= 360 and len(made) == result["n_episodes"]
    assert made.lengths.min() >= 1 and made.lengths.max() == 4
    counts = {str(n): int((made.lengths == n).sum()) for n in range(1, 5)}
    assert counts == {n: count for n, count in report["lengths"].items() if n != "0"}
    assert sum(report["ends"].values()) == report["rollouts"] == len(made) + report["lengths"]["0"]
    assert made.terminations.sum() <= report["ends"]["terminated"]
    assert report["ends"]["uncertain"] > report["ends"]["complete"] > 0
    origins = set()
    for part in made:
        about, infos = part["metadata"], part["infos"]
        real = source.episode(about["source_episode"])
        np.testing.assert_allclose(part["observations"][0], real["observations"][about["source_step"]], atol=1e-5)
        assert (part["terminations"] | part["truncations"]).tolist() == [False] * (len(part["rewards"]) - 1) + [True]
        assert (infos["source_episode"][1:] == -1).all() and (infos["source_step"][1:] == -1).all()
        origins.add((about["source_episode"], about["source_step"]))
    assert len(origins) > 0.7 * len(made) and max(step for _, step in origins) < 30


def test_a_threshold_that_nothing_passes_ends_the_run(run, monkeypatch):
    path, _ = run
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(path))
    before = minari_io.local_ids()
    result = toy.invoke(*toy.other("tatu", "--set", "strictness=1e9"))
    assert result.exit_code == 1
    assert "LowAcceptanceError: only 0 of 512 rollouts of TATU" in result.stderr and "strictness" in result.stderr
    assert minari_io.local_ids() == before


def test_without_terminations_nothing_predicts_them():
    toy.write(toy.walks(terminate=0))
    result = json.loads(toy.ok(*toy.other("tatu", "--steps", 50, "--json")).stdout)
    networks = {path.name for path in minari_io.datasets_path().glob(".stitch-runs/*/models-*/*.pt")}
    assert networks == {"ensemble.pt", "policy.pt", "dynamics.pt", "limits.pt"}
    assert result["report"]["ends"]["terminated"] == 0
    assert not minari_io.read(MADE).episodes.terminations.any()
