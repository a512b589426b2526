"""Worker processes: one class that owns them, for whatever is cut into independent jobs.

Workers are spawned, know the job from their start, use a fixed number of threads, follow their parent into death,
and leave Ctrl-C to it. Nothing that somebody else started is ever touched. A script is run again in its workers only if
it defines a part of the job; otherwise it needs no `__main__` guard.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

import torch

from minari_stitch.errors import ConfigError, WorkerError
from minari_stitch.progress import Progress

T = TypeVar("T")


def most_workers() -> int:
    """More processes than this help nobody: four a core, and always sixteen."""
    return max(16, 4 * (os.cpu_count() or 1))


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Runs a job for many arguments, in this process or in several of its own.

    Attributes:
        workers: Processes; 1 stays in this one.
        threads: Of each process, this one included: the split of a sum over threads changes its last bits.
        progress: Called in this process with what the jobs report.

    Raises:
        ConfigError: An amount below 1, or more than this machine can bear.
    """

    workers: int = 1
    threads: int = 1
    progress: Progress | None = None

    def __post_init__(self) -> None:
        """Refuse what would hang the machine."""
        for name, most in (("workers", most_workers()), ("threads", most_workers())):
            if not 1 <= getattr(self, name) <= most:
                raise ConfigError(
                    f"{name}={getattr(self, name)} is not possible: use 1 to {most} on this machine of "
                    f"{os.cpu_count()} cores"
                )

    def map(self, job: Callable[..., T], arguments: Iterable[tuple[Any, ...]], *, ordered: bool = True) -> Iterator[T]:
        """Run `job(*args, progress)` for each argument tuple; yield results in order, or as they come.

        Arguments may be endless: only a few jobs are under way at a time, and what nobody waits for any more is
        stopped when the iterator is closed. The job is sent to each worker once, so that what it caches on itself
        stays for the next argument and goes with the worker.

        Raises:
            WorkerError: A process died.
        """
        if self.workers == 1:
            with with_threads(self.threads):
                for args in arguments:
                    yield job(*args, self.progress)
            return
        payload = pickle.dumps(job)
        context = _OwnContext(with_main=b"__main__" in payload)
        # A pipe, not a queue: the end of a pipe whose writers are gone is seen even in the middle of a message.
        reader, writer = context.Pipe(duplex=False)
        ears = _Listener(reader, self.progress, context)
        setup = (writer, context.Lock(), self.threads, payload)
        pool = ProcessPoolExecutor(self.workers, context, initializer=_start_worker, initargs=setup)
        try:
            pending: list[Future[T]] = []
            for args in arguments:
                pending.append(pool.submit(_call, args))
                if len(pending) > 2 * self.workers:
                    yield _take(pending, ordered)
            while pending:
                yield _take(pending, ordered)
        except BrokenProcessPool as error:
            if ears.failure is not None:
                raise ears.failure from None
            raise WorkerError(
                "a worker process died: perhaps memory ran out, then use fewer workers; or a script that defines a "
                'transform starts work outside `if __name__ == "__main__":`. What is finished is kept, run the same '
                "again."
            ) from error
        except BaseException:
            # All that jobs keep is written atomically.
            context.stop()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            writer.close()
            ears.join()
        if ears.failure is not None:  # of the very last report
            raise ears.failure


def _take(pending: list[Future[T]], ordered: bool) -> T:
    """Wait for the first job, or for any; a second at a time: a signal just before a wait is seen only after it."""
    awaited = pending[:1] if ordered else pending
    while not (done := wait(awaited, timeout=1.0, return_when=FIRST_COMPLETED).done):
        pass
    first = next(future for future in awaited if future in done)
    pending.remove(first)
    return first.result()


class _Deaf(SpawnContext.Process):
    """A process that hears no Ctrl-C until it leaves it to its parent, see `follow_parent`: imports take seconds."""

    def start(self) -> None:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Unrelated(_Deaf):
    """One that does not run the caller's script, which would do its work once more."""

    def start(self) -> None:
        main, sys.modules["__main__"] = sys.modules["__main__"], types.ModuleType("__main__")
        try:
            super().start()
        finally:
            sys.modules["__main__"] = main


class _OwnContext(SpawnContext):
    """Spawns processes and remembers them."""

    def __init__(self, *, with_main: bool) -> None:
        super().__init__()
        self.started: list[BaseProcess] = []
        self._kind = _Deaf if with_main else _Unrelated

    def Process(self, *args: Any, **kwargs: Any) -> BaseProcess:  # noqa: N802 - multiprocessing's name
        process = self._kind(*args, **kwargs)
        self.started.append(process)
        return process

    def stop(self) -> None:
        for process in self.started:
            if process.is_alive():
                process.terminate()


class _Listener(threading.Thread):
    """Passes the workers' reports on; one that the callback refuses stops the workers."""

    def __init__(self, reader: Connection, progress: Progress | None, context: _OwnContext) -> None:
        super().__init__(daemon=True)
        self.failure: BaseException | None = None
        self._reader, self._progress, self._context = reader, progress, context
        self.start()

    def run(self) -> None:
        with self._reader:
            while True:
                try:
                    message = self._reader.recv()
                except (EOFError, OSError):  # no writer is left; OSError in the middle of a message
                    return
                if self._progress is None or self.failure is not None:
                    continue
                try:
                    self._progress(*message)
                except BaseException as error:
                    self.failure = error
                    self._context.stop()


class _Worker:
    """What a worker process knows."""

    payload: bytes
    job: Callable[..., Any] | None = None
    report: Progress


def _start_worker(writer: Connection, lock: Any, threads: int, payload: bytes) -> None:
    torch.set_num_threads(threads)
    follow_parent()

    def report(*message: Any) -> None:
        with lock:
            writer.send(message)

    _Worker.payload, _Worker.report = payload, staticmethod(report)


def _call(args: tuple[Any, ...]) -> Any:
    if _Worker.job is None:  # here, where what goes wrong reaches the caller
        _Worker.job = staticmethod(pickle.loads(_Worker.payload))
    return _Worker.job(*args, _Worker.report)


def follow_parent() -> None:
    """In a worker process: die when the parent does, and leave Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    parent = multiprocessing.parent_process()
    assert parent is not None, "only a child has a parent to follow"

    def follow() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


@contextlib.contextmanager
def with_threads(count: int) -> Iterator[None]:
    """Let torch use so many threads in this process for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
