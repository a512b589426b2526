"""Worker processes: order, threads, progress, errors, and that no one else's processes are touched."""

import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing.context import SpawnContext
from pathlib import Path

import pytest
import torch

from minari_stitch.errors import ConfigError, StorageError, WorkerError
from minari_stitch.pool import Pool, most_workers

WORKERS = [1, 2]


# Jobs: top-level functions, so that another process can find them.


def report(number, wait, progress):
    """Take a while, the later jobs less; tell of it, and of the process."""
    time.sleep(wait)
    if progress is not None:
        progress("job", number, 5)
    return number * number, torch.get_num_threads(), os.getpid()


def touch(folder, number, progress):
    (folder / str(number)).touch()
    return number


def die(number, progress):
    os._exit(1)


def fail(number, progress):
    if number == 3:
        raise StorageError(f"job {number} has no room")
    return number


def chatter(folder, number, progress):
    """Talk without end, in messages longer than a pipe holds: whoever is stopped is stopped in the middle of one."""
    (folder / str(os.getpid())).touch()
    while number > 0:
        progress("x" * 200_000, 0, 1)
    return number


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("workers", WORKERS)
def test_results_come_in_order_whoever_is_done_first(tmp_path, workers):
    seen = []
    pool = Pool(workers=workers, threads=3, progress=lambda *message: seen.append(message))
    before = torch.get_num_threads()
    arguments = [(number, 0.2 if number == 0 else 0.0) for number in range(6)]
    results = list(pool.map(report, arguments))
    assert [square for square, _, _ in results] == [0, 1, 4, 9, 16, 25]
    assert {threads for _, threads, _ in results} == {3}
    assert torch.get_num_threads() == before
    processes = {pid for _, _, pid in results}
    assert processes == {os.getpid()} if workers == 1 else os.getpid() not in processes and len(processes) <= 2
    assert sorted(seen) == [("job", number, 5) for number in range(6)]
    assert not multiprocessing.active_children()


def test_endless_arguments_are_taken_a_few_at_a_time(tmp_path):
    taken = itertools.count()
    results = Pool().map(touch, ((tmp_path, next(taken)) for _ in itertools.count()))
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    results.close()
    assert next(taken) == 5


def test_closing_early_stops_the_workers_at_once_and_no_other_process(tmp_path):
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    taken = itertools.count()
    heard = threading.Event()
    pool = Pool(workers=2, progress=lambda *message: heard.set())
    results = pool.map(chatter, ((tmp_path, next(taken)) for _ in itertools.count()))
    try:
        assert next(results) == 0 and heard.wait(30)
        workers = [int(path.name) for path in tmp_path.iterdir() if path.name.isdigit()]
        assert workers and all(map(alive, workers))
        begin = time.monotonic()
        results.close()
        assert time.monotonic() - begin < 10
        assert next(taken) <= 6
        assert not any(map(alive, workers)) and not multiprocessing.active_children()
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


@pytest.mark.parametrize("workers", WORKERS)
def test_an_error_of_a_job_reaches_the_caller(tmp_path, workers):
    results = Pool(workers=workers).map(fail, ((number,) for number in itertools.count()))
    before = torch.get_num_threads()
    with pytest.raises(StorageError, match="job 3 has no room"):
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        next(results)
    assert torch.get_num_threads() == before
    assert not multiprocessing.active_children()


def test_nothing_to_do_is_done_at_once(tmp_path):
    assert list(Pool().map(touch, [])) == []


def test_a_worker_that_dies_is_named(tmp_path):
    with pytest.raises(WorkerError, match="fewer workers"):
        list(Pool(workers=2).map(die, [(1,), (2,)]))
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", WORKERS)
def test_a_process_started_by_the_caller_survives_an_early_end(tmp_path, workers):
    taken = itertools.count()
    results = Pool(workers=workers).map(touch, ((tmp_path, next(taken)) for _ in itertools.count()))
    assert next(results) == 0
    own = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
    own.start()
    try:
        results.close()
        assert own.is_alive() and multiprocessing.active_children() == [own]
    finally:
        own.kill()
        own.join()


class Remembers:
    """A job that counts how often it loads what it needs."""

    loads = 0

    def __call__(self, number, progress):
        if not self.loads:
            self.loads = 1
            return number, os.getpid(), True
        return number, os.getpid(), False


@pytest.mark.parametrize("workers", WORKERS)
def test_what_a_job_caches_on_itself_stays_with_its_worker(workers):
    results = list(Pool(workers=workers).map(Remembers(), [(number,) for number in range(8)]))
    assert [number for number, _, _ in results] == list(range(8))
    assert sum(loaded for _, _, loaded in results) == len({pid for _, pid, _ in results})


@pytest.mark.parametrize("workers", WORKERS)
def test_a_callback_that_raises_ends_the_work_with_its_own_error(workers):
    def refuse(stage, done, total):
        if done == 2:
            raise KeyError("not wanted any more")

    with pytest.raises(KeyError, match="not wanted any more"):
        list(Pool(workers=workers, progress=refuse).map(report, ((number, 0.0) for number in itertools.count())))
    assert not multiprocessing.active_children()


def test_a_callback_that_raises_at_the_very_end_is_heard_too():
    def refuse(*message):
        raise KeyError("no")

    with pytest.raises(KeyError, match="no"):
        list(Pool(workers=2, progress=refuse).map(report, [(0, 0.0)]))


@pytest.mark.parametrize("name", ["workers", "threads"])
@pytest.mark.parametrize("value", [0, -1, 1_000_000])
def test_amounts_that_would_hang_the_machine_are_refused(name, value):
    with pytest.raises(ConfigError, match=rf"{name}={value} is not possible: use 1 to {most_workers()}"):
        Pool(**{name: value})
    Pool(**{name: most_workers()})  # starts nothing


ORPHANS = """
import signal, sys, time
from multiprocessing.context import SpawnContext
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
sys.path.insert(0, {tests!r})
from minari_stitch.pool import Pool
from test_pool import linger

if __name__ == "__main__":
    list(Pool(workers=2).map(linger, [(Path({folder!r}),)] * 2))
"""


def linger(folder, progress):
    (folder / f"{os.getpid()}.worker").touch()
    time.sleep(600)


@pytest.mark.parametrize("signal", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_workers_do_not_outlive_their_parent(tmp_path, signal):
    import signal as signals

    script = tmp_path / "script.py"
    script.write_text(ORPHANS.format(tests=str(Path(__file__).parent), folder=str(tmp_path)))
    parent = subprocess.Popen([sys.executable, script], stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while len(workers := list(tmp_path.glob("*.worker"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(workers) == 2
        parent.send_signal(getattr(signals, signal))
        _, said = parent.communicate(timeout=30)
        deadline = time.monotonic() + 10
        while any(alive(int(path.stem)) for path in workers) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(alive(int(path.stem)) for path in workers)
        assert "InvalidStateError" not in said
    finally:
        parent.kill()


OWN = """
import sys
sys.path.insert(0, {tests!r})
from minari_stitch.pool import Pool
from test_pool import square

print("once")
print(list(Pool(workers=2).map(square, [(1,), (2,)])))
"""


def square(number, progress):
    return number * number


def test_a_script_is_not_run_again_in_its_workers(tmp_path):
    """So it needs no guard, unless it defines what the workers do."""
    script = tmp_path / "script.py"
    script.write_text(OWN.format(tests=str(Path(__file__).parent)))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "once\n[1, 4]\n"), done.stderr
    own = OWN.replace("from test_pool import square", "def square(number, progress): return number * number")
    script.write_text(own.format(tests=""))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert done.returncode == 1 and "WorkerError: a worker process died" in done.stderr


def hearing(progress):
    """What a worker does about Ctrl-C, and whether it is held back."""
    return signal.getsignal(signal.SIGINT) == signal.SIG_IGN, signal.SIGINT in signal.pthread_sigmask(
        signal.SIG_BLOCK, []
    )


def test_workers_leave_an_interrupt_to_their_parent_from_their_first_moment(monkeypatch):
    """They are started with it held back, and drop it once they have said that they do not want it."""
    masks, start = [], SpawnContext.Process.start

    def watch(process):
        masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, []))
        start(process)

    monkeypatch.setattr(SpawnContext.Process, "start", watch)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert set(Pool(workers=2).map(hearing, [()] * 4)) == {(True, False)}
    assert len(masks) == 2 and all(signal.SIGINT in mask for mask in masks)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
