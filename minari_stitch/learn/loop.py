"""One step-based fit loop: EMA, clipping, held-out early stopping, progress and exact resume."""

from __future__ import annotations

import copy
import io
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minari_stitch.config import FitConfig
from minari_stitch.data.storage import reading, replacing
from minari_stitch.progress import Progress

_CHECKPOINT_SECONDS = 15.0


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


def fit(
    net: nn.Module,
    loss: Callable[[nn.Module, torch.Generator], Tensor],
    holdout: Callable[[nn.Module], Tensor],
    config: FitConfig,
    generator: torch.Generator,
    *,
    stage: str = "fit",
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> FitResult:
    """Train `net` in place and leave its best averaged weights in it.

    Args:
        net: Network on its device.
        loss: Draws its own batch with the generator and returns the training loss.
        holdout: Held-out loss; called on the averaged network, without gradients.
        config: Sizes and rates.
        generator: The only source of randomness of the fit.
        stage: Name for `progress`.
        checkpoint: File for exact resume; written every few seconds and removed at the end.
        progress: Called every few steps.

    Returns:
        The steps taken and the losses.
    """
    average = copy.deepcopy(net).eval().requires_grad_(False)
    optimizer = torch.optim.Adam(net.parameters(), lr=config.learning_rate, fused=True)
    state: dict[str, Any] = {"step": 0, "best": math.inf, "stale": 0, "history": [], "weights": None}
    if checkpoint is not None and checkpoint.exists():
        with reading(checkpoint):
            saved = torch.load(checkpoint, map_location=next(net.parameters()).device, weights_only=True)
        net.load_state_dict(saved["net"])
        average.load_state_dict(saved["average"])
        optimizer.load_state_dict(saved["optimizer"])
        generator.set_state(saved["generator"].cpu())
        state = saved["state"]
    parameters, averages = list(net.parameters()), list(average.parameters())
    running = torch.zeros((), device=parameters[0].device)
    saved_at = time.monotonic()
    while state["step"] < config.steps and state["stale"] < config.patience:
        _set_rate(optimizer, config, state["step"])
        optimizer.zero_grad()
        value = loss(net, generator)
        value.backward()
        nn.utils.clip_grad_norm_(parameters, config.clip)
        optimizer.step()
        state["step"] += 1
        step = state["step"]
        with torch.no_grad():
            torch._foreach_lerp_(averages, parameters, 1 - min(config.ema, step / (step + 10)))  # type: ignore
            running += value.detach()
        if progress is not None and (step % 10 == 0 or step == config.steps):
            progress(stage, step, config.steps)
        if step % config.evaluate_every == 0 or step == config.steps:
            with torch.no_grad():
                held_out = float(holdout(average))
            interval = (step - 1) % config.evaluate_every + 1
            state["history"].append((step, float(running) / interval, held_out))
            running.zero_()
            if held_out < state["best"]:
                state["best"], state["stale"] = held_out, 0
                state["weights"] = copy.deepcopy(average.state_dict())
            else:
                state["stale"] += 1
            # Only between evaluations is the running loss empty, and only then is the state small and exact.
            if checkpoint is not None and time.monotonic() - saved_at > _CHECKPOINT_SECONDS:
                save_atomically(
                    {
                        "net": net.state_dict(),
                        "average": average.state_dict(),
                        "optimizer": optimizer.state_dict(),
                        "generator": generator.get_state(),
                        "state": state,
                    },
                    checkpoint,
                )
                saved_at = time.monotonic()
    net.load_state_dict(state["weights"] or average.state_dict())
    net.eval().requires_grad_(False)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return FitResult(steps=state["step"], holdout=state["best"], history=state["history"])


def save_atomically(value: Any, path: Path) -> None:
    """`torch.save` aside and rename, so that a killed process leaves the old file or the new one."""
    buffer = io.BytesIO()
    torch.save(value, buffer)  # not straight to the disk: what torch says of a full one does not name it
    with replacing(path) as aside:
        aside.write_bytes(buffer.getbuffer())


def _set_rate(optimizer: torch.optim.Optimizer, config: FitConfig, step: int) -> None:
    """Linear warm-up, then a cosine to a hundredth of the peak."""
    warm = min(1.0, (step + 1) / config.warmup)
    decay = 0.505 + 0.495 * math.cos(math.pi * step / config.steps)
    for group in optimizer.param_groups:
        group["lr"] = config.learning_rate * warm * decay
