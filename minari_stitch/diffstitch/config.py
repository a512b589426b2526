"""DiffStitch's settings; where paper and released code differ, each says what they use."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field

from minari_stitch.config import Count, Decay, NonNegative, Positive, Share, settings
from minari_stitch.diffstitch.diffusion import MaskKind, Parametrisation
from minari_stitch.errors import ConfigError
from minari_stitch.learn.loop import FitConfig, classifier, perceptron
from minari_stitch.learn.normalize import NormalizerKind


@settings
class DiffusionConfig:
    """The generative model G of section 4.2."""

    horizon: Count = 32
    """H, states in a window (paper: 100; pen 55)."""
    context: Count = 1
    """Real states of the source shown before the bridge, its start included (paper: 1)."""
    diffusion_steps: Annotated[int, Field(ge=2)] = 100
    """K (paper: 100)."""
    parametrisation: Parametrisation = "v"
    """What the network predicts (paper: eps)."""
    normalizer: NormalizerKind = "standard"
    """Space of the windows (released code: cdf)."""
    mask: MaskKind = "inference"
    """Training masks: what stitching asks for, two hidden intervals (paper), or one shown block (released code)."""
    known: Literal["clean", "noised"] = "clean"
    """Given states stand clean in the noised window, at each step of sampling too, and carry no loss (released code);
    or they are noised, denoised and scored like the others, and only shown beside (Eqs. 11, 12)."""
    edge_weight: Positive = 1.0
    """Loss weight of hidden states next to given ones."""
    width: Annotated[int, Field(ge=4, multiple_of=2)] = 48
    """Channels of the U-Net's first level (released code: 128)."""
    multipliers: Annotated[tuple[Count, ...], Field(min_length=1)] = (1, 1, 1)
    """Channels of each level in units of `width` (released code: 1, 4, 8)."""
    kernel: Count = 3
    """Odd kernel size (released code: 5)."""
    return_dropout: Decay = 0.0
    """Share of windows trained without their return; 0 trains no return condition (released code: 0.25)."""
    returns_scale: Positive = 400.0
    """Divisor of the discounted return that conditions the network (released code: 400)."""
    fit: FitConfig = field(default_factory=lambda: FitConfig(steps=1000, batch_size=64, learning_rate=3e-3))
    """Training of the U-Net."""

    def __post_init__(self) -> None:
        """Refuse what does not fit together."""
        factor = 2 ** (len(self.multipliers) - 1)
        if self.horizon % factor:
            below, above = self.horizon // factor * factor, -(-self.horizon // factor) * factor
            raise ConfigError(
                f"horizon={self.horizon} is not possible: a U-Net of {len(self.multipliers)} levels needs a multiple "
                f"of {factor}; use {below} or {above}"
            )
        if self.horizon < self.context + 3:
            raise ConfigError(f"horizon={self.horizon} is not possible: use at least {self.context + 3}")
        if self.kernel % 2 == 0:
            raise ConfigError(f"kernel={self.kernel} is not possible: use an odd size")


@settings
class ModelConfig:
    """All networks of section 4.2; everything that decides what training yields."""

    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    """The generative model."""
    hidden: Count = 144
    """Width of the hidden layers (released code: 256)."""
    layers: Count = 4
    """Hidden layers of f_omega and f_phi."""
    inverse_layers: Count = 3
    """Hidden layers of f_psi (released code: 2)."""
    members: Count = 4
    """Dynamics networks. The last `judges` of them only qualify and never repair (paper: 1; released code: 7)."""
    judges: Count = 2
    """Dynamics networks that qualification listens to, the last ones; they may be all where none repairs or chooses."""
    dynamics: FitConfig = field(default_factory=lambda: perceptron(3500))
    """Training of f_omega."""
    inverse: FitConfig = field(default_factory=lambda: perceptron(1600))
    """Training of f_psi."""
    reward: FitConfig = field(default_factory=lambda: perceptron(800))
    """Training of f_phi."""
    termination: FitConfig = field(default_factory=lambda: classifier(2000))
    """Training of the classifier of terminations (released code)."""
    behaviour: FitConfig | None = field(default_factory=lambda: perceptron(800))
    """Training of a clone of the behaviour, which repair keeps actions near; None: there is none (paper)."""

    def __post_init__(self) -> None:
        """Refuse more judges than networks."""
        if self.judges > self.members:
            raise ConfigError(f"judges={self.judges} is not possible: use 1 to members={self.members}")


@settings
class StitchConfig:
    """How pairs are chosen and bridged; everything that decides what a chunk of proposals holds."""

    pairs: Literal["reach", "paper", "reference", "connect"] = "reach"
    """`paper`: random low to random high. `reference`: released code. `reach`: targets the dream comes close to.
    `connect`: the same, of those that lead where no trajectory leads from the source, whatever their returns."""
    regions: Count = 128
    """Of the state space, for pairs that `connect` (k-means)."""
    hops: Count = 1
    """Bridges that an episode crosses at most, of `connect` (paper: 1). With more than one, chains lead from the starts
    of trajectories to the highest return or, where returns say nothing, by the fewest steps to regions drawn."""
    rising: bool | None = None
    """Of `connect`: a target promises more return than its source. None: where rewards differ and all trajectories
    pursue one goal, so that returns can be compared."""
    nearest: Share = 0.75
    """Share of the drawn pairs that are bridged: those whose target is most like what was dreamed (paper: 1)."""
    spread: bool = False
    """Pairs that are bridged together share no trajectory, as far as there are others; of `reach` and `connect`, whose
    nearest pairs else lead to a few targets."""
    similarity: Literal["euclidean", "cosine"] = "euclidean"
    """How a dreamed state is compared with a target (paper: cosine)."""
    min_similarity: float | None = None
    """Pairs below are unreachable (released code: cosine 0.8 to 0.9); None keeps all."""
    literal_delta: bool = False
    """Delta is the index of the most similar dreamed state (Eq. 4; paper and released code). By default it is one
    less: so many states lie between, and the target stands where the dream came closest to it."""
    steps_left: Annotated[int, Field(ge=0)] | None = None
    """More steps than this follow a source in its episode; None: than the shortest bridge (paper: 0, s_T ends its
    trajectory; released code: 100)."""
    latest_source: Annotated[int, Field(ge=0)] | None = None
    """Last time step of an episode that is a source; None: any (paper). Early ones leave little of a poor prefix."""
    source_fraction: Share = 0.7
    """Sources come from this lowest share of states by discounted return-to-go (`reference`: the highest)."""
    target_fraction: Share = 0.3
    """Targets come from this highest share of states by discounted return-to-go (released code: 0.02)."""
    pool: Count = 4096
    """Targets compared with each dream (released code: 512)."""
    fixed_steps: Count | None = None
    """Bridge length without estimation (figure 5, -TEstimation: 40)."""
    min_bridge: Count = 4
    """Fewest generated states (released code: 10)."""
    max_bridge: Count = 24
    """Most generated states (released code: 39; paper: H - 2)."""
    sampler_steps: Count = 5
    """Denoising steps (paper: K = 100)."""
    eta: Annotated[float, Field(ge=0, le=1)] = 0.0
    """0: DDIM; 1 with K steps: the paper's ancestral sampler."""
    temperature: Positive = 1.0
    """Scale of the sampler's noise (released code: 0.5)."""
    guidance: NonNegative = 0.0
    """Classifier-free guidance weight towards `target_return` (released code: 1.2)."""
    target_return: float = 0.9
    """Scaled return asked for when guided (released code: 0.35 to 0.92)."""
    draws: Count = 1
    """Bridges drawn for each pair; the truest by the repairing networks is kept."""
    repair_steps: Annotated[int, Field(ge=0)] = 10
    """Gauss-Newton steps that pull a bridge onto the dynamics model; 0 leaves it as generated (paper)."""
    imitation: NonNegative | None = None
    """Weight in repair of the squared distance of actions from what a clone of the behaviour would do; 0: none. Many
    actions lead about the same way, and learners imitate those that a bridge shows (docs/EXPERIMENTS.md). None: 0.005,
    but 0 where trajectories pursue many goals or none: a clone, which sees no goal, does what none of them did."""
    discount: Share = 0.99
    """Gamma of returns-to-go."""
    chunk: Count = 64
    """Pairs proposed together, from one generator."""

    def __post_init__(self) -> None:
        """Refuse an empty range, and chains of pairs that do not connect."""
        if self.hops > 1 and self.pairs != "connect":
            raise ConfigError(f"hops={self.hops} is not possible with pairs={self.pairs}: use pairs=connect, or hops=1")
        if self.max_bridge < self.min_bridge:
            raise ConfigError(f"max_bridge={self.max_bridge} is not possible: use at least min_bridge")

    @property
    def longest(self) -> int:
        """Most generated states of a bridge."""
        return self.max_bridge if self.fixed_steps is None else self.fixed_steps

    @property
    def shortest(self) -> int:
        """Fewest generated states of a bridge."""
        return self.min_bridge if self.fixed_steps is None else self.fixed_steps

    @property
    def by_return(self) -> bool:
        """Whether sources and targets are told apart by their returns."""
        return self.pairs != "connect"

    @property
    def imitates(self) -> bool:
        """Whether a clone of the behaviour is asked for; what is left to the dataset is not."""
        return self.repair_steps > 0 and bool(self.imitation)

    @property
    def needs_repairers(self) -> bool:
        """Whether dynamics networks that do not judge are asked for."""
        return self.repair_steps > 0 or self.draws > 1


@settings
class QualifyConfig:
    """Which bridges are accepted."""

    delta: Positive = 2.0
    """Largest squared distance, in standardised state space, of a state from what its predecessor leads to (Eq. 10)."""
    drift: Positive | None = 0.05
    """Largest share of the way from source to target that a bridge may gain by errors instead of actions; None: any
    (paper). Small errors add up where all lead one way, and learners come to rely on them (docs/EXPERIMENTS.md)."""
    support: Positive | None = 5.0
    """Largest squared distance of a generated state to the nearest real one, in units within which nine of ten held-out
    real states have a neighbour; None: any (paper)."""
    stray: Positive | None = None
    """Largest sum of these distances over a bridge, how far and how long it leaves the data; None: any (paper). Of
    bridges over ground that nothing recorded entered, those that stray most meet walls (docs/EXPERIMENTS.md, 41)."""
    bend: Positive | None = None
    """How far a bridge may leave the straight way between its ends, as a share of its length, where states have a place
    in the plane; None: as far as it likes (paper). Where nothing was recorded nothing speaks for another way, and of
    bridges that bend some meet walls (docs/EXPERIMENTS.md, 46)."""
    termination: Share = 0.5
    """A predicted probability of an end inside the bridge that rejects it; of 1 none does (paper)."""
    doubt: Literal["calibrated", "judges", "error"] = "calibrated"
    """What has to be below delta: the distance from the judges' prediction and what that may be off from the truth, as
    held-out data say with 90 % confidence; the larger of the distance and the judges' variance; or the distance alone
    (paper)."""
    better: bool = True
    """Reject what does not raise the discounted return of the source (released code; the paper does not ask, and pairs
    that connect only where returns can be compared)."""
