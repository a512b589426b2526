"""Whether the rewards of goal-conditioned data follow from their goals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import gymnasium as gym
import numpy as np

from minari_stitch.data.dataset import Dataset
from minari_stitch.data.episodes import Episodes
from minari_stitch.data.minari_io import MinariDataset
from minari_stitch.data.spaces import FlatSpace
from minari_stitch.data.validation import ValidationReport
from minari_stitch.sim.tasks import goals_of

_CLOSE, _MOST = 1e-3, 0.01


def goal_findings(
    source: MinariDataset, env: gym.Env | None, parts: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[Literal["error", "warning"], str]]:
    """Yield (level, what) about the goals of some flat episodes.

    Args:
        source: The dataset.
        env: Its environment, where it can be made.
        parts: As `flatten_episode` gives them.
    """
    slices = FlatSpace(source.observation_space).slices
    if not parts:
        return
    if {"achieved_goal", "desired_goal"} <= slices.keys():
        wanted = slices["desired_goal"]
        moving = sum(bool(np.ptp(part["observations"][:, wanted], axis=0).any()) for part in parts)
        if moving:
            yield "warning", f"desired_goal changes within {moving} of {len(parts)} episodes looked at"
        compute = getattr(getattr(env, "unwrapped", None), "compute_reward", None)
        if compute is None:
            yield "warning", "rewards are not compared with goals: no environment that computes them"
            return
        achieved = np.concatenate([part["observations"][1:, slices["achieved_goal"]] for part in parts])
        desired = np.concatenate([part["observations"][1:, wanted] for part in parts])
        rewards = np.concatenate([part["rewards"] for part in parts])
        expected = np.array([float(compute(a, d, {})) for a, d in zip(achieved, desired, strict=True)])
        off = float((np.abs(expected - rewards) > _CLOSE).mean())
        if off > _MOST:
            yield "error", f"{off:.1%} of the rewards looked at are not those of the goal in the environment"
    elif source.env_spec and source.env_spec.id.startswith("AdroitHandPen") and not goals_of(_few(source, parts)):
        yield "error", "more than 1 % of the rewards looked at do not follow from the goal in the observation"


def _few(source: MinariDataset, parts: Sequence[Mapping[str, Any]]) -> Dataset:
    return Dataset(
        dataset_id=source.id,
        episodes=Episodes.from_list(parts),
        observation_space=source.observation_space,
        action_space=source.action_space,
        env_spec=source.env_spec,
        episode_ids=np.arange(len(parts)),
        skipped=ValidationReport(len(parts)),
    )
