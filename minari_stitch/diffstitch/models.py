"""The trained models of section 4.2 as one bundle: how each reads a dataset, and save / load."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from minari_stitch.config import DiffusionConfig, ModelConfig
from minari_stitch.data.episodes import Episodes
from minari_stitch.data.storage import reading
from minari_stitch.diffstitch.diffusion import Schedule
from minari_stitch.learn.nets import MLP, TemporalUNet, initialise
from minari_stitch.learn.normalize import Affine, Cdf, fit_affine
from minari_stitch.learn.normalize import fit as fit_normalizer

_DEFAULT = DiffusionConfig()
NETWORKS = ("diffusion", "dynamics", "inverse", "reward", "termination")


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
    def of(
        cls,
        episodes: Episodes,
        action_low: np.ndarray,
        action_high: np.ndarray,
        config: DiffusionConfig = _DEFAULT,
    ) -> Scales:
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
        return self.inverse_net(moves(z, z_next, self.scales))[0].clamp(-1, 1)

    def reward(self, z: Tensor, u: Tensor) -> Tensor:
        """Eq. 8: rewards `(B,)` in the units of the source."""
        return self.scales.reward.decode(self.reward_net(torch.cat([z, u], -1))[0]).squeeze(-1)

    def termination(self, z_next: Tensor) -> Tensor:
        """Probability `(B,)` that arriving at `z_next` ends the episode; 0 when the source never terminates."""
        if self.termination_net is None:
            return torch.zeros(len(z_next), device=z_next.device)
        return self.termination_net(z_next)[0].squeeze(-1).sigmoid()


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


def networks(episodes: Episodes) -> tuple[str, ...]:
    """The networks that a source calls for: without terminations there is nothing to classify."""
    return NETWORKS if episodes.terminations.any() else tuple(name for name in NETWORKS if name != "termination")


def load_models(
    episodes: Episodes, scales: Scales, config: ModelConfig, directory: Path, autocast: torch.dtype | None = None
) -> Models:
    """Assemble the bundle from `directory`, on the device of `scales`; `autocast` reduces the U-Net's precision."""
    device = scales.low.device
    unused = torch.Generator()

    def load(name: str) -> Any:
        if name not in networks(episodes):
            return None
        net = build(name, episodes.observations.shape[1], episodes.actions.shape[1], config, unused)
        return load_weights(net, directory / f"{name}.pt", device)

    return Models(
        config=config,
        scales=scales,
        schedule=Schedule.cosine(config.diffusion.diffusion_steps, config.diffusion.parametrisation, device),
        diffusion=load("diffusion"),
        autocast=autocast,
        **{f"{name}_net": load(name) for name in NETWORKS[1:]},
    )


def load_weights(net: nn.Module, path: Path, device: torch.device) -> Any:
    """The network with trained weights, on a device, ready to be used.

    Raises:
        StorageError: The file cannot be read.
    """
    with reading(path):
        net.load_state_dict(torch.load(path, weights_only=True, map_location="cpu")["weights"])
    return net.to(device).eval().requires_grad_(False)


def moves(z: Tensor, z_next: Tensor, scales: Scales) -> Tensor:
    """Input of the inverse model: a state and its scaled change, better conditioned than two nearly equal states."""
    return torch.cat([z, (z_next - z) / scales.change], -1)
