"""DiffStitch (the paper's method) as a transform: train, propose chunks of bridges, qualify, assemble."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from minari_stitch.config import ModelConfig, QualifyConfig, StitchConfig
from minari_stitch.data.episodes import Episodes
from minari_stitch.data.minari_io import Dataset
from minari_stitch.diffstitch.assemble import Form, stitched
from minari_stitch.diffstitch.fitting import train_network
from minari_stitch.diffstitch.models import Models, load_models, networks
from minari_stitch.diffstitch.proposals import Outcome, Proposals, StitchReport, propose
from minari_stitch.diffstitch.source import Source
from minari_stitch.errors import ConfigError, LowAcceptanceError, NothingToStitchError
from minari_stitch.job import Job, source, train_missing
from minari_stitch.progress import Progress
from minari_stitch.run import Run
from minari_stitch.transform import Sample

_PATIENCE = 512
_LOWEST_ACCEPTANCE = 0.01


@dataclass(frozen=True, kw_only=True)
class DiffStitch:
    """The method and all its settings.

    Attributes:
        models: Networks and their training.
        stitch: How pairs are chosen and bridged.
        qualify: Which bridges are accepted.
        form: `full` episodes, or only the `bridge` with a little real context.
    """

    models: ModelConfig = field(default_factory=ModelConfig)
    stitch: StitchConfig = field(default_factory=StitchConfig)
    qualify: QualifyConfig = field(default_factory=QualifyConfig)
    form: Form = "full"

    name = "DiffStitch"
    suffix = "stitched"

    @property
    def discount(self) -> float:
        """Gamma of the returns-to-go that are written."""
        return self.stitch.discount

    def __post_init__(self) -> None:
        """Refuse settings that do not fit together."""
        diffusion, stitch = self.models.diffusion, self.stitch
        room = diffusion.horizon - diffusion.context - 1
        if stitch.longest > room:
            raise ConfigError(
                f"a bridge of {stitch.longest} states is not possible: horizon={diffusion.horizon} with "
                f"context={diffusion.context} leaves room for {room}; shorten the bridge or raise the horizon"
            )
        if stitch.guidance and not diffusion.return_dropout:
            raise ConfigError(
                f"guidance={stitch.guidance} is not possible without a return condition: set return_dropout=0.25"
            )
        if stitch.sampler_steps > diffusion.diffusion_steps:
            raise ConfigError(
                f"sampler_steps={stitch.sampler_steps} is not possible: "
                f"the model has only diffusion_steps={diffusion.diffusion_steps}"
            )

    def fit(self, dataset: Dataset, run: Run) -> FittedDiffStitch:
        """Train the networks that the run directory does not hold yet.

        Raises:
            NothingToStitchError: The dataset offers no pair; found out before anything is trained.
            StorageError: The run directory cannot be written.
        """
        _require_pairs(dataset.episodes, self.stitch)
        job = Job.of(self, dataset, run, trained=[self.models, self.stitch.discount], sampled=[self.stitch])
        train_missing(run, job, _train, networks(dataset.episodes))
        return FittedDiffStitch(transform=self, dataset=dataset, run=run, job=job)


@dataclass(frozen=True, kw_only=True)
class FittedDiffStitch:
    """Trained models and the chunks of proposals made with them."""

    transform: DiffStitch
    dataset: Dataset
    run: Run
    job: Job

    def sample(self, n_steps: int) -> Sample:
        """Propose chunk after chunk until accepted episodes hold `n_steps` steps.

        Raises:
            LowAcceptanceError: Fewer than one pair in a hundred qualifies.
        """
        report, steps, episodes = StitchReport(), 0, 0
        for proposals in self.proposals():
            report = report + StitchReport.of(proposals, self.transform.qualify)
            for part in self._stitched(proposals):
                steps, episodes = steps + len(part["rewards"]), episodes + 1
                if steps >= n_steps:
                    break
            if self.run.progress is not None:
                self.run.progress("stitch", min(steps, n_steps), n_steps)
            if steps >= n_steps:
                break
            self._require_acceptance(report, steps, n_steps)
        moved = int(self.dataset.episodes.goal_dimensions().sum())
        return Sample(
            report=report.to_dict() | ({"goal_dimensions": moved} if moved else {}),
            n_steps=steps,
            n_episodes=episodes,
            parts=lambda: self._parts(episodes),
        )

    def proposals(self) -> Iterator[Proposals]:
        """Chunks of judged pairs, without end; those of the run directory are read, the others made."""
        for path in self.run.pool().map(_propose, ((self.job, chunk) for chunk in itertools.count())):
            yield Proposals.load(path)

    @property
    def models(self) -> Models:
        """The trained networks."""
        return _models(self.job)[0]

    def _parts(self, episodes: int) -> Iterator[dict[str, Any]]:
        chunks = (Proposals.load(self.job.chunk(chunk)) for chunk in itertools.count())
        return itertools.islice(itertools.chain.from_iterable(map(self._stitched, chunks)), episodes)

    def _stitched(self, proposals: Proposals) -> Iterator[dict[str, Any]]:
        accepted = np.flatnonzero(proposals.outcomes(self.transform.qualify) == Outcome.ACCEPTED)
        return stitched(
            self.dataset.episodes,
            self.dataset.episode_ids.tolist(),
            proposals,
            accepted,
            form=self.transform.form,
            discount=self.transform.stitch.discount,
            max_episode_steps=self.dataset.max_episode_steps,
        )

    def _require_acceptance(self, report: StitchReport, steps: int, n_steps: int) -> None:
        if report.proposed < _PATIENCE or report.accepted >= _LOWEST_ACCEPTANCE * report.proposed:
            return
        others = ", ".join(f"{delta}: {share:.1%}" for delta, share in report.acceptance.items())
        raise LowAcceptanceError(
            f"only {report.accepted} of {report.proposed} pairs qualify at delta {self.transform.qualify.delta:g}, "
            f"which gave {steps:,} of {n_steps:,} steps. Acceptance by delta: {others}. Raise --delta (models and "
            "proposals are kept), train longer with --preset full, or ask for fewer --steps."
        )


@functools.lru_cache(maxsize=1)
def _models(job: Job) -> tuple[Models, Source]:
    config = job.transform.models
    episodes, scales = source(job, config.diffusion)
    models = load_models(episodes, scales, config, job.networks, job.autocast)
    return models, Source(episodes, scales, job.transform.stitch.discount, config.diffusion.context, job.limit)


def _train(job: Job, name: str, progress: Progress | None) -> None:
    episodes, scales = source(job, job.transform.models.diffusion)
    train_network(
        name,
        episodes,
        scales,
        job.transform.models,
        seed=job.seed,
        discount=job.transform.stitch.discount,
        directory=job.networks,
        progress=progress,
        autocast=job.autocast,
    )


def _propose(job: Job, chunk: int, progress: Progress | None) -> Path:
    path = job.chunk(chunk)
    if not path.exists():
        models, origin = _models(job)
        propose(models, origin, job.transform.stitch, job.seed, chunk).save(path)
    return path


def _require_pairs(episodes: Episodes, stitch: StitchConfig) -> None:
    """Refuse, before hours of training, what cannot be stitched."""
    if (episodes.observations == episodes.observations[0]).all():
        raise NothingToStitchError(
            "all observations are equal: nothing tells states apart; check how the dataset was recorded"
        )
    shortest = stitch.shortest + 1
    if episodes.lengths.max() <= shortest:
        raise NothingToStitchError(
            f"the longest episode has {episodes.lengths.max()} steps, the shortest bridge {shortest}: "
            "shorten bridges with --set stitch.min_bridge=1, or use a dataset with longer episodes"
        )
    if np.ptp(episodes.returns_to_go(stitch.discount)) == 0:
        raise NothingToStitchError(
            "all returns are equal: no trajectory is better than another; check the rewards of the dataset"
        )
