"""A Minari dataset in memory: its valid episodes, and all that describes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from minari_stitch.data.episodes import Episodes
from minari_stitch.data.validation import ValidationReport


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """A Minari dataset in memory.

    Attributes:
        dataset_id: Its id.
        episodes: The valid episodes, flat.
        observation_space: Gymnasium space of the stored observations.
        action_space: Gymnasium space of the stored actions.
        env_spec: How to build the environment, where the dataset says so.
        metadata: What may travel to a dataset made from this one (description, author, reference scores,
            custom keys, ...), as plain JSON values.
        episode_ids: `(E,)` id in the stored dataset of each episode.
        skipped: What `skip_invalid` left out.
    """

    dataset_id: str
    episodes: Episodes
    observation_space: spaces.Space
    action_space: spaces.Space
    env_spec: EnvSpec | None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    episode_ids: np.ndarray
    skipped: ValidationReport

    @property
    def max_episode_steps(self) -> int | None:
        """The environment's time limit, where known."""
        return self.env_spec.max_episode_steps if self.env_spec else None

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of the episodes."""
        return self.episodes.fingerprint()
