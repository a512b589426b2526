"""What a script calls to make a dataset of parts of another one, and to set its reference scores."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from minari_stitch import refilter
from minari_stitch.api.datasets import AnyDataset, Reporting, read, reports
from minari_stitch.config import checked
from minari_stitch.data import minari_io, parts
from minari_stitch.data.dataset import Dataset
from minari_stitch.data.ids import id_of
from minari_stitch.data.provenance import stitch_record
from minari_stitch.data.written import Written
from minari_stitch.errors import ConfigError
from minari_stitch.pipeline import Augmented
from minari_stitch.pool import Pool
from minari_stitch.quality.origin import own_delta, source_of, unit
from minari_stitch.quality.verify import confirmed
from minari_stitch.sim.behaviour import random_return
from minari_stitch.sim.d4rl import BENCHMARKS

if not TYPE_CHECKING:
    AnyDataset = Reporting = Any


@checked
def filter(  # noqa: A001
    dataset: AnyDataset,
    *,
    delta: float | None = None,
    verified: bool = False,
    output_id: str | None = None,
    workers: int = 1,
    force: bool = False,
    progress: Reporting = None,
) -> Augmented:
    """Write the part of a stitched dataset that qualifies at a smaller delta (Eq. 10), or that the simulator confirms.

    Args:
        dataset: What `augment` returned, its id, or an open `minari.MinariDataset`.
        delta: The smaller threshold: squared distance, summed over dimensions, in standardised state space.
        verified: Ask the simulator about every generated step, and keep the episodes whose steps are all within delta,
            end no episode that goes on and cross no wall. The metadata say that a simulator was used.
        output_id: Id of the new dataset; by default the next free version of the same name.
        workers: Processes that ask the simulator.
        force: Write the dataset once more, in the next free version, where the same is there already.
        progress: See `augment`.

    Returns:
        What was written, or what the same call wrote before (`existing`).

    Raises:
        ConfigError: delta is not positive and smaller than the one the dataset was made with, or nothing is asked for.
        InvalidDataError: The dataset was not written by `augment`, or there is no simulator to ask.
        LowAcceptanceError: Nothing qualifies.

    Example:
        >>> import minari_stitch as ms
        >>> ms.filter("toy/walk-stitched-v0", delta=4).dataset_id
        'toy/walk-stitched-v1'
    """
    if delta is None and not verified:
        raise ConfigError("there is nothing to filter by: give delta, a smaller threshold, or verified")
    stitched = read(dataset, download=False, keep_infos=True)
    stitch_record(stitched.dataset_id, stitched.metadata)
    if not verified:
        return refilter.refilter(stitched, delta, output_id=output_id, force=force)
    with reports(progress) as report:
        pool = Pool(workers=workers, progress=report)
        threshold = own_delta(stitched) if delta is None else delta
        source = source_of(stitched)
        truth = confirmed(stitched, pool, unit(stitched, source), threshold, source)
    return refilter.refilter(stitched, delta, output_id=output_id, confirmed=truth, force=force)


@checked
def trim(
    dataset: AnyDataset,
    output_id: str | None = None,
    *,
    at: Literal["goal", "still"] = "goal",
    within: float = 0.45,
    tolerance: float = 1e-3,
    extra: int = 0,
    progress: Reporting = None,
) -> Written:
    """Write a dataset whose episodes are cut where their goal is reached, or where nothing moves any more.

    Many recordings go on long after: in some mazes three quarters of the steps only stand at the goal.

    Args:
        dataset: Minari dataset id, a `demo/` id, or an open `minari.MinariDataset`, whose filtered view counts.
        output_id: Id of the new dataset; by default the source's name with the suffix `trimmed`.
        at: `goal` cuts after the first step that reaches it: by the info `success`, or where `achieved_goal` is near
            `desired_goal`. `still` cuts after the last step that changes anything.
        within: How near counts as reached.
        tolerance: What counts as a change, as a share of an observation's standard deviation.
        extra: Steps to keep after that.
        progress: See `augment`.

    Returns:
        What was written.

    Raises:
        ConfigError: The dataset says nothing about goals, or a value is not possible.
        StitchError: The dataset cannot be read or written.

    Example:
        >>> import minari_stitch as ms
        >>> ms.trim("toy/walk-v0", at="still", progress=False).dataset_id
        'toy/walk-trimmed-v0'
    """
    if extra < 0 or within < 0 or tolerance < 0:
        raise ConfigError(f"extra={extra}, within={within:g}, tolerance={tolerance:g} are not possible: use 0 or more")
    with reports(progress) as report:
        source = read(dataset, keep_infos=True, progress=report or False)
        lengths = np.minimum(parts.lengths_until(source, at, within, tolerance) + extra, source.episodes.lengths)
        short = int((lengths < source.episodes.lengths).sum())
        how = {"trim": at, "within": within, "tolerance": tolerance, "extra": extra, "cut": short}
        what = "their goal is reached" if at == "goal" else "nothing moves any more"
        says = f"The episodes, {short:,} of {len(lengths):,} cut where {what},"
        return _written(source, parts.cut(source, lengths), "trimmed", output_id, how, says, report)


@checked
def select(
    dataset: AnyDataset,
    output_id: str | None = None,
    *,
    min_return: float | None = None,
    max_return: float | None = None,
    top: float | None = None,
    min_length: int | None = None,
    max_length: int | None = None,
    success: bool | None = None,
    within: float = 0.45,
    progress: Reporting = None,
) -> Written:
    """Write the episodes that meet all conditions, with everything that describes them; without one, a view as it is.

    Args:
        dataset: Minari dataset id, a `demo/` id, or an open `minari.MinariDataset`, whose filtered view counts.
        output_id: Id of the new dataset; by default the source's name with the suffix `selected`.
        min_return: Least undiscounted return.
        max_return: Greatest undiscounted return.
        top: Of what is left, the share with the highest returns, in (0, 1].
        min_length: Fewest steps.
        max_length: Most steps.
        success: Whether the goal is reached at some step, see `trim`.
        within: How near counts as reached.
        progress: See `augment`.

    Returns:
        What was written.

    Raises:
        ConfigError: The dataset says nothing about goals, or a value is not possible.
        InvalidDataError: No episode is left.
        StitchError: The dataset cannot be read or written.

    Example:
        >>> import minari_stitch as ms
        >>> ms.select("toy/walk-v0", top=0.25, progress=False).n_episodes
        3
    """
    limits = (min_return, max_return, top, min_length, max_length, success)
    if isinstance(dataset, str) and all(limit is None for limit in limits):  # a view has chosen already
        raise ConfigError("select without a condition is not possible: give top, min_return, max_length or another")
    if top is not None and not 0 < top <= 1:
        raise ConfigError(f"top={top:g} is not possible: use more than 0 and at most 1")
    with reports(progress) as report:
        source = read(dataset, keep_infos=True, progress=report or False)
        episodes = source.episodes
        kept = np.ones(len(episodes), bool)
        for values, low, high in (
            (episodes.returns, min_return, max_return),
            (episodes.lengths, min_length, max_length),
        ):
            kept &= values >= (-np.inf if low is None else low)
            kept &= values <= (np.inf if high is None else high)
        if success is not None:
            kept &= np.logical_or.reduceat(parts.reached(source, within), episodes.offsets[:-1]) == success
        rows = np.flatnonzero(kept)
        if top is not None and len(rows):
            best = np.argsort(-episodes.returns[rows], kind="stable")[: max(1, round(top * len(rows)))]
            rows = np.sort(rows[best])
        conditions = {
            "min_return": min_return, "max_return": max_return, "top": top, "min_length": min_length,
            "max_length": max_length, "success": success,
        }  # fmt: skip
        how = {"select": {name: value for name, value in conditions.items() if value is not None}}
        says = f"{len(rows):,} of {len(episodes):,} episodes"
        chosen = (episodes.episode(int(row)) for row in rows)
        return _written(source, chosen, "selected", output_id, how, says, report)


@checked
def scores(
    dataset: str,
    *,
    low: float | None = None,
    high: float | None = None,
    d4rl: Literal["hopper", "halfcheetah", "walker2d", "pen"] | None = None,
    like: str | None = None,
    random: int | None = None,
    seed: int = 0,
) -> tuple[float, float]:
    """Set the reference scores of a local dataset, by which returns are normalised: 0 is random, 1 an expert.

    Args:
        dataset: Minari dataset id.
        low: Return of random actions.
        high: Return of an expert.
        d4rl: Take D4RL's, of one of its environments.
        like: Take those of another local dataset.
        random: Measure the low one: mean return of so many episodes of uniform random actions in the environment.
        seed: Of these episodes.

    Returns:
        Both scores.

    Raises:
        ConfigError: One is missing, or the low one is not below the high one.
        InvalidDataError: The dataset names no environment to measure in.
        StitchError: The dataset cannot be read or written.

    Example:
        >>> import minari_stitch as ms
        >>> ms.scores("toy/walk-v0", low=0, high=100)
        (0.0, 100.0)
    """
    about = dict(minari_io.metadata(minari_io.load(dataset)))
    if like is not None:
        about |= minari_io.metadata(minari_io.load(like))
    found = [about.get("ref_min_score"), about.get("ref_max_score")]
    if d4rl is not None:
        found = list(BENCHMARKS[d4rl].scores)
    if random is not None:
        found[0] = random_return(minari_io.load(dataset).env_spec, random, seed)
    found = [known if given is None else given for known, given in zip(found, (low, high), strict=True)]
    if found[0] is None or found[1] is None:
        missing = " and ".join(name for name, value in zip(("low", "high"), found, strict=True) if value is None)
        raise ConfigError(f"{missing} missing: give both, take those of d4rl or like another one, or measure random")
    if not found[0] < found[1]:
        raise ConfigError(f"low={found[0]:g} is not below high={found[1]:g}: give them the other way round")
    minari_io.annotate(dataset, {"ref_min_score": float(found[0]), "ref_max_score": float(found[1])})
    return float(found[0]), float(found[1])


def _written(
    source: Dataset, episodes: Iterator[Any], suffix: str, output_id: str | None, how: Any, says: str, report: Any
) -> Written:
    if output_id is not None:
        minari_io.check_output_id(output_id)
    total = len(source.episodes)
    progress = report and (lambda done: report("write", done, total))
    path, n_episodes, n_steps = parts.write(
        source, episodes, suffix=suffix, output_id=output_id, how=how, says=says, progress=progress
    )
    return Written(dataset_id=id_of(path), path=path, n_steps=n_steps, n_episodes=n_episodes)
