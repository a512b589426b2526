"""The sizes of DiffStitch beside its defaults (`fast`), as keyword arguments."""

from __future__ import annotations

from typing import Any

from minari_stitch.diffstitch.config import DiffusionConfig, ModelConfig, QualifyConfig, StitchConfig
from minari_stitch.learn.loop import FitConfig


def full() -> dict[str, Any]:
    """For a GPU."""
    fits: dict[str, Any] = {
        network: FitConfig(steps=30_000, batch_size=1024, learning_rate=1e-3, evaluate_every=1000)
        for network in ("dynamics", "inverse", "reward", "termination", "behaviour")
    }
    diffusion = DiffusionConfig(
        horizon=64,
        width=64,
        multipliers=(1, 2, 4),
        kernel=5,
        fit=FitConfig(steps=100_000, batch_size=256, learning_rate=5e-4, ema=0.999, evaluate_every=1000),
    )
    return {
        "models": ModelConfig(diffusion=diffusion, hidden=512, layers=4, members=7, judges=4, **fits),
        "stitch": StitchConfig(max_bridge=48, pool=16384, sampler_steps=20, draws=4, chunk=512),
    }


def paper() -> dict[str, Any]:
    """Section 4 of the paper to the letter, with the sizes of the released code."""
    fit = FitConfig(steps=100_000, batch_size=256, learning_rate=3e-4, evaluate_every=1000)
    diffusion = DiffusionConfig(
        horizon=100,
        parametrisation="eps",
        mask="paper",
        known="noised",
        width=128,
        multipliers=(1, 4, 8),
        kernel=5,
        fit=FitConfig(steps=1_000_000, batch_size=64, learning_rate=2e-4, evaluate_every=10_000, patience=100),
    )
    return {
        "models": ModelConfig(
            diffusion=diffusion,
            hidden=256,
            layers=4,
            inverse_layers=2,
            members=1,
            judges=1,
            dynamics=fit,
            inverse=fit,
            reward=fit,
            termination=fit,
            behaviour=None,
        ),
        "stitch": StitchConfig(
            pairs="paper",
            nearest=1.0,
            similarity="cosine",
            literal_delta=True,
            steps_left=0,
            source_fraction=0.5,
            target_fraction=0.5,
            min_bridge=1,
            max_bridge=98,
            sampler_steps=100,
            eta=1.0,
            draws=1,
            repair_steps=0,
            imitation=0.0,
        ),
        "qualify": QualifyConfig(termination=1, doubt="error", drift=None, support=None, better=False),
    }
