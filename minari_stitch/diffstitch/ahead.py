"""What stitching will take, found out with networks that have learned nothing, before anything is trained."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from minari_stitch.data.episodes import Episodes
from minari_stitch.diffstitch.config import ModelConfig, StitchConfig
from minari_stitch.diffstitch.models import build, bundle
from minari_stitch.diffstitch.proposals import propose
from minari_stitch.diffstitch.source import Source
from minari_stitch.job import Job
from minari_stitch.learn.scales import Scales
from minari_stitch.learn.support import REFERENCE, Support
from minari_stitch.run import Run
from minari_stitch.transforms.work import Expected, Work, repeated, size, training, tried

_ACCEPTED = 1 / 3
"""Share of pairs that is taken to qualify: from a tenth to nine tenths do (docs/RESULTS.md)."""


def expected(
    models: ModelConfig,
    stitch: StitchConfig,
    episodes: Episodes,
    job: Job,
    run: Run,
    names: Collection[str],
    bridges: float,
    episode: float,
) -> Expected:
    """Count it.

    Args:
        models: Sizes of the networks.
        stitch: How pairs are bridged.
        episodes: The source as networks see it.
        job: Knows what is there already.
        run: Where.
        names: Of the networks that the source calls for.
        bridges: To be written.
        episode: Mean steps of an episode that is written.
    """
    states, actions = job.widths
    nets = {name: build(name, states, actions, models, torch.Generator()) for name in names}
    inputs, work = _inputs(models, states, actions), []
    for name, net in nets.items():
        if job.network(name).exists():
            continue
        fit, autocast = (models.diffusion.fit, run.autocast) if name == "diffusion" else (getattr(models, name), None)
        work.append(training(name, net, inputs[name], fit, run, autocast))
    work.append(
        Work(
            stage="stitch",
            count=job.missing_chunks(bridges / _ACCEPTED / stitch.chunk),
            unit="chunks of pairs",
            each=_Chunk(models=models, stitch=stitch, episodes=episodes, job=job, run=run, nets=nets).seconds,
            shared=True,
        )
    )
    weights, row = size(*nets.values()), 4.0 * (stitch.longest + 2) * (2 * states + actions + 3)
    kept = 4.0 * weights + bridges / _ACCEPTED * row
    return Expected(work=work, episode=episode, kept=kept, parameters=weights)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Chunk:
    """A chunk of pairs, proposed with untrained networks: as costly as with trained ones, but for bridges' lengths."""

    models: ModelConfig
    stitch: StitchConfig
    episodes: Episodes
    job: Job
    run: Run
    nets: Mapping[str, nn.Module]

    def seconds(self) -> float:
        """Of one process, which uses one thread: a chunk in one denoising step, and the other steps."""
        job, stitch, device = self.job, self.stitch, self.run.device
        low, high = (np.array(bounds) for bounds in (job.low, job.high))
        scales = Scales.of(self.episodes, low, high, job.normalizer).to(device)
        source = Source(self.episodes, scales, stitch.discount, self.models.diffusion.context, job.limit)
        nets = {name: copy.deepcopy(net).to(device).eval().requires_grad_(False) for name, net in self.nets.items()}
        models = dataclasses.replace(
            bundle(nets, scales, self.models, self.run.autocast),
            support=Support(reference=source.z[:REFERENCE], unit=1.0),
        )
        inputs = _inputs(self.models, *job.widths)["diffusion"]

        def chunk(rows: int) -> None:
            propose(models, source, dataclasses.replace(stitch, chunk=rows, sampler_steps=1), self.run.seed, 0)

        @torch.no_grad()
        def step(rows: int) -> None:
            models.denoise(*repeated(inputs, rows, device))

        guided = 2 if self.models.diffusion.return_dropout else 1  # both passes, in one batch
        windows = round(stitch.chunk * guided * (1 / stitch.nearest + stitch.draws))
        return tried(chunk, stitch.chunk, device=device, threads=1) + (stitch.sampler_steps - 1) * tried(
            step, windows, device=device, threads=1
        )


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
