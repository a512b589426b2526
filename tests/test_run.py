"""A run: its folders, its refusals, and how jobs are spread over processes."""

import itertools
import multiprocessing
import os
import subprocess
import sys
import threading
import time

import pytest
import torch

from minari_stitch.errors import ConfigError, StorageError, WorkerError
from minari_stitch.run import Run

WORKERS = [1, 2]


def run(tmp_path, workers, **kwargs):
    return Run(directory=tmp_path / "run", workers=workers, threads=1, **kwargs)


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
    job = run(tmp_path, workers, progress=lambda *message: seen.append(message))
    before = torch.get_num_threads()
    arguments = [(number, 0.2 if number == 0 else 0.0) for number in range(6)]
    results = list(job.map(report, arguments, threads=3))
    assert [square for square, _, _ in results] == [0, 1, 4, 9, 16, 25]
    assert {threads for _, threads, _ in results} == {3}
    assert torch.get_num_threads() == before
    processes = {pid for _, _, pid in results}
    assert processes == {os.getpid()} if workers == 1 else os.getpid() not in processes and len(processes) <= 2
    assert sorted(seen) == [("job", number, 5) for number in range(6)]
    assert not multiprocessing.active_children()


def test_endless_arguments_are_taken_a_few_at_a_time(tmp_path):
    taken = itertools.count()
    results = run(tmp_path, 1).map(touch, ((tmp_path, next(taken)) for _ in itertools.count()), threads=1)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    results.close()
    assert next(taken) == 5


def test_closing_early_stops_the_workers_at_once_and_no_other_process(tmp_path):
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    taken = itertools.count()
    heard = threading.Event()
    job = run(tmp_path, 2, progress=lambda *message: heard.set())
    results = job.map(chatter, ((tmp_path, next(taken)) for _ in itertools.count()), threads=1)
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
    results = run(tmp_path, workers).map(fail, ((number,) for number in itertools.count()), threads=1)
    before = torch.get_num_threads()
    with pytest.raises(StorageError, match="job 3 has no room"):
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        next(results)
    assert torch.get_num_threads() == before
    assert not multiprocessing.active_children()


def test_nothing_to_do_is_done_at_once(tmp_path):
    assert list(run(tmp_path, 1).map(touch, [], threads=1)) == []


def test_folders_are_made_on_first_use(tmp_path):
    job = run(tmp_path, 1)
    assert not job.directory.exists()
    assert job.folder("models-1").is_dir() and job.folder("models-1") == job.directory / "models-1"


def test_a_run_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(StorageError, match=r"run/models.*--run-dir"):
        run(tmp_path, 1).folder("models")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"workers": 0}, "workers=0.*at least 1"),
        ({"threads": 0}, "threads=0.*at least 1"),
        ({"device": "gpu"}, "'gpu'.*cpu, cuda or mps"),
        ({"seed": -1}, "seed=-1.*0 or more"),
        ({"seed": 2**63}, "seed="),
    ],
    ids=str,
)
def test_impossible_runs_are_refused(tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        Run(directory=tmp_path, **settings)


def test_a_device_that_is_not_there_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="'cuda:1'.*--device cpu"):
        Run(directory=tmp_path, device="cuda:1")


def test_precision_is_that_of_the_arithmetic(tmp_path):
    assert Run(directory=tmp_path).autocast is None
    assert Run(directory=tmp_path, precision="bf16").autocast is torch.bfloat16


def test_a_gpu_works_in_this_process(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert Run(directory=tmp_path, device="cuda", workers=8).in_process
    assert Run(directory=tmp_path, workers=1).in_process
    assert not Run(directory=tmp_path, workers=2).in_process


def test_a_worker_that_dies_is_named(tmp_path):
    with pytest.raises(WorkerError, match="--workers"):
        list(run(tmp_path, 2).map(die, [(1,), (2,)], threads=1))
    assert not multiprocessing.active_children()
