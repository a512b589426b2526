"""What a script calls to make a dataset of parts of another one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minari_stitch import pipeline
from minari_stitch.api import AnyDataset, Reporting, read, reports
from minari_stitch.config import checked
from minari_stitch.errors import ConfigError
from minari_stitch.pipeline import Augmented
from minari_stitch.pool import Pool
from minari_stitch.quality.verify import confirmed, own_delta, unit

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
        progress: See `augment`.

    Returns:
        What was written.

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
    pipeline.stitch_record(stitched)
    if not verified:
        return pipeline.refilter(stitched, delta, output_id=output_id)
    with reports(progress) as report:
        pool = Pool(workers=workers, progress=report)
        threshold = own_delta(stitched) if delta is None else delta
        truth = confirmed(stitched, pool, unit(stitched), threshold)
    return pipeline.refilter(stitched, delta, output_id=output_id, confirmed=truth)
