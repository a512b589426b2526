"""SIGKILL, SIGTERM and Ctrl-C at random moments of every command and stage.

After each the datasets are whole, no process is left, and the same command goes on to the same bytes and leaves no
other file than an undisturbed one. `MINARI_STITCH_KILLS` says how many (200), `MINARI_STITCH_SEED` which; counts are
printed.
"""

import collections
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import pytest
import toy
import trials

from minari_stitch.cli import common

KILLS, SEED = (int(os.environ.get(f"MINARI_STITCH_{name}", default)) for name, default in (("KILLS", 200), ("SEED", 0)))
PATIENCE = 15.0  # seconds for what is left of a process to end
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
COMMANDS = trials.commands()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(0),
    pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="looks for processes in /proc"),
]


class Command:
    """The command line in a session of its own: started afresh, or forked from here, which saves its start-up."""

    def __init__(self, words, folder, *, afresh):
        self.said, self.process = folder.parent / f"{folder.name}.stderr", None
        environment = {"MINARI_DATASETS_PATH": str(folder / "datasets"), "OMP_NUM_THREADS": "1"}
        if afresh:
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))  # the toy environment is there too
            command = [sys.executable, "-m", "minari_stitch", *words]
            with self.said.open("w") as said:
                self.process = subprocess.Popen(
                    command, cwd=folder, env=os.environ | environment, stdout=said, stderr=said, start_new_session=True
                )
                self.pid = self.process.pid
        elif (pid := os.fork()) == 0:
            code = 1
            try:
                os.setsid()
                os.chdir(folder)
                os.environ.update(environment)
                for descriptor in (1, 2):
                    os.dup2(os.open(self.said, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
                sys.argv[1:] = words
                code = minari_stitch_main()
                sys.stderr.flush()
            finally:
                os._exit(code)
        else:
            self.pid = pid

    def ended(self, seconds):
        """Its exit code, or None if it goes on for longer than that."""
        until = time.monotonic() + seconds
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                if self.process is not None:
                    self.process.returncode = code  # or it warns that it still runs
                return code
            if time.monotonic() > until:
                return None
            time.sleep(0.005)

    @property
    def stderr(self):
        return self.said.read_text()


def minari_stitch_main():
    from minari_stitch.cli import main

    common.out.file, common.err.file = sys.stdout, sys.stderr
    try:
        main()
    except SystemExit as error:
        return error.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def session(leader):
    """Processes that belong to the session of a command, dead ones left out."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, sid = stat.read_text().rpartition(")")[2].split()[:4]
        except (OSError, ValueError):
            continue
        if int(sid) == leader and state not in "ZX":
            found.append(int(stat.parent.name))
    return found


def orphans(leader):
    """Those that are still there after a while."""
    begin = time.monotonic()
    while left := session(leader):
        if time.monotonic() - begin > PATIENCE:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            return left
        time.sleep(0.02)
    return []


def comparable(files):
    """Bytes of all files; of metadata what they say, since digests of the same say the same in another order.

    What is hidden may be half-written.
    """
    seen = {name for name in files if name.endswith("metadata.json") and "/." not in f"/{name}"}
    return {name: json.loads(data) if name in seen else data for name, data in files.items()}


class Trials:
    """A template of datasets, and what each command makes of it when nobody disturbs it."""

    def __init__(self, folder):
        self.root, self.wanted, self.seconds = folder, {}, {}
        self.template = trials.prepare(folder / "template")

    def fresh(self, name):
        folder = self.root / name
        shutil.copytree(self.template, folder, copy_function=shutil.copy2)
        return folder

    def undisturbed(self, name, afresh):
        if (name, afresh) not in self.seconds:
            folder = self.fresh("undisturbed")
            begin = time.monotonic()
            process = Command(COMMANDS[name], folder, afresh=afresh)
            assert process.ended(600) == 0, f"{name}: {process.stderr}"
            self.seconds[name, afresh] = time.monotonic() - begin
            self.wanted[name] = comparable(trials.tree(folder))
            shutil.rmtree(folder)
        return self.wanted[name], self.seconds[name, afresh]


@pytest.fixture(scope="module")
def at(tmp_path_factory):
    return Trials(tmp_path_factory.mktemp("kills"))


def test_killed_at_random_moments(at, monkeypatch, capsys):
    rng, counts, wrong = random.Random(SEED), collections.Counter(), []
    names, trial, told = list(COMMANDS), -1, 0
    rng.shuffle(names)
    while counts["killed"] < KILLS:
        trial += 1
        name, sent = names[trial % len(names)], SIGNALS[rng.randrange(3)]
        afresh = rng.random() < 0.2
        wanted, seconds = at.undisturbed(name, afresh)
        folder = at.fresh(f"trial-{trial}")
        datasets = folder / "datasets"
        monkeypatch.setenv("MINARI_DATASETS_PATH", str(datasets))
        monkeypatch.chdir(folder)
        about = f"trial {trial}, {name}, {sent.name}{', afresh' if afresh else ''}"
        process = Command(COMMANDS[name], folder, afresh=afresh)
        if process.ended(seconds * rng.uniform(0.02, 1.0)) is not None:
            counts["had ended"] += 1
        else:
            counts["killed"] += 1
            counts[sent.name] += 1
            # Ctrl-C goes to the whole group of a terminal.
            (os.killpg if sent == signal.SIGINT else os.kill)(process.pid, sent)
            if process.ended(PATIENCE) is None:
                wrong.append(f"{about}: it went on")
                os.kill(process.pid, signal.SIGKILL)
                process.ended(PATIENCE)
            if "Traceback" in process.stderr:
                wrong.append(f"{about}: traceback\n{process.stderr[-2000:]}")
        if left := orphans(process.pid):
            wrong.append(f"{about}: orphans {left}")
        try:
            trials.whole(datasets)
            for file in folder.glob("out/*"):
                if not file.name.startswith("."):
                    assert file.read_bytes() == wanted.get(f"out/{file.name}"), f"half-written {file.name}"
        except Exception as error:
            wrong.append(f"{about}: not whole: {error!r}")
        counts["interrupted work"] += (datasets / ".stitch-runs").exists()
        found = comparable(trials.tree(folder))
        complete = all(found.get(file) == data for file, data in wanted.items() if ".stitch-runs" not in file)
        if complete:  # the signal came when all was done, and the same command would do it once more
            counts["left nothing to do"] += 1
            shutil.rmtree(folder)
            continue
        result = toy.invoke(*COMMANDS[name])
        if result.exit_code != 0:
            wrong.append(f"{about}: does not go on: {result.stderr[-500:]} {result.exception!r}")
        found = comparable(trials.tree(folder))
        if hidden := list(datasets.glob(".minari-stitch-*")):
            wrong.append(f"{about}: left {hidden}")
        # Several processes make a chunk or two more than are needed in the end.
        if left := [file for file in found.keys() ^ wanted.keys() if not re.search(r"chunks-\w+/\d+\.npz$", file)]:
            wrong.append(f"{about}: left {sorted(left)}")
        if differ := [file for file in found.keys() & wanted.keys() if found[file] != wanted[file]]:
            wrong.append(f"{about}: not the same {differ}")
        shutil.rmtree(folder)
        with capsys.disabled():
            print("".join(f"\n{line}" for line in wrong[told:]), end="", flush=True)
        told = len(wrong)
    with capsys.disabled():
        print("\n" + ", ".join(f"{count} {what}" for what, count in counts.items()) + f"; {len(wrong)} wrong")
    assert not wrong
