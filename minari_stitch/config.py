"""Settings: frozen, keyword-only, validated, and the same on disk as in memory."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal

from minari_stitch.errors import ConfigError


def _require(condition: bool, name: str, value: object, remedy: str) -> None:
    if not condition:
        raise ConfigError(f"{name}={value!r} is not possible: {remedy}")


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """One training run."""

    steps: int
    """Gradient steps at most."""
    batch_size: int
    """Windows or transitions a step."""
    learning_rate: float
    """Peak rate of Adam; warmed up, then a cosine to a hundredth."""
    warmup: int = 100
    """Steps of linear warm-up."""
    ema: float = 0.995
    """Decay of the weight average that is kept (released code: 0.995)."""
    clip: float = 1.0
    """Largest gradient norm."""
    evaluate_every: int = 200
    """Steps between held-out evaluations."""
    patience: int = 10
    """Evaluations without a better held-out loss before the fit stops."""

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        for name in ("steps", "batch_size", "warmup", "evaluate_every", "patience"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "use at least 1")
        _require(self.learning_rate > 0, "learning_rate", self.learning_rate, "use a positive rate")
        _require(0 <= self.ema < 1, "ema", self.ema, "use a decay in [0, 1)")
        _require(self.clip > 0, "clip", self.clip, "use a positive gradient norm")


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig:
    """The generative model G of section 4.2."""

    horizon: int = 32
    """H, states in a window (paper: 100; pen 55)."""
    context: int = 1
    """Real states of the source shown before the bridge, its start included (paper: 1)."""
    diffusion_steps: int = 100
    """K (paper: 100)."""
    parametrisation: Literal["v", "eps", "x0"] = "v"
    """What the network predicts (paper: eps)."""
    normalizer: Literal["standard", "minmax", "cdf"] = "standard"
    """Space of the windows (released code: cdf)."""
    mask: Literal["inference", "paper", "reference"] = "inference"
    """Training masks."""
    edge_weight: float = 1.0
    """Loss weight of hidden states next to given ones."""
    width: int = 32
    """Channels of the U-Net's first level (released code: 128)."""
    multipliers: tuple[int, ...] = (1, 2, 4)
    """Channels of each level in units of `width` (released code: 1, 4, 8)."""
    kernel: int = 5
    """Kernel size (released code: 5)."""
    return_dropout: float = 0.0
    """Share of windows trained without their return; 0 trains no return condition (released code: 0.25)."""
    returns_scale: float = 400.0
    """Divisor of the discounted return that conditions the network (released code: 400)."""
    fit: FitConfig = field(default_factory=lambda: FitConfig(steps=3000, batch_size=64, learning_rate=1e-3))

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        factor = 2 ** (len(self.multipliers) - 1)
        below, above = self.horizon // factor * factor, -(-self.horizon // factor) * factor
        _require(
            self.horizon % factor == 0,
            "horizon",
            self.horizon,
            f"a U-Net of {len(self.multipliers)} levels needs a multiple of {factor}: use {below} or {above}",
        )
        _require(self.context >= 1, "context", self.context, "show at least the start state")
        _require(self.horizon >= self.context + 3, "horizon", self.horizon, f"use at least {self.context + 3}")
        _require(self.diffusion_steps >= 2, "diffusion_steps", self.diffusion_steps, "use at least 2")
        _require(self.kernel % 2 == 1, "kernel", self.kernel, "use an odd size")
        _require(self.width >= 4 and self.width % 2 == 0, "width", self.width, "use an even number of at least 4")
        _require(self.edge_weight > 0, "edge_weight", self.edge_weight, "use a positive weight")
        _require(0 <= self.return_dropout < 1, "return_dropout", self.return_dropout, "use a share in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """All networks of section 4.2; everything that decides what training yields."""

    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    """The generative model."""
    hidden: int = 256
    """Width of the hidden layers."""
    members: int = 4
    """Dynamics networks. The last `judges` of them only qualify and never repair."""
    judges: int = 2
    """Dynamics networks that qualification listens to."""
    dynamics: FitConfig = field(default_factory=lambda: FitConfig(steps=10_000, batch_size=256, learning_rate=1e-3))
    inverse: FitConfig = field(default_factory=lambda: FitConfig(steps=6000, batch_size=256, learning_rate=1e-3))
    reward: FitConfig = field(default_factory=lambda: FitConfig(steps=3000, batch_size=256, learning_rate=1e-3))
    termination: FitConfig = field(default_factory=lambda: FitConfig(steps=2000, batch_size=256, learning_rate=1e-3))

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        _require(self.hidden >= 1, "hidden", self.hidden, "use at least 1")
        _require(
            0 < self.judges < self.members,
            "judges",
            self.judges,
            f"use 1 to members - 1 = {self.members - 1}",
        )


@dataclass(frozen=True, kw_only=True)
class StitchConfig:
    """How pairs are chosen and bridged; everything that decides what a chunk of proposals holds."""

    pairs: Literal["reach", "paper", "reference"] = "reach"
    """`paper`: random low to random high. `reference`: released code. `reach`: targets the dream comes close to."""
    similarity: Literal["euclidean", "cosine"] = "euclidean"
    """How a dreamed state is compared with a target (paper: cosine)."""
    min_similarity: float | None = None
    """Pairs below are unreachable (released code: cosine 0.8 to 0.9); None keeps all."""
    source_fraction: float = 0.7
    """Sources come from this lowest share of states by discounted return-to-go (`reference`: the highest)."""
    target_fraction: float = 0.3
    """Targets come from this highest share of states by discounted return-to-go (released code: 0.02)."""
    pool: int = 4096
    """Targets compared with each dream (released code: 512)."""
    fixed_steps: int | None = None
    """Bridge length without estimation (figure 5, -TEstimation: 40)."""
    min_bridge: int = 4
    """Fewest generated states (released code: 10)."""
    max_bridge: int = 24
    """Most generated states (released code: 39; paper: H - 2)."""
    sampler_steps: int = 10
    """Denoising steps (paper: K = 100)."""
    eta: float = 0.0
    """0: DDIM; 1 with K steps: the paper's ancestral sampler."""
    temperature: float = 1.0
    """Scale of the sampler's noise (released code: 0.5)."""
    guidance: float = 0.0
    """Classifier-free guidance weight towards `target_return` (released code: 1.2)."""
    target_return: float = 0.9
    """Scaled return asked for when guided (released code: 0.35 to 0.92)."""
    draws: int = 1
    """Bridges drawn for each pair; the truest by the repairing networks is kept."""
    repair_steps: int = 150
    """Gradient steps that pull a bridge onto the dynamics model; 0 leaves it as generated (paper)."""
    discount: float = 0.99
    """Gamma of returns-to-go."""
    chunk: int = 64
    """Pairs proposed together, from one generator."""

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        for name in ("source_fraction", "target_fraction"):
            _require(0 < getattr(self, name) <= 1, name, getattr(self, name), "use a share in (0, 1]")
        for name in ("pool", "min_bridge", "sampler_steps", "draws", "chunk"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "use at least 1")
        _require(self.repair_steps >= 0, "repair_steps", self.repair_steps, "use 0 or more")
        _require(self.max_bridge >= self.min_bridge, "max_bridge", self.max_bridge, "use at least min_bridge")
        _require(0 < self.discount <= 1, "discount", self.discount, "use a value in (0, 1]")
        _require(self.fixed_steps is None or self.fixed_steps >= 1, "fixed_steps", self.fixed_steps, "use at least 1")
        _require(0 <= self.eta <= 1, "eta", self.eta, "use a value in [0, 1]")
        _require(self.temperature > 0, "temperature", self.temperature, "use a positive scale")

    @property
    def longest(self) -> int:
        """Most generated states of a bridge."""
        return self.max_bridge if self.fixed_steps is None else self.fixed_steps

    @property
    def shortest(self) -> int:
        """Fewest generated states of a bridge."""
        return self.min_bridge if self.fixed_steps is None else self.fixed_steps


@dataclass(frozen=True, kw_only=True)
class QualifyConfig:
    """Which bridges are accepted."""

    delta: float = 2.0
    """Largest squared distance, in standardised state space, of a state from its prediction (Eq. 10)."""
    termination: float = 0.5
    """A predicted probability of an end inside the bridge that rejects it."""

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        _require(self.delta > 0, "delta", self.delta, "use a positive squared distance, such as 0.5 or 2")
        _require(0 < self.termination <= 1, "termination", self.termination, "use a probability in (0, 1]")


def to_dict(config: Any) -> dict[str, Any]:
    """Nested plain values, fit for JSON."""
    return dataclasses.asdict(config)


def key(*parts: Any) -> str:
    """Short hex digest of configs and plain values: what a cache entry depends on."""
    plain = [to_dict(part) if dataclasses.is_dataclass(part) else part for part in parts]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]
