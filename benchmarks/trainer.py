"""Training K runs in one program.

A step draws nothing on its own: indices and noise come in blocks from each run's generators, so a run's result does
not depend on the others, and the step itself (gather, losses, Adam, targets) is one function that can be compiled, and
on a GPU captured as a CUDA graph. On a CPU give each process one thread (`torch.set_num_threads(1)`) and one run, and
run one process a core; on a GPU put all runs into one call.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils import _pytree as pytree

from benchmarks.algos import Algorithm, Info, State, history
from benchmarks.batches import Ratio, Sampler
from benchmarks.data import LearnerData
from minari_stitch.errors import ConfigError
from minari_stitch.learn.steps import without_advice

Precision = Literal["fp32", "tf32", "bf16"]
"""Of matrix products: as they are; TF32 (CUDA only); or bfloat16 by autocast."""
Evaluation = Callable[[int, State, Info], None]
"""Called with (steps done, state, last info)."""
_COMPILE_FROM = 8_000  # steps from which compiling (10 to 70 s on one core, once on a machine) pays on a CPU
_WARM_UP = 3  # calls before a capture
_ISOLATES = "isolate_recompiles" in inspect.signature(torch.compile).parameters
_PURPOSES = ("parameters", "indices", "noise")


@dataclass(frozen=True)
class TrainingRun:
    """One training run of a program that trains K of them at once.

    Attributes:
        seed: Seed of everything random in it.
        ratio: Original : augmented; `(1, 0)` trains on the original data alone.
    """

    seed: int
    ratio: Ratio = (1, 0)


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
    runs: Sequence[TrainingRun],
    *,
    compile: bool | None = None,
    precision: Precision = "fp32",
    evaluate_every: int | None = None,
    on_eval: Evaluation | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Trained:
    """Train all runs for `config.steps` steps on the device of the data.

    Args:
        algorithm: A module of `benchmarks.algos`.
        config: Its settings.
        data: Original and augmented data.
        runs: Seeds and mixes.
        compile: Compile the update; by default on a GPU, and on a CPU with a compiler for runs long enough to pay.
        precision: Of matrix products.
        evaluate_every: Steps between evaluations; the last step is always one.
        on_eval: The evaluation.
        progress: Called after each block of steps with (steps done, steps in all).

    Raises:
        ConfigError: A setting has an impossible value.
        RatioError: A run's mix needs data that are not there.
        TooFewStepsError: There is less data than the learner's context.
    """
    if evaluate_every is not None and evaluate_every < 1:
        raise ConfigError(f"evaluate_every={evaluate_every} is not possible: give at least 1")
    program = Program(algorithm, config, data, runs, compile=compile, precision=precision)
    seconds = 0.0
    for stop in _stops(config.steps, evaluate_every, algorithm.BLOCK):
        begin = time.perf_counter()
        program.run(stop - program.done)
        evaluates = stop == config.steps or (evaluate_every and stop % evaluate_every == 0)
        if evaluates and data.device.type == "cuda":
            torch.cuda.synchronize(data.device)
        seconds += time.perf_counter() - begin
        if progress:
            progress(stop, config.steps)
        if evaluates and on_eval:
            on_eval(stop, program.state, program.info)
    info = {name: value.clone() for name, value in program.info.items()}
    return Trained(state=program.state, info=info, seconds=seconds, compiled=program.compiled)


class Program:
    """K runs in training: `run(steps)` advances them all.

    Attributes:
        state: The algorithm's state, changed in place.
        info: Last value of each loss, `(K,)`; on a GPU overwritten by the next step.
        done: Steps done.
        compiled: Whether the update is compiled.
    """

    def __init__(
        self,
        algorithm: Algorithm | Any,
        config: Any,
        data: LearnerData,
        runs: Sequence[TrainingRun],
        *,
        compile: bool | None = None,
        precision: Precision = "fp32",
    ) -> None:
        """Initialise all runs; arguments and errors are those of `train`."""
        _check(config, runs, compile, precision, data)
        data.check_context(history(config))
        if compile is None:
            compile = data.device.type == "cuda" or bool(config.steps >= _COMPILE_FROM and _has_compiler())
        parameters, indices, noise = (seeded_generators(runs, purpose, data.device) for purpose in _PURPOSES)
        self.state: State = algorithm.init(config, data.sizes, parameters)
        self.info: Info = {}
        self.done = 0
        self.compiled: bool = compile
        self._sampler = algorithm.sampler(config, data, [run.ratio for run in runs], indices)
        self._noise = partial(algorithm.noise, config, data.sizes, noise, config.batch_size)
        self._policy_frequency, self._block = algorithm.policy_frequency(config), algorithm.BLOCK
        self._precision: Precision = precision
        self._step = self._plain_step = _step(algorithm, config, self._sampler, self.state, precision)
        self._captured: dict[bool, tuple[torch.cuda.CUDAGraph, dict[str, Any], Info]] = {}
        self._graphs = compile and data.device.type == "cuda"
        if compile:
            # Isolated where torch knows how, since programs' recompilations of one function count against one limit.
            isolated: dict[str, Any] = {"isolate_recompiles": True} if _ISOLATES else {}
            self._step = torch.compile(self._step, dynamic=False, fullgraph=True, **isolated)

    def run(self, steps: int) -> None:
        """Train all runs for so many steps; on a GPU they may still be under way afterwards."""
        step = self._replay if self._graphs else self._step
        with _matmul(self._precision), _without_denormals():
            for _ in range(steps):
                at = self.done % self._block
                if at == 0:  # always whole blocks, so that a result does not depend on how a run is cut
                    self._rows, self._random = self._sampler.draw(self._block), self._noise(self._block)
                noise = {name: values[at] for name, values in self._random.items()}
                self.done += 1
                self.info |= step(self._rows[at], noise, self.done % self._policy_frequency == 0)

    def _replay(self, rows: Tensor, noise: dict[str, Tensor], update_policy: bool) -> Info:
        """One step as a CUDA graph.

        By hand, since `mode="reduce-overhead"` leaves steps as they are that change their inputs in place, unless
        those are a module's parameters.
        """
        if update_policy not in self._captured:
            self._captured[update_policy] = self._capture(rows, noise, update_policy)
        graph, inputs, info = self._captured[update_policy]
        pytree.tree_map(lambda held, new: held.copy_(new), inputs, {"rows": rows, "noise": noise})
        graph.replay()
        return info

    def _capture(
        self, rows: Tensor, noise: dict[str, Tensor], update_policy: bool
    ) -> tuple[torch.cuda.CUDAGraph, dict[str, Any], Info]:
        """Capture one kind of step. Warming up trains, so the state is put back afterwards."""
        inputs = pytree.tree_map(torch.clone, {"rows": rows, "noise": noise})
        before = pytree.tree_map(torch.clone, self.state)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side), without_advice():
            try:
                self._step(inputs["rows"], inputs["noise"], update_policy)
            except _compiler_errors():  # of some versions on some updates: a graph of plain kernels will do
                self._step, self.compiled = self._plain_step, False
            for _ in range(_WARM_UP):
                self._step(inputs["rows"], inputs["noise"], update_policy)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            info = self._step(inputs["rows"], inputs["noise"], update_policy)
        pytree.tree_map(lambda now, then: now.copy_(then), self.state, before)
        return graph, inputs, info


def seeded_generators(runs: Sequence[TrainingRun], purpose: str, device: torch.device | str) -> list[Generator]:
    """A generator for each run, which depends on its seed and the purpose alone.

    Runs of one seed start from the same parameters and draw the same numbers whatever their mix, so that original
    and augmented runs are paired.
    """
    words = [np.random.SeedSequence([run.seed, *purpose.encode()]).generate_state(1, np.uint64)[0] for run in runs]
    return [torch.Generator(device).manual_seed(int(word) >> 1) for word in words]


def _step(
    algorithm: Algorithm | Any, config: Any, sampler: Sampler, state: State, precision: Precision
) -> Callable[[Tensor, dict[str, Tensor], bool], Info]:
    """What is compiled: look the batch up, and update."""
    device = state["step"].device.type

    def step(rows: Tensor, noise: dict[str, Tensor], update_policy: bool) -> Info:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            return algorithm.update(config, state, sampler.gather(rows), noise, update_policy)

    return step


def _check(
    config: Any,
    runs: Sequence[TrainingRun],
    compile: bool | None,
    precision: Precision,
    data: LearnerData,
) -> None:
    for name in ("steps", "batch_size"):
        if (value := getattr(config, name)) < 1:
            raise ConfigError(f"{name}={value} is not possible: give at least 1")
    if not runs:
        raise ConfigError("runs=[] is not possible: give at least one seed")
    if precision not in get_args(Precision) or (precision == "tf32" and data.device.type != "cuda"):
        raise ConfigError(f"precision={precision!r} is not possible on {data.device}: use fp32, or bf16 where it pays")
    if compile and data.device.type == "cpu" and not _has_compiler():
        raise ConfigError("compile=True needs a C++ compiler: install g++, or train with compile=False")


def _compiler_errors() -> type[Exception]:
    from torch._inductor.exc import InductorError  # seconds to import, and here it is loaded

    return InductorError


def _has_compiler() -> bool:
    return any(shutil.which(name) for name in (os.environ.get("CXX"), "g++", "clang++") if name)


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


@contextlib.contextmanager
def _without_denormals() -> Iterator[None]:
    """Let a CPU take numbers below 1e-38 for zero for a while.

    Adam's mean gradient of a unit that died becomes such a number after 700 steps and stays one; a CPU multiplies them
    so slowly that the whole step takes twice as long (docs/EXPERIMENTS.md, 40).
    """
    smallest = torch.tensor(torch.finfo(torch.float32).tiny)
    before = bool(smallest / 2 == 0)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)
