"""What a method is about to do, counted before it is done; and what one of it costs, by trying it for a moment."""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor, nn

from minari_stitch.learn.loop import FitConfig
from minari_stitch.learn.soap import TURN_EVERY, Soap
from minari_stitch.learn.steps import Steps
from minari_stitch.pool import with_threads
from minari_stitch.run import Run

_MOMENT = 2.0
"""Seconds of a trial at most, about."""
_REPEATED = 0.05
"""Seconds for which what is short is repeated, and at least a few times."""
_FEW = 4
_FIRST = 4
"""Calls after which a GPU is at its pace: a training step is recorded in the last of them."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """A stage.

    Attributes:
        stage: As progress names it.
        count: Of what is done over and over in it.
        unit: What that is.
        each: Tells the seconds of one; asked only when time matters, since it may have to try.
        shared: Whether several processes share it.
    """

    stage: str
    count: int
    unit: str = "steps"
    each: Callable[[], float]
    shared: bool = False

    @cached_property
    def one(self) -> float:
        """Seconds of one; tried once."""
        return self.each()

    def takes(self, processes: int) -> float:
        """Seconds in all, about."""
        return self.count * self.one / (processes if self.shared else 1)


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a method expects of a source.

    Attributes:
        work: Its stages, without those whose results are there already.
        episode: Mean steps of an episode that it writes.
        kept: Bytes that the run directory will hold, beside the source's arrays.
        parameters: Of all networks.
        held: Bytes of memory that what is made takes before it is written.
    """

    work: Sequence[Work] = ()
    episode: float
    kept: float = 0.0
    parameters: int = 0
    held: float = 0.0


def tried(do: Callable[[int], Any], rows: int, *, device: str, threads: int) -> float:
    """Seconds that something takes for so many rows at once; where that is long, few tell what one more costs.

    Args:
        do: Does it for a number of rows.
        rows: At once.
        device: Where.
        threads: While it is done.
    """
    with with_threads(threads):
        one = _timed(do, 1, device)
        few = min(rows, max(4, int(_MOMENT / one)))  # at most as long as all of them one by one
        return one + max(0.0, _timed(do, few, device) - one) * (rows - 1) / max(1, few - 1)


def _timed(do: Callable[[int], Any], rows: int, device: str) -> float:
    """Seconds of one. On a CPU those of this thread, so that what other programs are at counts as little as it can."""
    clock = time.thread_time if device.startswith("cpu") else time.perf_counter
    for _ in range(1 if device.startswith("cpu") else _FIRST):
        do(rows)
    times = [clock()]
    while (spent := times[-1] - times[0]) < _REPEATED or (len(times) <= _FEW and spent < _MOMENT / 4):
        do(rows)
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        times.append(clock())
    taken = sorted(after - before for before, after in itertools.pairwise(times))
    return taken[len(taken) // 4]  # caches are cold after other programs' turns


def training(
    name: str,
    net: nn.Module,
    inputs: Sequence[Tensor | None],
    fit: FitConfig,
    run: Run,
    autocast: torch.dtype | None = None,
) -> Work:
    """The fit of a network: a forward and a backward pass over a batch, and the optimiser, at each step.

    Args:
        name: Of the network.
        net: On the CPU.
        inputs: Of one row.
        fit: How it is trained.
        run: Where.
        autocast: Reduced precision, or None.
    """

    def each() -> float:
        there, generator = copy.deepcopy(net).to(run.device), torch.Generator(run.device)
        kind = torch.device(run.device).type

        @cache
        def steps(rows: int) -> Steps:
            given = repeated(inputs, rows, run.device)

            def loss(net: nn.Module, _: torch.Generator) -> Tensor:
                with torch.autocast(kind, autocast, enabled=autocast is not None):
                    return net(*given).square().mean()

            return Steps(there, loss, generator, clip=fit.clip, count=1, optimizer=fit.optimizer)

        step = tried(lambda rows: steps(rows)(1e-6), fit.batch_size, device=run.device, threads=run.threads)
        if not isinstance(optimizer := steps(1).optimizer, Soap):
            return step
        return step + tried(lambda _: optimizer.turn(), 1, device=run.device, threads=run.threads) / TURN_EVERY

    return Work(stage=f"train {name}", count=fit.steps, each=each)


def repeated(inputs: Sequence[Tensor | None], rows: int, device: str) -> list[Tensor | None]:
    """Inputs of one row as those of many, on a device."""
    return [None if one is None else one.to(device).repeat(rows, *[1] * (one.ndim - 1)) for one in inputs]


def size(*nets: nn.Module) -> int:
    """Parameters in all."""
    return sum(parameter.numel() for net in nets for parameter in net.parameters())
