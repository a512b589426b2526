"""How each network of the bundle reads the source and is fitted to it (Eqs. 12 and 13)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from minari_stitch.data.episodes import Episodes
from minari_stitch.diffstitch.config import DiffusionConfig, ModelConfig
from minari_stitch.diffstitch.diffusion import Schedule, masked_loss, training_masks
from minari_stitch.diffstitch.models import SALTS, build, moves
from minari_stitch.learn.judging import judge_loss
from minari_stitch.learn.loop import FitResult
from minari_stitch.learn.normalize import encode_rows
from minari_stitch.learn.scales import Scales
from minari_stitch.learn.seeds import seeded
from minari_stitch.learn.tables import RowLoss, Tables, train_rows
from minari_stitch.progress import Progress


class WindowTables(Tables):
    """A source on the device, with what windows of it need.

    Args:
        episodes: The source.
        scales: Normalisers.
        config: The horizon, the masks and the return condition.
        discount: Gamma of the return condition.
        seed: Chooses the held-out episodes.

    Attributes:
        windows: `(N + E, S)` states in the space of the diffusion model.
        last: `(N,)` row of the last state of each step's episode.
        returns: `(N + E,)` discounted returns-to-go.
    """

    def __init__(self, episodes: Episodes, scales: Scales, config: DiffusionConfig, discount: float, seed: int) -> None:
        super().__init__(episodes, scales, seed)
        device = scales.low.device
        self.config = config
        self.windows = self.z
        if config.normalizer != "standard":
            self.windows = encode_rows(scales.window, episodes.observations, device)
        last = torch.tensor(episodes.state_offsets[1:], device=device) - 1
        self.last = last[torch.tensor(episodes.step_episode, device=device)]
        self.returns = torch.tensor(episodes.returns_to_go(discount), dtype=torch.float32, device=device)

    def loss(self, net: nn.Module, steps: Tensor, schedule: Schedule, generator: torch.Generator) -> Tensor:
        """Loss (Eq. 12; by default of hidden states only) on windows that begin at steps `(B,)`."""
        config, device = self.config, steps.device
        start = self.state[steps][:, None] + torch.arange(config.horizon, device=device)
        valid = start <= self.last[steps][:, None]
        x0 = self.windows[torch.minimum(start, self.last[steps][:, None])]
        known = training_masks(valid, config.mask, config.context, generator)
        k = torch.randint(len(schedule.signal), (len(steps),), device=device, generator=generator)
        noise = torch.randn(x0.shape, device=device, generator=generator)
        noised = schedule.add_noise(x0, noise, k)
        clean = known & (config.known == "clean")
        noised = torch.where(clean[..., None], x0, noised)
        returns = None
        if config.return_dropout > 0:
            hidden = torch.rand(len(steps), device=device, generator=generator) < config.return_dropout
            returns = (self.returns[self.state[steps]] / config.returns_scale).masked_fill(hidden, torch.nan)
        predicted = net(noised, x0 * known[..., None], known.float(), valid.float(), k, returns)
        return masked_loss(predicted.float(), schedule.target(x0, noise, k), clean, valid, config.edge_weight)


def perceptron_loss(name: str, tables: Tables) -> RowLoss:
    """Loss of one perceptron (Eq. 13) on steps `(M, B)`."""

    def inverse(net: nn.Module, steps: Tensor, _: torch.Generator) -> Tensor:
        state = tables.state[steps]
        inputs = moves(tables.z[state], tables.z[state + 1], tables.scales)
        return (net(inputs) - tables.u[steps]).square().mean()

    def reward(net: nn.Module, steps: Tensor, _: torch.Generator) -> Tensor:
        return (net(tables.inputs(steps)) - tables.r[steps]).square().mean()

    def behaviour(net: nn.Module, steps: Tensor, _: torch.Generator) -> Tensor:
        return (net(tables.z[tables.state[steps]]) - tables.u[steps]).square().mean()

    return {"inverse": inverse, "reward": reward, "behaviour": behaviour}.get(name) or judge_loss(name, tables)


def train_network(
    name: str,
    episodes: Episodes,
    scales: Scales,
    config: ModelConfig,
    *,
    seed: int,
    discount: float,
    directory: Path,
    progress: Progress | None = None,
    autocast: torch.dtype | None = None,
) -> FitResult | None:
    """Train one network and save it as `directory/name.pt`; return at once when that file exists.

    Each network has its own generator, seeded by `(seed, name)`, so the order of training does not matter.

    Args:
        name: One of `NETWORKS`.
        episodes: The source.
        scales: Normalisers on the device to train on.
        config: Sizes and rates.
        seed: Seed of the run.
        discount: Gamma of the return condition.
        directory: Where weights and checkpoints live.
        progress: Called every few steps.
        autocast: Reduced precision of the network, or None.

    Returns:
        The losses, or None when the network was there already.
    """
    path = directory / f"{name}.pt"
    if path.exists():
        return None
    device = scales.low.device
    entropy = [seed, SALTS[name]]
    host = seeded([*entropy, 2], torch.device("cpu"))
    net = build(name, episodes.observations.shape[1], episodes.actions.shape[1], config, host).to(device)
    if name == "diffusion":
        tables = WindowTables(episodes, scales, config.diffusion, discount, seed)
        schedule = Schedule.cosine(config.diffusion.diffusion_steps, config.diffusion.parametrisation, device)

        def masked(net: nn.Module, steps: Tensor, generator: torch.Generator) -> Tensor:
            with torch.autocast(device.type, autocast, enabled=autocast is not None):
                return tables.loss(net, steps, schedule, generator)

        loss, members, fit_config = masked, 0, config.diffusion.fit
    else:
        tables = Tables(episodes, scales, seed)
        loss = perceptron_loss(name, tables)
        members, fit_config = config.members if name == "dynamics" else 1, getattr(config, name)
    rows = (tables.train, tables.held)
    return train_rows(net, loss, rows, fit_config, members=members, entropy=entropy, path=path, progress=progress)
