"""The same jobs as people write them by hand: what `speed.py` compares the library with.

Nothing here is wrong or made slow on purpose. Each follows the style of widely copied single-file code: eager
loops, one optimiser for each network, averages updated parameter by parameter, and a loss read at every step.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Predict = Callable[[Tensor, Tensor], Tensor]


def ddpm(predict: Predict, given: Tensor, known: Tensor, total: int, low: Tensor, high: Tensor) -> Tensor:
    """Ancestral sampling of a velocity-predicting network, batched; coefficients are worked out at each step."""
    x = torch.randn_like(given)
    x[known] = given[known]
    for k in reversed(range(total)):
        edges = torch.arange(total + 1, dtype=torch.float64, device=given.device)
        bars = torch.cos((edges / total + 0.008) / 1.008 * math.pi / 2) ** 2
        betas = torch.clip(1 - bars[1:] / bars[:-1], 0, 0.999)
        alphas = 1 - betas
        kept = torch.cumprod(alphas, 0)
        before = F.pad(kept[:-1], (1, 0), value=1.0)
        step = torch.full((len(x),), k, device=x.device)
        velocity = predict(x, step)
        clean = kept.sqrt()[step][:, None, None] * x - (1 - kept).sqrt()[step][:, None, None] * velocity
        clean = torch.minimum(torch.maximum(clean, low), high)
        mean = (betas * before.sqrt() / (1 - kept))[step][:, None, None] * clean
        mean = mean + ((1 - before) * alphas.sqrt() / (1 - kept))[step][:, None, None] * x
        variance = (betas * (1 - before) / (1 - kept)).clamp(min=1e-20)[step][:, None, None]
        x = mean + (k > 0) * variance.sqrt() * torch.randn_like(x)
        x = x.float()
        x[known] = given[known]
    return x


def train_unet(
    net: nn.Module,
    episodes: list[np.ndarray],
    loss: Callable[[nn.Module, Tensor, Tensor], Tensor],
    *,
    steps: int,
    batch: int,
    horizon: int,
    autocast: torch.dtype | None = None,
) -> list[float]:
    """Train on windows that are cut out of `(T + 1, S)` episodes one by one, in NumPy, on the host."""
    device = next(net.parameters()).device
    average = copy.deepcopy(net)
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-4, foreach=False)
    losses = []
    for _ in range(steps):
        windows, valid = [], []
        for _ in range(batch):
            states = episodes[np.random.randint(len(episodes))]
            start = np.random.randint(len(states) - 1)
            window = states[start : start + horizon]
            valid.append(np.arange(horizon) < len(window))
            windows.append(np.pad(window, ((0, horizon - len(window)), (0, 0)), mode="edge"))
        x0 = torch.tensor(np.stack(windows), dtype=torch.float32).to(device)
        inside = torch.tensor(np.stack(valid)).to(device)
        with torch.autocast(device.type, autocast, enabled=autocast is not None):
            value = loss(net, x0, inside)
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        _average(average, net)
        losses.append(value.item())
    return losses


def mlp(inputs: int, outputs: int, hidden: int, layers: int) -> nn.Sequential:
    """One perceptron."""
    sizes = [inputs, *[hidden] * layers]
    body = [m for i, o in zip(sizes[:-1], sizes[1:], strict=True) for m in (nn.Linear(i, o), nn.SiLU())]
    return nn.Sequential(*body, nn.Linear(hidden, outputs))


def train_ensemble(nets: list[nn.Sequential], inputs: Tensor, targets: Tensor, *, steps: int, batch: int) -> float:
    """Train the members of an ensemble one after another, each on batches of its own."""
    averages = [copy.deepcopy(net) for net in nets]
    optimizers = [torch.optim.Adam(net.parameters(), lr=1e-3, foreach=False) for net in nets]
    total = 0.0
    for _ in range(steps):
        for net, average, optimizer in zip(nets, averages, optimizers, strict=True):
            rows = torch.randint(len(inputs), (batch,), device=inputs.device)
            value = F.mse_loss(net(inputs[rows]), targets[rows])
            optimizer.zero_grad()
            value.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            _average(average, net)
            total += value.item()
    return total


def _average(average: nn.Module, net: nn.Module) -> None:
    with torch.no_grad():
        for mean, parameter in zip(average.parameters(), net.parameters(), strict=True):
            mean.copy_(0.995 * mean + 0.005 * parameter)
