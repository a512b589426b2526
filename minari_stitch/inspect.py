"""What a script calls to know a dataset: is it sound?"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from minari_stitch.api import AnyDataset, Reporting, reports
from minari_stitch.config import checked
from minari_stitch.data import minari_io
from minari_stitch.data.dataset import Dataset
from minari_stitch.data.minari_io import MinariDataset
from minari_stitch.data.written import Written
from minari_stitch.quality import check as checking
from minari_stitch.quality.check import Checked
from minari_stitch.sim import demo

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


def _opened(dataset: Any, download: bool, report: Any) -> MinariDataset:
    if isinstance(dataset, Written | Dataset):
        dataset = dataset.dataset_id
    if isinstance(dataset, str) and download and demo.is_demo_id(dataset):
        demo.ensure(dataset, progress=report and partial(report, "roll out"))
    return minari_io.opened(dataset, download=download)
