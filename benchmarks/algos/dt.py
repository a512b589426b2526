"""Decision Transformer (Chen et al., 2021) with CORL's settings, over K runs at once.

A window of the last `T` steps becomes the tokens return-to-go, state, action, return-to-go, ...; a causal transformer
predicts each action from the tokens up to its state. Windows are padded on the left: `mask` says which steps are real,
and a padded step is seen by nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from benchmarks.algos import Info, State, every_update, task
from benchmarks.batches import Ratio, Sizes
from benchmarks.data import LearnerData
from benchmarks.nets import Parameters, adam, cosine, gradients, moments, stack

BLOCK = 1
"""Bits for dropout are many, so they are drawn for one step at a time."""

_TARGETS = {"hopper": 3600.0, "halfcheetah": 12000.0, "walker2d": 5000.0, "pen": 3100.0}
"""Returns that CORL asks for on D4RL's data; other data of these environments may be far from them."""
policy_frequency = every_update


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of CORL.

    Attributes:
        steps: Gradient steps.
        context: Steps T of history in a window.
        batch_size: Windows in a batch (CORL pairs 4096 with 8e-4, and the original 64 with 1e-4).
        learning_rate: Of AdamW, reached linearly over `warmup` steps (at most a tenth of all steps).
        warmup: Steps of warm-up.
        decay: The learning rate falls to 0 along half a cosine (CORL: it stays).
        weight_decay: Of all parameters.
        clip: Largest norm of a run's gradient.
        layers: Transformer blocks.
        heads: Attention heads of a block.
        width: Of the tokens.
        dropout: Of embeddings, attention weights and residual branches.
        episode_length: Longest episode that timestep embeddings tell apart.
        reward_scale: Multiplies returns-to-go.
        target_return: Return asked for in evaluation; None stands for the best of the original episodes.
    """

    steps: int = 50_000
    context: int = 20
    batch_size: int = 4096
    learning_rate: float = 8e-4
    warmup: int = 10_000
    decay: bool = False
    weight_decay: float = 1e-4
    clip: float = 0.25
    layers: int = 3
    heads: int = 1
    width: int = 128
    dropout: float = 0.1
    episode_length: int = 1000
    reward_scale: float = 0.001
    target_return: float | None = None

    @classmethod
    def for_dataset(cls, dataset_id: str) -> Config:
        """CORL's settings for the environment that an id names, with its target return for D4RL's data alone."""
        env, _ = task(dataset_id)
        target = _TARGETS.get(env) if dataset_id.lower().startswith("d4rl/") else None
        if env == "pen":
            return cls(steps=100_000, reward_scale=1.0, target_return=target)
        return cls(target_return=target)


def sampler(config: Config, data: LearnerData, ratios: Sequence[Ratio], generators: Sequence[Generator]) -> Windows:
    """Windows of the data, see `Windows`."""
    return Windows(data, ratios, generators, config)


def init(config: Config, sizes: Sizes, generators: Sequence[Generator]) -> State:
    """Fresh parameters: N(0, 0.02), attention's input Xavier-uniform, biases 0."""
    width = config.width
    linear = {
        "state": (sizes.states, width),
        "action": (sizes.actions, width),
        "return": (1, width),
        **{f"{block}.attend": (width, 3 * width) for block in range(config.layers)},
        **{f"{block}.project": (width, width) for block in range(config.layers)},
        **{f"{block}.expand": (width, 4 * width) for block in range(config.layers)},
        **{f"{block}.contract": (4 * width, width) for block in range(config.layers)},
        "head": (width, sizes.actions),
    }
    norms = ["embedded.norm", "out.norm", *(f"{block}.norm{i}" for block in range(config.layers) for i in (1, 2))]
    parameters: Parameters = {}

    def normal(generator: Generator, shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, device=generator.device, generator=generator) * 0.02

    def xavier(generator: Generator, shape: tuple[int, ...]) -> Tensor:
        bound = math.sqrt(6 / sum(shape))
        return torch.empty(shape, device=generator.device).uniform_(-bound, bound, generator=generator)

    for name, shape in linear.items():
        draw = partial(xavier if name.endswith("attend") else normal, shape=shape)
        parameters[f"{name}.weight"] = stack(generators, draw)
        parameters[f"{name}.bias"] = torch.zeros_like(parameters[f"{name}.weight"][:, :1])
    parameters["time"] = stack(generators, partial(normal, shape=(config.episode_length + config.context, width)))
    for name in norms:
        parameters[f"{name}.weight"] = torch.ones(len(generators), 1, 1, width, device=generators[0].device)
        parameters[f"{name}.bias"] = torch.zeros_like(parameters[f"{name}.weight"])
    step = torch.zeros((), device=generators[0].device)
    return {"parameters": parameters, "moments": moments(parameters), "step": step}


def noise(
    config: Config, sizes: Sizes, generators: Sequence[Generator], batch_size: int, steps: int
) -> dict[str, Tensor]:
    """`bits` `(steps, K, ...)` int16, uniform over all values: what `_Dropout` compares with its rate."""
    if not config.dropout:
        return {}
    tokens = 3 * config.context - 1
    embedded, attended = batch_size * tokens * config.width, batch_size * tokens**2 * config.heads
    count = embedded + config.layers * (attended + 2 * embedded)

    def draw(generator: Generator) -> Tensor:
        words = torch.empty(steps, -(-count // 4), dtype=torch.int64, device=generator.device)
        return words.random_(-(2**63), None, generator=generator).view(torch.int16)  # four for each draw

    return {"bits": stack(generators, draw, 1)}


def update(
    config: Config, state: State, batch: dict[str, Tensor], noise: dict[str, Tensor], update_policy: bool
) -> Info:
    """One step of AdamW, with the gradient of each run clipped on its own."""
    parameters, step = state["parameters"], state["step"].add_(1)
    grads, info = gradients(partial(loss, config), parameters, batch, noise.get("bits"))
    norm = torch.stack([grad.flatten(1).square().sum(1) for grad in grads.values()]).sum(0).sqrt()
    shrink = (config.clip / (norm + 1e-6)).clamp(max=1)
    grads = {name: grad * shrink.view(-1, *[1] * (grad.dim() - 1)) for name, grad in grads.items()}
    rate = cosine(config.learning_rate, step, config.steps) if config.decay else config.learning_rate
    rate = rate * (step / max(1, min(config.warmup, config.steps // 10))).clamp(max=1)
    adam(parameters, grads, state["moments"], rate, config.weight_decay)
    return {**info, "gradient_norm": norm}


def loss(
    config: Config, parameters: Parameters, batch: Mapping[str, Tensor], bits: Tensor | None = None
) -> tuple[Tensor, Info]:
    """Mean squared error of the actions; as in CORL, padded steps count as zeros in the mean.

    Args:
        config: Settings.
        parameters: Of `init`.
        batch: Windows, see `act`.
        bits: `(K, ...)` for dropout; none without.

    Returns:
        `(K,)` and what to log.
    """
    predicted = forward(config, parameters, batch, _Dropout(config.dropout, bits))
    error = ((predicted - batch["actions"]).square() * batch["mask"].unsqueeze(-1)).mean((1, 2, 3))
    return error, {"loss": error.detach()}


def act(config: Config, state: State, observations: Mapping[str, Tensor]) -> Tensor:
    """The action for the last step of each window.

    Args:
        config: Settings.
        state: Parameters.
        observations: `states (K, N, T, S)` normalised, `actions (K, N, T, A)` (the last one unknown, and not read),
            `returns_to_go`, `timesteps` and `mask (K, N, T)`; any `T` up to `context`.

    Returns:
        `(K, N, A)`.
    """
    return forward(config, state["parameters"], observations, _Dropout(0.0, None), last=True)[:, :, 0]


def forward(
    config: Config, parameters: Parameters, batch: Mapping[str, Tensor], drop: _Dropout, last: bool = False
) -> Tensor:
    """Predict the actions `(K, B, T, A)` in [-1, 1]; with `last` only the last, `(K, B, 1, A)`."""
    runs, size, steps = batch["mask"].shape
    offsets = torch.arange(runs, device=batch["mask"].device).view(-1, 1, 1) * parameters["time"].shape[1]
    rows = batch["timesteps"].clamp(max=parameters["time"].shape[1] - 1) + offsets
    time = F.embedding(rows, parameters["time"].flatten(0, 1))
    returns = (batch["returns_to_go"] * config.reward_scale).unsqueeze(-1)
    inputs = {"return": returns, "state": batch["states"], "action": batch["actions"]}
    tokens = [_linear(parameters, name, value) + time for name, value in inputs.items()]
    x = torch.stack(tokens, 3).reshape(runs, size, 3 * steps, config.width)
    real = batch["mask"].bool().repeat_interleave(3, -1)
    x, real = x[:, :, :-1], real[:, :, :-1]  # nothing reads the last action
    length = x.shape[2]
    causal = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
    itself = torch.eye(length, dtype=torch.bool, device=x.device)  # a padded token sees something, so no NaN
    seen = (causal & real.unsqueeze(-2)) | itself
    x = drop(_norm(parameters, "embedded.norm", x))
    for block in range(config.layers):
        only = slice(-1, None) if last and block == config.layers - 1 else slice(None)
        h = _norm(parameters, f"{block}.norm1", x)
        h = _attention(config, parameters, block, h, seen, drop, only)
        x = x[:, :, only] + drop(h)
        h = F.gelu(_linear(parameters, f"{block}.expand", _norm(parameters, f"{block}.norm2", x)))
        x = x + drop(_linear(parameters, f"{block}.contract", h))
    x = _norm(parameters, "out.norm", x)
    return _linear(parameters, "head", x if last else x[:, :, 1::3]).tanh()


def _attention(
    config: Config, parameters: Parameters, block: int, h: Tensor, seen: Tensor, drop: _Dropout, only: slice
) -> Tensor:
    """Causal self-attention of the tokens `only`, over all of `h (K, B, L, D)`."""
    q, k, v = (
        part.unflatten(-1, (config.heads, -1)).transpose(2, 3)
        for part in _linear(parameters, f"{block}.attend", h).chunk(3, -1)
    )
    scores = q[..., only, :] @ k.transpose(-1, -2) / math.sqrt(k.shape[-1])
    weights = drop(scores.masked_fill(~seen[:, :, None, only], -torch.inf).softmax(-1))
    return _linear(parameters, f"{block}.project", (weights @ v).transpose(2, 3).flatten(-2))


def _linear(parameters: Parameters, name: str, x: Tensor) -> Tensor:
    weight, bias = parameters[f"{name}.weight"], parameters[f"{name}.bias"]
    return torch.baddbmm(bias, x.flatten(1, -2), weight).unflatten(1, x.shape[1:-1])


def _norm(parameters: Parameters, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:]) * parameters[f"{name}.weight"] + parameters[f"{name}.bias"]


class _Dropout:
    """Dropout whose masks are cut, one after the other, from uniform bits drawn before.

    By hand, since neither `F.dropout` nor `F.scaled_dot_product_attention` takes a generator for each run; steps with
    them are 6 % slower on one core, too.
    """

    def __init__(self, rate: float, bits: Tensor | None) -> None:
        self.rate, self.bits, self.used = rate, bits, 0

    def __call__(self, x: Tensor) -> Tensor:
        if self.bits is None:
            return x
        size = x[0].numel()
        bits = self.bits[:, self.used : self.used + size].view(x.shape)
        self.used += size
        return x * ((bits >= round(2**16 * self.rate) - 2**15) / (1 - self.rate)).to(x.dtype)


class Windows:
    """Batches of windows, a `Sampler`.

    A window starts at a step that is drawn uniformly, which is CORL's draw of an episode in proportion to its length
    and of a uniform start in it, and ends after `context` steps or with what it may show: the episode, or the bridge
    where only bridges are drawn. Its returns-to-go and timesteps are those of the whole (stitched) episode.
    """

    def __init__(
        self, data: LearnerData, ratios: Sequence[Ratio], generators: Sequence[Generator], config: Config
    ) -> None:
        """Find where windows end; arguments as in `LearnerData.mixture`."""
        self.draw = data.mixture(ratios, generators, config.batch_size).draw
        self._data = data
        steps = torch.arange(data.episodes.n_steps, device=data.device)
        drawn = torch.zeros_like(steps, dtype=torch.bool)
        drawn[torch.cat(data.rows)] = True
        # A window may not pass the last step before one that starts an episode or is not drawn from.
        borders = torch.cat([data.offsets[1:-1], steps[~drawn], data.offsets[-1:]]).unique()
        self._ends = borders[torch.searchsorted(borders, steps, right=True)]
        self._timesteps = data.timesteps
        self._returns_to_go = data.returns_to_go  # made here, since the compiler cannot follow a cached property
        self._window = torch.arange(config.context, device=data.device)

    def gather(self, indices: Tensor) -> dict[str, Tensor]:
        """First steps `(K, B)` -> windows, see `act`; padded steps are all zeros."""
        length = (self._ends[indices] - indices).clamp(max=len(self._window)).unsqueeze(-1)
        place = self._window - (len(self._window) - length)
        mask = place >= 0
        rows = indices.unsqueeze(-1) + place.clamp(min=0)
        wide = mask.unsqueeze(-1)
        return {
            "states": self._data.states[rows] * wide,
            "actions": self._data.actions[rows] * wide,
            "returns_to_go": self._returns_to_go[rows] * mask,
            "timesteps": self._timesteps[rows] * mask,
            "mask": mask.float(),
        }
