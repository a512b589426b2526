"""A killed run leaves nothing half-written, and goes on to the same dataset."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import toy

from minari_stitch import job
from minari_stitch.data import minari_io
from minari_stitch.data.locks import held
from minari_stitch.diffstitch.models import NETWORKS

STEPS = 1500
WORDS = ("--delta", toy.DELTA, "--steps", STEPS, "--set", "stitch.chunk=4", "--json")
COMMAND = str(Path(sys.executable).parent / "minari-stitch")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The dataset of a run that nobody disturbs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(tmp_path_factory.mktemp("whole")))
        toy.write()
        toy.ok(*toy.tiny(toy.ID, *WORDS))
        return minari_io.read(toy.STITCHED, keep_infos=True).episodes


def start(workers):
    command = [COMMAND, *toy.tiny(toy.ID, *WORDS, workers=workers)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def alive(pid):
    """Whether a process runs; one that has ended but is not yet reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def descendants(pid):
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []
    return [*children, *(below for child in children for below in descendants(child))]


def kill(process):
    """Kill this process alone, and wait for those that it started to notice."""
    below = descendants(process.pid)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert_gone(below)
    return below


def assert_gone(processes, seconds=10):
    end = time.monotonic() + seconds
    while left := [pid for pid in processes if alive(pid)]:
        assert time.monotonic() < end, f"processes {left} outlive the one that started them"
        time.sleep(0.02)


def kill_when(process, moment, delay=0.0):
    """Kill a run at a moment, which must come before its end."""
    while not moment():
        assert process.poll() is None, f"it ended before the moment came:\n{process.communicate()}"
        time.sleep(0.002)
    time.sleep(delay)
    return kill(process)


def assert_only_the_source_is_there():
    assert minari_io.local_ids() == [toy.ID]
    listed = toy.run("minari", "list", "local")
    assert listed.returncode == 0 and "Number of datasets: 1" in listed.stdout, listed.stderr


def assert_same(uninterrupted):
    minari_io.check(toy.STITCHED)
    episodes = minari_io.read(toy.STITCHED, keep_infos=True).episodes
    assert episodes.fingerprint() == uninterrupted.fingerprint()
    assert episodes.infos.keys() == uninterrupted.infos.keys()
    for name, info in uninterrupted.infos.items():
        np.testing.assert_array_equal(episodes.infos[name], info, err_msg=name)
    assert list(episodes.metadata) == list(uninterrupted.metadata)


def kept(folder):
    """Identity of the finished files of a run directory."""
    files = [*folder.glob("*/models-*/*.pt"), *folder.glob("*/chunks-*/*.npz")]
    return {path: path.stat().st_mtime_ns for path in files if not path.name.startswith(".")}


linux = pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts processes in /proc")


@linux
def test_killed_while_training_proposing_and_writing(uninterrupted, datasets_path):
    toy.write()
    runs = datasets_path / ".stitch-runs"

    def trained():
        return [*runs.glob("*/models-*/[a-z]*.pt")]

    def proposed():
        return [*runs.glob("*/chunks-*/[0-9]*.npz")]

    workers = kill_when(start(workers=2), trained)
    assert len(workers) >= 2
    assert_only_the_source_is_there()
    assert not proposed()
    first = kept(runs)

    kill_when(start(workers=1), lambda: len(proposed()) >= 3)
    assert_only_the_source_is_there()
    second = kept(runs)
    assert first.items() < second.items() and len(trained()) == len(NETWORKS)

    kill_when(start(workers=1), lambda: [*datasets_path.glob(".minari-stitch-*/dataset/data/main_data.hdf5")])
    assert_only_the_source_is_there()
    third = kept(runs)
    assert second.items() < third.items()
    assert len(third) - 5 >= len(uninterrupted) / 4  # all that is needed is there

    toy.ok(*toy.tiny(toy.ID, *WORDS))
    assert kept(runs) == third
    assert_same(uninterrupted)


@linux
@pytest.mark.slow
def test_interrupted_from_the_keyboard(uninterrupted, datasets_path):
    """Ctrl-C reaches the whole group of processes: the command says what is kept, and ends at once."""
    toy.write()
    command = [COMMAND, *toy.tiny(toy.ID, *WORDS, workers=2)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not [*(datasets_path / ".stitch-runs").glob("*/models-*/[a-z]*.pt")]:
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)
    below = descendants(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=20)
    assert process.returncode == 130 and not stdout
    assert "run the same command to go on" in " ".join(stderr.split()) and "Traceback" not in stderr
    assert_gone(below)
    assert minari_io.local_ids() == [toy.ID]
    toy.ok(*toy.tiny(toy.ID, *WORDS))
    assert_same(uninterrupted)


def test_what_a_killed_run_left_is_removed_and_what_another_is_writing_is_not(stitched, datasets_path):
    old, new = (datasets_path / f".minari-stitch-{name}" for name in ("old", "new"))
    for folder in (old, new):
        (folder / "dataset").mkdir(parents=True)
    (chunks,) = (datasets_path / ".stitch-runs").glob("*/chunks-*")
    torn, writing = (chunks / f".00000{number}.1.aside.npz" for number in (1, 2))
    torn.touch(), writing.touch()
    with held(new), held(writing):
        toy.augment("--steps", 1)
    assert not old.exists() and new.exists()
    assert not torn.exists() and writing.exists()
    toy.augment("--steps", 2)
    assert not new.exists() and not writing.exists()


def test_another_version_of_the_package_takes_up_nothing_of_this_one(stitched, datasets_path, monkeypatch):
    monkeypatch.setattr(job, "version", lambda package: "9.9")
    toy.augment("--steps", 1)
    (runs,) = (datasets_path / ".stitch-runs").iterdir()
    assert len([*runs.glob("models-*")]) == len([*runs.glob("chunks-*")]) == 2


@linux
@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("seed", range(4))
def test_killed_at_random_moments(uninterrupted, datasets_path, tmp_path, monkeypatch, seed, workers):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "measured"))
    toy.write()
    begin = time.monotonic()
    start(workers).communicate()
    duration = time.monotonic() - begin
    assert minari_io.exists(toy.STITCHED)

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(datasets_path))
    toy.write()
    rng = random.Random(seed)
    kills = 0
    while not minari_io.exists(toy.STITCHED):
        process = start(workers)
        try:
            # The first comes surely before the end, the last only may.
            _, stderr = process.communicate(timeout=duration * rng.uniform(0.3, 0.7 if kills == 0 else 1.2))
        except subprocess.TimeoutExpired:
            kill(process)
            kills += 1
            assert kills < 20
        else:
            assert process.returncode == 0, stderr
        assert toy.run("minari", "list", "local").returncode == 0
    assert kills >= 1
    assert set(minari_io.local_ids()) == {toy.ID, toy.STITCHED}
    assert_same(uninterrupted)
