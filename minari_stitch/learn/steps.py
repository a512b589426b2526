"""One gradient step, as often as it is called; on a GPU it is recorded once and replayed.

A step of a small network is some hundred kernels of a few microseconds each, which Python cannot launch as fast as a
GPU runs them; a CUDA graph launches all of them at once. It holds what the first steps did, kernel by kernel, so a
result does not depend on when it was recorded: a fit that goes on from a checkpoint ends with the same bits.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from minari_stitch.learn.soap import Soap

Loss = Callable[[nn.Module, torch.Generator], Tensor]
"""Draws its own batch with the generator and returns the training loss."""
Optimizer = Literal["adam", "soap"]
"""`soap` is Adam in bases in which gradients are uncorrelated (`learn.soap`)."""
_WARM_UP = 3
"""Steps before the recording, in which libraries make their choices and the optimizer its state."""
_COMPILE_FROM = 20_000
"""Steps from which compiling a network, about a minute, pays on a GPU."""


@contextlib.contextmanager
def without_advice() -> Iterator[None]:
    """Compile in single precision without being told that TF32, which is not as exact, would be faster."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="TensorFloat32 tensor cores")
        yield


class Steps:
    """Gradient steps on a network, one a call.

    Args:
        net: Network on its device; changed in place.
        loss: On a GPU it may not wait for the device (`.item()`, a mask as an index).
        generator: The only source of randomness.
        clip: Largest gradient norm.
        count: Steps there will be at most.
        optimizer: Which one, see `Optimizer`.

    Attributes:
        optimizer: Its state is what a checkpoint needs.
        losses: Sum of the losses since it was last set to zero, a scalar.
    """

    def __init__(
        self,
        net: nn.Module,
        loss: Loss,
        generator: torch.Generator,
        *,
        clip: float,
        count: int,
        optimizer: Optimizer = "adam",
    ) -> None:
        self._loss, self._generator, self._clip = loss, generator, clip
        self._parameters = list(net.parameters())
        device = self._parameters[0].device
        self._on_gpu = device.type == "cuda"
        self._net: Any = torch.compile(net, dynamic=False) if self._on_gpu and count >= _COMPILE_FROM else net
        rate: Any = torch.ones((), device=device) if self._on_gpu else 1.0
        self.optimizer = (
            Soap(self._parameters, lr=rate)
            if optimizer == "soap"
            else torch.optim.Adam(self._parameters, lr=rate, fused=True, capturable=self._on_gpu)
        )
        self.losses = torch.zeros((), device=device)
        self._taken = 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, rate: float) -> None:
        """Take a step at a rate; on a GPU it may still be under way afterwards."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["lr"].fill_(rate) if self._on_gpu else rate
        if not self._on_gpu:
            self._step()
        elif self._taken < _WARM_UP:
            self._aside()
        else:
            self._graph = self._graph or self._recorded()
            self._graph.replay()
        self._taken += 1
        if isinstance(self.optimizer, Soap):
            self.optimizer.stepped()

    def _step(self) -> None:
        self.optimizer.zero_grad()
        value = self._loss(self._net, self._generator)
        value.backward()
        nn.utils.clip_grad_norm_(self._parameters, self._clip)
        self.optimizer.step()
        self.losses += value.detach()

    def _aside(self) -> None:
        """A step on another stream, as recordings ask for."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side), without_advice():
            self._step()
        torch.cuda.current_stream().wait_stream(side)

    def _recorded(self) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._generator)
        self.optimizer.zero_grad()  # gradients have to be made, and kept, within the recording
        with torch.cuda.graph(graph):
            self._step()
        return graph
