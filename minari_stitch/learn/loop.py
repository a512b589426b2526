"""One step-based training loop: EMA, clipping, held-out early stopping, progress and exact resume."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minari_stitch.config import Count, Decay, Positive, settings
from minari_stitch.data.storage import load_sealed, reading, save_sealed
from minari_stitch.errors import TrainingError
from minari_stitch.learn.steps import Loss, Optimizer, Steps
from minari_stitch.progress import Progress

_CHECKPOINT_SECONDS = 15.0


@settings
class FitConfig:
    """How one network is trained: gradient steps, batch, rates, and when to stop."""

    steps: Count
    """Gradient steps at most."""
    batch_size: Count
    """Windows or transitions a step."""
    learning_rate: Positive
    """Peak rate; warmed up, then a cosine to a hundredth."""
    optimizer: Optimizer = "adam"
    """`soap`: Adam in bases in which gradients are uncorrelated (Vyas et al., 2024); for perceptrons."""
    warmup: Count = 100
    """Steps of linear warm-up."""
    ema: Decay = 0.995
    """Decay of the weight average that is kept (released code: 0.995)."""
    clip: Positive = 1.0
    """Largest gradient norm."""
    evaluate_every: Count = 200
    """Steps between held-out evaluations."""
    patience: Count = 10
    """Evaluations without a better held-out loss before the fit stops."""


def perceptron(steps: int) -> FitConfig:
    """How a small perceptron learns most a second on a CPU (docs/EXPERIMENTS.md, 37)."""
    return FitConfig(steps=steps, batch_size=512, learning_rate=2e-2, optimizer="soap")


def classifier(steps: int) -> FitConfig:
    """How a small perceptron learns what is rare: more steps of fewer rows."""
    return FitConfig(steps=steps, batch_size=128, learning_rate=6e-3)


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """What a fit reached.

    Attributes:
        steps: Gradient steps taken, fewer than asked for when early stopping ended the fit.
        holdout: Held-out loss of the kept weights.
        history: `(step, training loss, held-out loss)` at each evaluation.
    """

    steps: int
    holdout: float
    history: list[tuple[int, float, float]]


def train(
    net: nn.Module,
    loss: Loss,
    holdout: Callable[[nn.Module], Tensor],
    config: FitConfig,
    generator: torch.Generator,
    *,
    stage: str = "train",
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> FitResult:
    """Train `net` in place and leave its best averaged weights in it.

    Args:
        net: Network on its device.
        loss: See `Loss`.
        holdout: Held-out loss; called on the averaged network, without gradients.
        config: Sizes and rates.
        generator: The only source of randomness of the fit.
        stage: Name for `progress` and messages.
        checkpoint: File for exact resume; written every few seconds and removed at the end.
        progress: Called every few steps.

    Returns:
        The steps taken and the losses.

    Raises:
        TrainingError: A loss is no longer finite; nothing of this fit is kept.
    """
    state: dict[str, Any] = {"step": 0, "best": math.inf, "stale": 0, "history": [], "weights": None}
    step_of = Steps(net, loss, generator, clip=config.clip, count=config.steps, optimizer=config.optimizer)
    average = copy.deepcopy(net).eval().requires_grad_(False)
    averages, weights = list(average.parameters()), list(net.parameters())
    parts = {"net": net, "average": average, "optimizer": step_of.optimizer}
    if checkpoint is not None and checkpoint.exists():
        with reading(checkpoint):
            saved = torch.load(load_sealed(checkpoint), map_location=step_of.losses.device, weights_only=True)
            for name, part in parts.items():
                part.load_state_dict(saved[name])
            generator.set_state(saved["generator"].cpu())
            step_of.losses.copy_(saved["losses"])
            state.update(saved["state"])
    saved_at = time.monotonic()
    while state["step"] < config.steps and state["stale"] < config.patience:
        step_of(_rate(config, state["step"]))
        state["step"] += 1
        step = state["step"]
        with torch.no_grad():  # the initial weights count: a plain average's first step would replace them
            torch._foreach_lerp_(averages, weights, 1 - min(config.ema, step / (step + 10)))  # pyright: ignore
        if progress is not None and (step % 10 == 0 or step == config.steps):
            progress(stage, step, config.steps)
        if step % config.evaluate_every == 0 or step == config.steps:
            with torch.no_grad():
                held_out, trained = torch.stack([holdout(average), step_of.losses]).tolist()
            if not (math.isfinite(held_out) and math.isfinite(trained)):
                if checkpoint is not None:
                    checkpoint.unlink(missing_ok=True)
                raise TrainingError(
                    f"{stage} diverged: at step {step} of {config.steps} its loss is {trained:g}, {held_out:g} on "
                    f"held-out data. Lower its learning_rate={config.learning_rate:g}, or look for extreme values in "
                    "the dataset. Nothing of this network was kept."
                )
            interval = (step - 1) % config.evaluate_every + 1
            state["history"].append((step, trained / interval, held_out))
            step_of.losses.zero_()
            if held_out < state["best"]:
                state["best"], state["stale"] = held_out, 0
                state["weights"] = copy.deepcopy(average.state_dict())
            else:
                state["stale"] += 1
        if checkpoint is not None and time.monotonic() - saved_at > _CHECKPOINT_SECONDS:
            states: dict[str, Any] = {name: part.state_dict() for name, part in parts.items()}
            states |= {"generator": generator.get_state(), "losses": step_of.losses, "state": state}
            save_atomically(states, checkpoint)
            saved_at = time.monotonic()
    net.load_state_dict(state["weights"])
    net.eval().requires_grad_(False)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return FitResult(steps=state["step"], holdout=state["best"], history=state["history"])


def fits(folder: Path) -> dict[str, FitResult]:
    """Network -> its training, of all trained networks in a folder.

    Raises:
        StorageError: A file is damaged.
    """
    found = {}
    for path in sorted(folder.glob("*.pt")):
        with reading(path):
            saved = torch.load(load_sealed(path), weights_only=True, map_location="cpu")
        if isinstance(saved, Mapping) and "result" in saved:
            found[path.stem] = FitResult(**saved["result"])
    return found


def save_atomically(value: Any, path: Path) -> None:
    """`torch.save` aside, with a digest, and rename: a killed process leaves the old file or the new one."""
    save_sealed(path, lambda file: torch.save(value, file))


def _rate(config: FitConfig, step: int) -> float:
    """Linear warm-up, then a cosine to a hundredth of the peak."""
    warm = min(1.0, (step + 1) / config.warmup)
    decay = 0.505 + 0.495 * math.cos(math.pi * step / config.steps)
    return config.learning_rate * warm * decay
