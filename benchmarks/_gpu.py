"""What a GPU makes of the hot paths: training steps and stitched pairs a second."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from _fits import fit_of, fit_under_way, flops, plain_dynamics, plain_unet, window_tables
from _timing import Contender, Section, Setup, Spread, rates

from minari_stitch.diffstitch.config import ModelConfig, StitchConfig
from minari_stitch.diffstitch.models import NETWORKS, build, bundle
from minari_stitch.diffstitch.proposals import propose
from minari_stitch.diffstitch.source import Source
from minari_stitch.diffstitch.transform import DiffStitch

_BF16 = torch.bfloat16


@dataclass(frozen=True, kw_only=True)
class Work:
    """How much is timed.

    Attributes:
        models: Sizes of the networks; some of the dynamics networks repair.
        batch: Windows a step.
        steps: Training steps a repeat.
        pairs: In a chunk.
    """

    models: ModelConfig
    batch: int
    steps: int
    pairs: int


def gpu(setup: Setup) -> Section:
    """The paper's U-Net on a GPU, and `full`'s dynamics networks."""
    section = Section("gpu", "On a GPU: the paper's U-Net (d128, (1, 4, 8), H = 100) and the dynamics of `full`")
    if torch.device(setup.device).type != "cuda":
        section.note = f"Skipped: it needs --device cuda, and this run is on {setup.device}."
        return section
    large = DiffStitch.preset("full").models
    models = replace(large, diffusion=DiffStitch.preset("paper").models.diffusion)
    return large_networks(setup, section, Work(models=models, batch=64, steps=20, pairs=1024))


def large_networks(setup: Setup, section: Section, work: Work) -> Section:
    """Fill the section; with a small configuration it runs anywhere."""
    models = work.models
    table, episodes = window_tables(models, setup, 2000 if setup.quick else 50_000)
    size = 256 if setup.quick else 8192
    matrix, wide = (torch.randn(size, size, device=setup.device, dtype=kind) for kind in (_BF16, torch.float32))

    def under_way(name: str, batch: int, *, long: bool, kind: torch.dtype | None = None) -> Contender:
        return Contender(fit_under_way(fit_of(name, models, table, batch, kind), work.steps, long=long), work.steps)

    rows = models.dynamics.batch_size
    contenders = {
        "U-Net, compiled": under_way("diffusion", work.batch, long=True, kind=_BF16),
        "U-Net": under_way("diffusion", work.batch, long=False, kind=_BF16),
        "U-Net, plain": Contender(plain_unet(models, episodes, setup, work.batch, work.steps, _BF16), work.steps),
        "dynamics, compiled": under_way("dynamics", rows, long=True),
        "dynamics": under_way("dynamics", rows, long=False),
        "dynamics, plain": Contender(plain_dynamics(models, table, rows, work.steps), work.steps),
        "bf16": Contender(lambda: matrix @ matrix, 2 * size**3),
        "fp32": Contender(lambda: wide @ wide, 2 * size**3),
    }
    measured = rates(contenders, setup.repeats, setup.device)
    for name, batch, peak in (("U-Net", work.batch, "bf16"), ("dynamics", rows, "fp32")):
        net, loss, generator = fit_of("diffusion" if name == "U-Net" else name, models, table, batch)
        flop = flops(lambda net=net, loss=loss, generator=generator: loss(net, generator).backward())
        for how in (", compiled", "", ", plain"):
            section.add(
                job=f"training, {name}, batches of {batch}{how}",
                rate=Spread.of(measured[name + how]),
                unit="steps/s",
                ratio=Spread.of(measured[name + how] / measured[f"{name}, plain"]),
                **{"share of peak": Spread.of(measured[name + how] * flop / measured[peak])},
            )
    for job, contender in _stitching(setup, work, table.scales, episodes).items():
        speed = rates({job: contender}, setup.repeats, setup.device)[job]
        section.add(job=job, rate=Spread.of(speed), unit="pairs/s", ratio="", **{"share of peak": ""})
    peaks = ", ".join(f"{name} {Spread.of(measured[name] / 1e12)}" for name in ("bf16", "fp32"))
    section.note = f"Peaks of a product {size} x {size}, TFLOP/s: {peaks}. Plain: no graph, a loss read at every step."
    return section


def _stitching(setup: Setup, work: Work, scales: Any, episodes: Any) -> dict[str, Contender]:
    """Chunks of proposals: from the choice of pairs to judged arrays on the host."""
    models = work.models
    host = torch.Generator().manual_seed(0)
    nets: dict[str, Any] = {
        name: build(name, 11, 3, models, host).to(setup.device).eval().requires_grad_(False) for name in NETWORKS
    }
    longest = models.diffusion.horizon - models.diffusion.context - 1
    config = StitchConfig(max_bridge=longest, sampler_steps=min(10, models.diffusion.diffusion_steps), chunk=work.pairs)
    source = Source(episodes, scales, 0.99, models.diffusion.context, None)

    def contender(kind: torch.dtype | None, repair: int) -> Contender:
        made = bundle(nets, scales, models, kind)
        asked = replace(config, repair_steps=repair)
        return Contender(lambda: propose(made, source, asked, 0, 0), work.pairs)

    what = f"stitching, {work.pairs} pairs, {config.sampler_steps} steps"
    return {
        f"{what}, fp32, no repair": contender(None, 0),
        f"{what}, bf16, no repair": contender(_BF16, 0),
        f"{what}, bf16, repair": contender(_BF16, StitchConfig().repair_steps),
    }
