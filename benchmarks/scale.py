"""What grows with the data, and how fast: time and memory of reading, training, stitching and writing.

    python benchmarks/scale.py
    python benchmarks/scale.py --largest 10000000 --bridges 2000000

Each stage runs in a process of its own on made-up data of halfcheetah's shapes (S = 17, A = 6, episodes of 1000 steps),
with networks of the preset `fast` that have hardly been trained. Its CPU seconds and its largest resident memory
beyond that of the imports are measured; exponents are slopes in logarithms, from the smallest to the largest size.
From the rates follows what larger machines would need: an estimate, not a measurement.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Optional

import numpy as np
import torch
import typer
from gymnasium import spaces
from rich.console import Console

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks._timing import Section
from benchmarks.suites import SUITES
from minari_stitch.data import minari_io
from minari_stitch.diffstitch.models import networks
from minari_stitch.diffstitch.transform import DiffStitch, FittedDiffStitch
from minari_stitch.run import Run

SPACES: dict[str, Any] = {
    "observation_space": spaces.Box(-np.inf, np.inf, (17,), np.float64),
    "action_space": spaces.Box(-1, 1, (6,), np.float32),
}
LENGTH = 1000
_FITS = 60  # gradient steps of each network: its quality does not matter
_GPU = 100  # cores that a GPU is taken for
_HOURS = 3600.0


def wander(n_steps: int) -> Iterator[dict[str, Any]]:
    """Yield damped random walks that are pushed by their actions; the number of an episode decides how well it pays."""
    from scipy.signal import lfilter

    for episode in range(max(1, n_steps // LENGTH)):
        rng = np.random.default_rng([1, episode])
        length = min(LENGTH, n_steps)
        actions = rng.uniform(-1, 1, (length, 6)).astype(np.float32)
        push = rng.normal(0, 0.1, (length + 1, 17))
        push[1:, :6] += 0.2 * actions
        last = np.arange(length) == length - 1
        yield {
            "observations": np.asarray(lfilter([1.0], [1.0, -0.98], push, axis=0)),
            "actions": actions,
            "rewards": rng.normal(episode % 7, 1.0, length),
            "terminations": np.zeros(length, bool),
            "truncations": last,
        }


def source_id(n_steps: int) -> str:
    """Of a made-up dataset."""
    return f"scale/cheetah-{n_steps}-v0"


def method(*, cheap: bool = False) -> DiffStitch:
    """The preset `fast`, hardly trained, of which every bridge qualifies; `cheap`: bridges cost next to nothing."""
    fast = DiffStitch.preset("fast")
    models, diffusion = fast.models, fast.models.diffusion
    short = {
        name: replace(getattr(models, name), steps=_FITS, evaluate_every=_FITS)
        for name in ("dynamics", "inverse", "reward", "termination")
    }
    fit = replace(diffusion.fit, steps=_FITS, evaluate_every=_FITS)
    models = replace(models, diffusion=replace(diffusion, fit=fit), **short)
    qualify = replace(fast.qualify, delta=1e12, drift=None, support=None, termination=1.0, better=False)
    cut = {"sampler_steps": 1, "repair_steps": 0, "pool": 64, "chunk": 2048} if cheap else {}
    return replace(fast, models=models, qualify=qualify, form="bridge", stitch=replace(fast.stitch, **cut))


def fitted(at: Size, *, cheap: bool = False) -> FittedDiffStitch:
    """What the run directory of a source holds."""
    run = Run(directory=at.folder / f"run-{at.steps}", workers=1, threads=1)
    return method(cheap=cheap).found(minari_io.read(source_id(at.steps)), run)


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much, and where.

    Attributes:
        steps: Of the source.
        bridges: Synthetic steps to make.
        folder: Of datasets and run directories.
    """

    steps: int
    bridges: int
    folder: Path


def make(at: Size) -> dict[str, float]:
    """Write the source."""
    minari_io.write(wander(at.steps), dataset_id=source_id(at.steps), **SPACES)
    return {}


def read(at: Size) -> dict[str, float]:
    """Read the source."""
    minari_io.read(source_id(at.steps))
    return {}


def train(at: Size) -> dict[str, float]:
    """Make a source ready and train every network a little, one after the other; seconds a step of each."""
    job, found = fitted(at).job, {}
    for name in networks(job.episodes, job.transform.used):
        job.train(name, lambda stage, done, total: ticks.append((done, time.process_time())) if done else None)
        (first, begin), (last, end) = ticks[0], ticks[-1]
        found[name] = (end - begin) / (last - first)
        ticks.clear()
    return found


ticks: list[tuple[int, float]] = []


def stitch(at: Size, *, cheap: bool = False) -> dict[str, float]:
    """Propose and judge chunk after chunk; seconds a synthetic step after the first chunk, which loads the networks."""
    one = fitted(at, cheap=cheap)
    chunk = len(next(one.proposals()))
    begin = time.process_time()
    sample = one.sample(at.bridges)
    made = sample.n_synthetic or 0
    beyond = made - chunk * made / max(1, sample.report["proposed"])
    return {"step": (time.process_time() - begin) / beyond if beyond > made / 3 else math.nan}


def write(at: Size) -> dict[str, float]:
    """Write bridges that are there, in one pass; seconds a synthetic step."""
    sample = fitted(at, cheap=True).sample(at.bridges)
    begin = time.process_time()
    minari_io.write(sample.parts(), dataset_id=f"scale/bridges-{at.bridges}-v0", **SPACES)
    return {"step": (time.process_time() - begin) / (sample.n_synthetic or 1)}


STAGES: Mapping[str, Callable[[Size], dict[str, float]]] = {
    "make": make,
    "read": read,
    "train": train,
    "stitch": stitch,
    "stitch cheaply": partial(stitch, cheap=True),
    "write": write,
}


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of a stage at a size.

    Attributes:
        seconds: Of the CPU.
        mib: Largest resident memory beyond that of the imports, mapped files included.
        parts: What the stage measured itself.
    """

    seconds: float
    mib: float
    parts: Mapping[str, float]


def measure(stage: str, at: Size) -> Cost:
    """Run a stage in a process of its own."""
    words = ["--stage", stage, "--largest", at.steps, "--bridges", at.bridges, "--folder", at.folder]
    environment = os.environ | {"MINARI_DATASETS_PATH": str(at.folder / "datasets"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, text=True)
    if done.returncode:
        raise SystemExit(f"{stage} of {at.steps:,} steps and {at.bridges:,} of bridges failed, see above")
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def here(stage: str, at: Size) -> None:
    """Run a stage in this process, and print what it took."""
    torch.set_num_threads(1)
    before, begin = _peak(), time.process_time()
    parts = STAGES[stage](at)
    print(json.dumps({"seconds": time.process_time() - begin, "mib": _peak() - before, "parts": parts}))


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def exponent(sizes: Sequence[int], values: Sequence[float]) -> float:
    """Slope in logarithms, by least squares."""
    sound = [(math.log(n), math.log(v)) for n, v in zip(sizes, values, strict=True) if v > 0]
    if len(sound) < 2:
        return math.nan
    x, y = np.array(sound).T
    return float(np.polyfit(x, y, 1)[0])


def sizes(least: int, most: int) -> list[int]:
    """Powers of ten from the least to the most, which is the last."""
    steps = [least * 10**power for power in range(int(math.log10(max(1, most // least))) + 1)]
    return steps if steps[-1] == most else [*steps, most]


def grow(table: Section, stage: str, amounts: Sequence[int], at: Callable[[int], Size]) -> list[Cost]:
    """Measure a stage at growing amounts, a row for each, and one for the exponents."""
    costs = []
    for amount in amounts:
        costs.append(measure(stage, at(amount)))
        table.add(stage=stage, of=f"{amount:,}", **{"CPU s": costs[-1].seconds, "MiB": costs[-1].mib})
    times, memory = ([getattr(cost, name) for cost in costs] for name in ("seconds", "mib"))
    slopes = {"CPU s": exponent(amounts, times), "MiB": exponent(amounts, memory)}
    table.add(stage=stage, of="exponent", **{name: f"{slope:.2f}" for name, slope in slopes.items()})
    return costs


def estimates(step: Mapping[str, float], bridge: float, read_step: float, mib_step: float) -> Section:
    """What larger machines would need, from the seconds of a gradient step, of a bridge's step and of a step read."""
    section = Section(
        "estimates",
        "Estimates, not measurements",
        note=(
            f"From the rates above, of one core of this machine and the preset fast; a GPU is taken for {_GPU} such "
            "cores, which nobody has measured. Work is shared out evenly, but not the training of one network, which "
            "bounds the time from below. Learners, which table 1 needs too, are left out."
        ),
    )
    fast = DiffStitch.preset("fast").models
    budgets = {name: (fast.diffusion.fit if name == "diffusion" else getattr(fast, name)).steps for name in step}
    fits = {name: seconds * budgets[name] for name, seconds in step.items()}
    tasks = len({item.dataset for item in SUITES["table1"].experiments("d4rl")})
    jobs = {
        f"table 1: {tasks} datasets of 1M steps, 2M bridge steps each": (tasks, 10**6, 2 * 10**6),
        "1 billion source steps, 1 billion bridge steps": (1, 10**9, 10**9),
    }
    for what, (count, source, made) in jobs.items():
        work = count * (sum(fits.values()) + bridge * made + read_step * source)
        for machine, cores in (("one core", 1), ("8 GPUs", 8 * _GPU), ("100 nodes of 64 cores", 6400)):
            serial = 0.0 if cores == 1 else max(fits.values()) / (_GPU if "GPU" in machine else 1) + read_step * source
            section.add(
                job=what,
                machine=machine,
                hours=max(work / cores, serial) / _HOURS,
                **{"GiB a process": mib_step * source / 1024},
            )
    return section


def main(
    largest: Annotated[int, typer.Option(min=1000, help="Steps of the largest source.")] = 10**6,
    bridges: Annotated[int, typer.Option(min=1000, help="Most bridge steps to write.")] = 10**5,
    stitched: Annotated[int, typer.Option(min=1000, help="Most bridge steps to make by the preset fast.")] = 10**4,
    folder: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Of the temporary files: 3 GB for 10M source steps \\[default: the system's]."),
    ] = None,
    json_file: Annotated[Optional[Path], typer.Option("--json", help="Also write the figures here.")] = None,  # noqa: UP045
    stage: Annotated[Optional[str], typer.Option(hidden=True)] = None,  # noqa: UP045
) -> None:
    """Print how time and memory grow with the source and with what is made of it."""
    if stage is not None:
        assert folder is not None, "a stage works where the others do"
        here(stage, Size(steps=largest, bridges=bridges, folder=folder))
        return
    with contextlib.ExitStack() as stack:
        where = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder)))
        table = Section(
            "scale",
            "How time and memory grow",
            note="A process for each line; memory beyond the imports, mapped files included. make, read and train: of "
            f"source steps. stitch and write: of bridge steps, from a source of {sizes(10**4, largest)[0]:,}.",
        )
        of_source = {
            name: grow(table, name, sizes(10**4, largest), lambda n: Size(steps=n, bridges=1000, folder=where))
            for name in ("make", "read", "train")
        }

        def made(n: int) -> Size:
            return Size(steps=10**4, bridges=n, folder=where)

        of_bridges = {"stitch": grow(table, "stitch", sizes(1000, stitched), made)}
        of_bridges |= {name: grow(table, name, sizes(1000, bridges), made) for name in ("stitch cheaply", "write")}
        largest_chunk = measure("stitch", Size(steps=largest, bridges=1000, folder=where))
        table.add(
            stage="stitch 1,000 from", of=f"{largest:,}", **{"CPU s": largest_chunk.seconds, "MiB": largest_chunk.mib}
        )
    peak = max(cost.mib for cost in (*of_source["read"], *of_source["train"], largest_chunk))
    last = of_source["train"][-1]
    steps = Section("steps", "Seconds of a core a gradient step, by source steps")
    for n, cost in zip(sizes(10**4, largest), of_source["train"], strict=True):
        steps.add(source=f"{n:,}", **{name: value for name, value in cost.parts.items()})
    rate = of_bridges["stitch"][-1].parts["step"]
    sections = [table, steps, estimates(last.parts, rate, of_source["read"][-1].seconds / largest, peak / largest)]
    for section in sections:
        section.show(Console(width=200))
    if json_file is not None:
        json_file.write_text(json.dumps([section.to_dict() for section in sections], indent=1))


if __name__ == "__main__":
    typer.run(main)
