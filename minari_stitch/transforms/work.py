"""What a method is about to do, counted before it is done, and how fast this machine does such things."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

_REACHED = 0.3
"""Of the rate of a product alone, what training and sampling reach: activations, losses and copies take the rest."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """A stage.

    Attributes:
        stage: As progress names it.
        count: Of what is done over and over in it.
        unit: What that is.
        flops: Floating-point operations of one.
        calls: Operations of torch that one consists of, each of which costs time however small it is.
        seconds: Of one, where that was measured instead.
        shared: Whether several processes share it.
    """

    stage: str
    count: int
    unit: str = "steps"
    flops: float = 0.0
    calls: float = 0.0
    seconds: float = 0.0
    shared: bool = False

    def takes(self, machine: Machine, processes: int) -> float:
        """Seconds in all, about."""
        each = self.seconds + self.flops / machine.flops + self.calls * machine.call
        return self.count * each / (processes if self.shared else 1)


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


@dataclass(frozen=True)
class Machine:
    """How fast a device is.

    Attributes:
        flops: Floating-point operations a second, in products of the sizes that small networks have.
        call: Seconds that an operation of torch costs however small it is.
    """

    flops: float
    call: float

    @classmethod
    @cache
    def measured(cls, device: str, threads: int) -> Machine:
        """Measure for a moment, with so many threads."""
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            return cls._now(device)
        finally:
            torch.set_num_threads(before)

    @classmethod
    def _now(cls, device: str) -> Machine:
        some, few = torch.randn(4, 128, 192, device=device), torch.zeros(8, device=device)
        weights, bias = torch.randn(4, 192, 192, device=device), torch.zeros(4, 1, 192, device=device)
        product = _best(lambda: torch.baddbmm(bias, some, weights), device)
        return cls(flops=_REACHED * 2 * 4 * 128 * 192 * 192 / product, call=_best(lambda: few + 1, device))


def _best(call: Any, device: str) -> float:
    """Seconds of one call, by the best of a few rounds."""
    taken = []
    for _ in range(5):
        begin = time.perf_counter()
        for _ in range(10):
            call()
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        taken.append((time.perf_counter() - begin) / 10)
    return min(taken)


def forward(net: nn.Module, *inputs: Tensor | None) -> tuple[float, float]:
    """Floating-point operations of a pass over one row, and the calls of torch in it."""
    flops = 0

    def count(module: nn.Module, _: Any, output: Tensor) -> None:
        nonlocal flops
        places = output.shape[-1] if isinstance(module, nn.Conv1d | nn.ConvTranspose1d) else 1
        flops += 2 * places * sum(parameter.numel() for parameter in module.parameters())

    own = [module for module in net.modules() if not any(True for _ in module.children()) or _is_flat(module)]
    handles = [module.register_forward_hook(count) for module in own if any(True for _ in module.parameters())]
    try:
        with torch.no_grad():
            net(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return float(flops), 3.0 * sum(1 for _ in net.parameters())


def _is_flat(module: nn.Module) -> bool:
    """Whether it is a layer, or several, whose parameters are its own."""
    return any(isinstance(child, nn.ParameterList) for child in module.children())


def training(name: str, net: nn.Module, inputs: Iterable[Tensor | None], steps: int, batch: int) -> Work:
    """The fit of a network: a forward and a backward pass over a batch, and the optimiser, at each step.

    Args:
        name: Of the network.
        net: On the CPU.
        inputs: Of one row.
        steps: Gradient steps at most.
        batch: Rows of a step.
    """
    flops, calls = forward(net, *inputs)
    return Work(stage=f"train {name}", count=steps, flops=3 * flops * batch, calls=4 * calls)


def size(*nets: nn.Module) -> int:
    """Parameters in all."""
    return sum(parameter.numel() for net in nets for parameter in net.parameters())
