import copy
import math

import pytest
import torch
import torch.nn.functional as F
from linear import TINY
from torch import nn

from minari_stitch.baselines.denoiser import ResidualMLP
from minari_stitch.diffstitch.models import NETWORKS, build
from minari_stitch.diffstitch.unet import TemporalUNet
from minari_stitch.learn import nets
from minari_stitch.learn.nets import MLP, initialise


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def mlp(members=3, layers=2):
    return MLP(4, 2, hidden=8, layers=layers, members=members, generator=seeded())


def single(net, member, x):
    """One member by the textbook, one layer after another."""
    for i, (weight, bias) in enumerate(zip(net.weights, net.biases, strict=True)):
        x = F.linear(x, weight[member].T, bias[member, 0])
        if i < len(net.weights) - 1:
            x = x * torch.sigmoid(x)
    return x


@pytest.mark.parametrize("layers", [0, 1, 4])
def test_derivatives_against_automatic_ones(monkeypatch, layers):
    monkeypatch.setattr(nets, "_ROWS", 2)
    net, x = mlp(layers=layers), torch.randn(5, 4, generator=seeded(1))
    value, slopes = net.linear(x, slice(1, None))
    torch.testing.assert_close(value, net(x, slice(1, None)))
    expected = torch.func.vmap(torch.func.jacrev(lambda row: net(row[None], slice(1, None))[:, 0]))(x)
    torch.testing.assert_close(slopes, expected.transpose(0, 1))


@pytest.mark.parametrize("layers", [0, 1, 4])
def test_an_ensemble_equals_its_members_one_by_one(layers):
    net, shared, own = mlp(layers=layers), torch.randn(5, 4, generator=seeded(1)), torch.randn(3, 5, 4)
    assert len(net.weights) == layers + 1
    assert net(shared).shape == (3, 5, 2)
    for member in range(3):
        torch.testing.assert_close(net(shared)[member], single(net, member, shared))
        torch.testing.assert_close(net(own)[member], single(net, member, own[member]))


@pytest.mark.parametrize("members", [slice(None, 2), slice(1, None), slice(2, 3)])
def test_a_slice_of_members_is_that_part_of_the_output(members):
    net, x = mlp(), torch.randn(5, 4)
    torch.testing.assert_close(net(x, members), net(x)[members])


def test_members_start_different_and_learn_on_their_own():
    net = mlp()
    for parameter in net.parameters():
        assert len({tuple(row.flatten().tolist()) for row in parameter}) == 3
    net(torch.randn(5, 4))[1].square().sum().backward()
    for parameter in net.parameters():
        assert [bool(row.any()) for row in parameter.grad] == [False, True, False]


def test_perceptrons_start_within_the_bound_of_their_fan_in():
    net = MLP(50, 20, hidden=100, layers=1, members=3, generator=seeded())
    for i, fan_in in enumerate((50, 100)):
        for parameter in (net.weights[i], net.biases[i]):
            bound = 1 / math.sqrt(fan_in)
            assert parameter.abs().max() <= bound
            assert parameter.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.2)


def unet(multipliers=(1, 2), seed=0, **kwargs):
    net = TemporalUNet(3, width=8, multipliers=multipliers, kernel=3, **kwargs)
    initialise(net, seeded(seed))
    return net


def window(batch=2, horizon=16, seed=0):
    generator = seeded(seed)
    noised, masked = torch.randn(2, batch, horizon, 3, generator=generator)
    known, valid = (torch.rand(2, batch, horizon, generator=generator) < 0.5).float()
    return noised, masked, known, valid, torch.arange(batch) + 3


@pytest.mark.parametrize(("multipliers", "horizon"), [((1,), 7), ((1, 2), 10), ((1, 2, 4), 12), ((1, 4, 8), 32)])
def test_the_unet_keeps_the_shape_of_the_window(multipliers, horizon):
    net = unet(multipliers)
    output = net(*window(horizon=horizon))
    assert output.shape == (2, horizon, 3) and output.isfinite().all()
    assert output.std() > 1e-3


def test_the_unet_treats_rows_one_by_one():
    net, inputs = unet(), window(batch=4)
    together = net(*inputs)
    for row in range(4):
        torch.testing.assert_close(net(*(x[row : row + 1] for x in inputs))[0], together[row], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("index", range(5))
def test_each_input_of_the_unet_matters(index):
    net, inputs = unet(), list(window())
    before = net(*inputs)
    inputs[index] = inputs[index] + 1
    assert (net(*inputs) - before).abs().max() > 1e-3


def test_the_unet_sees_the_whole_window():
    net, (noised, *rest) = unet((1, 2, 4)), window(batch=1)
    noised.requires_grad_()
    net(noised, *rest)[0, 0].sum().backward()
    assert noised.grad[0].abs().sum(-1).all()


def test_a_hidden_return_says_nothing_and_a_shown_one_does():
    net, inputs = unet(conditional=True), window(batch=3)
    inputs = [x[:1].expand(3, *x.shape[1:]) for x in inputs]
    output = net(*inputs, torch.tensor([math.nan, 0.0, 0.7]))
    assert output.isfinite().all()
    torch.testing.assert_close(net(*(x[:1] for x in inputs), torch.tensor([math.nan]))[0], output[0])
    # Zero is a return like any other, not the absence of one.
    assert (output[0] - output[1]).abs().max() > 1e-3
    assert (output[1] - output[2]).abs().max() > 1e-3
    with pytest.raises(AssertionError, match="returns"):
        net(*inputs)


def test_initialise_depends_on_the_generator_alone():
    one, same, other = unet(seed=1), unet(seed=1), unet(seed=2)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    different = [
        not torch.equal(a, b)
        for (name, a), b in zip(one.named_parameters(), other.parameters(), strict=True)
        if "norm" not in name and "head.1" not in name
    ]
    assert len(different) > 20 and all(different)


def test_initialise_sets_every_parameter_as_torch_would_on_average():
    net = unet((1, 2, 4))
    before = copy.deepcopy(net)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(torch.nan)
    initialise(net, seeded(0))
    for (name, a), b in zip(net.named_parameters(), before.parameters(), strict=True):
        assert torch.equal(a, b), name
    for module in net.modules():
        if isinstance(module, nn.GroupNorm):
            assert (module.weight == 1).all() and (module.bias == 0).all()
        elif isinstance(module, nn.Linear | nn.Conv1d | nn.ConvTranspose1d) and module.weight.numel() > 500:
            reference = copy.deepcopy(module)
            reference.reset_parameters()
            assert module.weight.std().item() == pytest.approx(reference.weight.std().item(), rel=0.15)
            assert module.bias.abs().max() <= 1.001 * reference.weight.abs().max() * 1.1


def residual(seed=0, blocks=2):
    net = ResidualMLP(5, hidden=12, blocks=blocks, generator=seeded(seed))
    initialise(net, seeded(seed))
    return net


def test_the_residual_perceptron_is_that_of_the_textbook():
    net, rows, level = residual(), torch.randn(7, 5, generator=seeded(1)), torch.randn(7, generator=seeded(2))
    output = net(rows, level)
    assert output.shape == (7, 5) and output.std() > 1e-3
    for row in range(7):
        waves = [level[row] * frequency for frequency in net.frequencies]
        features = torch.stack([level[row], *map(torch.sin, waves), *map(torch.cos, waves)])
        embedding = F.silu(net.level[2](F.silu(net.level[0](features))))
        x = net.stem(rows[row])
        for norm, inner, shift in net.blocks:
            y = F.layer_norm(x, (12,)) * norm.weight + norm.bias + shift(embedding)
            x = x + inner(y * torch.sigmoid(y))
        torch.testing.assert_close(net.head(F.silu(net.norm(x))), output[row], rtol=1e-4, atol=1e-5)


def test_one_level_for_all_rows_is_that_level_for_each():
    net, rows = residual(), torch.randn(7, 5, generator=seeded(1))
    torch.testing.assert_close(net(rows, torch.tensor([0.3])), net(rows, torch.full((7,), 0.3)))
    assert (net(rows, torch.tensor([0.3])) - net(rows, torch.tensor([0.4]))).abs().max() > 1e-3


def test_the_residual_perceptron_depends_on_its_generator_alone_and_is_set_in_full():
    state = torch.random.get_rng_state()
    one, other = residual().state_dict(), residual(seed=1).state_dict()
    net = ResidualMLP(5, hidden=12, blocks=2, generator=seeded(0))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(torch.nan)
    initialise(net, seeded(0))
    assert all(torch.equal(value, one[name]) for name, value in net.state_dict().items())
    assert not torch.equal(one["frequencies"], other["frequencies"])
    assert not torch.equal(one["stem.weight"], other["stem.weight"])
    assert len(one) == len(list(net.parameters())) + 1
    many = torch.cat([residual(seed).frequencies for seed in range(50)])
    assert many.std().item() == pytest.approx(2 * math.pi, rel=0.1)
    torch.random.set_rng_state(state)


@pytest.mark.parametrize("name", NETWORKS)
def test_building_leaves_the_global_generator_alone_and_is_repeatable(name):
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    nets = [build(name, 3, 2, TINY, seeded(5)) for _ in range(2)]
    assert torch.equal(torch.random.get_rng_state(), before)
    for a, b in zip(*(net.parameters() for net in nets), strict=True):
        assert a.isfinite().all() and torch.equal(a, b)
