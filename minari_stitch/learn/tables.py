"""A source on the device as networks read it, and how a network is fitted to its rows.

Shape letters: `N` steps, `E` episodes, `S` state width, `A` action width, `M` ensemble members, `B` batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from minari_stitch.data.episodes import Episodes
from minari_stitch.data.storage import load_sealed, reading
from minari_stitch.errors import NothingToStitchError
from minari_stitch.learn.loop import FitConfig, FitResult, save_atomically, train
from minari_stitch.learn.normalize import encode_rows
from minari_stitch.learn.scales import Scales
from minari_stitch.learn.seeds import seeded
from minari_stitch.progress import Progress

_HOLDOUT_SHARE = 0.05

RowLoss = Callable[[nn.Module, Tensor, torch.Generator], Tensor]
"""Of a network on step rows `(B,)`, or `(M, B)` with members; draws its noise from the generator."""


class Tables:
    """A source on the device.

    Args:
        episodes: The source.
        scales: Normalisers, on the device to use.
        seed: Chooses the held-out episodes.

    Attributes:
        scales: Normalisers.
        z: `(N + E, S)` standardised states.
        u: `(N, A)` actions in [-1, 1].
        r: `(N, 1)` standardised rewards.
        terminal: `(N,)` bool.
        state: `(N,)` row of each step's state; the next one is one row further.
        train: Step rows to train on.
        held: Step rows held out.
    """

    def __init__(self, episodes: Episodes, scales: Scales, seed: int) -> None:
        device = scales.low.device
        self.scales = scales
        self.z = encode_rows(scales.state, episodes.observations, device)
        self.u = encode_rows(scales.action, episodes.actions, device)
        self.r = encode_rows(scales.reward, episodes.rewards[:, None], device)
        self.terminal = torch.tensor(episodes.terminations, device=device)
        self.state = torch.tensor(episodes.step_state, device=device)
        self.train, self.held = split(episodes, seed, device)

    def change(self, steps: Tensor) -> Tensor:
        """`(..., S)` scaled change of the state over steps `(...)`."""
        state = self.state[steps]
        return (self.z[state + 1] - self.z[state]) / self.scales.change

    def inputs(self, steps: Tensor) -> Tensor:
        """`(..., S + A)` states and actions of steps `(...)`."""
        return torch.cat([self.z[self.state[steps]], self.u[steps]], -1)


def train_rows(
    net: nn.Module,
    loss: RowLoss,
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
        loss: See `RowLoss`.
        rows: To train on and held out, int64.
        config: Size of a batch and rates.
        members: Batches drawn at once, one for each member of an ensemble; 0 for a network without members.
        entropy: Seeds the draws.
        path: File of the weights; its stem names the stage.
        progress: Called every few steps.

    Returns:
        The losses.

    Raises:
        TrainingError: The training diverged; no file is written.
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

    result = train(
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


def load_weights(net: nn.Module, path: Path, device: torch.device | str) -> Any:
    """The network with trained weights, on a device, ready to be used.

    Raises:
        StorageError: The file cannot be read.
    """
    with reading(path):
        net.load_state_dict(torch.load(load_sealed(path), weights_only=True, map_location="cpu")["weights"])
    return net.to(device).eval().requires_grad_(False)


def split(episodes: Episodes, seed: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Step rows to train on and held out: whole episodes, or the last steps of a dataset of few episodes.

    Raises:
        NothingToStitchError: No row is left to train on.
    """
    held = _held_out(episodes, seeded([seed], device)).to(device)
    if held.all():
        raise NothingToStitchError(f"{episodes.n_steps} steps are too few to learn from: use a dataset with more")
    return (~held).nonzero().squeeze(1), held.nonzero().squeeze(1)


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
