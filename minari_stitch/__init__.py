"""Stitch low-return trajectories of a Minari dataset to high-return ones with a diffusion model (DiffStitch).

    import minari_stitch as ms

    made = ms.augment("demo/hopper/medium-replay-v0", delta=2)
    dataset = made.load()

Datasets:  `augment` and `estimate`, `mix`, `import_d4rl`, `import_ogbench`, `export_ogbench`, `read`
Parts:     `filter`, `trim`, `select`, and `scores`
Trust:     `check`, `verify`, `report`, `card`
Methods:   `DiffStitch`, `SynthER`, `TATU`, `Resample`, `Real`, and `Transform`, `Sample`, `settings` for your own
Settings:  `ModelConfig`, `DiffusionConfig`, `StitchConfig`, `QualifyConfig`, `FitConfig`, `NoiseConfig`, `JudgeConfig`
Results:   `Augmented`, `Estimate`, `Mixed`, `Imported`, `ImportedOGBench`, `Exported`
Errors:    `StitchError` and its kinds in `minari_stitch.errors`
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minari_stitch.api.ahead import estimate
    from minari_stitch.api.datasets import augment, mix, read
    from minari_stitch.api.edit import filter, scores, select, trim
    from minari_stitch.api.exchange import export_ogbench, import_d4rl, import_ogbench
    from minari_stitch.api.trust import card, check, report, verify
    from minari_stitch.baselines.controls import Real, Resample
    from minari_stitch.baselines.edm import NoiseConfig
    from minari_stitch.baselines.relabel import Relabel
    from minari_stitch.baselines.synther import SynthER
    from minari_stitch.baselines.tatu import TATU
    from minari_stitch.config import settings
    from minari_stitch.cost import Estimate
    from minari_stitch.data.mix import Mixed
    from minari_stitch.diffstitch.config import DiffusionConfig, ModelConfig, QualifyConfig, StitchConfig
    from minari_stitch.diffstitch.transform import DiffStitch
    from minari_stitch.errors import StitchError
    from minari_stitch.learn.judging import JudgeConfig
    from minari_stitch.learn.loop import FitConfig
    from minari_stitch.pipeline import Augmented
    from minari_stitch.sim.d4rl import Imported
    from minari_stitch.sim.ogbench import Exported, ImportedOGBench
    from minari_stitch.transforms.base import Sample, Transform

    __version__: str

__all__ = [
    "augment",
    "estimate",
    "filter",
    "mix",
    "trim",
    "select",
    "scores",
    "import_d4rl",
    "import_ogbench",
    "export_ogbench",
    "read",
    "check",
    "verify",
    "report",
    "card",
    "DiffStitch",
    "SynthER",
    "TATU",
    "Resample",
    "Relabel",
    "Real",
    "Transform",
    "Sample",
    "settings",
    "ModelConfig",
    "DiffusionConfig",
    "StitchConfig",
    "QualifyConfig",
    "FitConfig",
    "NoiseConfig",
    "JudgeConfig",
    "Augmented",
    "Estimate",
    "Mixed",
    "Imported",
    "ImportedOGBench",
    "Exported",
    "StitchError",
]
_HOMES = {
    "api.ahead": ("estimate",),
    "api.datasets": ("augment", "mix", "read"),
    "baselines.controls": ("Real", "Resample"),
    "baselines.edm": ("NoiseConfig",),
    "baselines.relabel": ("Relabel",),
    "baselines.synther": ("SynthER",),
    "baselines.tatu": ("TATU",),
    "data.mix": ("Mixed",),
    "diffstitch.config": ("DiffusionConfig", "ModelConfig", "QualifyConfig", "StitchConfig"),
    "diffstitch.transform": ("DiffStitch",),
    "api.edit": ("filter", "scores", "select", "trim"),
    "errors": ("StitchError",),
    "api.exchange": ("import_d4rl", "export_ogbench", "import_ogbench"),
    "api.trust": ("card", "check", "report", "verify"),
    "learn.judging": ("JudgeConfig",),
    "learn.loop": ("FitConfig",),
    "cost": ("Estimate",),
    "pipeline": ("Augmented",),
    "config": ("settings",),
    "sim.d4rl": ("Imported",),
    "sim.ogbench": ("Exported", "ImportedOGBench"),
    "transforms.base": ("Sample", "Transform"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import on first use: torch takes seconds, and the help of the command line needs none of it."""
    if name == "__version__":
        from importlib.metadata import version

        return version("minari-stitch")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
