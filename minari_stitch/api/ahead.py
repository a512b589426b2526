"""What a script calls to know what `augment` will take, before it does anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from minari_stitch import pipeline
from minari_stitch.api import datasets as api
from minari_stitch.api.datasets import AnyDataset, Method, Reporting
from minari_stitch.asked import asked_for
from minari_stitch.config import checked
from minari_stitch.cost import Estimate
from minari_stitch.data.minari_io import exists
from minari_stitch.run import Precision
from minari_stitch.sim import demo
from minari_stitch.transforms.work import Work

if not TYPE_CHECKING:
    AnyDataset = Method = Reporting = Any


@checked
def estimate(
    dataset: AnyDataset,
    transform: Method = None,
    *,
    delta: float | None = None,
    support: float | None = None,
    form: Literal["full", "onward", "bridge", "transitions"] | None = None,
    pairs: Literal["reach", "paper", "reference", "connect"] | None = None,
    hops: int | None = None,
    n_steps: int | None = None,
    output_id: str | None = None,
    include_original: bool = False,
    license: str | None = None,
    seed: int = 0,
    workers: int = 1,
    threads: int | None = None,
    device: str | torch.device = "auto",
    precision: Precision | None = None,
    run_dir: str | Path | None = None,
    skip_invalid: bool = False,
    demo_steps: int | None = None,
    progress: Reporting = None,
) -> Estimate:
    """Time, disk and memory that `augment` with the same arguments will take, about; nothing is written or fetched.

    A step of each stage is tried for a moment on this machine, with networks that have learned nothing, and multiplied.
    What the run directory holds already is left out. That a third of the pairs qualify is a guess, a training may stop
    early, and other programs take their share.

    Args:
        dataset: See `augment`; a demo dataset that is not there is estimated from a few steps in the simulator.
        transform: See `augment`, as for all others.
        delta: Threshold.
        support: Threshold.
        form: What is written.
        pairs: How targets are chosen.
        hops: Bridges that an episode crosses at most.
        n_steps: Steps to make.
        output_id: Id of the new dataset.
        include_original: Write the source's episodes too.
        license: Of the new dataset.
        seed: Seed of everything.
        workers: Processes.
        threads: Threads of each training process.
        device: Torch device.
        precision: Of the diffusion network.
        run_dir: Where models and proposals are kept.
        skip_invalid: Leave invalid episodes out.
        demo_steps: Steps of a demo dataset that would be made.
        progress: See `augment`.

    Returns:
        The estimate; `print` it, or ask for its `seconds`, `disk`, `memory` and `stages`.

    Raises:
        StitchError: What `augment` would refuse before it begins, room that is not there included.

    Example:
        >>> import minari_stitch as ms
        >>> ms.estimate("toy/walk-v0", ms.Resample(), n_steps=10**15)
        Traceback (most recent call last):
        minari_stitch.errors.StorageError: n_steps=1000000000000000 would take about ...
    """
    method, run = api.plan(
        transform,
        {"delta": delta, "support": support, "form": form, "pairs": pairs, "hops": hops},
        n_steps=n_steps,
        output_id=output_id,
        license=license,
        seed=seed,
        workers=workers,
        threads=threads,
        device=device,
        precision=precision,
        dry=True,
    )
    before: Sequence[Work] = ()
    if isinstance(dataset, str) and demo.is_demo_id(dataset) and not exists(dataset):
        steps = demo.DEFAULT_STEPS if demo_steps is None else demo_steps
        demo.require_room(steps)
        source, each = demo.glimpse(dataset)
        before = [Work(stage="roll out", count=steps, each=lambda: each, shared=True)]
        n_steps = n_steps or steps
    else:
        source = api.read(dataset, skip_invalid=skip_invalid, download=False, demo_steps=demo_steps, progress=progress)
    directory = pipeline.default_run_directory(source) if run_dir is None else Path(run_dir)
    run = replace(run, directory=directory)
    asked = asked_for(source, method, run, n_steps=n_steps, include_original=include_original, license=license)
    found = pipeline.ahead(source, method, run, asked, before=before)
    found = replace(found, dataset_id=output_id, existing=False) if output_id else found
    found.require_room()
    return found
