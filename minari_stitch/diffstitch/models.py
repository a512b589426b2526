"""The trained models of section 4.2 as one bundle: how each reads a dataset, and how they are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from minari_stitch.data.episodes import Episodes
from minari_stitch.diffstitch.config import ModelConfig
from minari_stitch.diffstitch.diffusion import Schedule
from minari_stitch.diffstitch.unet import TemporalUNet
from minari_stitch.learn import judging
from minari_stitch.learn.calibration import UNCALIBRATED, Calibration
from minari_stitch.learn.nets import MLP, initialise
from minari_stitch.learn.scales import Scales
from minari_stitch.learn.support import Support
from minari_stitch.learn.tables import load_weights

NETWORKS = ("diffusion", "dynamics", "inverse", "reward", "termination", "behaviour")
SALTS = judging.SALTS | {"diffusion": 0, "inverse": 2, "reward": 3, "behaviour": 5}


@dataclass(frozen=True, kw_only=True, eq=False)
class Models:
    """G, f_psi, f_phi, f_omega, a termination classifier and a clone of the behaviour, on one device.

    States `z` are standardised `(..., S)`, actions `u` lie in [-1, 1] `(..., A)`.
    """

    config: ModelConfig
    scales: Scales
    schedule: Schedule
    diffusion: TemporalUNet
    dynamics_net: MLP
    inverse_net: MLP
    reward_net: MLP | None
    termination_net: MLP | None
    behaviour_net: MLP | None = None
    autocast: torch.dtype | None = None
    calibration: Calibration = UNCALIBRATED
    support: Support | None = None

    def denoise(self, *inputs: Tensor | None) -> Tensor:
        """The diffusion network's prediction `(B, H, S)` in float32; see `TemporalUNet.forward`."""
        with torch.autocast(self.scales.low.device.type, self.autocast, enabled=self.autocast is not None):
            return self.diffusion(*inputs).float()

    def repairers(self, z: Tensor, u: Tensor) -> Tensor:
        """Next states `(M, B, S)` by the networks that repair, from `(B, S)` and `(B, A)`."""
        return self._next(z, u, self._repairing)

    def repairers_linear(self, zu: Tensor) -> tuple[Tensor, Tensor]:
        """The same of states and actions side by side `(B, S + A)`, and its derivatives `(M, B, S, S + A)`."""
        change = self.scales.change
        predicted, slopes = self.dynamics_net.linear(zu, self._repairing)
        slopes = change[:, None] * slopes
        slopes.diagonal(dim1=-2, dim2=-1).add_(1)
        return zu[:, : len(change)] + change * predicted, slopes

    def judges(self, z: Tensor, u: Tensor) -> Tensor:
        """Eq. 9: next states `(M, B, S)` by the networks that qualify."""
        return self._next(z, u, slice(self.config.members - self.config.judges, None))

    @property
    def _repairing(self) -> slice:
        return slice(None, self.config.members - self.config.judges)

    def _next(self, z: Tensor, u: Tensor, members: slice) -> Tensor:
        return z + self.scales.change * self.dynamics_net(torch.cat([z, u], -1), members)

    def inverse(self, z: Tensor, z_next: Tensor) -> Tensor:
        """Eq. 7: actions `(B, A)` in [-1, 1] that lead from `z` to `z_next`."""
        return self.inverse_net(moves(z, z_next, self.scales))[0].clamp(-1, 1)

    @torch.no_grad()
    def act(self, states: np.ndarray, following: np.ndarray) -> np.ndarray:
        """Eq. 7 in the units of the source: actions `(B, A)` that lead from states `(B, S)` to the next ones."""
        device = self.scales.low.device
        z, z_next = (
            self.scales.state.encode(torch.tensor(x, dtype=torch.float32, device=device)) for x in (states, following)
        )
        return self.scales.action.decode(self.inverse(z, z_next)).cpu().numpy()

    def reward(self, z: Tensor, u: Tensor) -> Tensor:
        """Eq. 8: rewards `(B,)` in the units of the source; where all are equal there, that one."""
        if self.reward_net is None:
            return self.scales.reward.shift.expand(len(z))
        return self.scales.reward.decode(self.reward_net(torch.cat([z, u], -1))[0]).squeeze(-1)

    def termination(self, z_next: Tensor) -> Tensor:
        """Probability `(B,)` that arriving at `z_next` ends the episode; 0 when the source never terminates."""
        if self.termination_net is None:
            return torch.zeros(len(z_next), device=z_next.device)
        return self.termination_net(z_next)[0].squeeze(-1).sigmoid()

    def behaviour(self, z: Tensor) -> Tensor:
        """What the policies that recorded the source do at `z (B, S)`, on average: actions `(B, A)`."""
        assert self.behaviour_net is not None
        return self.behaviour_net(z)[0]

    def behaviour_linear(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The same, and its derivatives `(B, A, S)`."""
        assert self.behaviour_net is not None
        actions, slopes = self.behaviour_net.linear(z)
        return actions[0], slopes[0]


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
    if name in judging.SALTS:
        sizes = {"hidden": config.hidden, "layers": config.layers, "members": config.members}
        return judging.build_judge(name, states, actions, **sizes, generator=generator)
    inputs, outputs, layers = {
        "inverse": (2 * states, actions, config.inverse_layers),
        "reward": (states + actions, 1, config.layers),
        "behaviour": (states, actions, config.layers),
    }[name]
    return MLP(inputs, outputs, hidden=config.hidden, layers=layers, members=1, generator=generator)


def networks(episodes: Episodes, config: ModelConfig) -> tuple[str, ...]:
    """The networks that a source and the settings call for: those that have something to tell apart."""
    unused = {
        "reward": not np.ptp(episodes.rewards),
        "termination": not episodes.terminations.any(),
        "behaviour": config.behaviour is None,
    }
    return tuple(name for name in NETWORKS if not unused.get(name))


def load_models(
    episodes: Episodes, scales: Scales, config: ModelConfig, directory: Path, autocast: torch.dtype | None = None
) -> Models:
    """Assemble the bundle from `directory`, on the device of `scales`; `autocast` reduces the U-Net's precision."""
    unused, widths = torch.Generator(), (episodes.observations.shape[1], episodes.actions.shape[1])
    nets = {
        name: load_weights(build(name, *widths, config, unused), directory / f"{name}.pt", scales.low.device)
        for name in networks(episodes, config)
    }
    return bundle(nets, scales, config, autocast)


def bundle(
    nets: Mapping[str, nn.Module], scales: Scales, config: ModelConfig, autocast: torch.dtype | None = None
) -> Models:
    """The bundle of networks that are on the device of `scales`, ready to be used."""
    parts: dict[str, Any] = {f"{name}_net": nets.get(name) for name in NETWORKS[1:]}
    schedule = Schedule.cosine(config.diffusion.diffusion_steps, config.diffusion.parametrisation, scales.low.device)
    diffusion: Any = nets["diffusion"]
    return Models(config=config, scales=scales, schedule=schedule, diffusion=diffusion, autocast=autocast, **parts)


def moves(z: Tensor, z_next: Tensor, scales: Scales) -> Tensor:
    """Input of the inverse model: a state and its scaled change, better conditioned than two nearly equal states."""
    return torch.cat([z, (z_next - z) / scales.change], -1)
