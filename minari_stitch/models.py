"""The trained models of section 4.2 as one bundle: how each reads a dataset, and save / load."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minari_stitch.config import DiffusionConfig, ModelConfig
from minari_stitch.diffusion import Schedule, masked_loss, training_masks
from minari_stitch.episodes import Episodes
from minari_stitch.nets import MLP, TemporalUNet, initialise
from minari_stitch.normalize import Affine, Cdf, fit_affine
from minari_stitch.normalize import fit as fit_normalizer
from minari_stitch.storage import reading
from minari_stitch.train import FitResult, Progress, fit, save_atomically

NETWORKS = ("diffusion", "dynamics", "inverse", "reward", "termination")
_HOLDOUT_SHARE = 0.05


@dataclass(frozen=True, kw_only=True, eq=False)
class Scales:
    """Normalisers that all models share, fitted once to the source.

    Attributes:
        state: Standardises states; the space of the qualification threshold.
        window: Normaliser of the diffusion model's windows.
        action: Maps the action space to [-1, 1].
        reward: Standardises rewards.
        change: `(S,)` spread of one step's change in standardised state.
        low: `(S,)` lowest standardised state.
        high: `(S,)` highest standardised state.
    """

    state: Affine
    window: Affine | Cdf
    action: Affine
    reward: Affine
    change: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, episodes: Episodes, action_low: np.ndarray, action_high: np.ndarray, config: DiffusionConfig) -> Scales:
        """Fit to the source; `action_low`, `action_high` are `(A,)` bounds of the action space."""
        observations = episodes.observations
        state = fit_affine(observations)
        # In float64 NumPy: sums in torch depend on the number of threads.
        change = (observations[episodes.step_state + 1] - observations[episodes.step_state]).std(0, dtype=np.float64)
        change = torch.as_tensor(change, dtype=torch.float32) / state.scale
        bounded = np.isfinite(action_low).all() and np.isfinite(action_high).all()
        limits = np.stack([action_low, action_high]) if bounded else episodes.actions
        extremes = torch.as_tensor(np.stack([observations.min(0), observations.max(0)]), dtype=torch.float32)
        low, high = state.encode(extremes)
        return cls(
            state=state,
            window=fit_normalizer(observations, config.normalizer),
            action=fit_affine(limits.astype(np.float64), "minmax"),
            reward=fit_affine(episodes.rewards[:, None].astype(np.float64)),
            change=torch.where(change > 1e-6, change, 1.0),
            low=low,
            high=high,
        )

    def window_bounds(self) -> tuple[Tensor, Tensor]:
        """`(S,)` lowest and highest state in the space of the diffusion model."""
        low, high = (self.window.encode(self.state.decode(z)) for z in (self.low, self.high))
        return low, high

    def to(self, device: torch.device | str) -> Scales:
        """The same scales on another device."""
        return dataclasses.replace(
            self, **{field.name: getattr(self, field.name).to(device) for field in dataclasses.fields(self)}
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Models:
    """G, f_psi, f_phi, f_omega and a termination classifier, on one device.

    States `z` are standardised `(..., S)`, actions `u` lie in [-1, 1] `(..., A)`.
    """

    config: ModelConfig
    scales: Scales
    schedule: Schedule
    diffusion: TemporalUNet
    dynamics_net: MLP
    inverse_net: MLP
    reward_net: MLP
    termination_net: MLP | None
    autocast: torch.dtype | None = None

    def denoise(self, *inputs: Tensor | None) -> Tensor:
        """The diffusion network's prediction `(B, H, S)` in float32; see `TemporalUNet.forward`."""
        with torch.autocast(self.scales.low.device.type, self.autocast, enabled=self.autocast is not None):
            return self.diffusion(*inputs).float()

    def repairers(self, z: Tensor, u: Tensor) -> Tensor:
        """Next states `(M, B, S)` by the networks that repair, from `(B, S)` and `(B, A)`."""
        return self._next(z, u, slice(None, self.config.members - self.config.judges))

    def judges(self, z: Tensor, u: Tensor) -> Tensor:
        """Eq. 9: next states `(M, B, S)` by the networks that qualify."""
        return self._next(z, u, slice(self.config.members - self.config.judges, None))

    def _next(self, z: Tensor, u: Tensor, members: slice) -> Tensor:
        return z + self.scales.change * self.dynamics_net(torch.cat([z, u], -1), members)

    def inverse(self, z: Tensor, z_next: Tensor) -> Tensor:
        """Eq. 7: actions `(B, A)` in [-1, 1] that lead from `z` to `z_next`."""
        return self.inverse_net(_moves(z, z_next, self.scales))[0].clamp(-1, 1)

    def reward(self, z: Tensor, u: Tensor) -> Tensor:
        """Eq. 8: rewards `(B,)` in the units of the source."""
        return self.scales.reward.decode(self.reward_net(torch.cat([z, u], -1))[0]).squeeze(-1)

    def termination(self, z_next: Tensor) -> Tensor:
        """Probability `(B,)` that arriving at `z_next` ends the episode; 0 when the source never terminates."""
        if self.termination_net is None:
            return torch.zeros(len(z_next), device=z_next.device)
        return self.termination_net(z_next)[0].squeeze(-1).sigmoid()


class Tables:
    """A source on the device, as the fits read it.

    Args:
        episodes: The source.
        scales: Normalisers.
        config: Sizes; the horizon and the discount of the return condition.
        discount: Gamma of the return condition.
        generator: Chooses the held-out episodes.
    """

    def __init__(
        self,
        episodes: Episodes,
        scales: Scales,
        config: ModelConfig,
        discount: float,
        generator: torch.Generator,
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
        held = _held_out(episodes, generator).to(device)
        self.train, self.held = (~held).nonzero().squeeze(1), held.nonzero().squeeze(1)

    def transition_loss(self, name: str) -> Callable[[nn.Module, Tensor], Tensor]:
        """Loss of one perceptron (Eq. 13) on steps `(M, B)`."""

        def loss(net: nn.Module, steps: Tensor) -> Tensor:
            z, z_next, u = self.z[self.state[steps]], self.z[self.state[steps] + 1], self.u[steps]
            match name:
                case "dynamics":
                    change = (z_next - z) / self.scales.change
                    return (net(torch.cat([z, u], -1)) - change).square().mean()
                case "inverse":
                    return (net(_moves(z, z_next, self.scales)) - u).square().mean()
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


def build(name: str, states: int, actions: int, config: ModelConfig, generator: torch.Generator) -> nn.Module:
    """A network of the bundle with fresh weights, on the CPU."""
    if name == "diffusion":
        c = config.diffusion
        with torch.device("meta"):
            unet = TemporalUNet(
                states,
                width=c.width,
                multipliers=c.multipliers,
                kernel=c.kernel,
                conditional=c.return_dropout > 0,
            )
        unet.to_empty(device="cpu")
        initialise(unet, generator)
        return unet
    sizes = {
        "dynamics": (states + actions, states, 4, config.members),
        "inverse": (2 * states, actions, 2, 1),
        "reward": (states + actions, 1, 4, 1),
        "termination": (states, 1, 2, 1),
    }
    inputs, outputs, layers, members = sizes[name]
    return MLP(inputs, outputs, hidden=config.hidden, layers=layers, members=members, generator=generator)


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
    split, draws, fixed = (
        torch.Generator(device).manual_seed(int(np.random.SeedSequence([*parts]).generate_state(1)[0]))
        for parts in ([seed], entropy, [*entropy, 1])
    )
    host = torch.Generator().manual_seed(int(np.random.SeedSequence([*entropy, 2]).generate_state(1)[0]))
    tables = Tables(episodes, scales, config, discount, split)
    net = build(name, episodes.observations.shape[1], episodes.actions.shape[1], config, host).to(device)
    fit_config = config.diffusion.fit if name == "diffusion" else getattr(config, name)
    fixed_state = fixed.get_state()
    if name == "diffusion":
        schedule = Schedule.cosine(config.diffusion.diffusion_steps, config.diffusion.parametrisation, device)

        def batch_loss(net: nn.Module, rows: Tensor, generator: torch.Generator, size: tuple[int, ...]) -> Tensor:
            steps = rows[torch.randint(len(rows), size, device=device, generator=generator)]
            with torch.autocast(device.type, autocast, enabled=autocast is not None):
                return tables.diffusion_loss(net, steps, schedule, generator)

        size: tuple[int, ...] = (fit_config.batch_size,)
    else:
        transition_loss = tables.transition_loss(name)

        def batch_loss(net: nn.Module, rows: Tensor, generator: torch.Generator, size: tuple[int, ...]) -> Tensor:
            return transition_loss(net, rows[torch.randint(len(rows), size, device=device, generator=generator)])

        size = (config.members if name == "dynamics" else 1, fit_config.batch_size)

    def held_out(net: nn.Module) -> Tensor:
        # The same held-out draw each time, so that evaluations are comparable.
        fixed.set_state(fixed_state)
        return batch_loss(net, tables.held, fixed, (*size[:-1], 4 * max(size[-1], 128)))

    result = fit(
        net,
        lambda net, generator: batch_loss(net, tables.train, generator, size),
        held_out,
        fit_config,
        draws,
        stage=name,
        checkpoint=directory / f"{name}.checkpoint",
        progress=progress,
    )
    save_atomically({"weights": net.state_dict(), "result": dataclasses.asdict(result)}, path)
    return result


def load_models(
    episodes: Episodes, scales: Scales, config: ModelConfig, directory: Path, autocast: torch.dtype | None = None
) -> Models:
    """Assemble the bundle from `directory`, on the device of `scales`; `autocast` reduces the U-Net's precision."""
    device = scales.low.device
    unused = torch.Generator()

    def load(name: str) -> Any:
        if name == "termination" and not episodes.terminations.any():
            return None
        net = build(name, episodes.observations.shape[1], episodes.actions.shape[1], config, unused)
        path = directory / f"{name}.pt"
        with reading(path):
            net.load_state_dict(torch.load(path, weights_only=True, map_location="cpu")["weights"])
        return net.to(device).eval().requires_grad_(False)

    return Models(
        config=config,
        scales=scales,
        schedule=Schedule.cosine(config.diffusion.diffusion_steps, config.diffusion.parametrisation, device),
        diffusion=load("diffusion"),
        autocast=autocast,
        **{f"{name}_net": load(name) for name in NETWORKS[1:]},
    )


def _moves(z: Tensor, z_next: Tensor, scales: Scales) -> Tensor:
    """State and its scaled change: better conditioned than two nearly equal states."""
    return torch.cat([z, (z_next - z) / scales.change], -1)


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
