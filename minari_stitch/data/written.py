"""Whether a dataset can be written, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from minari_stitch.data import minari_io
from minari_stitch.data.ids import datasets_path
from minari_stitch.data.minari_io import MinariDataset
from minari_stitch.data.storage import staging


@dataclass(frozen=True, kw_only=True)
class Written:
    """A dataset that was written; whatever takes a dataset takes it too.

    Attributes:
        dataset_id: Its id.
        path: Its folder.
        n_steps: Steps.
        n_episodes: Episodes.
    """

    dataset_id: str
    path: Path
    n_steps: int
    n_episodes: int

    def load(self) -> MinariDataset:
        """Open the dataset as Minari does.

        Raises:
            DatasetNotFoundError: It is no longer there.
        """
        return minari_io.load(self.dataset_id)


def check_writable() -> None:
    """Make sure, before long work, that a dataset can be written.

    Raises:
        StorageError: It cannot.
    """
    with staging(datasets_path()):
        pass
