"""What transforms that write short generated episodes share: judges, and sampling chunk after chunk."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from minari_stitch.baselines.rollouts import Rollouts
from minari_stitch.config import ModelConfig
from minari_stitch.data.minari_io import Dataset
from minari_stitch.diffstitch.fitting import train_network
from minari_stitch.diffstitch.models import build, load_weights
from minari_stitch.errors import LowAcceptanceError
from minari_stitch.job import Job, source
from minari_stitch.learn.nets import MLP
from minari_stitch.progress import Progress
from minari_stitch.run import Run
from minari_stitch.transform import Sample

_PATIENCE = 512
_LOWEST_ACCEPTANCE = 0.01


def train_judge(job: Job, config: ModelConfig, progress: Progress | None, name: str = "dynamics") -> None:
    """Train a network of the bundle for a source, unless it is there."""
    episodes, scales = source(job)
    train_network(
        name, episodes, scales, config, seed=job.seed, discount=1.0, directory=job.networks, progress=progress
    )


def judge(job: Job, config: ModelConfig, name: str = "dynamics") -> MLP:
    """A trained network of the bundle, on the job's device."""
    episodes, _ = source(job)
    net = build(name, episodes.observations.shape[1], episodes.actions.shape[1], config, torch.Generator())
    return load_weights(net, job.network(name), torch.device(job.device))


@dataclass(frozen=True, kw_only=True)
class FittedRollouts:
    """A trained transform whose chunks are `Rollouts`.

    Attributes:
        dataset: The source.
        run: Where and how to work.
        job: What the processes share.
        make: Makes a numbered chunk, unless it is there, and returns its file.
    """

    dataset: Dataset
    run: Run
    job: Job
    make: Callable[[Job, int, Progress | None], Path]

    def sample(self, n_steps: int) -> Sample:
        """Sample chunk after chunk until the episodes hold `n_steps` steps.

        Raises:
            LowAcceptanceError: Fewer than one rollout in a hundred has a step that the models trust.
        """
        parts, steps = [], 0
        for path in self.run.pool().map(self.make, ((self.job, chunk) for chunk in itertools.count())):
            part = Rollouts.load(path).head(n_steps - steps)
            parts.append(part)
            steps += int(part.length.sum())
            if self.run.progress is not None:
                self.run.progress("sample", min(steps, n_steps), n_steps)
            if steps >= n_steps:
                break
            self._require_acceptance(parts, steps, n_steps)
        everything = Rollouts.concatenate(parts)
        return Sample(
            report=everything.report(),
            n_steps=steps,
            n_episodes=int((everything.length > 0).sum()),
            parts=lambda: everything.episodes(
                self.dataset.episodes, self.dataset.episode_ids.tolist(), self.job.transform.discount
            ),
        )

    def _require_acceptance(self, parts: list[Rollouts], steps: int, n_steps: int) -> None:
        made, kept = sum(map(len, parts)), sum(int((part.length > 0).sum()) for part in parts)
        if made >= _PATIENCE and kept < _LOWEST_ACCEPTANCE * made:
            raise LowAcceptanceError(
                f"only {kept} of {made} rollouts of {self.job.transform.name} have a step that the models trust, which "
                f"gave {steps:,} of {n_steps:,} steps: lower strictness, or train longer with --preset full"
            )
