"""What a script calls to know a dataset: is it sound, is it true, a page about it, and its card."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minari_stitch.api.datasets import AnyDataset, Reporting, read, reports
from minari_stitch.config import Amount, Count, Positive, checked
from minari_stitch.data import minari_io
from minari_stitch.data.card import CARD, FIGURES_KEY, LICENSE_KEY, Tally, checked_license, write_card
from minari_stitch.data.dataset import Dataset
from minari_stitch.data.minari_io import MinariDataset
from minari_stitch.data.provenance import ORACLE_KEY, RECORD_KEY
from minari_stitch.data.written import Written
from minari_stitch.errors import ConfigError, InvalidDataError
from minari_stitch.pool import Pool
from minari_stitch.progress import Progress
from minari_stitch.quality import check as checking
from minari_stitch.quality import verify as verifying
from minari_stitch.quality.check import Checked
from minari_stitch.quality.origin import source_of, unit
from minari_stitch.quality.proposals import found_run, judge_proposals, some_proposals
from minari_stitch.quality.report import Page, gather
from minari_stitch.quality.seen import strips
from minari_stitch.quality.verify import Verified
from minari_stitch.sim import demo
from minari_stitch.sim.oracle import simulator_of
from minari_stitch.transforms.again import again

if not TYPE_CHECKING:
    AnyDataset = Reporting = Any


@checked
def check(dataset: AnyDataset, *, download: bool = True, progress: Reporting = None) -> Checked:
    """Look at every array of a Minari dataset: spaces, lengths, totals, ends, duplicates, metadata, goals.

    It is read episode by episode, so that its size does not matter.

    Args:
        dataset: Minari dataset id, a `demo/` id, or an open `minari.MinariDataset`, whose filtered view counts.
        download: Fetch what is not local, and roll out a demo dataset that is not there yet.
        progress: See `augment`.

    Returns:
        What was found; `ok` if none of it is an error.

    Raises:
        StitchError: The dataset cannot be read, or its spaces are unknown to this package.

    Example:
        >>> import minari_stitch as ms
        >>> ms.check("toy/walk-v0").ok
        True
    """
    with reports(progress) as report:
        return checking.check(_opened(dataset, download, report), report and partial(report, "check"))


@checked
def verify(
    dataset: AnyDataset,
    *,
    delta: Positive | None = None,
    n_steps: Count | None = 50_000,
    pairs: Amount = 512,
    run_dir: str | Path | None = None,
    workers: int = 1,
    seed: Amount = 0,
    progress: Reporting = None,
) -> Verified:
    """Ask the simulator whether generated steps are true, and keep its word in the dataset's metadata.

    Each is set in the environment and its action applied: next state, reward and end are compared. As a control the
    same is done with real steps. Where the run that made the dataset is still there, proposals that were rejected are
    judged too: only they tell what delta is worth. Without a simulator the errors stand that learned networks
    recorded, and the result says so.

    Args:
        dataset: What `augment` returned, its id, or an open `minari.MinariDataset`; any dataset whose environment can
            be put where its observations, or its infos `qpos` and `qvel`, say.
        delta: Threshold: squared distance in standardised state space; by default that of the dataset, or 2.
        n_steps: Generated steps to judge at most, in whole bridges; None for all.
        pairs: Proposals to judge; 0 for none.
        run_dir: Run directory of the augmentation; by default where `augment` puts it.
        workers: Processes.
        seed: Chooses steps.
        progress: See `augment`.

    Returns:
        What was found; `ok` if none of it is an error.

    Raises:
        InvalidDataError: There is neither a simulator nor a generated step with a recorded error.
        StitchError: The dataset cannot be read.

    Example:
        >>> import minari_stitch as ms
        >>> ms.verify("toy/walk-stitched-v0", progress=False).judge
        'learned networks'
    """
    with reports(progress) as report:
        stitched = read(dataset, keep_infos=True, progress=report or False)
        directory = None if run_dir is None else Path(run_dir)
        source = source_of(stitched)
        return verified(stitched, source, delta, n_steps, pairs, directory, workers, seed, report)


def verified(
    dataset: Dataset,
    source: Dataset | None,
    delta: float | None,
    n_steps: int | None,
    pairs: int,
    run_dir: Path | None,
    workers: int,
    seed: int,
    report: Progress | None,
) -> Verified:
    """`verify` of a dataset in memory, and of its source, where that is still there."""
    found = verifying.verify(
        dataset,
        Pool(workers=workers, progress=report),
        scale=unit(dataset, source),
        source=source,
        delta=delta,
        n_steps=n_steps,
        seed=seed,
    )
    if pairs and source is not None and found.simulated:
        run = found_run(dataset, source, run_dir=run_dir, progress=report) if RECORD_KEY in dataset.metadata else None
        if run is not None and run.trained and simulator_of(source) is not None:
            judged = judge_proposals(run, some_proposals(run, pairs), seed=seed, progress=report)
            found = replace(found, proposals=judged)
    if minari_io.exists(dataset.dataset_id):
        minari_io.annotate(dataset.dataset_id, {ORACLE_KEY: found.to_dict()})
    return found


@checked
def report(
    dataset: AnyDataset,
    other: AnyDataset | None = None,
    *,
    n_steps: Count | None = 20_000,
    pairs: Amount = 512,
    run_dir: str | Path | None = None,
    results: str | Path = "benchmarks/results",
    workers: int = 1,
    seed: Amount = 0,
    progress: Reporting = None,
) -> Page:
    """One page about a dataset: is it valid, true, new, useful, what it looks like, and where it comes from.

    Args:
        dataset: What `augment` returned, its id, or an open `minari.MinariDataset`. Others have a shorter page.
        other: A second one, to compare.
        n_steps: Generated steps that the simulator judges at most.
        pairs: Proposals that it judges, where their run is still there; 0 for none.
        run_dir: Run directory of the augmentation; by default where `augment` puts it.
        results: Folder of the benchmarks' results, looked into if it is there.
        workers: Processes.
        seed: Chooses steps.
        progress: See `augment`.

    Returns:
        The page: `html`, `save(path)`, `to_dict()`.

    Raises:
        StitchError: A dataset cannot be read.

    Example:
        >>> import minari_stitch as ms
        >>> page = ms.report("toy/walk-stitched-v0", progress=False)
        >>> page.to_dict()["verdicts"]["valid"]["verdict"]
        'good'
    """
    with reports(progress) as report:
        found, datasets = [], [dataset] if other is None else [dataset, other]
        for one in datasets:  # before any is looked at for long
            _opened(one, True, report)
        for number, one in enumerate(datasets):
            read_one = read(one, keep_infos=True, skip_invalid=True, progress=report or False)
            looked = checking.check(
                minari_io.opened(read_one.dataset_id, download=False), report and partial(report, "check")
            )
            directory = None if run_dir is None else Path(run_dir)
            source = source_of(read_one)
            try:
                true = verified(read_one, source, None, n_steps, pairs, directory, workers, seed, report)
            except InvalidDataError:  # nobody can say
                true = None
            run = None
            if source is not None and RECORD_KEY in read_one.metadata:
                run = found_run(read_one, source, run_dir=directory, progress=None)
                run = run if run is not None and run.trained else None
            name = f"d{number}"
            found.append(
                gather(
                    read_one,
                    source,
                    looked,
                    true,
                    unit(read_one, source),
                    results=Path(results),
                    name=name,
                    seen=strips(read_one, source, true, run, name, report),
                )
            )
        return Page(reports=found)


@checked
def card(dataset: AnyDataset, *, license: str | None = None, force: bool = False, progress: Reporting = None) -> Path:
    """Write the card of a local dataset: a README.md in its folder, with the data that `minari upload` pushes.

    Whatever this package writes has one from the start; this is for older datasets and others'.

    Args:
        dataset: Minari dataset id, or an open `minari.MinariDataset`.
        license: Of the data, in Hugging Face's word for it (`cc-by-4.0`, `mit`, `other`); kept in the metadata, and so
            by whatever is made of the dataset from then on. By default that of the source, as far as it is known.
        force: Replace a README.md that somebody else wrote, and take data that somebody changed as they are.
        progress: See `augment`.

    Returns:
        The file.

    Raises:
        ConfigError: There is a README.md of somebody else, or `license` is not a word for one.
        StitchError: The dataset cannot be read or written.

    Example:
        >>> import minari_stitch as ms
        >>> ms.card("toy/walk-v0", progress=False).name
        'README.md'
    """
    with reports(progress) as report:
        opened = _opened(dataset, False, report, changed=force)
        folder, metadata = opened.storage.data_path.parent, minari_io.metadata(opened)
        # A card that is replaced leaves its licence.
        missing: dict[str, Any] = {key: value for key, value in metadata.items() if key == LICENSE_KEY}
        missing |= {} if license is None else {LICENSE_KEY: checked_license(license)}
        if FIGURES_KEY not in metadata:
            record = metadata.get(RECORD_KEY) or {}
            tally, total = Tally(), len(opened.episode_indices)
            for number, raw in enumerate(minari_io.stored_episodes(opened, changed=force), start=1):
                tally.add(raw)
                if report and (number % 100 == 0 or number == total):
                    report("read", number, total)
            # Beside the record, which says what the dataset is and must stay as it is.
            command = again(record) if record and "filtered_from" not in record else []
            missing[FIGURES_KEY] = tally.figures() | {"command": command}
        if force:
            (folder / CARD).unlink(missing_ok=True)
        if missing or force:
            minari_io.annotate(opened.id, missing, accept=force)
        path = write_card(folder)
    if path is None:
        raise ConfigError(f"{folder / CARD} was written by somebody else: move it away, or use force to replace it")
    return path


def _opened(dataset: Any, download: bool, report: Any, changed: bool = False) -> MinariDataset:
    if isinstance(dataset, Written | Dataset):
        dataset = dataset.dataset_id
    if isinstance(dataset, str) and download and demo.is_demo_id(dataset):
        demo.ensure(dataset, progress=report and partial(report, "roll out"))
    return minari_io.opened(dataset, download=download, changed=changed)
