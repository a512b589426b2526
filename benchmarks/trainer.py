"""Training K lanes in one program.

A step draws nothing on its own: indices and noise come in blocks from each lane's generators, so a lane's result does
not depend on the others, and the step itself (gather, losses, Adam, targets) is one function that can be compiled, and
on a GPU captured as a CUDA graph. On a CPU give each process one thread (`torch.set_num_threads(1)`) and one lane, and
run one process a core; on a GPU put all lanes into one call.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils import _pytree as pytree

from benchmarks.algos import Algorithm, Info, Lane, Sampler, State
from benchmarks.data import LearnerData
from minari_stitch.errors import ConfigError

Precision = Literal["fp32", "tf32", "bf16"]
"""Of matrix products: as they are; TF32 (CUDA only); or bfloat16 by autocast."""
Evaluation = Callable[[int, State, Info], None]
"""Called with (steps done, state, last info)."""
_COMPILE_FROM = 20_000  # steps from which compiling (some 20 to 70 s on one core) pays on a CPU
_WARM_UP = 3  # calls before a capture
_PURPOSES = ("parameters", "indices", "noise")


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What `train` returns.

    Attributes:
        state: The algorithm's state after the last step.
        info: Last value of each loss, `(K,)`.
        seconds: Wall time of the steps, without evaluations; compiling included.
        compiled: Whether the update was compiled.
    """

    state: State
    info: Info
    seconds: float
    compiled: bool


def train(
    algorithm: Algorithm | Any,
    config: Any,
    data: LearnerData,
    lanes: Sequence[Lane],
    *,
    compile: bool | None = None,
    precision: Precision = "fp32",
    evaluate_every: int | None = None,
    on_eval: Evaluation | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Trained:
    """Train all lanes for `config.steps` steps on the device of the data.

    Args:
        algorithm: A module of `benchmarks.algos`.
        config: Its settings.
        data: Original and augmented data.
        lanes: Seeds and mixes.
        compile: Compile the update; by default on a GPU, and on a CPU with a compiler for runs long enough to pay.
        precision: Of matrix products.
        evaluate_every: Steps between evaluations; the last step is always one.
        on_eval: The evaluation.
        progress: Called after each block of steps with (steps done, steps in all).

    Raises:
        ConfigError: A setting has an impossible value.
        RatioError: A lane's mix needs data that are not there.
        TooFewStepsError: There is less data than the learner's context.
    """
    _check(config, lanes, compile, precision, evaluate_every, data)
    data.check_context(algorithm.CONTEXT)
    if compile is None:
        compile = data.device.type == "cuda" or (config.steps >= _COMPILE_FROM and _has_compiler())
    parameters, indices, noise = (lane_generators(lanes, purpose, data.device) for purpose in _PURPOSES)
    state = algorithm.init(config, data.sizes, parameters)
    sampler = algorithm.sampler(config, data, [lane.ratio for lane in lanes], indices)
    step = _Step(algorithm, config, sampler, state, compile, precision)
    info: Info = {}
    done, seconds, phases = 0, 0.0, algorithm.phases(config)
    with _matmul(precision):
        for stop in _stops(config.steps, evaluate_every, algorithm.BLOCK):
            begin = time.perf_counter()
            rows = sampler.draw(stop - done)
            random = algorithm.noise(config, data.sizes, noise, config.batch_size, stop - done)
            for i in range(stop - done):
                info |= step(rows[i], {name: values[i] for name, values in random.items()}, (done + i) % phases)
            done = stop
            seconds += time.perf_counter() - begin
            if progress:
                progress(done, config.steps)
            if on_eval and (done == config.steps or (evaluate_every and done % evaluate_every == 0)):
                on_eval(done, state, info)
        if data.device.type == "cuda":
            begin = time.perf_counter()
            torch.cuda.synchronize(data.device)
            seconds += time.perf_counter() - begin
    info = {name: value.clone() for name, value in info.items()}
    return Trained(state=state, info=info, seconds=seconds, compiled=compile)


def lane_generators(lanes: Sequence[Lane], purpose: str, device: torch.device | str) -> list[Generator]:
    """A generator for each lane, which depends on its seed and the purpose alone.

    Lanes of one seed start from the same parameters and draw the same numbers whatever their mix, so that original
    and augmented runs are paired.
    """
    words = [np.random.SeedSequence([lane.seed, *purpose.encode()]).generate_state(1, np.uint64)[0] for lane in lanes]
    return [torch.Generator(device).manual_seed(int(word) >> 1) for word in words]


class _Step:
    """One training step: eager, compiled, or replayed as a CUDA graph."""

    def __init__(
        self, algorithm: Algorithm, config: Any, sampler: Sampler, state: State, compile: bool, precision: Precision
    ) -> None:
        cuda = _device(state).type == "cuda"

        def step(rows: Tensor, noise: dict[str, Tensor], phase: int) -> Info:
            with torch.autocast(_device(state).type, torch.bfloat16, enabled=precision == "bf16"):
                return algorithm.update(config, state, sampler.gather(rows), noise, phase)

        self._run = torch.compile(step, dynamic=False, fullgraph=True) if compile else step
        self._state = state
        self._captured: dict[int, tuple[torch.cuda.CUDAGraph, dict[str, Any], Info]] | None = (
            {} if cuda and compile else None
        )

    def __call__(self, rows: Tensor, noise: dict[str, Tensor], phase: int) -> Info:
        """Train all lanes by one step."""
        if self._captured is None:
            return self._run(rows, noise, phase)
        if phase not in self._captured:
            self._captured[phase] = self._capture(rows, noise, phase)
        graph, inputs, info = self._captured[phase]
        inputs["rows"].copy_(rows)
        for name, values in noise.items():
            inputs["noise"][name].copy_(values)
        graph.replay()
        return info

    def _capture(
        self, rows: Tensor, noise: dict[str, Tensor], phase: int
    ) -> tuple[torch.cuda.CUDAGraph, dict[str, Any], Info]:
        """Capture a phase. Warming up trains, so the state is put back afterwards."""
        inputs = {"rows": rows.clone(), "noise": {name: values.clone() for name, values in noise.items()}}
        before = pytree.tree_map(torch.clone, self._state)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                self._run(inputs["rows"], inputs["noise"], phase)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            info = self._run(inputs["rows"], inputs["noise"], phase)
        pytree.tree_map(lambda now, then: now.copy_(then), self._state, before)
        return graph, inputs, info


def _check(
    config: Any,
    lanes: Sequence[Lane],
    compile: bool | None,
    precision: Precision,
    every: int | None,
    data: LearnerData,
) -> None:
    for name, value in (("steps", config.steps), ("batch_size", config.batch_size), ("evaluate_every", every)):
        if value is not None and value < 1:
            raise ConfigError(f"{name}={value} is not possible: give at least 1")
    if not lanes:
        raise ConfigError("lanes=[] is not possible: give at least one seed")
    if precision not in get_args(Precision) or (precision == "tf32" and data.device.type != "cuda"):
        raise ConfigError(f"precision={precision!r} is not possible on {data.device}: use fp32, or bf16 where it pays")
    if compile and data.device.type == "cpu" and not _has_compiler():
        raise ConfigError("compile=True needs a C++ compiler: install g++, or train with compile=False")


def _has_compiler() -> bool:
    return any(shutil.which(name) for name in (os.environ.get("CXX"), "g++", "clang++") if name)


def _device(state: State) -> torch.device:
    return state["step"].device


def _stops(steps: int, every: int | None, block: int) -> Iterator[int]:
    """Ends of the blocks of steps, which end at evaluations too."""
    stops = {*range(block, steps, block), *(range(every, steps, every) if every else ()), steps}
    return iter(sorted(stops))


@contextlib.contextmanager
def _matmul(precision: Precision) -> Iterator[None]:
    """Allow TF32 for a while."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else before)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
