"""DiffStitch (the paper's method) as a transform: train, propose chunks of bridges, qualify, assemble."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from minari_stitch.config import settings
from minari_stitch.data.goals import Goals
from minari_stitch.data.minari_io import Dataset
from minari_stitch.diffstitch.ahead import expected
from minari_stitch.diffstitch.assemble import stitched
from minari_stitch.diffstitch.config import ModelConfig, QualifyConfig, StitchConfig
from minari_stitch.diffstitch.job import StitchJob, place, require_pairs, seen
from minari_stitch.diffstitch.models import networks
from minari_stitch.diffstitch.presets import full, paper
from minari_stitch.diffstitch.proposals import Proposals, StitchReport
from minari_stitch.diffstitch.stitch import Outcome, qualify
from minari_stitch.diffstitch.ways import Form, Way, ends_early, ways_of
from minari_stitch.errors import ConfigError, LowAcceptanceError
from minari_stitch.learn.calibration import COVERAGE
from minari_stitch.run import Run
from minari_stitch.sim.tasks import goals_of
from minari_stitch.transforms.base import LOWEST_ACCEPTANCE, PATIENCE, Sample, Transform
from minari_stitch.transforms.work import Expected

_MEASURED = "quantile, bend"
"""How the bounds that chunks hold are made, and what else is measured: chunks of another kind are not read."""
_IMITATION = 0.005


@settings
class DiffStitch(Transform):
    """Joins low-return trajectories to high-return ones by generated bridges (Li et al., 2024).

    Of its presets `fast` takes minutes on two CPU cores. `full` is for a GPU: longer windows, larger networks, more
    draws. `paper` is the paper's method (section 4) with the sizes of the released code: H = 100, K = 100 ancestral
    steps, noise prediction, random pairs, cosine similarity, one draw, no repair, one dynamics network, and nothing
    but Eq. 10 to qualify.

    Example:
        >>> from dataclasses import replace
        >>> import minari_stitch as ms
        >>> method = ms.DiffStitch.preset("fast")
        >>> strict = replace(method, qualify=replace(method.qualify, delta=0.5))
        >>> strict.qualify.delta
        0.5
    """

    models: ModelConfig = field(default_factory=ModelConfig)
    """Networks and their training."""
    stitch: StitchConfig = field(default_factory=StitchConfig)
    """How pairs are chosen and bridged."""
    qualify: QualifyConfig = field(default_factory=QualifyConfig)
    """Which bridges are accepted."""
    form: Form = "full"
    """Whole stitched episodes; each bridge and what follows it, `onward`; each `bridge` with a little real context
    (released code); or its `transitions`, which lead where the judging networks say instead of to the target."""

    name: ClassVar[str] = "DiffStitch"
    suffix: ClassVar[str] = "stitched"
    shortcuts = {
        "delta": "qualify.delta",
        "support": "qualify.support",
        "form": "form",
        "pairs": "stitch.pairs",
        "hops": "stitch.hops",
    }
    sizes = {"full": full, "paper": paper}

    @property
    def gamma(self) -> float:
        """Discount of the returns-to-go that are written."""
        return self.stitch.discount

    @property
    def output_suffix(self) -> str:
        """Parts of stitched episodes are called what they are."""
        return {"full": self.suffix, "bridge": "bridges"}.get(self.form, self.form)

    def __post_init__(self) -> None:
        """Refuse settings that do not fit together."""
        models, diffusion, stitch = self.models, self.models.diffusion, self.stitch
        room = diffusion.horizon - diffusion.context - 1
        if stitch.longest > room:
            raise ConfigError(
                f"a bridge of {stitch.longest} states is not possible: horizon={diffusion.horizon} with "
                f"context={diffusion.context} leaves room for {room}; shorten the bridge or raise the horizon"
            )
        if stitch.hops > 1 and self.form in ("bridge", "transitions"):
            raise ConfigError(
                f"hops={stitch.hops} is not possible with form={self.form}, which writes bridges alone: use form=full "
                "or onward, or hops=1"
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
        if stitch.imitates and models.behaviour is None:
            raise ConfigError(
                f"stitch.imitation={stitch.imitation:g} is not possible with models.behaviour=None: set "
                "stitch.imitation=0, or leave the network"
            )
        if stitch.needs_repairers and models.judges == models.members:
            raise ConfigError(
                f"judges={models.judges} is not possible: of members={models.members} networks some must repair "
                "(repair_steps) or choose (draws), and those may not judge; use more members or fewer judges"
            )

    def fit(self, dataset: Dataset, run: Run) -> FittedDiffStitch:
        """Train the networks that the run directory does not hold yet.

        Raises:
            NothingToStitchError: The dataset offers no pair; found out before anything is trained.
            StorageError: The run directory cannot be written.
            TrainingError: The training of a network diverged.
        """
        require_pairs(seen(dataset, goals_of(dataset)).episodes, self.stitch)
        fitted = self.found(dataset, run)
        fitted.job.train_missing(run, fitted.networks)
        return fitted

    def found(self, dataset: Dataset, run: Run) -> FittedDiffStitch:
        """What the run directory holds; nothing is trained, see `FittedDiffStitch.trained`."""
        goals = goals_of(dataset)
        method = self._settled(dataset, goals)
        return FittedDiffStitch(
            transform=method, dataset=dataset, run=run, job=method._job(seen(dataset, goals), goals, run), goals=goals
        )

    def _job(self, source: Dataset, goals: Goals | None, run: Run) -> StitchJob:
        """With what networks see, and settled settings."""
        job = StitchJob.of(
            self,
            source,
            run,
            # Only a network that is told a return learns from discounted ones.
            trained=[self.models, self.stitch.discount if self.models.diffusion.return_dropout else None],
            sampled=[self.stitch, _MEASURED],
            normalizer=self.models.diffusion.normalizer,
        )
        return dataclasses.replace(job, place=place(source, goals))

    def _settled(self, dataset: Dataset, goals: Goals | None) -> DiffStitch:
        """These settings, with what was left to the dataset: whether its returns can be compared, and its actions.

        Raises:
            ConfigError: They ask for what the dataset does not have.
        """
        if self.qualify.bend is not None and place(dataset, goals) is None:
            raise ConfigError(
                f"qualify.bend={self.qualify.bend:g} is not possible with {dataset.dataset_id!r}: its states have no "
                "place in the plane; leave it out, and bound qualify.stray or qualify.support instead"
            )
        episodes = dataset.episodes
        first = episodes.observations[episodes.state_offsets[:-1]]
        differ = np.ptp(episodes.returns_to_go(self.stitch.discount)) > 0
        one_task = bool(differ) and (goals is None or not np.ptp([goals.goal(row) for row in first], axis=0).any())
        stitch, qualify = self.stitch, self.qualify
        if stitch.imitation is None:
            imitation = _IMITATION if one_task and self.models.behaviour is not None else 0.0
            stitch = dataclasses.replace(stitch, imitation=imitation)
        if stitch.pairs == "connect":
            rising = one_task if stitch.rising is None else stitch.rising
            stitch = dataclasses.replace(stitch, rising=rising)
            # A bridge of a chain may be worth what comes after the next one.
            qualify = dataclasses.replace(qualify, better=qualify.better and rising and stitch.hops == 1)
        return dataclasses.replace(self, stitch=stitch, qualify=qualify)

    @property
    def used(self) -> ModelConfig:
        """The networks that settled settings call for: without imitation no clone."""
        return self.models if self.stitch.imitates else dataclasses.replace(self.models, behaviour=None)

    def networks(self, dataset: Dataset, run: Run) -> Path:
        """Folder of the trained networks."""
        goals = goals_of(dataset)
        return self._settled(dataset, goals)._job(seen(dataset, goals), goals, run).networks

    def expected(self, dataset: Dataset, run: Run, n_steps: int) -> Expected:
        """Training of the missing networks, and chunks of pairs, of which a third are taken to qualify."""
        goals = goals_of(dataset)
        source, method = seen(dataset, goals), self._settled(dataset, goals)
        require_pairs(source.episodes, self.stitch)
        job, episode = method._job(source, goals, run), float(dataset.episodes.lengths.mean())
        bridge = (self.stitch.shortest + self.stitch.longest) / 2
        whole = {"full": episode, "onward": episode, "bridge": bridge + 2, "transitions": 1.0}
        counted = bridge if self.form in ("bridge", "transitions") else episode
        names, bridges = networks(source.episodes, method.used), n_steps / counted
        return expected(method.models, method.stitch, source.episodes, job, run, names, bridges, whole[self.form])


@dataclass(frozen=True, kw_only=True)
class FittedDiffStitch:
    """Trained models and the chunks of proposals made with them."""

    transform: DiffStitch
    dataset: Dataset
    run: Run
    job: StitchJob
    goals: Goals | None = None

    @property
    def trained(self) -> bool:
        """Whether all networks are there."""
        return all(self.job.network(name).exists() for name in self.networks)

    @property
    def networks(self) -> tuple[str, ...]:
        """Names of the networks that the source and the settings call for."""
        return networks(self.job.episodes, self.transform.used)

    def sample(self, n_steps: int) -> Sample:
        """Propose chunk after chunk until accepted episodes hold `n_steps` steps; count pairs up to the last of them.

        Of bridges written alone only the synthetic steps count: they are what is asked for.

        Raises:
            LowAcceptanceError: Fewer than one pair in a hundred qualifies.
        """
        report, made, written, synthetic, episodes = StitchReport(), 0, 0, 0, 0
        alone = self.transform.form in ("bridge", "transitions")
        for proposals in self.proposals():
            ways = self._ways(proposals)
            lengths, generated = np.array([(way.length, way.generated) for way in ways], int).reshape(-1, 2).T
            counted = generated if alone else lengths
            wanted = int(np.searchsorted(counted.cumsum(), n_steps - made)) + 1
            if wanted <= len(ways):
                proposals = proposals.head(ways[wanted - 1].links[-1].row + 1)
            report = report + StitchReport.of(proposals, self.transform.qualify)
            made += int(counted[:wanted].sum())
            written += int(lengths[:wanted].sum())
            synthetic += int(generated[:wanted].sum())
            episodes += int(generated[:wanted].sum()) if self._apart else len(lengths[:wanted])
            if self.run.progress is not None:
                self.run.progress("stitch", min(made, n_steps), n_steps)
            if made >= n_steps:
                break
            self._require_acceptance(report, made, n_steps)
        moved = 0 if self.goals else int(self.dataset.episodes.goal_dimensions().sum())
        return Sample(
            report=report.to_dict() | self._calibration() | ({"goal_dimensions": moved} if moved else {}),
            n_steps=written,
            n_episodes=episodes,
            n_synthetic=synthetic,
            parts=lambda: itertools.islice(self._parts(), episodes),
        )

    def proposals(self) -> Iterator[Proposals]:
        """Chunks of judged pairs, without end; those of the run directory are read, the others made."""
        return map(self._load, self.job.made(self.run))

    def _load(self, chunk: Path) -> Proposals:
        """A chunk of the run directory.

        Where episodes end at their goal, what would reach the target's before the target is there cannot be joined.
        """
        proposals = Proposals.load(chunk)
        if self.goals is None or not self.goals.terminates:
            return proposals
        reachable, begin = proposals.reachable.copy(), 0
        for row in range(len(proposals)):
            begin = row if row == 0 or proposals.chain[row] != proposals.chain[row - 1] else begin
            (way,) = self._joined(proposals, np.arange(begin, row + 1))  # a chain that ends with this bridge
            reachable[row] &= not ends_early(self.dataset.episodes, way, self.goals)
        return dataclasses.replace(proposals, reachable=reachable)

    @property
    def _apart(self) -> bool:
        return self.transform.form == "transitions"

    def _ways(self, proposals: Proposals) -> list[Way]:
        """What qualifies."""
        accepted = np.flatnonzero(qualify(proposals, self.transform.qualify) == Outcome.ACCEPTED)
        return list(self._joined(proposals, accepted))

    def _joined(self, proposals: Proposals, rows: np.ndarray) -> Iterator[Way]:
        limit = self.dataset.max_episode_steps
        return ways_of(self.dataset.episodes, proposals, rows, form=self.transform.form, max_episode_steps=limit)

    def _calibration(self) -> dict[str, Any]:
        """What delta promises, where it is calibrated."""
        if self.transform.qualify.doubt != "calibrated":
            return {}
        return {"calibration": {"coverage": COVERAGE, **dataclasses.asdict(self.job.models.calibration)}}

    def _parts(self) -> Iterator[dict[str, Any]]:
        ids, gamma = self.dataset.episode_ids.tolist(), self.transform.gamma
        chunks = (self._load(self.job.chunk(number)) for number in itertools.count())
        ways = itertools.chain.from_iterable(map(self._ways, chunks))
        return stitched(self.dataset.episodes, ids, ways, discount=gamma, goals=self.goals, apart=self._apart)

    def _require_acceptance(self, report: StitchReport, steps: int, n_steps: int) -> None:
        if report.proposed < PATIENCE or report.accepted >= LOWEST_ACCEPTANCE * report.proposed:
            return
        decided, qualify = report.to_dict(), self.transform.qualify
        reasons = ", ".join(f"{decided[o.name.lower()]} {o.name.lower().replace('_', ' ')}" for o in list(Outcome)[1:])
        others = ", ".join(f"{delta}: {share:.1%}" for delta, share in report.acceptance.items())
        raise LowAcceptanceError(
            f"only {report.accepted} of {report.proposed} pairs qualify at delta {qualify.delta:g}, which gave "
            f"{steps:,} of {n_steps:,} steps. The others: {reasons}. Acceptance by delta: {others}. Raise delta, "
            f"qualify.drift={qualify.drift} or qualify.support={qualify.support} (models and proposals are kept), "
            "train longer with preset full, or ask for fewer steps."
        )
