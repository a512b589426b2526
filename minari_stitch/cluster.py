"""The same work on Ray: what `Pool.map` does in processes of this machine, as tasks of a cluster.

Ray places the tasks and runs those of dead workers and nodes again. What jobs keep, they keep in a folder that all
nodes share, so that the death of the script that asked for them loses nothing either. A cluster is found at
RAY_ADDRESS; where that is not set, a Ray of this machine is started, and stays until the process ends.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import torch

from minari_stitch.data.storage import storage_errors, within
from minari_stitch.errors import ConfigError, OutOfMemoryError, StitchError, WorkerError
from minari_stitch.progress import Progress

T = TypeVar("T")

_RETRIES = 20  # of a task whose worker or node died
_REACH = 5.0  # seconds for the first answer of a cluster
_JOIN = 30.0  # seconds to become a part of it
_LOOK = 60.0  # seconds for all nodes to say what they have: each starts a process
_REPORT = 0.5  # seconds between reports of one stage


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Runs a job for many arguments as Ray tasks; results are those of `Pool`.

    Attributes:
        cores: Of a Ray that is started here; a cluster has what it has.
        threads: Of each task, which takes as many cores.
        gpus: Of each task.
        folder: What jobs read or keep files in: every node must see it.
        variables: Environment variables of this process that jobs depend on.
        progress: Called in this process with what the jobs report, twice a second at most.
    """

    cores: int = 1
    threads: int = 1
    gpus: int = 0
    folder: Path
    variables: tuple[str, ...] = ()
    progress: Progress | None = None

    def map(self, job: Callable[..., T], arguments: Iterable[tuple[Any, ...]], *, ordered: bool = True) -> Iterator[T]:
        """Run `job(*args, progress)` for each argument tuple; see `Pool.map`.

        Raises:
            ConfigError: Ray is not installed, or no node has the cores or GPUs that a task takes.
            WorkerError: The cluster cannot be reached, a node has another environment or does not see the folder, or
                Ray gave a task up.
            OutOfMemoryError: A node, or Ray's object store, has no room.
            StitchError: Whatever a job has to say.
        """
        ray = connect(self.cores)
        self._require_room(ray)
        check_nodes(ray, self.folder)
        reports = _reports(ray) if self.progress else None
        setup = {name: os.environ[name] for name in self.variables if name in os.environ}, sys.path, self.threads
        with _named(ray):
            payload = ray.put(ray.cloudpickle.dumps(job))
        task = ray.remote(num_cpus=self.threads, num_gpus=self.gpus, max_retries=_RETRIES)(_call)
        name, numbered = uuid.uuid4().hex, enumerate(arguments)
        waiting: dict[Any, int] = {}
        finished: dict[int, T] = {}
        following = 0
        try:
            while True:
                room = 2 * self._slots(ray) - len(waiting) - len(finished)
                for number, args in islice(numbered, max(0, room)):
                    waiting[task.remote(name, setup, payload, args, reports)] = number
                if not waiting:
                    return
                ready, _ = ray.wait(list(waiting), timeout=1.0)
                self._pass_on(ray, reports)
                for done in ready:
                    with _named(ray):
                        finished[waiting.pop(done)] = ray.get(done)
                while finished and (following in finished or not ordered):
                    yield finished.pop(following if ordered else next(iter(finished)))
                    following += 1
        finally:
            for left in waiting:  # all that jobs keep is written atomically
                ray.cancel(left, force=True)

    def _pass_on(self, ray: Any, reports: Any) -> None:
        """Give the callback what the jobs have reported since the last look."""
        if self.progress is None:
            return
        messages: list[tuple] = []
        with suppress(ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):  # reports may be lost, work not
            messages = ray.get(reports.take.remote(), timeout=_REACH)
        for message in messages:
            self.progress(*message)

    def _require_room(self, ray: Any) -> None:
        for kind, wanted, what in (("CPU", self.threads, "threads"), ("GPU", self.gpus, "GPUs of a task")):
            most = int(max((node["Resources"].get(kind, 0) for node in _alive(ray)), default=0))
            if wanted > most:
                raise ConfigError(
                    f"{what}={wanted} is not possible: the largest node of the Ray cluster has {most} ({kind}); ask "
                    "for less, or add a node that has as many"
                )

    def _slots(self, ray: Any) -> int:
        """Tasks that the cluster, as it is now, can run at a time."""
        there = ray.cluster_resources()
        per_kind = [there.get("CPU", 1) // self.threads, *([there.get("GPU", 1) // self.gpus] if self.gpus else [])]
        return max(1, int(min(per_kind)))


def connect(cores: int) -> Any:
    """The module `ray`, connected.

    Raises:
        ConfigError: It is not installed, or RAY_ADDRESS is of a kind that cannot serve.
        WorkerError: The cluster cannot be reached, or runs another Ray or Python.
    """
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ConfigError(
            f"executor 'ray' needs Ray, which cannot be imported ({error}): run `pip install 'minari-stitch[ray]'`, "
            "or use the executor 'local'"
        ) from error
    if ray.is_initialized():
        return ray
    address = os.environ.get("RAY_ADDRESS") or "local"
    if "://" in address:
        raise ConfigError(
            f"RAY_ADDRESS={address} is not possible: run the command on a node of the cluster with host:port or auto, "
            "or hand it in with `ray job submit`"
        )
    if address == "local":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            ray.init(address, num_cpus=cores, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        except Exception as error:  # of any type
            raise WorkerError(
                f"Ray does not start on this machine ({_said(error)}): is it overloaded, or its disk full? Run it "
                "again, or use the executor 'local'"
            ) from error
        return ray
    try:
        if address != "auto":
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=_REACH).close()
        within(_JOIN, lambda: ray.init(address, log_to_driver=False, logging_level="ERROR"))
    except (OSError, ValueError, RuntimeError) as error:
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise WorkerError(
            f"the Ray cluster at RAY_ADDRESS={address} cannot be joined ({said}): start it with `ray start`, set "
            "RAY_ADDRESS to the host:6379 that it names, or unset it to use this machine alone"
        ) from error
    return ray


def check_nodes(ray: Any, folder: Path) -> None:
    """Refuse a cluster on which work would fail or come out otherwise.

    Raises:
        WorkerError: A node has another environment, does not see the folder, or does not answer.
    """

    def look(mark: str) -> dict[str, str | None]:  # sent as it is: a node may have another version of this, or none
        import hashlib
        from importlib.metadata import PackageNotFoundError, version
        from importlib.util import find_spec
        from pathlib import Path

        found: dict[str, str | None] = {}
        for name in ("minari-stitch", "torch", "numpy", "minari", "gymnasium", "mujoco"):
            spec = find_spec(name.replace("-", "_"))
            try:
                found[name] = version(name) if spec else None
            except PackageNotFoundError:
                found[name] = "without metadata"
            if spec and spec.origin and name == "minari-stitch":
                code, root = hashlib.sha256(), Path(spec.origin).parent
                for path in sorted([*root.glob("*.py"), *root.glob("[!c]*/*.py")]):  # the command line decides nothing
                    code.update(path.read_bytes())
                found[name] = f"{found[name]} (code {code.hexdigest()[:8]})"
        found["folder"] = str(Path(mark).exists())
        return found

    from ray.util.scheduling_strategies import (  # pyright: ignore[reportMissingImports]
        NodeAffinitySchedulingStrategy,
    )

    with storage_errors(folder), tempfile.NamedTemporaryFile(prefix=".cluster-", dir=folder) as mark:
        wanted, remote = look(mark.name), ray.remote(num_cpus=0, max_retries=3)(look)
        nodes = {
            remote.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
                mark.name
            ): f"node {node['NodeName']}"
            for node in _alive(ray)
            if node["Resources"].get("CPU") or node["Resources"].get("GPU")
        }
        _, silent = ray.wait(list(nodes), num_returns=len(nodes), timeout=_LOOK)
        if silent:
            raise WorkerError(f"{nodes[silent[0]]} of the Ray cluster does not answer: see `ray status`, or remove it")
        for answer, node in nodes.items():
            try:
                found = ray.get(answer)
            except ray.exceptions.RayError as error:
                if isinstance(error, ray.exceptions.TaskUnschedulableError | ray.exceptions.NodeDiedError):
                    continue  # it went meanwhile
                raise WorkerError(f"{node} of the Ray cluster cannot work: {_said(error)}") from error
            if found["folder"] != "True":
                raise WorkerError(
                    f"{node} of the Ray cluster does not see {folder}: put it on a disk that all nodes share, at the "
                    "same path (run_dir; that of datasets is MINARI_DATASETS_PATH)"
                )
            for name, version in wanted.items():
                if found[name] != version:
                    raise WorkerError(
                        f"{node} of the Ray cluster has {name} {found[name] or 'not at all'}, this process {version}: "
                        "give all nodes the same environment, and results stay the same"
                    )


def _alive(ray: Any) -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


@contextmanager
def _named(ray: Any) -> Iterator[None]:
    """Turn what Ray says of a task or of its object store into named errors."""
    known, kept = ray.exceptions, "What is finished is kept, run the same again."
    try:
        yield
    except known.RayTaskError as error:
        if isinstance(error.cause, StitchError):
            raise error.cause from None
        raise
    except (known.ObjectStoreFullError, known.OutOfDiskError) as error:
        raise OutOfMemoryError(
            f"Ray's object store is full ({_said(error)}): start Ray with a larger object store, or free space where "
            f"it spills objects to. {kept}"
        ) from error
    except known.OutOfMemoryError as error:
        raise OutOfMemoryError(
            f"a node of the Ray cluster has no memory left ({_said(error)}): use more threads a task, so that fewer "
            f"run on a node, or larger nodes. {kept}"
        ) from error
    except known.RayError as error:
        raise WorkerError(f"Ray gave a task up ({type(error).__name__}: {_said(error)}). {kept}") from error


def _said(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


class _Reports:
    """The last report of each stage that nobody has taken yet."""

    def __init__(self) -> None:
        self._last: dict[str, tuple] = {}

    def put(self, stage: str, done: int, total: int) -> None:
        self._last[stage] = (stage, done, total)

    def take(self) -> list[tuple]:
        messages, self._last = list(self._last.values()), {}
        return messages


def _reports(ray: Any) -> Any:
    from ray.util.scheduling_strategies import (  # pyright: ignore[reportMissingImports]
        NodeAffinitySchedulingStrategy,
    )

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    return ray.remote(num_cpus=0, max_restarts=-1)(_Reports).options(scheduling_strategy=here).remote()


class _Worker:
    """What a process of Ray's knows of the job at hand; it goes when another one comes."""

    name: str = ""
    job: Callable[..., Any]
    said: dict[str, float]


def _call(name: str, setup: tuple[dict[str, str], list[str], int], payload: bytes, args: tuple, reports: Any) -> Any:
    """In a worker: run the job on one argument tuple."""
    variables, path, threads = setup
    torch.set_num_threads(threads)
    if _Worker.name != name:
        os.environ.update(variables)
        sys.path.extend(entry for entry in path if entry not in sys.path)  # as spawned processes have it
        import ray.cloudpickle  # pyright: ignore[reportMissingImports]

        _Worker.job, _Worker.name, _Worker.said = staticmethod(ray.cloudpickle.loads(payload)), name, {}

    def report(stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if done >= total or now - _Worker.said.get(stage, 0.0) > _REPORT:
            _Worker.said[stage] = now
            reports.put.remote(stage, done, total)

    return _Worker.job(*args, None if reports is None else report)
