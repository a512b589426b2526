"""Where the work of a run is done: in processes of this machine, or on Ray. The results are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from minari_stitch.cluster import Cluster
from minari_stitch.errors import ConfigError
from minari_stitch.pool import Pool
from minari_stitch.progress import Progress

Executor = Literal["local", "ray"]


def executor(
    name: Executor,
    *,
    workers: int,
    threads: int,
    device: str,
    folder: Path,
    cores: int = 1,
    variables: tuple[str, ...] = (),
    progress: Progress | None = None,
) -> Pool | Cluster:
    """What runs jobs; both have the same `map`.

    Args:
        name: `local` or `ray`.
        workers: Processes of this machine, or cores of a Ray that is started here; a cluster has what it has.
        threads: Of each process or task.
        device: Torch device of the jobs. A GPU of this machine is driven from this process; on Ray each task has one.
        folder: What jobs read or keep files in.
        cores: That a Ray started here has at least.
        variables: Environment variables that jobs depend on.
        progress: Called with what the jobs report.

    Raises:
        ConfigError: An amount or a device that is not possible.
    """
    on_gpu = torch.device(device).type != "cpu"
    local = Pool(workers=1 if on_gpu else workers, threads=threads, progress=progress)
    if name == "local":
        return local
    if torch.device(device).index:
        raise ConfigError(f"device={device!r} is not possible on Ray, which says which GPU a task has: use cuda")
    return Cluster(
        cores=max(workers, threads, cores),
        threads=threads,
        gpus=int(on_gpu),
        folder=folder.absolute(),
        variables=variables,
        progress=progress,
    )
