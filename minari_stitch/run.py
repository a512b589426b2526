"""A run: where it keeps its work, on which device, and how its jobs are spread over processes.

Everything under the run directory is keyed by what it depends on, so a killed run goes on where it was, a run
with another delta or amount reuses models and proposals, and a changed config never silently reuses anything.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch

from minari_stitch.errors import ConfigError, StorageError, WorkerError
from minari_stitch.learn.loop import Progress

T = TypeVar("T")
Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class Run:
    """Where and how a transform does its work.

    Seed, device and precision decide the result, the number of threads its last bits, and nothing else changes it.

    Attributes:
        directory: Holds models, proposals and the source's arrays; made on first use.
        seed: Seed of every generator.
        device: Torch device.
        precision: Of the diffusion network's arithmetic.
        workers: Processes; on a GPU everything runs in this one.
        threads: Threads of each training process.
        progress: Called as `progress(stage, done, total)`.
    """

    directory: Path
    seed: int = 0
    device: str = "cpu"
    precision: Precision = "fp32"
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    threads: int = field(default_factory=lambda: max(1, (os.cpu_count() or 1) // 2))
    progress: Progress | None = None

    def __post_init__(self) -> None:
        """Refuse a device or an amount that does not exist."""
        if self.workers < 1 or self.threads < 1:
            raise ConfigError(f"workers={self.workers}, threads={self.threads} is not possible: use at least 1")
        try:
            kind = torch.device(self.device).type
        except RuntimeError:
            raise ConfigError(f"device {self.device!r} is not a torch device: use cpu, cuda or mps") from None
        if kind == "cuda" and not torch.cuda.is_available():
            raise ConfigError(f"device {self.device!r} is not there: torch sees no CUDA device; use --device cpu")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed={self.seed} is not possible: use 0 or more")

    @property
    def autocast(self) -> torch.dtype | None:
        """Reduced precision of the diffusion network."""
        return torch.bfloat16 if self.precision == "bf16" else None

    @property
    def in_process(self) -> bool:
        """Whether jobs run here instead of in worker processes."""
        return self.workers == 1 or torch.device(self.device).type != "cpu"

    def folder(self, name: str) -> Path:
        """A folder of the run, made if missing.

        Raises:
            StorageError: It cannot be made.
        """
        path = self.directory / name
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"cannot write the run directory {path}: {error.strerror}; name another with --run-dir"
            ) from error
        return path

    def map(self, job: Callable[..., T], arguments: Iterable[tuple[Any, ...]], threads: int) -> Iterator[T]:
        """Run `job(*args, progress)` for each argument tuple; yield results in order.

        Arguments may be endless: only a few jobs are under way at a time. Each process uses `threads` threads,
        also when there is only this one, because the split of a sum over threads changes its last bits.

        Raises:
            WorkerError: A process died.
        """
        if self.in_process:
            with _threads(threads):
                for args in arguments:
                    yield job(*args, self.progress)
            return
        context = multiprocessing.get_context("spawn")
        # A pipe, not a queue: the end of a pipe whose writers are gone is seen even in the middle of a message.
        reader, writer = context.Pipe(duplex=False)
        listener = threading.Thread(target=self._listen, args=(reader,), daemon=True)
        listener.start()
        others = set(multiprocessing.active_children())
        pool = ProcessPoolExecutor(
            self.workers, context, initializer=_start_worker, initargs=(writer, context.Lock(), threads)
        )
        try:
            pending: list[Future[T]] = []
            for args in arguments:
                pending.append(pool.submit(_call, job, args))
                if len(pending) > 2 * self.workers:
                    yield pending.pop(0).result()
            while pending:
                yield pending.pop(0).result()
        except BrokenProcessPool as error:
            raise WorkerError(
                "a worker process died: perhaps memory ran out, then use fewer --workers; or a script starts work "
                'outside `if __name__ == "__main__":`. What is finished is kept, run the same again.'
            ) from error
        except BaseException:
            # Jobs nobody waits for any more are stopped: all they keep is written atomically.
            for worker in set(multiprocessing.active_children()) - others:
                worker.terminate()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            writer.close()
            listener.join()

    def _listen(self, reader: Connection) -> None:
        with reader:
            while True:
                try:
                    message = reader.recv()
                except (EOFError, OSError):  # no writer is left; OSError in the middle of a message
                    return
                if self.progress is not None:
                    self.progress(*message)


_report: Progress | None = None


def _start_worker(writer: Connection, lock: Any, threads: int) -> None:
    global _report
    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent decides, and stops its workers.
    parent = multiprocessing.parent_process()
    assert parent is not None

    def report(*message: Any) -> None:
        with lock:
            writer.send(message)

    def follow() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    _report = report
    threading.Thread(target=follow, daemon=True).start()


def _call(job: Callable[..., T], args: tuple[Any, ...]) -> T:
    return job(*args, _report)


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
