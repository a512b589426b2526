"""What learners read: the original dataset and an augmented one as one flat table on the device.

Shape letters: `K` runs, `B` batch, `N` steps (of which the first `original_steps` are original), `E` episodes,
`S` state width, `A` action width.

States are normalised by the mean and standard deviation of the ORIGINAL data, for every mix, so that runs differ in
their data alone. The last transition of a truncated episode keeps its true next state and is bootstrapped from;
a terminal one is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Generator, Tensor

from benchmarks.batches import Mixture, Ratio, RatioError, Sizes, Transitions
from minari_stitch.data import minari_io
from minari_stitch.data.episodes import Episodes
from minari_stitch.data.minari_io import Dataset
from minari_stitch.data.provenance import RECORD_KEY, records, stitch_record
from minari_stitch.data.spaces import FlatSpace
from minari_stitch.errors import ConfigError, DatasetNotFoundError, StitchError

AugmentedKind = Literal["bridges", "episodes"]
"""What the augmented side of a batch is drawn from: synthetic steps only, or all steps of stitched episodes."""
_STD_EPS = 1e-3
_REWARD_SCALE = 1000.0


class SpaceMismatchError(StitchError):
    """Original and augmented data are not of the same kind."""


class SourceMismatchError(StitchError):
    """An augmented dataset was made from other data."""


class TooFewStepsError(StitchError):
    """There is less data than a learner's context."""


def load(
    dataset_id: str,
    augmented_id: str | None = None,
    *,
    augmented: AugmentedKind = "episodes",
    device: str | torch.device = "cpu",
) -> LearnerData:
    """Read a dataset, and what was made from it.

    Args:
        dataset_id: The original dataset.
        augmented_id: A stitched version of it; its own copies of original episodes are left out.
        augmented: What its side of a batch is drawn from.
        device: Where the table lies.

    Raises:
        DatasetNotFoundError: A dataset, or the source of the stitched one, is missing.
        SourceMismatchError: The stitched dataset was made from other data.
        SpaceMismatchError: The spaces differ.
        StitchError: Whatever `minari_io.read` has to say.
    """
    extra = None if augmented_id is None else minari_io.read(augmented_id, keep_infos=True)
    try:
        source = minari_io.read(dataset_id)
    except DatasetNotFoundError as error:
        if extra is None:
            raise
        raise DatasetNotFoundError(
            f"{dataset_id!r}, the source of {augmented_id!r}, is missing: a mix needs both. {error}"
        ) from error
    return LearnerData(source, extra, augmented=augmented, device=device)


def check_kind(augmented: str) -> None:
    """Refuse what is no kind of augmented data.

    Raises:
        ConfigError: It is not.
    """
    if augmented not in get_args(AugmentedKind):
        raise ConfigError(f"augmented={augmented!r} is not possible: choose one of {get_args(AugmentedKind)}")


class LearnerData:
    """A flat table of steps, original ones first, and samplers on it.

    Attributes:
        source: The original dataset.
        sizes: Widths.
        device: Where the tensors are.
        mean: `(S,)` of the original states.
        std: `(S,)` of the original states, plus 1e-3.
        action_low: `(A,)` bounds of the environment's actions; -1 for learners.
        action_high: `(A,)`; 1 for learners.
        episodes: Original and then stitched episodes, in the environment's units.
        original_steps: How many steps are original.
        original_episodes: How many episodes are original.
        table: `(N, 2 S + A + 2)` state, action, reward, next state, and 1 unless the step terminates.
        rows: Step rows that each side draws from: `(original, augmented)`, int64.
    """

    def __init__(
        self,
        source: Dataset,
        augmented_dataset: Dataset | None = None,
        *,
        augmented: AugmentedKind = "episodes",
        device: str | torch.device = "cpu",
    ) -> None:
        """Lay the data out.

        Args:
            source: The original dataset.
            augmented_dataset: A stitched version of it, read with its infos.
            augmented: What its side of a batch is drawn from.
            device: Where the table lies.

        Raises:
            ConfigError: `augmented` is none of its values, or actions are unbounded.
            SourceMismatchError: The stitched dataset was made from other data.
            SpaceMismatchError: The spaces differ.
        """
        check_kind(augmented)
        actions = FlatSpace(source.action_space, "action")
        if not np.isfinite([actions.low, actions.high]).all():
            raise ConfigError(f"{source.dataset_id!r} has unbounded actions, {source.action_space}: choose another one")
        self.source = source
        self.device = torch.device(device)
        self.episodes = original = source.episodes
        self.original_steps, self.original_episodes = original.n_steps, len(original)
        self._beyond, begins = _return_beyond(original), np.zeros(len(original), np.int64)
        synthetic = np.zeros(0, bool)
        if augmented_dataset is not None:
            stitched = _stitched_part(source, augmented_dataset)
            synthetic = stitched.infos["synthetic"][stitched.step_state].reshape(-1).astype(bool)
            self.episodes = _join(original, stitched)
            self._beyond = np.concatenate([self._beyond, _return_beyond(stitched)])
            begins = np.concatenate([begins, _begins(stitched)])
        self.action_low, self.action_high = (self._tensor(bound) for bound in (actions.low, actions.high))
        states = original.observations[original.step_state].astype(np.float64)
        mean, std = states.mean(0), states.std(0) + _STD_EPS
        self.mean, self.std = self._tensor(mean), self._tensor(std)
        observations = self._tensor((self.episodes.observations - mean) / std)
        scaled = 2 * (self.episodes.actions - actions.low) / (actions.high - actions.low) - 1
        self.sizes = Sizes(observations.shape[1], scaled.shape[1])
        counted = np.arange(self.episodes.n_steps) - np.repeat(
            self.episodes.offsets[:-1] - begins, self.episodes.lengths
        )
        self.timesteps = torch.from_numpy(counted).to(self.device)
        """`(N,)` int64 time of each step in its whole (stitched) episode, written or not."""
        state_rows = torch.from_numpy(self.episodes.step_state).to(self.device)
        columns = (
            observations[state_rows],
            self._tensor(scaled),
            self._tensor(self.episodes.rewards)[:, None],
            observations[state_rows + 1],
            self._tensor(~self.episodes.terminations)[:, None],
        )
        self.table = torch.cat(columns, 1)
        self.synthetic = torch.zeros(self.episodes.n_steps, dtype=torch.bool, device=self.device)
        """`(N,)` whether a step was generated."""
        self.synthetic[self.original_steps :] = torch.from_numpy(synthetic)
        everything = np.arange(self.original_steps, self.episodes.n_steps)
        self.rows = (
            torch.arange(self.original_steps, device=self.device),
            torch.from_numpy(everything[synthetic] if augmented == "bridges" else everything).to(self.device),
        )

    @cached_property
    def reward_scale(self) -> float:
        """CORL's reward normalisation: 1000 over the range of the original episodes' returns.

        Raises:
            ConfigError: All returns are equal.
        """
        returns = self.episodes.returns[: self.original_episodes]
        if returns.max() == returns.min():
            raise ConfigError(
                f"all returns are {returns[0]:g}, so rewards cannot be normalised: set normalize_rewards=False"
            )
        return _REWARD_SCALE / float(returns.max() - returns.min())

    @cached_property
    def step_episode(self) -> Tensor:
        """`(N,)` int64 episode of each step."""
        return torch.from_numpy(self.episodes.step_episode).to(self.device)

    @cached_property
    def offsets(self) -> Tensor:
        """`(E + 1,)` int64: episode `e` owns steps `offsets[e]:offsets[e + 1]`; `original_episodes` come first."""
        return torch.from_numpy(self.episodes.offsets.copy()).to(self.device)

    @cached_property
    def returns_to_go(self) -> Tensor:
        """`(N,)` undiscounted rewards from each step to the end of its whole (stitched) episode, written or not."""
        written = self.episodes.returns_to_go(1.0)[self.episodes.step_state]
        return self._tensor(written + self._beyond[self.episodes.step_episode])

    @property
    def states(self) -> Tensor:
        """`(N, S)` normalised states, a view."""
        return self.table[:, : self.sizes.states]

    @property
    def actions(self) -> Tensor:
        """`(N, A)` actions in [-1, 1], a view."""
        return self.table[:, self.sizes.states : self.sizes.states + self.sizes.actions]

    @property
    def rewards(self) -> Tensor:
        """`(N,)` rewards as they are, a view."""
        return self.table[:, self.sizes.states + self.sizes.actions]

    def check_context(self, context: int) -> None:
        """Refuse a dataset with fewer steps than a learner's context.

        Raises:
            TooFewStepsError: It is so.
        """
        counts = {"original": self.original_steps, "augmented": self.episodes.n_steps - self.original_steps}
        for name, count in counts.items():
            if 0 < count < context:
                raise TooFewStepsError(
                    f"the {name} data hold {count} steps, but the learner's context is {context}: "
                    "use more data, or a smaller context"
                )

    def mixture(
        self, ratios: Sequence[Ratio], generators: Sequence[Generator], batch_size: int, *, best: float = 1.0
    ) -> Mixture:
        """Draw step rows in exact ratios, for a sampler.

        Args:
            ratios: Original : augmented of each run.
            generators: One for each run, on the device of the data.
            batch_size: B.
            best: Share of each side's episodes, those of the highest return, to draw from.

        Raises:
            RatioError: A ratio needs a side that is empty.
            ConfigError: `best` is not in (0, 1].
        """
        if not 0 < best <= 1:
            raise ConfigError(f"best={best:g} is not possible: choose a share in (0, 1]")
        sides = self.rows if best == 1 else (self._best_of(0, best), self._best_of(1, best))
        for ratio in ratios:
            for part, rows, name in zip(ratio, sides, ("original", "augmented"), strict=True):
                if part < 0 or not any(ratio) or (part and not len(rows)):
                    raise RatioError(
                        f"ratio={ratio[0]}:{ratio[1]} is not possible with {len(rows)} {name} steps to draw from: "
                        "give a dataset for that side, or set its part to 0 (1:0 is original data alone)"
                    )
        return Mixture(sides, ratios, generators, batch_size)

    def transitions(
        self,
        ratios: Sequence[Ratio],
        generators: Sequence[Generator],
        batch_size: int,
        *,
        reward_scale: float = 1.0,
        best: float = 1.0,
    ) -> Transitions:
        """Batches of transitions; see `mixture` for arguments and errors.

        Args:
            ratios: Original : augmented of each run.
            generators: One for each run, on the device of the data.
            batch_size: B.
            reward_scale: Factor of the rewards.
            best: Share of each side's episodes to draw from.
        """
        mixture = self.mixture(ratios, generators, batch_size, best=best)
        return Transitions(self.table, self.sizes, mixture, reward_scale)

    def _best_of(self, side: int, share: float) -> Tensor:
        """Rows of one side that lie in its best episodes."""
        first = (0, self.original_episodes)[side]
        returns = self.episodes.returns[slice(first, None) if side else slice(0, self.original_episodes)]
        kept = first + np.argsort(-returns, kind="stable")[: max(1, int(share * len(returns)))]
        chosen = torch.zeros(len(self.episodes), dtype=torch.bool, device=self.device)
        chosen[torch.from_numpy(kept)] = True
        rows = self.rows[side]
        return rows[chosen[self.step_episode[rows]]]

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.tensor(array, dtype=torch.float32, device=self.device)


def _stitched_part(source: Dataset, extra: Dataset) -> Episodes:
    """The stitched episodes of a dataset, or of a mix of such, after checking that they were made from `source`."""
    for kind in ("observation_space", "action_space"):
        ours, theirs = getattr(source, kind), getattr(extra, kind)
        if ours != theirs:
            raise SpaceMismatchError(
                f"{kind} of {extra.dataset_id!r} is {theirs}, but of {source.dataset_id!r} it is {ours}: "
                "mix a dataset with one made from it"
            )
    parts = [] if RECORD_KEY in extra.metadata else records(extra.metadata)
    for record in parts or [stitch_record(extra.dataset_id, extra.metadata)]:
        if record["source_fingerprint"] != source.fingerprint:
            raise SourceMismatchError(
                f"{extra.dataset_id!r} was made from {record['source']!r} with fingerprint "
                f"{record['source_fingerprint']}, but {source.dataset_id!r} has {source.fingerprint}: give its own "
                "source, or augment this one"
            )
    if "synthetic" not in extra.episodes.infos:
        raise ConfigError(f"{extra.dataset_id!r} was read without infos: read it with keep_infos=True")
    stitched = [index for index, metadata in enumerate(extra.episodes.metadata) if metadata["augmented"]]
    if not stitched:
        raise RatioError(f"{extra.dataset_id!r} holds no stitched episode: augment again with more steps")
    return extra.episodes.select(stitched)


def _return_beyond(episodes: Episodes) -> np.ndarray:
    """`(E,)` what each episode would still earn after its last written step: a bridge that stands alone says so."""
    if not episodes.metadata:  # as of an original dataset, whose episodes are whole
        return np.zeros(len(episodes))
    return np.array([metadata.get("return_beyond", 0.0) for metadata in episodes.metadata])


def _begins(episodes: Episodes) -> np.ndarray:
    """`(E,)` time in the whole stitched episode of each episode's first written step."""
    return np.array(
        [about.get("source_step", 0) - about.get("bridge_start", 0) for about in episodes.metadata], np.int64
    )


def _join(original: Episodes, stitched: Episodes) -> Episodes:
    """One after the other, without infos and metadata."""
    names = ("observations", "actions", "rewards", "terminations", "truncations")
    joined: dict[str, Any] = {n: np.concatenate([getattr(original, n), getattr(stitched, n)]) for n in names}
    joined["offsets"] = np.concatenate([original.offsets, original.n_steps + stitched.offsets[1:]])
    return Episodes(**joined)
