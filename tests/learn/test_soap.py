"""SOAP against a naive loop over matrices, against Adam where nothing turns, and by what its bases are for."""

import numpy as np
import pytest
import torch
from torch import nn

from minari_stitch.learn import soap
from minari_stitch.learn.nets import MLP
from minari_stitch.learn.soap import Soap

BETAS = (0.9, 0.99, 0.9)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def stepped(parameters, gradients, rate=0.1):
    """Parameters after a step along each of the gradients, one list for each step."""
    parameters = [nn.Parameter(parameter.clone()) for parameter in parameters]
    optimizer = Soap(parameters, lr=rate)
    for parts in gradients:
        for parameter, gradient in zip(parameters, parts, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()
        optimizer.stepped()
    return [parameter.detach() for parameter in parameters]


def naive(weight, gradients, rate, turn_every):
    """The same of one matrix, in NumPy: every vector of the gradient is turned, scaled and turned back."""
    rows, columns = weight.shape
    left, right = np.eye(rows), np.eye(columns)
    of_rows, of_columns = np.zeros((rows, rows)), np.zeros((columns, columns))
    mean, square = np.zeros_like(weight), np.zeros_like(weight)
    for step, gradient in enumerate(gradients, 1):
        of_rows = 0.9 * of_rows + 0.1 * np.einsum("ij,kj->ik", gradient, gradient)
        of_columns = 0.9 * of_columns + 0.1 * np.einsum("ij,ik->jk", gradient, gradient)
        turned = np.einsum("ia,ij,jb->ab", left, gradient, right)
        mean = 0.9 * mean + 0.1 * turned
        square = 0.99 * square + 0.01 * turned**2
        update = mean / (1 - 0.9**step) / (np.sqrt(square / (1 - 0.99**step)) + 1e-8)
        weight = weight - rate * np.einsum("ia,ab,jb->ij", left, update, right)
        if step % turn_every == 0:
            whole = np.einsum("ia,ab,jb->ij", left, mean, right)
            left, right = np.linalg.qr(of_rows @ left)[0], np.linalg.qr(of_columns @ right)[0]
            mean = np.einsum("ia,ij,jb->ab", left, whole, right)
    return weight


def test_a_matrix_is_stepped_as_by_a_naive_loop(monkeypatch):
    monkeypatch.setattr(soap, "TURN_EVERY", 3)
    weight, gradients = normal(2, 4, 5), normal(20, 2, 4, 5, seed=1)
    (ours,) = stepped([weight], [[gradient] for gradient in gradients])
    for member in range(2):
        expected = naive(weight[member].numpy(), gradients[:, member].numpy(), 0.1, 3)
        np.testing.assert_allclose(ours[member].numpy(), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("shape", [(7,), (3, 1, 1), (2, 1, 513)])
def test_what_has_no_sides_is_stepped_as_by_adam(shape):
    start, gradients = normal(*shape), normal(25, *shape, seed=1)
    (ours,) = stepped([start], [[gradient] for gradient in gradients])
    other = nn.Parameter(start.clone())
    adam = torch.optim.Adam([other], lr=0.1, betas=BETAS[:2])
    for gradient in gradients:
        other.grad = gradient.clone()
        adam.step()
    torch.testing.assert_close(ours, other.detach(), rtol=1e-6, atol=1e-9)


def test_bases_come_to_be_eigenvectors_of_the_statistics():
    mix = normal(6, 6)
    weight = nn.Parameter(torch.zeros(6, 4, dtype=torch.float64))
    optimizer = Soap([weight], lr=1e-3)
    for step in range(400):
        weight.grad = mix @ normal(6, 4, seed=step)
        optimizer.step()
        optimizer.stepped()
    state = optimizer.state[weight]
    rotated = state["basis-2"].mT @ state["statistics-2"] @ state["basis-2"]
    share = rotated.diagonal().square().sum() / rotated.square().sum()
    plain = state["statistics-2"].diagonal().square().sum() / state["statistics-2"].square().sum()
    assert share > 0.9 > plain + 0.1


def test_a_perceptron_learns_more_a_step_than_by_adam():
    """Each at the best of three rates."""
    truth = normal(4, 3).float()

    def left(optimizer_of):
        net = MLP(4, 3, hidden=32, layers=3, members=1, generator=torch.Generator().manual_seed(0))
        optimizer = optimizer_of(net.parameters())
        rate = optimizer.param_groups[0]["lr"]
        for step in range(400):
            inputs = normal(128, 4, seed=10 + step).float()
            optimizer.zero_grad()
            (net(inputs) - (inputs @ truth).sin()).square().mean().backward()
            optimizer.param_groups[0]["lr"] = rate * (1 - step / 400)
            optimizer.step()
            if isinstance(optimizer, Soap):
                optimizer.stepped()
        inputs = normal(512, 4, seed=5).float()
        return (net(inputs) - (inputs @ truth).sin()).square().mean().item()

    adam = min(left(lambda p, rate=rate: torch.optim.Adam(p, lr=rate, betas=BETAS[:2])) for rate in (3e-3, 1e-2, 3e-2))
    assert min(left(lambda p, rate=rate: Soap(p, lr=rate)) for rate in (1e-2, 2e-2, 4e-2)) < 0.7 * adam


def test_a_step_leaves_every_tensor_where_it_is():
    """Or a recorded one would go on with those of the recording."""
    weight = nn.Parameter(normal(2, 4, 5))
    optimizer = Soap([weight], lr=torch.tensor(0.1))
    places = {name: value.data_ptr() for name, value in optimizer.state[weight].items()} | {"": weight.data_ptr()}
    before = {name: value.clone() for name, value in optimizer.state[weight].items()}
    for step in range(25):
        weight.grad = normal(2, 4, 5, seed=step)
        optimizer.step()
        optimizer.stepped()
    after = optimizer.state[weight]
    assert places == {name: value.data_ptr() for name, value in after.items()} | {"": weight.data_ptr()}
    assert not any(torch.equal(before[name], after[name]) for name in before)
