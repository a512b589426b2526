"""What stitching will take, counted from the sizes of its networks before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from minari_stitch.diffstitch.config import ModelConfig, StitchConfig
from minari_stitch.diffstitch.models import NETWORKS, build
from minari_stitch.transforms.work import Expected, Work, forward, size, training

_ACCEPTED = 1 / 3
"""Share of pairs that is taken to qualify: from a tenth to a half do (docs/RESULTS.md)."""


def expected(
    models: ModelConfig,
    stitch: StitchConfig,
    widths: tuple[int, int],
    missing: Iterable[str],
    missing_chunks: Callable[[float], int],
    bridges: float,
    episode: float,
) -> Expected:
    """Count it.

    Args:
        models: Sizes of the networks.
        stitch: How pairs are bridged.
        widths: S and A.
        missing: Networks that are not trained yet.
        missing_chunks: Of so many, how many chunks are not there yet.
        bridges: To be written.
        episode: Mean steps of an episode that is written.
    """
    states, actions = widths
    nets = {name: build(name, states, actions, models, torch.Generator()) for name in _fits(models)}
    inputs = _inputs(models, states, actions)
    work = []
    for name in missing:
        fit = models.diffusion.fit if name == "diffusion" else getattr(models, name)
        work.append(training(name, nets[name], inputs[name], fit.steps, fit.batch_size))
    chunks = missing_chunks(bridges / _ACCEPTED / stitch.chunk)
    work.append(_stitching(nets, inputs, models, stitch, chunks))
    weights = size(*nets.values())
    row = 4.0 * (stitch.longest + 2) * (2 * states + actions + 3)
    kept = 4.0 * weights + bridges / _ACCEPTED * row
    return Expected(work=work, episode=episode, kept=kept, parameters=weights)


def _fits(models: ModelConfig) -> tuple[str, ...]:
    return tuple(name for name in NETWORKS if name != "behaviour" or models.behaviour is not None)


def _inputs(models: ModelConfig, states: int, actions: int) -> dict[str, tuple[Tensor | None, ...]]:
    """Of one row, or one window, for each network."""
    horizon = models.diffusion.horizon
    window, flags = torch.zeros(1, horizon, states), torch.zeros(1, horizon)
    returns = torch.zeros(1) if models.diffusion.return_dropout else None
    return {
        "diffusion": (window, window, flags, flags, torch.zeros(1, dtype=torch.long), returns),
        "dynamics": (torch.zeros(1, states + actions),),
        "inverse": (torch.zeros(1, 2 * states),),
        "reward": (torch.zeros(1, states + actions),),
        "termination": (torch.zeros(1, states),),
        "behaviour": (torch.zeros(1, states),),
    }


def _stitching(
    nets: dict[str, nn.Module],
    inputs: dict[str, tuple[Tensor | None, ...]],
    models: ModelConfig,
    stitch: StitchConfig,
    chunks: int,
) -> Work:
    """Of each pair a dream and `draws` bridges, each denoised; then its repair, and the other networks once."""
    (window, layers), (row, calls) = (forward(nets[name], *inputs[name]) for name in ("diffusion", "dynamics"))
    guided, transitions = 2 if stitch.guidance else 1, stitch.longest + 1
    passes = stitch.sampler_steps * guided
    windows, repaired = passes * (1 + stitch.draws), 3 * stitch.repair_steps * transitions
    similar = 2.0 * stitch.pool * models.diffusion.horizon * inputs["termination"][0].shape[1]  # type: ignore[union-attr]
    flops = windows * window + (repaired + 3 * transitions) * row + similar
    return Work(
        stage="stitch",
        count=chunks,
        unit="chunks of pairs",
        flops=stitch.chunk * flops,
        calls=2 * passes * layers + 8 * stitch.repair_steps * calls,
        shared=True,
    )
