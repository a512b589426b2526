"""The fits that are timed: ours, and the same job written plainly."""

from __future__ import annotations

from typing import Any

import _plain
import numpy as np
import torch
from _timing import Setup
from _walk import walk
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from minari_stitch.data.episodes import Episodes
from minari_stitch.diffstitch.config import ModelConfig
from minari_stitch.diffstitch.diffusion import Schedule, masked_loss, training_masks
from minari_stitch.diffstitch.models import build
from minari_stitch.diffstitch.training import WindowTables, perceptron_loss
from minari_stitch.learn.loop import FitConfig, train
from minari_stitch.learn.scales import Scales
from minari_stitch.learn.steps import Loss, Steps


def window_tables(models: ModelConfig, setup: Setup, n_steps: int) -> tuple[WindowTables, Episodes]:
    episodes = Episodes.from_list(walk(n_steps, n_steps // 500))
    limit = np.ones(3, np.float32)
    scales = Scales.of(episodes, -limit, limit, models.diffusion.normalizer).to(setup.device)
    return WindowTables(episodes, scales, models.diffusion, 0.99, 0), episodes


def fit_of(
    name: str, models: ModelConfig, table: WindowTables, batch: int, autocast: torch.dtype | None = None
) -> tuple[nn.Module, Loss, torch.Generator]:
    """A network, its training loss, and the generator of its draws, as `train_network` puts them together."""
    device = table.scales.low.device
    net = build(name, 11, 3, models, torch.Generator().manual_seed(0)).to(device)
    schedule = Schedule.cosine(models.diffusion.diffusion_steps, models.diffusion.parametrisation, device)
    rows, perceptron = table.train, None if name == "diffusion" else perceptron_loss(name, table)
    members = models.members if name == "dynamics" else 1

    def loss(net: nn.Module, generator: torch.Generator) -> Tensor:
        if perceptron is not None:
            return perceptron(net, draw(rows, (members, batch), generator), generator)
        with torch.autocast(device.type, autocast, enabled=autocast is not None):
            return table.loss(net, draw(rows, (batch,), generator), schedule, generator)

    return net, loss, torch.Generator(device).manual_seed(0)


def whole_fit(name: str, models: ModelConfig, table: WindowTables, batch: int, steps: int) -> tuple[Any, Any]:
    """`train` of a network from its first step to its last, and its training loss alone."""
    net, loss, generator = fit_of(name, models, table, batch)
    config = FitConfig(steps=steps, batch_size=batch, learning_rate=1e-3, evaluate_every=steps)
    zero = torch.zeros(())

    def run() -> None:
        net.train().requires_grad_(True)
        train(net, loss, lambda _: zero, config, generator)

    return run, lambda: loss(net.train().requires_grad_(True), generator).backward()


def fit_under_way(fit: tuple[nn.Module, Loss, torch.Generator], steps: int, *, long: bool) -> Any:
    """Steps of a fit and of its weight average; on a GPU they are recorded, and of a long fit compiled."""
    net, loss, generator = fit
    under_way = Steps(net, loss, generator, clip=1.0, count=10**6 if long else 1)
    weights: list[Tensor] = list(net.parameters())
    average = [parameter.detach().clone() for parameter in weights]

    def run() -> None:
        for _ in range(steps):
            under_way(1e-4)
            with torch.no_grad():
                torch._foreach_lerp_(average, weights, 0.005)  # pyright: ignore[reportPrivateImportUsage]

    return run


def draw(rows: Tensor, size: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return rows[torch.randint(len(rows), size, device=rows.device, generator=generator)]


def plain_unet(
    models: ModelConfig, episodes: Episodes, setup: Setup, batch: int, steps: int, autocast: torch.dtype | None = None
) -> Any:
    diffusion = models.diffusion
    net = build("diffusion", 11, 3, models, torch.Generator().manual_seed(0)).to(setup.device)
    schedule = Schedule.cosine(diffusion.diffusion_steps, diffusion.parametrisation, setup.device)
    generator = torch.Generator(setup.device).manual_seed(0)
    parts = [part["observations"] for part in episodes]

    def loss(net: nn.Module, x0: Tensor, valid: Tensor) -> Tensor:
        known = training_masks(valid, diffusion.mask, diffusion.context, generator)
        k = torch.randint(len(schedule.signal), (len(x0),), device=x0.device)
        noise = torch.randn_like(x0)
        noised = torch.where(known[..., None], x0, schedule.add_noise(x0, noise, k))
        predicted = net(noised, x0 * known[..., None], known.float(), valid.float(), k)
        return masked_loss(predicted.float(), schedule.target(x0, noise, k), known, valid)

    sizes = {"steps": steps, "batch": batch, "horizon": diffusion.horizon}
    return lambda: _plain.train_unet(net, parts, loss, **sizes, autocast=autocast)


def plain_dynamics(models: ModelConfig, table: WindowTables, batch: int, steps: int) -> Any:
    state = table.state
    steps_of = torch.arange(len(state), device=state.device)
    inputs, change = table.inputs(steps_of), table.change(steps_of)
    nets = [_plain.mlp(14, 11, models.hidden, 4).to(inputs.device) for _ in range(models.members)]
    return lambda: _plain.train_ensemble(nets, inputs, change, steps=steps, batch=batch)


def flops(work: Any) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()
