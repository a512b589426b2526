"""Sections of `speed.py` about trained models: what speed costs in acceptance."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _timing import Section, Setup, Spread, seconds
from torch import Tensor

from minari_stitch.diffstitch.config import ModelConfig, QualifyConfig
from minari_stitch.diffstitch.models import NETWORKS, Models, load_models
from minari_stitch.diffstitch.proposals import Proposals, judged, propose
from minari_stitch.diffstitch.source import Source
from minari_stitch.diffstitch.stitch import (
    Outcome,
    choose_pairs,
    estimate_steps,
    qualify,
    stitch_states,
)
from minari_stitch.diffstitch.training import train_network
from minari_stitch.diffstitch.transform import DiffStitch
from minari_stitch.learn.loop import FitConfig
from minari_stitch.learn.scales import Scales
from minari_stitch.run import Run

DELTAS = (0.5, 1.0, 2.0)
_FEW = (5, 10, 20)


def fewstep(setup: Setup) -> Section:
    """Few deterministic steps against 100 ancestral ones, on the same pairs."""
    transform, models, source, _, _ = _bundle(setup)
    rounds, count = (2, 4) if setup.quick else (4, 256)
    ancestral = _ancestral(setup)
    samplers = *((steps, 0.0) for steps in _FEW), ancestral
    section = Section(
        "fewstep",
        "Few DDIM steps against 100 ancestral ones: acceptance on the same pairs, and pairs a second",
        f"{setup.dataset}, fast preset with {setup.budget:g} of its training steps; {rounds * count} pairs, one draw "
        "each. Pairs and bridge lengths are the same in every row; timed are stitching, wrap-up and qualification. "
        "Difference: acceptance at delta 2 minus that of 100 ancestral steps, with its paired 95 % interval. "
        "Ratios: against 100 ancestral steps with the same repair.",
    )
    config = dataclasses.replace(transform.stitch, draws=1, chunk=count)
    repairs = (0, 3 if setup.quick else config.repair_steps)
    taken: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    verdicts: dict[tuple[Any, ...], list[np.ndarray]] = defaultdict(list)
    with torch.no_grad():
        for turn in range(rounds):
            generator = torch.Generator(setup.device).manual_seed(turn)
            candidates = choose_pairs(source, config, count, generator)
            pairs = estimate_steps(models, source, candidates, config, generator)
            for steps, eta in samplers:
                drawn = dataclasses.replace(config, sampler_steps=steps, eta=eta)
                states: list[Tensor] = []
                sampling = seconds(
                    lambda d=drawn, p=pairs, g=generator, s=states: s.append(stitch_states(models, source, p, d, g)),
                    setup.device,
                )
                for repair in repairs:
                    final = dataclasses.replace(drawn, repair_steps=repair)
                    found: list[Proposals] = []
                    judging = seconds(
                        lambda p=pairs, s=states[0], f=final, o=found: o.append(
                            judged(models, source, p, torch.arange(count), s, f)
                        ),
                        setup.device,
                    )
                    taken[steps, eta, repair].append(sampling + judging)
                    verdicts[steps, eta, repair].append(_accepted(found[0]))
    for repair in repairs:
        base = (*ancestral, repair)
        for steps, eta in samplers:
            accepted = np.concatenate(verdicts[steps, eta, repair], 1)
            speed = count / np.array(taken[steps, eta, repair])
            ratio = speed / (count / np.array(taken[base]))
            yields = [part[-1].mean() for part in (accepted, np.concatenate(verdicts[base], 1))]
            section.add(
                repair=repair,
                sampler=f"ancestral {steps}" if eta else f"DDIM {steps}",
                **_shares(accepted),
                difference=_difference(accepted[-1], np.concatenate(verdicts[base], 1)[-1]),
                **{
                    "pairs/s": Spread.of(speed),
                    "ratio": Spread.of(ratio),
                    "accepted/s, ratio": Spread.of(ratio * yields[0] / yields[1]) if yields[1] else "-",
                },
            )
    return section


def parametrisation(setup: Setup) -> Section:
    """What the diffusion network predicts, under one budget."""
    transform, models, _, dataset, folder = _bundle(setup)
    rounds, count = (1, 4) if setup.quick else (4, 128)
    section = Section(
        "parametrisation",
        "What the network predicts: acceptance without repair, under one training budget",
        f"{setup.dataset}, fast preset with {setup.budget:g} of its training steps; {rounds * count} pairs for each "
        "training seed, one draw, no repair. The source states, candidate targets and judging networks are the same in "
        "every row; each network dreams for itself. Intervals are 95 %. Error: median over pairs of what delta is "
        "compared with.",
    )
    for seed in range(setup.seeds):
        for name in ("v", "eps", "x0"):
            diffusion = dataclasses.replace(transform.models.diffusion, parametrisation=name)
            config = dataclasses.replace(transform.models, diffusion=diffusion)
            own = folder / f"parametrisation-{name}-{seed}"
            own.mkdir(exist_ok=True)
            # The judges stay those of the bundle; only the diffusion network is new, unless it would be the same.
            same = seed == 0 and config == transform.models
            for network in NETWORKS if same else NETWORKS[1:]:
                with contextlib.suppress(FileNotFoundError):
                    shutil.copy(folder / f"{network}.pt", own)
            scales = models.scales
            train_network("diffusion", dataset.episodes, scales, config, seed=seed, discount=0.99, directory=own)
            bundle = load_models(dataset.episodes, scales, config, own)
            source = _source(dataset, scales, transform)
            for steps, eta in ((10, 0.0), _ancestral(setup)):
                stitch = dataclasses.replace(
                    transform.stitch, sampler_steps=steps, eta=eta, draws=1, repair_steps=0, chunk=count
                )
                chunks = [propose(bundle, source, stitch, 0, chunk) for chunk in range(rounds)]
                section.add(
                    predicts=name,
                    seed=seed,
                    sampler=f"ancestral {steps}" if eta else f"DDIM {steps}",
                    **_shares(np.concatenate([_accepted(chunk) for chunk in chunks], 1)),
                    error=float(np.median(np.concatenate([chunk.error for chunk in chunks]))),
                )
    return section


def _ancestral(setup: Setup) -> tuple[int, float]:
    """Steps and eta of the paper's sampler."""
    return 10 if setup.quick else DiffStitch.preset("paper").stitch.sampler_steps, 1.0


def _bundle(setup: Setup) -> tuple[DiffStitch, Models, Source, Any, Path]:
    """Trained models of the fast preset, from the run directory where it has them."""
    from minari_stitch.data import minari_io
    from minari_stitch.sim import demo

    if demo.is_demo_id(setup.dataset):
        demo.ensure(setup.dataset, n_steps=setup.demo_steps, workers=1)
    dataset = minari_io.read(setup.dataset)
    transform = DiffStitch.preset("fast")
    if setup.budget != 1:
        transform = dataclasses.replace(transform, models=_scaled(transform.models, setup.budget))
    run = Run(directory=setup.directory, device=setup.device, workers=1, threads=1)
    job = transform.fit(dataset, run).job
    return transform, job.models, job.origin, dataset, job.networks


def _source(dataset: Any, scales: Scales, transform: DiffStitch) -> Source:
    context = transform.models.diffusion.context
    return Source(dataset.episodes, scales, transform.stitch.discount, context, dataset.max_episode_steps)


def _scaled(models: ModelConfig, budget: float) -> ModelConfig:
    """The same networks with a share of the gradient steps."""

    def less(fit: FitConfig) -> FitConfig:
        return dataclasses.replace(fit, steps=max(1, round(budget * fit.steps)))

    fits = {name: less(getattr(models, name)) for name in NETWORKS[1:]}
    diffusion = dataclasses.replace(models.diffusion, fit=less(models.diffusion.fit))
    return dataclasses.replace(models, diffusion=diffusion, **fits)


def _accepted(proposals: Proposals) -> np.ndarray:
    """`(deltas, B)` which pairs qualify at each of `DELTAS`."""
    return np.array([qualify(proposals, QualifyConfig(delta=delta)) == Outcome.ACCEPTED for delta in DELTAS])


def _shares(accepted: np.ndarray) -> dict[str, str]:
    """Acceptance at each delta, with the half-width of its 95 % interval at the last."""
    shares = accepted.mean(1)
    half = 1.96 * np.sqrt(shares * (1 - shares) / accepted.shape[1])
    return {f"delta {d:g}": f"{s:.1%} ± {100 * h:.1f}" for d, s, h in zip(DELTAS, shares, half, strict=True)}


def _difference(accepted: np.ndarray, base: np.ndarray) -> str:
    each = accepted.astype(float) - base
    half = 1.96 * each.std() / np.sqrt(len(each))
    return f"{100 * each.mean():+.1f} ± {100 * half:.1f}"
