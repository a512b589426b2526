"""DiffStitch's work on a source: networks to train, and chunks of bridges to propose, each in its file."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from minari_stitch.data.dataset import Dataset
from minari_stitch.data.episodes import Episodes
from minari_stitch.data.goals import Goals, without_goals
from minari_stitch.data.spaces import FlatSpace
from minari_stitch.diffstitch.config import StitchConfig
from minari_stitch.diffstitch.models import Models, load_models
from minari_stitch.diffstitch.proposals import Proposals, propose
from minari_stitch.diffstitch.source import Source
from minari_stitch.diffstitch.training import train_network
from minari_stitch.errors import NothingToStitchError
from minari_stitch.job import Job
from minari_stitch.learn.calibration import calibrate
from minari_stitch.learn.support import Support
from minari_stitch.learn.tables import Tables
from minari_stitch.progress import Progress


@dataclass(frozen=True, kw_only=True)
class StitchJob(Job):
    """Trains the bundle of a source, and proposes bridges.

    Attributes:
        place: Columns of a state that are a place in the plane, if any are.
    """

    place: tuple[int, ...] | None = None

    def train(self, name: str, progress: Progress | None) -> None:
        """Train one network of the bundle."""
        train_network(
            name,
            self.episodes,
            self.scales,
            self.transform.models,
            seed=self.seed,
            discount=self.transform.stitch.discount,
            directory=self.networks,
            progress=progress,
            autocast=self.autocast,
        )

    def make(self, number: int) -> Proposals:
        """Propose and judge a chunk of pairs."""
        return propose(self.models, self.origin, self.transform.stitch, self.seed, number)

    @cached_property
    def models(self) -> Models:
        """The trained networks, with what held-out data say of them and of the source."""
        models = load_models(self.episodes, self.scales, self.transform.used, self.networks, self.autocast)
        stitch, tables = self.transform.stitch, Tables(self.episodes, self.scales, self.seed)
        return dataclasses.replace(
            models,
            calibration=calibrate(models.judges, tables, stitch.shortest + 1, stitch.longest + 1, self.seed),
            support=Support.of(tables, self.seed),
        )

    @cached_property
    def origin(self) -> Source:
        """The source as stitching reads it."""
        config = self.transform
        context = config.models.diffusion.context
        return Source(self.episodes, self.scales, config.stitch.discount, context, self.limit, self.place)


def seen(dataset: Dataset, goals: Goals | None) -> Dataset:
    """What networks see."""
    return dataset if goals is None else without_goals(dataset, goals)


def place(dataset: Dataset, goals: Goals | None) -> tuple[int, ...] | None:
    """Columns of the states that networks see which are a place in the plane, if any are."""
    if goals is not None:
        return goals.place
    plane = FlatSpace(dataset.observation_space).plane
    return None if plane is None else tuple(range(plane.start, plane.stop))


def require_pairs(episodes: Episodes, stitch: StitchConfig) -> None:
    """Refuse, before hours of training, what cannot be stitched."""
    if (episodes.observations == episodes.observations[0]).all():
        raise NothingToStitchError(
            "all observations are equal: nothing tells states apart; check how the dataset was recorded"
        )
    shortest = stitch.shortest + 1
    if episodes.lengths.max() <= shortest:
        raise NothingToStitchError(
            f"the longest episode has {episodes.lengths.max()} steps, the shortest bridge {shortest}: "
            "lower stitch.min_bridge to 1, or use a dataset with longer episodes"
        )
    if stitch.by_return and np.ptp(episodes.returns_to_go(stitch.discount)) == 0:
        raise NothingToStitchError(
            "all returns are equal: no trajectory is better than another; check the rewards of the dataset, or stitch "
            "with stitch.pairs=connect, which asks for no return"
        )
