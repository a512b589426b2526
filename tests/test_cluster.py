"""On Ray: the same bytes wherever a run is made, whatever dies meanwhile, and what is no cluster for it."""

import contextlib
import functools
import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import toy

from minari_stitch.cluster import Cluster, connect
from minari_stitch.data import minari_io
from minari_stitch.diffstitch.models import NETWORKS
from minari_stitch.errors import ConfigError, OutOfMemoryError, StorageError, WorkerError

KILLS = {"worker": 10, "node": 5, "driver": 5}
WORDS = ("--delta", toy.DELTA, "--steps", 1500, "--set", "stitch.chunk=4", "--json")
SLOW = (*WORDS, "--set", "stitch.draws=16", "--set", "stitch.repair_steps=20")
SLOW = (*SLOW, *(word for fit in toy.FITS for word in ("--set", f"models.{fit}.steps=1500")))


# Jobs: top-level functions, so that another process can find them.


def square(number, progress):
    if progress is not None:
        progress("square", number, 5)
    return number * number


def wait_for(number, seconds, progress):
    time.sleep(seconds)
    return number


def fail(number, progress):
    raise StorageError(f"job {number} has no room")


class Heavy:
    def __init__(self, size):
        self.body = np.random.default_rng(0).bytes(size)

    def __call__(self, number, progress):
        return number


@pytest.fixture
def nodes(on_ray, monkeypatch):
    """A cluster of one node with one core, at RAY_ADDRESS; more are added with `add_node`."""
    from ray.cluster_utils import Cluster as Nodes

    found = Nodes(
        initialize_head=True, head_node_args={"num_cpus": 1, "node_name": "first", "include_dashboard": False}
    )
    monkeypatch.setenv("RAY_ADDRESS", found.address)
    yield found
    on_ray.shutdown()
    found.shutdown()


def content(folder):
    """Every byte that a run keeps, and the dataset that it wrote."""
    runs = folder / ".stitch-runs"
    made = {
        str(path.relative_to(runs)): path.read_bytes() for path in sorted(runs.rglob("*.*")) if path.suffix != ".npy"
    }
    episodes = minari_io.read(toy.STITCHED, keep_infos=True).episodes
    infos = {name: info.tobytes() for name, info in episodes.infos.items()}
    return made, episodes.fingerprint(), infos, list(episodes.metadata)


def made(monkeypatch, folder, *words, workers=1):
    """The content of a run of its own."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder))
    toy.write()
    toy.ok(*toy.tiny(toy.ID, *words, workers=workers))
    return content(folder)


def assert_same(found, wanted):
    """Chunks that were made ahead may be more."""
    both = found[0].keys() & wanted[0].keys()
    assert len(both) > 5 and sum(name.endswith(".pt") for name in both) == len(NETWORKS)
    assert {name: found[0][name] == wanted[0][name] for name in both} == dict.fromkeys(both, True)
    assert found[1:] == wanted[1:]


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_the_same_bytes_from_one_worker_two_workers_one_node_and_two(on_ray, nodes, tmp_path, monkeypatch):
    alone = made(monkeypatch, tmp_path / "one", *WORDS)
    assert_same(made(monkeypatch, tmp_path / "two", *WORDS, workers=2), alone)
    nodes.add_node(num_cpus=1, node_name="second")
    assert_same(made(monkeypatch, tmp_path / "cluster", *WORDS, "--executor", "ray"), alone)
    on_ray.shutdown()
    monkeypatch.delenv("RAY_ADDRESS")
    assert_same(made(monkeypatch, tmp_path / "ray", *WORDS, "--executor", "ray", workers=2), alone)


def busy():
    """Processes of Ray's that are at work on a task of ours."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(b"ray::_call"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.ray
@pytest.mark.timeout(1500)
def test_workers_nodes_and_drivers_are_killed_and_nothing_is_lost(nodes, tmp_path, monkeypatch):
    """Of runs on two nodes, in an order that a seed decides, and while there is work under way."""
    alone = made(monkeypatch, tmp_path / "alone", *SLOW)
    second = nodes.add_node(num_cpus=1, node_name="second")
    command = [sys.executable, "-m", "minari_stitch", *toy.tiny(toy.ID, *SLOW, "--executor", "ray")]
    rng = random.Random(0)
    todo = [victim for victim, count in KILLS.items() for _ in range(count)]
    rng.shuffle(todo)
    killed, rounds, drivers = [], 0, 0
    while todo:
        folder, rounds = tmp_path / f"round-{rounds}", rounds + 1
        monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder))
        toy.write()
        driver, said = None, ""
        while driver is None or driver.poll() is None:
            if driver is None:
                driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                drivers += 1
            time.sleep(rng.uniform(0.1, 1.0))
            if not todo or not (at_work := busy()):
                continue
            if todo[0] == "worker":
                with contextlib.suppress(ProcessLookupError):
                    os.kill(rng.choice(at_work), signal.SIGKILL)
                    killed.append(todo.pop(0))
            elif todo[0] == "node":
                nodes.remove_node(second, allow_graceful=False)
                second = nodes.add_node(num_cpus=1, node_name="second")
                killed.append(todo.pop(0))
            elif driver.poll() is None:
                driver.kill()
                driver.communicate()
                driver = None
                killed.append(todo.pop(0))
        said = driver.communicate()[1]
        assert driver.returncode == 0, said
        assert_same(content(folder), alone)
    print(f"{len(killed)} kills: {', '.join(killed)}; {rounds} runs, {drivers} drivers")
    assert len(killed) == sum(KILLS.values()) and drivers == rounds + KILLS["driver"]


@pytest.mark.ray
def test_results_come_in_order_or_as_they_are_done_and_an_error_is_the_jobs_own(on_ray, tmp_path):
    seen = []
    cluster = Cluster(cores=2, folder=tmp_path, progress=lambda *message: seen.append(message))
    assert list(cluster.map(square, ((number,) for number in range(6)))) == [0, 1, 4, 9, 16, 25]
    assert ("square", 5, 5) in seen
    quiet = Cluster(cores=2, folder=tmp_path)
    slow_first = [(0, 3.0), (1, 0.0), (2, 0.0)]
    assert list(quiet.map(wait_for, slow_first)) == [0, 1, 2]
    assert list(quiet.map(wait_for, slow_first, ordered=False)) == [1, 2, 0]
    assert list(quiet.map(square, [])) == []
    with pytest.raises(StorageError, match="job 3 has no room"):
        list(quiet.map(fail, [(3,)]))

    def refuse(*message):
        raise KeyError("not wanted any more")

    with pytest.raises(KeyError, match="not wanted"):
        list(Cluster(folder=tmp_path, progress=refuse).map(square, ((number,) for number in itertools.count())))
    endless = quiet.map(wait_for, ((number, 0.0 if number < 3 else 600.0) for number in itertools.count()))
    assert [next(endless) for _ in range(3)] == [0, 1, 2]
    begin = time.monotonic()
    endless.close()
    assert time.monotonic() - begin < 10
    assert list(quiet.map(square, [(7,)])) == [49]  # what waited is gone


@pytest.mark.ray
def test_what_is_defined_in_a_script_needs_no_guard(on_ray, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\nfrom minari_stitch.cluster import Cluster\n"
        "def triple(number, progress): return 3 * number\n"
        f"print(list(Cluster(folder=Path({str(tmp_path)!r})).map(triple, [(1,), (2,)])))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "[3, 6]\n"), done.stderr


def test_without_ray(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'minari-stitch\[ray\]'"):
        list(Cluster(folder=tmp_path).map(square, [(1,)]))


def closed_port():
    with socket.socket() as ours:
        ours.bind(("127.0.0.1", 0))
        return ours.getsockname()[1]


@pytest.mark.ray
@pytest.mark.parametrize(
    ("address", "error", "message"),
    [
        ("127.0.0.1:{closed}", WorkerError, "Connection refused.*ray start`"),
        ("no.such.host.invalid:6379", WorkerError, "cannot be joined"),
        ("nonsense", WorkerError, "RAY_ADDRESS=nonsense cannot be joined"),
        ("auto", WorkerError, "RAY_ADDRESS=auto cannot be joined.*Could not find any running Ray"),
        ("ray://127.0.0.1:10001", ConfigError, "ray job submit"),
    ],
)
def test_a_cluster_that_cannot_be_reached(on_ray, tmp_path, monkeypatch, address, error, message):
    import ray._private.services as services

    monkeypatch.setattr(services, "find_gcs_addresses", functools.cache(set))  # none of other people's
    monkeypatch.setenv("RAY_ADDRESS", address.format(closed=closed_port()))
    begin = time.monotonic()
    with pytest.raises(error, match=message):
        connect(1)
    assert time.monotonic() - begin < 15


@pytest.mark.ray
def test_an_address_at_which_something_else_listens(tmp_path, monkeypatch):
    """In a process of its own: Ray goes on to try in the background."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        begin = time.monotonic()
        environment = os.environ | {"RAY_ADDRESS": f"127.0.0.1:{other.getsockname()[1]}"}
        code = "from minari_stitch.cluster import connect; connect(1)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 1 and "cannot be joined (no answer within 30 seconds)" in done.stderr, done.stderr
    assert time.monotonic() - begin < 60


def refused(folder, match, **cluster):
    """A cluster is refused within seconds, before any work."""
    begin = time.monotonic()
    with pytest.raises(WorkerError, match=match):
        list(Cluster(folder=folder, **cluster).map(fail, [(0,)]))
    assert time.monotonic() - begin < 45


@pytest.mark.ray
def test_a_node_with_another_version_of_the_package(nodes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # which Ray adds to the path of its workers
    package = tmp_path / "other" / "minari_stitch"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("ANOTHER = True\n")
    nodes.add_node(num_cpus=1, node_name="old", env_vars={"PYTHONPATH": str(package.parent)})
    refused(tmp_path, r"node old .* has minari-stitch .*\(code \w+\), this process .*the same environment")


@pytest.mark.ray
def test_a_node_without_mujoco(nodes, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['mujoco'] = None\n")
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1])])
    nodes.add_node(num_cpus=1, node_name="bare", env_vars={"PYTHONPATH": path})
    refused(tmp_path, r"node bare .* has mujoco not at all, this process \d")


@pytest.mark.ray
def test_a_folder_that_is_not_shared(nodes, tmp_path, monkeypatch):
    """A path that every process understands otherwise stands for the local disks of two machines."""
    monkeypatch.chdir(tmp_path)
    nodes.add_node(num_cpus=1, node_name="second")
    refused(Path("/proc/self/fd/../cwd"), r"does not see /proc/self/.*a disk that all nodes share.*run_dir")


@pytest.mark.ray
def test_more_threads_than_a_node_has(nodes, tmp_path):
    with pytest.raises(ConfigError, match=r"threads=3 is not possible: the largest node .* has 1 \(CPU\)"):
        list(Cluster(threads=3, folder=tmp_path).map(square, [(1,)]))
    with pytest.raises(ConfigError, match=r"GPUs of a task=1 is not possible"):
        list(Cluster(gpus=1, folder=tmp_path).map(square, [(1,)]))


@pytest.mark.ray
def test_an_object_store_that_is_full(on_ray, tmp_path):
    full = {"local_fs_capacity_threshold": 0.001, "local_fs_monitor_interval_ms": 10}  # of the disk, as if it was
    store = {"object_store_memory": 80_000_000, "_system_config": full}
    on_ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, **store)
    begin = time.monotonic()
    with pytest.raises(OutOfMemoryError, match="object store is full.*a larger object store"):
        list(Cluster(folder=tmp_path).map(Heavy(200_000_000), [(1,)]))
    assert time.monotonic() - begin < 45
    assert list(Cluster(folder=tmp_path).map(Heavy(1000), [(1,)])) == [1]
