"""Episodes: a whole dataset as read-only flat arrays and offsets.

`N` steps, `E` episodes, state width `S`, action width `A`. Episode `e` of length `T` owns `T` consecutive
rows of the step arrays and `T + 1` consecutive rows of the state arrays, so the next observation of a step
is an index shift and never a copy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from minari_stitch.data.storage import reading, replacing

STEP_FIELDS = ("actions", "rewards", "terminations", "truncations")
"""What an episode of T steps has T rows of."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Episodes:
    """A batch of episodes.

    Attributes:
        observations: `(N + E, S)`, any float dtype.
        actions: `(N, A)`, any float dtype.
        rewards: `(N,)` float.
        terminations: `(N,)` bool.
        truncations: `(N,)` bool.
        offsets: `(E + 1,)` int64; episode `e` owns steps `offsets[e]:offsets[e + 1]`.
        infos: name -> `(N + E, ...)`, aligned with `observations`.
        metadata: One mapping of plain values for each episode, or empty.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminations: np.ndarray
    truncations: np.ndarray
    offsets: np.ndarray
    infos: Mapping[str, np.ndarray] = field(default_factory=dict)
    metadata: Sequence[Mapping[str, Any]] = ()

    def __post_init__(self) -> None:
        """Check shapes and make every array read-only."""
        n, e = self.n_steps, len(self)
        assert self.offsets[0] == 0 and (np.diff(self.offsets) > 0).all(), "offsets must increase from 0"
        assert self.observations.ndim == 2 and len(self.observations) == n + e, "observations must be (N + E, S)"
        assert all(len(getattr(self, name)) == n for name in STEP_FIELDS), "step arrays must have N rows"
        assert all(len(array) == n + e for array in self.infos.values()), "infos must have N + E rows"
        assert len(self.metadata) in (0, e), "metadata must have one entry for each episode"
        steps = (getattr(self, name) for name in STEP_FIELDS)
        for array in (self.observations, self.offsets, *steps, *self.infos.values()):
            array.flags.writeable = False

    @classmethod
    def from_list(cls, parts: Iterable[Mapping[str, Any]]) -> Episodes:
        """Build from one mapping for each episode.

        Args:
            parts: Mappings with `observations (T + 1, S)`, `actions (T, A)`, `rewards`, `terminations`,
                `truncations (T,)` and optionally `infos` (each `(T + 1, ...)`) and `metadata`.
        """
        parts = list(parts)
        infos = [part.get("infos", {}) for part in parts]
        return cls(
            observations=np.concatenate([part["observations"] for part in parts]),
            **{name: np.concatenate([part[name] for part in parts]) for name in STEP_FIELDS},
            offsets=np.cumsum([0, *(len(part["rewards"]) for part in parts)], dtype=np.int64),
            infos={key: np.concatenate([info[key] for info in infos]) for key in infos[0]},
            metadata=[part.get("metadata", {}) for part in parts],
        )

    @classmethod
    def concatenate(cls, batches: Sequence[Episodes]) -> Episodes:
        """Join batches end to end; all must carry the same infos."""
        return cls.from_list(part for batch in batches for part in batch)

    def __len__(self) -> int:
        """Number of episodes E."""
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield each episode as a mapping of views, in the form that `from_list` takes."""
        return (self.episode(e) for e in range(len(self)))

    @property
    def n_steps(self) -> int:
        """Number of steps N."""
        return int(self.offsets[-1])

    @cached_property
    def lengths(self) -> np.ndarray:
        """`(E,)` steps of each episode."""
        return np.diff(self.offsets)

    @cached_property
    def state_offsets(self) -> np.ndarray:
        """`(E + 1,)` offsets into `observations`: each earlier episode adds one extra state."""
        return self.offsets + np.arange(len(self.offsets))

    @cached_property
    def step_episode(self) -> np.ndarray:
        """`(N,)` episode index of each step."""
        return np.repeat(np.arange(len(self)), self.lengths)

    @cached_property
    def step_state(self) -> np.ndarray:
        """`(N,)` row of each step's observation; the next observation is one row further."""
        return np.arange(self.n_steps) + self.step_episode

    @cached_property
    def returns(self) -> np.ndarray:
        """`(E,)` undiscounted episode returns."""
        return np.add.reduceat(self.rewards.astype(np.float64), self.offsets[:-1])

    def returns_to_go(self, discount: float) -> np.ndarray:
        """Discounted return from each state on.

        Args:
            discount: gamma in (0, 1].

        Returns:
            `(N + E,)` float64, aligned with `observations`; 0 at the last state of each episode.
        """
        steps = int(self.lengths.max())
        by_length = np.argsort(-self.lengths, kind="stable")
        ends = self.offsets[1:][by_length]
        state_ends = self.state_offsets[1:][by_length] - 1
        lengths = self.lengths[by_length]
        returns = np.zeros(self.n_steps + len(self))
        carry = np.zeros(len(self))
        # Backwards over time, all episodes at once: the longest first, so that the live ones are a prefix.
        for back in range(1, steps + 1):
            live = int(np.searchsorted(-lengths, -back, side="right"))
            carry[:live] = self.rewards[ends[:live] - back] + discount * carry[:live]
            returns[state_ends[:live] - back] = carry[:live]
        return returns

    def goal_dimensions(self) -> np.ndarray:
        """`(S,)` bool: which observations stay the same all along each episode but differ between episodes."""
        starts = self.state_offsets[:-1]
        spread = [extreme.reduceat(self.observations, starts, axis=0) for extreme in (np.maximum, np.minimum)]
        return (spread[0] == spread[1]).all(0) & (np.ptp(spread[0], axis=0) > 0)

    def episode(self, index: int) -> dict[str, Any]:
        """One episode as a mapping of views, in the form that `from_list` takes."""
        steps = slice(self.offsets[index], self.offsets[index + 1])
        states = slice(self.state_offsets[index], self.state_offsets[index + 1])
        return {
            "observations": self.observations[states],
            **{name: getattr(self, name)[steps] for name in STEP_FIELDS},
            "infos": {key: array[states] for key, array in self.infos.items()},
            "metadata": self.metadata[index] if self.metadata else {},
        }

    def select(self, indices: Sequence[int] | np.ndarray) -> Episodes:
        """The episodes at `indices`, copied, in that order."""
        return Episodes.from_list(self.episode(int(index)) for index in indices)

    def save(self, folder: Path) -> None:
        """Write the arrays to an existing folder, one file each, so that processes can share them."""
        for name in ("observations", "offsets", *STEP_FIELDS):
            with replacing(folder / f"{name}.npy") as aside:
                np.save(aside, getattr(self, name))

    @classmethod
    def load(cls, folder: Path, fingerprint: str | None = None) -> Episodes:
        """Map what `save` wrote into memory.

        Raises:
            StorageError: It cannot be read, or has another fingerprint.
        """
        names = ("observations", "offsets", *STEP_FIELDS)
        with reading(folder):
            loaded = cls(**{name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names})
            if fingerprint not in (None, loaded.fingerprint()):
                raise ValueError("its digest is another")
        return loaded

    def fingerprint(self) -> str:
        """Hex digest of every array: two datasets with the same steps share it."""
        digest = hashlib.sha256()
        for array in (self.observations, self.offsets, *(getattr(self, name) for name in STEP_FIELDS)):
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:16]
