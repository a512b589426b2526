"""How each network of the bundle reads the source and is fitted to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minari_stitch.config import FitConfig, ModelConfig
from minari_stitch.data.episodes import Episodes
from minari_stitch.diffstitch.diffusion import Schedule, masked_loss, training_masks
from minari_stitch.diffstitch.models import NETWORKS, Scales, build, moves
from minari_stitch.learn.loop import FitResult, fit, save_atomically
from minari_stitch.progress import Progress

_HOLDOUT_SHARE = 0.05


class Tables:
    """A source on the device, as the fits read it.

    Args:
        episodes: The source.
        scales: Normalisers.
        config: Sizes; the horizon and the discount of the return condition.
        discount: Gamma of the return condition.
        seed: Chooses the held-out episodes.
    """

    def __init__(
        self,
        episodes: Episodes,
        scales: Scales,
        config: ModelConfig,
        discount: float,
        seed: int,
    ) -> None:
        device = scales.low.device
        raw = torch.tensor(episodes.observations, dtype=torch.float32, device=device)
        self.scales, self.config = scales, config
        self.z = scales.state.encode(raw)
        standard = config.diffusion.normalizer == "standard"
        self.windows = self.z if standard else scales.window.encode(raw)
        self.u = scales.action.encode(torch.tensor(episodes.actions, dtype=torch.float32, device=device))
        self.r = scales.reward.encode(torch.tensor(episodes.rewards, dtype=torch.float32, device=device)[:, None])
        self.terminal = torch.tensor(episodes.terminations, device=device)
        self.state = torch.tensor(episodes.step_state, device=device)
        last = torch.tensor(episodes.state_offsets[1:], device=device) - 1
        self.last = last[torch.tensor(episodes.step_episode, device=device)]
        self.returns = torch.tensor(episodes.returns_to_go(discount), dtype=torch.float32, device=device)
        self.train, self.held = split(episodes, seed, device)

    def transition_loss(self, name: str) -> Callable[[nn.Module, Tensor], Tensor]:
        """Loss of one perceptron (Eq. 13) on steps `(M, B)`."""

        def loss(net: nn.Module, steps: Tensor) -> Tensor:
            z, z_next, u = self.z[self.state[steps]], self.z[self.state[steps] + 1], self.u[steps]
            match name:
                case "dynamics":
                    change = (z_next - z) / self.scales.change
                    return (net(torch.cat([z, u], -1)) - change).square().mean()
                case "inverse":
                    return (net(moves(z, z_next, self.scales)) - u).square().mean()
                case "reward":
                    return (net(torch.cat([z, u], -1)) - self.r[steps]).square().mean()
                case _:
                    ended = self.terminal[steps].float()
                    return F.binary_cross_entropy_with_logits(net(z_next).squeeze(-1), ended)

        return loss

    def diffusion_loss(self, net: nn.Module, steps: Tensor, schedule: Schedule, generator: torch.Generator) -> Tensor:
        """Masked loss (Eq. 12) on windows that begin at steps `(B,)`."""
        config, device = self.config.diffusion, steps.device
        start = self.state[steps][:, None] + torch.arange(config.horizon, device=device)
        valid = start <= self.last[steps][:, None]
        x0 = self.windows[torch.minimum(start, self.last[steps][:, None])]
        known = training_masks(valid, config.mask, config.context, generator)
        k = torch.randint(len(schedule.signal), (len(steps),), device=device, generator=generator)
        noise = torch.randn(x0.shape, device=device, generator=generator)
        noised = torch.where(known[..., None], x0, schedule.add_noise(x0, noise, k))
        returns = None
        if config.return_dropout > 0:
            hidden = torch.rand(len(steps), device=device, generator=generator) < config.return_dropout
            returns = (self.returns[self.state[steps]] / config.returns_scale).masked_fill(hidden, torch.nan)
        predicted = net(noised, x0 * known[..., None], known.float(), valid.float(), k, returns)
        return masked_loss(predicted.float(), schedule.target(x0, noise, k), known, valid, config.edge_weight)


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
    entropy = [seed, NETWORKS.index(name)]
    tables = Tables(episodes, scales, config, discount, seed)
    host = seeded([*entropy, 2], torch.device("cpu"))
    net = build(name, episodes.observations.shape[1], episodes.actions.shape[1], config, host).to(device)
    if name == "diffusion":
        schedule = Schedule.cosine(config.diffusion.diffusion_steps, config.diffusion.parametrisation, device)

        def loss(net: nn.Module, steps: Tensor, generator: torch.Generator) -> Tensor:
            with torch.autocast(device.type, autocast, enabled=autocast is not None):
                return tables.diffusion_loss(net, steps, schedule, generator)

        members, fit_config = 0, config.diffusion.fit
    else:
        transition_loss = tables.transition_loss(name)

        def loss(net: nn.Module, steps: Tensor, generator: torch.Generator) -> Tensor:
            return transition_loss(net, steps)

        members, fit_config = config.members if name == "dynamics" else 1, getattr(config, name)
    rows = (tables.train, tables.held)
    return fit_rows(net, loss, rows, fit_config, members=members, entropy=entropy, path=path, progress=progress)


def fit_rows(
    net: nn.Module,
    loss: Callable[[nn.Module, Tensor, torch.Generator], Tensor],
    rows: tuple[Tensor, Tensor],
    config: FitConfig,
    *,
    members: int,
    entropy: list[int],
    path: Path,
    progress: Progress | None = None,
) -> FitResult:
    """Fit a network to batches of rows and save its weights.

    Args:
        net: On the device of the rows.
        loss: Of the network on rows `(B,)`, or `(M, B)` with members; draws its noise from the generator.
        rows: To train on and held out, int64.
        config: Size of a batch and rates.
        members: Batches drawn at once, one for each member of an ensemble; 0 for a network without members.
        entropy: Seeds the draws.
        path: File of the weights; its stem names the stage.
        progress: Called every few steps.

    Returns:
        The losses.
    """
    device = rows[0].device
    draws, fixed = (seeded(parts, device) for parts in (entropy, [*entropy, 1]))
    start = fixed.get_state()

    def batch(rows: Tensor, size: int, generator: torch.Generator) -> Tensor:
        shape = (members, size) if members else (size,)
        return rows[torch.randint(len(rows), shape, device=device, generator=generator)]

    def held_out(net: nn.Module) -> Tensor:
        # The same held-out draw each time, so that evaluations are comparable.
        fixed.set_state(start)
        return loss(net, batch(rows[1], 4 * max(config.batch_size, 128), fixed), fixed)

    result = fit(
        net,
        lambda net, generator: loss(net, batch(rows[0], config.batch_size, generator), generator),
        held_out,
        config,
        draws,
        stage=f"train {path.stem}",
        checkpoint=path.with_suffix(".checkpoint"),
        progress=progress,
    )
    save_atomically({"weights": net.state_dict(), "result": dataclasses.asdict(result)}, path)
    return result


def split(episodes: Episodes, seed: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Step rows to train on and held out: whole episodes, or the last steps of a dataset of few episodes."""
    held = _held_out(episodes, seeded([seed], device)).to(device)
    return (~held).nonzero().squeeze(1), held.nonzero().squeeze(1)


def seeded(entropy: list[int], device: torch.device) -> torch.Generator:
    """A generator of its own for every list of numbers."""
    return torch.Generator(device).manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))


def _held_out(episodes: Episodes, generator: torch.Generator) -> Tensor:
    """`(N,)` bool: whole held-out episodes, or the last steps of a dataset of few episodes."""
    count = len(episodes)
    if count >= 10:
        order = torch.randperm(count, generator=generator, device=generator.device).cpu().numpy()
        chosen = np.zeros(count, dtype=bool)
        chosen[order[: max(1, round(_HOLDOUT_SHARE * count))]] = True
        return torch.as_tensor(chosen[episodes.step_episode])
    cut = max(1, round(_HOLDOUT_SHARE * episodes.n_steps))
    return torch.arange(episodes.n_steps) >= episodes.n_steps - cut
