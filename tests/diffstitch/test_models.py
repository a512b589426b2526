import dataclasses

import numpy as np
import pytest
import torch
from linear import FIT, HIGH, LOW, TINY, episodes, exact, inverse, next_state, reward, scales

from minari_stitch.data.episodes import Episodes
from minari_stitch.diffstitch.diffusion import Schedule
from minari_stitch.diffstitch.models import NETWORKS, build, load_models
from minari_stitch.diffstitch.training import WindowTables, perceptron_loss, train_network
from minari_stitch.learn.loop import FitConfig
from minari_stitch.learn.normalize import Affine, Cdf
from minari_stitch.learn.scales import Scales

DIFFUSION = TINY.diffusion


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def source():
    return episodes()


def tables(source, config=TINY, discount=0.9, seed=0):
    return WindowTables(source, scales(source, config), config.diffusion, discount, seed)


def with_diffusion(**kwargs):
    return dataclasses.replace(TINY, diffusion=dataclasses.replace(DIFFUSION, **kwargs))


# Scales.


def test_actions_are_scaled_by_the_bounds_of_their_space(source):
    action = scales(source).action
    corners = torch.tensor(np.stack([LOW, HIGH, (LOW + HIGH) / 2]), dtype=torch.float32)
    torch.testing.assert_close(action.encode(corners), torch.tensor([[-1.0, -1], [1, 1], [0, 0]]))
    unbounded = Scales.of(source, np.full(2, -np.inf), HIGH).action
    z = unbounded.encode(torch.tensor(source.actions))
    torch.testing.assert_close(z.amin(0), -torch.ones(2))
    torch.testing.assert_close(z.amax(0), torch.ones(2))


def test_the_change_is_that_of_steps_and_never_crosses_episodes(source):
    changes = np.concatenate([np.diff(part["observations"], axis=0) for part in source])
    expected = changes.std(0) / source.observations.std(0)
    np.testing.assert_allclose(scales(source).change, expected, rtol=1e-5)


def test_a_column_that_never_changes_has_change_one():
    parts = [dict(part) for part in episodes()]
    for e, part in enumerate(parts):
        part["observations"] = np.column_stack([part["observations"], np.full(len(part["observations"]), e)])
    assert scales(Episodes.from_list(parts)).change[3] == 1


@pytest.mark.parametrize(("kind", "expected"), [("standard", Affine), ("minmax", Affine), ("cdf", Cdf)])
def test_bounds_hold_all_states(source, kind, expected):
    s = scales(source, with_diffusion(normalizer=kind))
    assert isinstance(s.window, expected) and isinstance(s.state, Affine)
    raw = torch.tensor(source.observations, dtype=torch.float32)
    for z, (low, high) in ((s.state.encode(raw), (s.low, s.high)), (s.window.encode(raw), s.window_bounds())):
        torch.testing.assert_close(z.amin(0), low, rtol=0, atol=2e-3)
        torch.testing.assert_close(z.amax(0), high, rtol=0, atol=2e-3)


def test_scales_move_to_a_device_whole(source):
    moved = scales(source).to("meta")
    assert moved.low.device == moved.change.device == moved.action.scale.device == torch.device("meta")


# What the perceptrons are asked.


def test_exact_networks_have_no_loss(source):
    """Whatever is misaligned by a step, or scaled otherwise, would show."""
    models, table = exact(source), tables(source)
    steps = torch.arange(source.n_steps)[None].expand(4, -1)
    assert perceptron_loss("dynamics", table)(models.dynamics_net, steps, seeded()) < 1e-8
    assert perceptron_loss("inverse", table)(models.inverse_net, steps[:1], seeded()) < 1e-8
    assert perceptron_loss("reward", table)(models.reward_net, steps[:1], seeded()) < 1e-8


def test_each_member_has_a_batch_of_its_own(source):
    table, steps = tables(source), torch.arange(8).reshape(4, 2)
    seen = []

    def net(x):
        seen.append(x)
        return torch.zeros(4, 2, 3)

    perceptron_loss("dynamics", table)(net, steps, seeded())
    for member in range(4):
        for i, step in enumerate(steps[member]):
            row = source.step_state[step]
            z = scales(source).state.encode(torch.tensor(source.observations[row]).float())
            torch.testing.assert_close(seen[0][member, i, :3], z)


def test_terminations_are_learned_from_the_state_arrived_at(source):
    table, models = tables(source), exact(source)
    steps = torch.arange(source.n_steps)[None]
    assert source.terminations.any()
    expected = []
    z = scales(source).state.encode(torch.tensor(source.observations, dtype=torch.float32))
    for step in range(source.n_steps):
        p = torch.sigmoid(3 * z[source.step_state[step] + 1, 0] - 6).item()
        expected.append(-np.log(p if source.terminations[step] else 1 - p))
    loss = perceptron_loss("termination", table)(models.termination_net, steps, seeded())
    assert loss.item() == pytest.approx(np.mean(expected), rel=1e-4)


# What the diffusion model is asked.


class Spy(torch.nn.Module):
    """A network that keeps what it was called with and predicts a constant."""

    def forward(self, *inputs):
        self.inputs = inputs
        return torch.full_like(inputs[0], 0.25)


@pytest.mark.parametrize("normalizer", ["standard", "minmax"])
@pytest.mark.parametrize("context", [1, 3])
@pytest.mark.parametrize("mask", ["inference", "paper"])
def test_windows_are_cut_from_one_episode(source, normalizer, context, mask):
    config = with_diffusion(normalizer=normalizer, context=context, mask=mask, edge_weight=3.0)
    table, spy, schedule = tables(source, config), Spy(), Schedule.cosine(20, "x0")
    loss = table.loss(spy, torch.arange(source.n_steps), schedule, seeded(1))
    noised, masked, known, valid, k = spy.inputs[:5]
    assert spy.inputs[5] is None and valid.dtype == known.dtype == torch.float32
    assert k.min() == 0 and k.max() == 19

    encode = scales(source, config).window.encode
    total = weights = 0.0
    for step in range(source.n_steps):
        e = source.step_episode[step]
        t = step - source.offsets[e]
        length = source.lengths[e] + 1 - t
        assert valid[step].tolist() == [i < length for i in range(16)]
        real = encode(torch.tensor(source.episode(e)["observations"][t : t + 16], dtype=torch.float32))
        for i in range(min(16, length)):
            if known[step, i]:
                torch.testing.assert_close(noised[step, i], real[i], rtol=0, atol=1e-6)
                torch.testing.assert_close(masked[step, i], real[i], rtol=0, atol=1e-6)
            else:
                assert not masked[step, i].any()
                shown = (i > 0 and known[step, i - 1]) or (i < 15 and known[step, i + 1])
                weight = 3.0 if shown else 1.0
                total, weights = total + weight * (0.25 - real[i]).square().mean(), weights + weight
        assert known[step, : min(context, length)].all() and not known[step, length:].any()
        assert not masked[step, length:].any()
    assert loss.item() == pytest.approx((total / weights).item(), rel=1e-4)


def test_windows_past_the_end_hold_nothing_of_the_next_episode(source):
    table, spy = tables(source), Spy()
    noiseless = Schedule(signal=torch.ones(2), noise=torch.zeros(2), parametrisation="x0")
    table.loss(spy, torch.arange(source.n_steps), noiseless, seeded(1))
    noised, encode = spy.inputs[0], scales(source).state.encode
    for step in range(source.n_steps):
        e = source.step_episode[step]
        own = torch.tensor(source.episode(e)["observations"][step - source.offsets[e] :], dtype=torch.float32)
        own = torch.cat([own, own[-1:].expand(16, -1)])[:16]
        torch.testing.assert_close(noised[step], encode(own), rtol=0, atol=1e-6)


def test_hidden_positions_hold_the_state_with_the_noise_of_their_step(source):
    table, spy, schedule = tables(source), Spy(), Schedule.cosine(20, "eps")
    table.loss(spy, torch.arange(source.n_steps), schedule, seeded(1))
    noised, _, known, valid, k = spy.inputs[:5]
    z = scales(source).state.encode(torch.tensor(source.observations, dtype=torch.float32))
    rows = torch.tensor(source.step_state)[:, None] + torch.arange(16)
    hidden = (known == 0) & (valid == 1)
    x0 = z[rows.clamp(max=len(z) - 1)]
    noise = (noised - schedule.signal[k][:, None, None] * x0) / schedule.noise[k][:, None, None]
    assert noise[hidden].mean().item() == pytest.approx(0, abs=0.1)
    assert noise[hidden].std().item() == pytest.approx(1, abs=0.1)


def test_the_return_condition_is_scaled_and_sometimes_hidden(source):
    config = with_diffusion(return_dropout=0.3, returns_scale=50.0)
    table, spy = tables(source, config, discount=0.8), Spy()
    steps = torch.arange(source.n_steps).repeat(40)
    table.loss(spy, steps, Schedule.cosine(20, "v"), seeded(1))
    returns, hidden = spy.inputs[5], spy.inputs[5].isnan()
    assert hidden.float().mean().item() == pytest.approx(0.3, abs=0.03)
    rewards = [part["rewards"] for part in source]
    expected = [
        sum(0.8**i * r for i, r in enumerate(episode[t:])) / 50 for episode in rewards for t in range(len(episode))
    ]
    expected = torch.tensor(expected, dtype=torch.float32).repeat(40)
    torch.testing.assert_close(returns[~hidden], expected[~hidden], rtol=1e-5, atol=1e-6)


def test_holdout_is_whole_episodes_when_there_are_enough():
    many = episodes([5] * 40)
    splits = [tables(many, seed=seed) for seed in (0, 0, 1)]
    for table in splits:
        held, train = set(table.held.tolist()), set(table.train.tolist())
        assert held | train == set(range(200)) and not held & train
        assert len({step // 5 for step in held}) == 2 and len(held) == 10
    assert torch.equal(splits[0].held, splits[1].held) and not torch.equal(splits[0].held, splits[2].held)


def test_holdout_of_few_episodes_is_their_last_steps():
    table = tables(episodes([30, 30]))
    assert table.held.tolist() == [57, 58, 59] and table.train.tolist() == list(range(57))


# The bundle.


def test_the_bundle_speaks_the_units_of_the_world(source):
    models, s = exact(source), scales(source)
    rng = np.random.default_rng(0)
    states, actions = rng.normal(size=(20, 3)), rng.uniform(LOW, HIGH, (20, 2))
    z, u = s.state.encode(torch.tensor(states).float()), s.action.encode(torch.tensor(actions).float())
    following = s.state.encode(torch.tensor(next_state(states, actions)).float())
    for predicted in (models.repairers(z, u), models.judges(z, u)):
        assert predicted.shape == (2, 20, 3)
        torch.testing.assert_close(predicted[1], following, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(models.inverse(z, following), u, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(
        models.reward(z, u).double(), torch.tensor(reward(states, actions)), rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(models.termination(z), torch.sigmoid(3 * z[:, 0] - 6))
    assert not dataclasses.replace(models, termination_net=None).termination(z).any()


def test_impossible_moves_give_actions_at_the_bound(source):
    models = exact(source)
    z = torch.zeros(2, 3)
    u = models.inverse(z, torch.tensor([[50.0, 0, 0], [-50, 0, 0]]))
    raw = inverse(*(models.scales.state.decode(x).double().numpy() for x in (z, torch.tensor([[50.0, 0, 0]] * 2))))
    assert np.abs(raw).max() > 10
    assert u.abs().max() == 1 and u[0, 0] == -u[1, 0]


def test_those_who_judge_do_not_repair(source):
    models = exact(source, config=dataclasses.replace(TINY, judges=1), offsets=(1.0, 2.0, 3.0, 4.0))
    z, u = torch.zeros(1, 3), torch.zeros(1, 2)
    base = exact(source).judges(z, u)[0]
    change = models.scales.change
    for part, offsets in ((models.repairers(z, u), (1, 2, 3)), (models.judges(z, u), (4,))):
        assert len(part) == len(offsets)
        for predicted, offset in zip(part, offsets, strict=True):
            torch.testing.assert_close(predicted, base + change * offset, rtol=1e-4, atol=1e-5)


def test_the_diffusion_model_denoises_in_the_precision_asked_for(source):
    full = exact(source)
    reduced = dataclasses.replace(full, autocast=torch.bfloat16)
    x = torch.randn(4, 16, 3, generator=seeded())
    marks = torch.ones(4, 16)
    inputs = (x, x, marks, marks, torch.arange(4))
    expected = full.diffusion(*inputs)
    assert torch.equal(full.denoise(*inputs), expected)
    other = reduced.denoise(*inputs)
    assert other.dtype == torch.float32 and not torch.equal(other, expected)
    torch.testing.assert_close(other, expected, rtol=0.05, atol=0.05)


# Training.


def train(name, source, directory, config=TINY, seed=0, **kwargs):
    directory.mkdir(exist_ok=True)
    result = train_network(
        name, source, scales(source, config), config, seed=seed, discount=0.9, directory=directory, **kwargs
    )
    return result, directory / f"{name}.pt"


def saved(path):
    return torch.load(path, weights_only=True)["weights"]


@pytest.mark.parametrize("name", NETWORKS)
def test_training_is_repeatable_and_leaves_the_global_generator_alone(name, source, tmp_path):
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    config = with_diffusion(fit=dataclasses.replace(FIT, steps=3))
    first, one = train(name, source, tmp_path / "a", config)
    again, two = train(name, source, tmp_path / "b", config)
    _, other = train(name, source, tmp_path / "c", config, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first == again and first.steps == (3 if name == "diffusion" else 20)
    different = False
    for key, weight in saved(one).items():
        assert torch.equal(weight, saved(two)[key])
        different |= not torch.equal(weight, saved(other)[key])
    assert different
    assert train(name, source, tmp_path / "a", config)[0] is None, "what is there is not trained again"
    assert [path.name for path in (tmp_path / "a").iterdir()] == [f"{name}.pt"]


@pytest.mark.parametrize("name", ["diffusion", "dynamics"])
def test_evaluations_are_on_the_same_draw(name, source, tmp_path):
    still = FitConfig(steps=4, batch_size=4, learning_rate=1e-30, evaluate_every=1)
    config = dataclasses.replace(with_diffusion(fit=still), dynamics=still)
    result, _ = train(name, source, tmp_path, config)
    assert len({training for _, training, _ in result.history}) == 4
    assert len({held_out for _, _, held_out in result.history}) == 1


def test_the_order_of_training_does_not_matter(source, tmp_path):
    for folder, names in (("a", ("reward", "inverse")), ("b", ("inverse", "reward"))):
        for name in names:
            train(name, source, tmp_path / folder)
    for name in ("reward", "inverse"):
        a, b = (saved(tmp_path / folder / f"{name}.pt") for folder in "ab")
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_the_bundle_loads_what_was_trained(source, tmp_path):
    config = with_diffusion(fit=dataclasses.replace(FIT, steps=1))
    for name in NETWORKS:
        train(name, source, tmp_path, config)
    models = load_models(source, scales(source), config, tmp_path)
    nets = [models.diffusion, *(getattr(models, f"{name}_net") for name in NETWORKS[1:])]
    for name, net in zip(NETWORKS, nets, strict=True):
        expected = saved(tmp_path / f"{name}.pt")
        assert net.state_dict().keys() == expected.keys()
        assert all(torch.equal(value, expected[key]) for key, value in net.state_dict().items())
        assert not net.training and not any(parameter.requires_grad for parameter in net.parameters())
    torch.testing.assert_close(models.schedule.signal, Schedule.cosine(20, "v").signal)
    never = episodes([8, 8])
    assert not never.terminations.any() and load_models(never, scales(never), config, tmp_path).termination_net is None
    paper = dataclasses.replace(config, behaviour=None)
    assert load_models(source, scales(source), paper, tmp_path).behaviour_net is None


def test_perceptrons_learn_the_linear_world(tmp_path):
    source = episodes([30] * 20)
    learn = FitConfig(steps=250, batch_size=64, learning_rate=5e-3, warmup=10, ema=0.95, evaluate_every=50)
    config = dataclasses.replace(TINY, hidden=32, dynamics=learn, inverse=learn, reward=learn)
    for name in ("dynamics", "inverse", "reward"):
        result, _ = train(name, source, tmp_path, config)
        # Targets have unit variance, or a third for uniform actions: a guess of the mean scores that.
        assert result.holdout < 0.05, name
        assert result.history[0][2] > 2 * result.holdout


def test_the_diffusion_model_learns(tmp_path):
    learn = FitConfig(steps=60, batch_size=32, learning_rate=5e-3, warmup=10, ema=0.9, evaluate_every=60)
    result, _ = train("diffusion", episodes([30] * 10), tmp_path, with_diffusion(fit=learn))
    # The target has unit variance, whatever the step: a guess of the mean scores 1.
    assert result.holdout < 0.85


def test_reduced_precision_is_of_the_arithmetic_not_of_the_weights(source, tmp_path):
    learn = FitConfig(steps=4, batch_size=8, learning_rate=1e-3, evaluate_every=4)
    fits = [
        train("diffusion", source, tmp_path / str(dtype), with_diffusion(fit=learn), autocast=dtype)
        for dtype in (None, torch.bfloat16)
    ]
    full, reduced = (result.history[0] for result, _ in fits)
    assert reduced != full and reduced == pytest.approx(full, rel=0.02)
    assert all(weight.dtype == torch.float32 for weight in saved(fits[1][1]).values())


@pytest.mark.parametrize("dropout", [0.0, 0.25])
def test_a_network_has_the_sizes_of_its_task(dropout):
    config = with_diffusion(return_dropout=dropout)
    outputs = {"dynamics": (5, 3, 4), "inverse": (6, 2, 1), "reward": (5, 1, 1), "termination": (3, 1, 1)}
    for name, (inputs, width, members) in outputs.items():
        assert build(name, 3, 2, config, seeded())(torch.zeros(7, inputs)).shape == (members, 7, width)
    assert (build("diffusion", 3, 2, config, seeded()).returns is None) == (dropout == 0)


def test_linear_predictions_are_those_of_the_networks_with_their_derivatives(source):
    models = exact(source, offsets=(0.0, 0.5, 1.0, 3.0))
    zu = torch.randn(7, 5, generator=seeded())
    predicted, slopes = models.repairers_linear(zu)
    torch.testing.assert_close(predicted, models.repairers(zu[:, :3], zu[:, 3:]))
    by_row = torch.func.vmap(torch.func.jacrev(lambda row: models.repairers(row[None, :3], row[None, 3:])[:, 0]))
    torch.testing.assert_close(slopes, by_row(zu).transpose(0, 1))
    actions, slopes = models.behaviour_linear(zu[:, :3])
    torch.testing.assert_close(actions, models.behaviour(zu[:, :3]))
    by_row = torch.func.vmap(torch.func.jacrev(lambda row: models.behaviour(row[None])[0]))
    torch.testing.assert_close(slopes, by_row(zu[:, :3]))
