"""The normalisers that all networks of a source share."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from minari_stitch.data.episodes import Episodes
from minari_stitch.learn.normalize import (
    Affine,
    Cdf,
    NormalizerKind,
    blocks,
    fit_affine,
    fit_normalizer,
    mean_and_std,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Scales:
    """Normalisers that all models share, fitted once to the source.

    Attributes:
        state: Standardises states; the space of the qualification threshold.
        window: Normaliser of the diffusion model's windows.
        action: Maps the action space to [-1, 1].
        reward: Standardises rewards.
        change: `(S,)` spread of one step's change in standardised state.
        low: `(S,)` lowest standardised state.
        high: `(S,)` highest standardised state.
    """

    state: Affine
    window: Affine | Cdf
    action: Affine
    reward: Affine
    change: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def of(
        cls,
        episodes: Episodes,
        action_low: np.ndarray,
        action_high: np.ndarray,
        normalizer: NormalizerKind = "standard",
    ) -> Scales:
        """Fit to the source.

        Args:
            episodes: The source.
            action_low: `(A,)` bounds of the action space.
            action_high: `(A,)` bounds of the action space.
            normalizer: Of windows.
        """
        observations = episodes.observations
        state = fit_affine(observations)
        # In float64 NumPy: sums in torch depend on the number of threads.
        _, spread = mean_and_std(
            lambda: (observations[at + 1] - observations[at] for at in blocks(episodes.step_state))
        )
        change = torch.as_tensor(spread, dtype=torch.float32) / state.scale
        bounded = np.isfinite(action_low).all() and np.isfinite(action_high).all()
        limits = np.stack([action_low, action_high]) if bounded else episodes.actions
        extremes = torch.as_tensor(np.stack([observations.min(0), observations.max(0)]), dtype=torch.float32)
        low, high = state.encode(extremes)
        return cls(
            state=state,
            window=state if normalizer == "standard" else fit_normalizer(observations, normalizer),
            action=fit_affine(limits.astype(np.float64), "minmax"),
            reward=fit_affine(episodes.rewards[:, None].astype(np.float64)),
            change=torch.where(change > 1e-6, change, 1.0),
            low=low,
            high=high,
        )

    @property
    def one_space(self) -> bool:
        """Whether windows are standardised as states are."""
        pairs = [(getattr(self.window, name, None), getattr(self.state, name)) for name in ("shift", "scale")]
        return all(mine is not None and torch.equal(mine, other) for mine, other in pairs)

    def window_bounds(self) -> tuple[Tensor, Tensor]:
        """`(S,)` lowest and highest state in the space of the diffusion model."""
        low, high = (self.window.encode(self.state.decode(z)) for z in (self.low, self.high))
        return low, high

    def to(self, device: torch.device | str) -> Scales:
        """The same scales on another device."""
        return dataclasses.replace(
            self, **{field.name: getattr(self, field.name).to(device) for field in dataclasses.fields(self)}
        )
