"""Short synthetic episodes of baseline transforms as plain arrays, judged like bridges, and as Minari episodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minari_stitch.data.episodes import Episodes
from minari_stitch.data.provenance import provenance
from minari_stitch.data.storage import Arrays
from minari_stitch.learn.judging import DELTAS, transition_errors
from minari_stitch.learn.nets import MLP
from minari_stitch.learn.scales import Scales


class End(IntEnum):
    """Why an episode ends."""

    COMPLETE = 0
    """It is as long as asked for."""
    TERMINATED = 1
    """The environment would end it."""
    UNCERTAIN = 2
    """The models are no longer to be trusted."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Rollouts(Arrays):
    """`B` episodes of at most `T` generated steps, in units of the source.

    Attributes:
        source: `(B,)` state row of the source at which each begins; -1 where its first state is generated too.
        length: `(B,)` steps, 0 to T; episodes of length 0 were refused and are not written.
        end: `(B,)` an `End` each.
        states: `(B, T + 1, S)`.
        actions: `(B, T, A)`.
        rewards: `(B, T)`.
        errors: `(B, T)` squared distance of each next state from its prediction by judging networks, in
            standardised state space; 0 after the end.
        disagreement: `(B,)` largest squared distance between the judges.
    """

    source: np.ndarray
    length: np.ndarray
    end: np.ndarray
    states: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    errors: np.ndarray
    disagreement: np.ndarray

    def __len__(self) -> int:
        """Number of episodes B."""
        return len(self.source)

    @classmethod
    def judged(
        cls,
        judge: MLP,
        scales: Scales,
        *,
        source: Tensor,
        length: Tensor,
        end: Tensor,
        states: Tensor,
        actions: Tensor,
        rewards: Tensor,
    ) -> Rollouts:
        """Judge rollouts and bring them to the units of the source.

        Args:
            judge: Dynamics networks.
            scales: Normalisers.
            source: `(B,)`.
            length: `(B,)`.
            end: `(B,)`.
            states: `(B, T + 1, S)` standardised.
            actions: `(B, T, A)` in [-1, 1].
            rewards: `(B, T)` in units of the source.
        """

        def predict(z: Tensor, u: Tensor) -> Tensor:
            return z + scales.change * judge(torch.cat([z, u], -1))

        errors, disagreement = transition_errors(predict, states, actions, length - 1)
        tensors = {
            "source": source,
            "length": length,
            "end": end,
            "states": scales.state.decode(states),
            "actions": scales.action.decode(actions),
            "rewards": rewards,
            "errors": errors,
            "disagreement": disagreement.amax(1),
        }
        return cls(**{name: value.cpu().numpy() for name, value in tensors.items()})

    def episodes(self, source: Episodes, ids: Sequence[int], discount: float) -> Iterator[dict[str, Any]]:
        """Yield each as `Episodes.from_list` takes it.

        Args:
            source: The source dataset, for dtypes and provenance.
            ids: Id of each source episode in its dataset.
            discount: Gamma of `return_to_go`.
        """
        first = np.searchsorted(source.state_offsets, self.source, side="right") - 1
        for row, steps in enumerate(self.length.tolist()):
            if steps == 0:
                continue
            last = np.arange(steps) == steps - 1
            terminated = self.end[row] == End.TERMINATED
            rewards = self.rewards[row, :steps].astype(source.rewards.dtype)
            episode, step = np.full((2, steps + 1), -1)
            if self.source[row] >= 0:
                episode[0] = ids[first[row]]
                step[0] = self.source[row] - source.state_offsets[first[row]]
            error = np.append(self.errors[row, :steps], 0)
            yield {
                "observations": self.states[row, : steps + 1].astype(source.observations.dtype),
                "actions": self.actions[row, :steps].astype(source.actions.dtype),
                "rewards": rewards,
                "terminations": last & terminated,
                "truncations": last & (not terminated),
                "infos": provenance(np.append(np.ones(steps, bool), False), episode, step, error, rewards, discount),
                "metadata": {
                    "augmented": True,
                    "source_episode": int(episode[0]),
                    "source_step": int(step[0]),
                    "dynamics_error": float(error.max()),
                    "disagreement": float(self.disagreement[row]),
                },
            }

    def report(self) -> dict[str, Any]:
        """Counts by end and length, and the share of written episodes below each usual delta."""
        worst = np.maximum(self.errors.max(1), self.disagreement)[self.length > 0]
        return {
            "rollouts": len(self),
            "ends": {end.name.lower(): int((self.end == end).sum()) for end in End},
            "lengths": {str(n): int((self.length == n).sum()) for n in range(self.rewards.shape[1] + 1)},
            "acceptance": {f"{delta:g}": float((worst < delta).mean()) for delta in DELTAS},
        }

    def head(self, n_steps: int) -> Rollouts:
        """The first episodes that together have at least `n_steps` steps, or all."""
        count = int(np.searchsorted(np.cumsum(self.length), n_steps)) + 1
        return Rollouts(**{name: array[:count] for name, array in vars(self).items()})
