"""What a script calls: datasets in, a new dataset out; everything else by keyword."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from minari_stitch import pipeline
from minari_stitch.config import adjust, checked
from minari_stitch.data import minari_io
from minari_stitch.data import mix as mixing
from minari_stitch.data.card import checked_license
from minari_stitch.data.minari_io import Dataset, MinariDataset
from minari_stitch.data.mix import Mixed
from minari_stitch.data.written import Written, check_writable
from minari_stitch.diffstitch.transform import DiffStitch
from minari_stitch.errors import ConfigError, DatasetIdError
from minari_stitch.executor import Executor
from minari_stitch.pipeline import Augmented
from minari_stitch.progress import Bars, Progress
from minari_stitch.run import Precision, Run
from minari_stitch.sim import demo
from minari_stitch.transforms.base import Transform

if TYPE_CHECKING:
    AnyDataset = str | MinariDataset | Dataset | Written
    Method = Transform | None
    Reporting = Progress | Literal[False] | None
else:  # not checked beforehand: what is wrong with them is said below
    AnyDataset = Method = Reporting = Any


@checked
def augment(
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
    executor: Executor = "local",
    device: str | torch.device = "auto",
    precision: Precision | None = None,
    run_dir: str | Path | None = None,
    skip_invalid: bool = False,
    download: bool = True,
    demo_steps: int | None = None,
    force: bool = False,
    progress: Reporting = None,
) -> Augmented:
    """Write a new Minari dataset of stitched (or otherwise synthetic) episodes made from a dataset.

    The same call goes on where a killed one was, and another `delta` or `n_steps` reuses its models and bridges.

    Args:
        dataset: Minari dataset id, a `demo/` id, or an open `minari.MinariDataset`, whose filtered view counts.
        transform: The method with its settings; by default `DiffStitch` at the size for the device.
        delta: Largest error of a bridge: squared distance, summed over dimensions, in standardised state space.
        support: Largest squared distance of a bridge's state to the nearest real one, see `QualifyConfig`.
        form: Whole stitched episodes, bridges and what follows them, each bridge with a little real context, or its
            single transitions.
        pairs: How targets are chosen, see `StitchConfig`.
        hops: Bridges that an episode crosses at most, with `pairs="connect"`; by default 1.
        n_steps: Steps to make at least, with `form="bridge"` synthetic ones; by default as many as the source has.
        output_id: Id of the new dataset; by default the source's name with a suffix, in the next free version.
        include_original: Write the source's own episodes first (the paper's D* = D u D_aug, section 4.2).
        license: Of the new dataset, in Hugging Face's word for it (`cc-by-4.0`, `mit`); by default the source's.
        seed: Seed of everything.
        workers: Processes, or cores of a Ray that is started here; the result does not depend on it.
        threads: Threads of each training process, which change the last bits; by default half the cores.
        executor: Processes of this machine, or tasks on `ray`: the cluster at RAY_ADDRESS, whose nodes see `run_dir`.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        precision: Of the diffusion network; by default `bf16` on CUDA and `fp32` elsewhere.
        run_dir: Where models and proposals are kept; by default beside the datasets.
        skip_invalid: Leave invalid episodes out instead of refusing the dataset.
        download: Fetch a dataset that is not local, and roll out a demo dataset that is not there yet.
        demo_steps: Environment steps of a demo dataset that is made now; by default 200,000.
        force: Write the dataset once more, in the next free version, where the same is there already.
        progress: Called as `progress(stage, done, total)`; by default bars on a terminal and in a notebook, and
            False for silence. What it raises ends the work, which the same call takes up again.

    Returns:
        What was written, or what the same call wrote before (`existing`); `load()` opens it.

    Raises:
        StitchError: One of its kinds, each with a remedy; nothing is left behind.

    Example:
        >>> import minari_stitch as ms
        >>> made = ms.augment("toy/walk-v0", ms.Resample(), n_steps=100)
        >>> made.dataset_id, made.n_steps >= 100
        ('toy/walk-resampled-v0', True)
    """
    method, run = plan(
        transform,
        {"delta": delta, "support": support, "form": form, "pairs": pairs, "hops": hops},
        n_steps=n_steps,
        output_id=output_id,
        license=license,
        seed=seed,
        workers=workers,
        threads=threads,
        executor=executor,
        device=device,
        precision=precision,
    )
    with reports(progress) as report:
        source = read(
            dataset,
            skip_invalid=skip_invalid,
            download=download,
            demo_steps=demo_steps,
            workers=workers,
            progress=report or False,
        )
        directory = pipeline.default_run_directory(source) if run_dir is None else Path(run_dir)
        run = replace(run, directory=directory, progress=report)
        return pipeline.augment(
            source,
            method,
            run,
            n_steps=n_steps,
            output_id=output_id,
            include_original=include_original,
            license=license,
            force=force,
        )


def plan(
    transform: Transform | None,
    shortcuts: Mapping[str, Any],
    *,
    n_steps: int | None,
    output_id: str | None,
    license: str | None = None,
    seed: int,
    workers: int,
    threads: int | None,
    executor: Executor = "local",
    device: str | torch.device,
    precision: Precision | None,
    dry: bool = False,
) -> tuple[Transform, Run]:
    """What `augment` will do, checked before any dataset is fetched, rolled out or read; `dry`: and nothing is written.

    Returns:
        The method, by default DiffStitch at the size for the device, with shortcuts put in their place; and the run,
        without its directory.

    Raises:
        StitchError: Something is not possible.
    """
    device = chosen_device(str(device))
    on_gpu = device.startswith("cuda")
    pipeline.check_amount(n_steps)
    if output_id is not None:
        check_output_id(output_id)
    if license is not None:
        checked_license(license)
    options: dict[str, Any] = {} if threads is None else {"threads": threads}
    run = Run(
        directory=Path(),
        seed=seed,
        device=device,
        precision=precision or ("bf16" if on_gpu else "fp32"),
        workers=workers,
        executor=executor,
        **options,
    )
    transform = DiffStitch.preset("full" if on_gpu else "fast") if transform is None else transform
    if not isinstance(transform, Transform):
        kind = f"the class {transform.__name__}" if isinstance(transform, type) else f"a {type(transform).__name__}"
        raise ConfigError(f"transform is {kind}: give an instance, such as DiffStitch() or DiffStitch.preset('fast')")
    given = {name: value for name, value in shortcuts.items() if value is not None}
    if unknown := [name for name in given if name not in transform.shortcuts]:
        raise ConfigError(
            f"{', '.join(unknown)} is not possible with {transform.name}, which has no such setting: leave it out"
        )
    method = adjust(transform, {transform.shortcuts[name]: value for name, value in given.items()})
    if not dry:
        check_writable()
    return method, replace(run, dry=dry)  # whose device is there


@checked
def mix(
    datasets: Sequence[AnyDataset],
    output_id: str | None = None,
    *,
    fraction: float | None = None,
    seed: int = 0,
    scores_of: str | None = None,
    skip_invalid: bool = False,
    progress: Reporting = None,
) -> Mixed:
    """Write the episodes of several datasets, or a share of each, as a new one.

    Args:
        datasets: Ids, or open `minari.MinariDataset` objects, whose filtered views count.
        output_id: Id of the new dataset; only a share of a single one has a default (`NAME-20pct-v0`).
        fraction: Of each dataset, take whole episodes at random with this share of its steps, in (0, 1].
        seed: Seed of that choice.
        scores_of: Id of the dataset whose reference scores count, where they differ.
        skip_invalid: Leave invalid episodes out instead of refusing a dataset.
        progress: See `augment`.

    Returns:
        What was written.

    Raises:
        StitchError: One of its kinds, each with a remedy.

    Example:
        >>> import minari_stitch as ms
        >>> ms.mix(["toy/walk-v0"], fraction=0.5).dataset_id
        'toy/walk-50pct-v0'
    """
    if isinstance(datasets, str):
        raise ConfigError(f"datasets={datasets!r} is not possible: give a list, such as [{datasets!r}]")
    if output_id is not None:
        check_output_id(output_id)
    check_writable()
    with reports(progress) as report:
        sources = [
            read(dataset, skip_invalid=skip_invalid, keep_infos=True, progress=report or False) for dataset in datasets
        ]
        return mixing.mix(
            sources,
            output_id=output_id,
            fraction=fraction,
            seed=seed,
            scores_of=scores_of,
            progress=report and partial(report, "write"),
        )


@checked
def read(
    dataset: AnyDataset,
    *,
    skip_invalid: bool = False,
    download: bool = True,
    keep_infos: bool = False,
    demo_steps: int | None = None,
    workers: int = 1,
    progress: Reporting = None,
) -> Dataset:
    """A dataset in memory, as every function here takes it too: flat arrays, spaces, environment and metadata.

    Args:
        dataset: Minari dataset id, a `demo/` id, which is rolled out on first use, an open `minari.MinariDataset`, or
            what `augment` returned.
        skip_invalid: Leave invalid episodes out instead of refusing the dataset.
        download: Fetch what is not local, and roll out a demo dataset that is not there yet.
        keep_infos: Keep infos and episode metadata.
        demo_steps: Environment steps of a demo dataset that is made now; by default 200,000.
        workers: Processes that roll a demo dataset out.
        progress: See `augment`.

    Returns:
        The dataset; `episodes.observations` is `(N + E, S)` for N steps of E episodes, `episodes.actions` `(N, A)`.

    Raises:
        StitchError: One of its kinds, each with a remedy.

    Example:
        >>> import minari_stitch as ms
        >>> ms.read("toy/walk-v0").episodes.actions.shape
        (360, 2)
    """
    if isinstance(dataset, Dataset):
        return dataset
    if isinstance(dataset, Written):
        dataset = dataset.dataset_id
    if isinstance(dataset, str) and download and demo.is_demo_id(dataset):
        with reports(progress) as report:
            made = report and partial(report, "roll out")
            demo.ensure(dataset, n_steps=demo_steps, workers=workers, progress=made)
    elif demo_steps is not None:
        raise ConfigError(f"demo_steps={demo_steps} is not possible: {dataset!r} is not a demo dataset; leave it out")
    return minari_io.read(dataset, skip_invalid=skip_invalid, download=download, keep_infos=keep_infos)


def check_output_id(dataset_id: str) -> None:
    """Check that a new dataset can have this id.

    Raises:
        DatasetIdError: It is malformed, taken, or the name of a demo dataset, which is rolled out and nothing else.
    """
    minari_io.check_output_id(dataset_id)
    if dataset_id in demo.RECIPES:
        raise DatasetIdError(f"Dataset id {dataset_id!r} is that of a demo dataset. Choose another dataset id.")


def chosen_device(device: str) -> str:
    """`auto` is CUDA where there is one, else the CPU."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


@contextlib.contextmanager
def reports(progress: Reporting) -> Iterator[Progress | None]:
    """The callback that is meant."""
    if progress is None:
        with Bars() as bars:
            yield bars
    elif progress is False:
        yield None
    elif callable(progress):
        yield progress
    else:
        raise ConfigError(f"progress={progress!r} is not possible: give a function of (stage, done, total), or False")
