"""Controls that learn nothing: more of the same data, and more real data. They keep every method honest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from minari_stitch.config import Positive, Share, settings
from minari_stitch.data.episodes import Episodes
from minari_stitch.data.minari_io import Dataset
from minari_stitch.data.provenance import original
from minari_stitch.errors import ConfigError
from minari_stitch.run import Run
from minari_stitch.sim import demo
from minari_stitch.transforms.base import Sample, Transform
from minari_stitch.transforms.work import Expected, Work


@settings
class Resample(Transform):
    """Episodes of the source once more, those of high return more often (Hong et al., 2023, return weighting).

    Example:
        >>> import minari_stitch as ms
        >>> ms.Resample(temperature=0.5).temperature
        0.5
    """

    temperature: Positive = 0.1
    """An episode is drawn with probability proportional to exp(return / temperature), returns scaled to [0, 1]."""
    discount: Share = 0.99
    """Gamma of the returns-to-go that are written."""

    name: ClassVar[str] = "resample"
    suffix: ClassVar[str] = "resampled"

    def expected(self, dataset: Dataset, run: Run, n_steps: int) -> Expected:
        """Nothing is learned, but all is held in memory."""
        return _expected(dataset, n_steps)

    def fit(self, dataset: Dataset, run: Run) -> FittedResample:
        """There is nothing to learn."""
        return FittedResample(transform=self, dataset=dataset, seed=run.seed)


@dataclass(frozen=True, kw_only=True)
class FittedResample:
    """Draws episodes of the source by return."""

    transform: Resample
    dataset: Dataset
    seed: int

    def sample(self, n_steps: int) -> Sample:
        """Draw until the episodes hold `n_steps` steps."""
        episodes = self.dataset.episodes
        returns = episodes.returns
        scaled = (returns - returns.max()) / (np.ptp(returns) or 1.0) / self.transform.temperature
        weights = np.exp(scaled) / np.exp(scaled).sum()
        rng, drawn, steps = np.random.default_rng(self.seed), [], 0
        while steps < n_steps:
            batch = rng.choice(len(episodes), 1024, p=weights)
            drawn.append(batch[: int(np.searchsorted(episodes.lengths[batch].cumsum(), n_steps - steps)) + 1])
            steps += int(episodes.lengths[drawn[-1]].sum())
        chosen = np.concatenate(drawn)
        report = {"mean_return": float(returns[chosen].mean()), "distinct_episodes": len(np.unique(chosen))}
        ids = self.dataset.episode_ids[chosen]
        return _sample(episodes.select(chosen), ids, self.transform.discount, report)


@settings
class Real(Transform):
    """Further episodes of the same actors in the real simulator: the best that any model could hope for.

    Example:
        >>> import minari_stitch as ms
        >>> ms.Real().name
        'real'
    """

    discount: Share = 0.99
    """Gamma of the returns-to-go that are written."""

    name: ClassVar[str] = "real"
    suffix: ClassVar[str] = "real"

    def expected(self, dataset: Dataset, run: Run, n_steps: int) -> Expected:
        """So many steps in the simulator."""
        roll = Work(stage="roll out", count=n_steps, each=lambda: demo.SECONDS, shared=True)
        return _expected(dataset, n_steps, roll)

    def fit(self, dataset: Dataset, run: Run) -> FittedReal:
        """Find the dataset's recipe.

        Raises:
            ConfigError: It is not a demo dataset as it was rolled out, and nobody can roll it out further.
        """
        # What was made from a demo dataset keeps its metadata, and may hold what a further rollout would yield.
        recipe, made = demo.RECIPES.get(dataset.dataset_id), dataset.metadata.get("demo")
        if recipe is None or made is None or made["actors"] != list(recipe.actors):
            raise ConfigError(
                f"method real is not possible for {dataset.dataset_id!r}: only demo datasets can be rolled out further "
                "(`minari-stitch demo list`); compare with method resample instead"
            )
        return FittedReal(transform=self, dataset=dataset, run=run)


@dataclass(frozen=True, kw_only=True)
class FittedReal:
    """Rolls a demo recipe out further."""

    transform: Real
    dataset: Dataset
    run: Run

    def sample(self, n_steps: int) -> Sample:
        """Exactly `n_steps` steps that the source does not hold."""
        progress, made = self.run.progress, self.dataset.metadata["demo"]
        episodes = demo.rollout(
            demo.RECIPES[self.dataset.dataset_id],
            n_steps=n_steps,
            seed=made["seed"],
            # No actor of the source has come that far, and every further seed goes further still.
            first_chunk=made["steps"] * (self.run.seed + 1),
            workers=self.run.workers,
            progress=None if progress is None else lambda done, total: progress("roll out", done, total),
        )
        report = {"mean_return": float(episodes.returns.mean())}
        return _sample(episodes, np.full(len(episodes), -1), self.transform.discount, report)


def _expected(dataset: Dataset, n_steps: int, *work: Work) -> Expected:
    episodes = dataset.episodes
    row = episodes.observations[0].nbytes + episodes.actions[0].nbytes + episodes.rewards.itemsize
    return Expected(work=work, episode=float(episodes.lengths.mean()), held=2.0 * n_steps * row)


def _sample(episodes: Episodes, ids: np.ndarray, discount: float, report: dict) -> Sample:
    return Sample(
        report={"episodes": len(episodes)} | report,
        n_steps=episodes.n_steps,
        n_episodes=len(episodes),
        n_synthetic=0,
        parts=lambda: original(episodes, ids.tolist(), discount, augmented=True),
    )
