"""How far judges are off where they disagree: a bound that holds on nine of ten held-out real windows.

A judge's network is wrong in places where its data are few, and so are the other judges, since they learned from the
same data. How much they disagree tells where. Real windows that no network was trained on show how wrong they are then:
in logarithms, nine of ten of their largest errors lie below a line in their largest disagreement. Its slope is that of
quantile regression, since a bound that follows the mean promises too much where judges agree and too little where they
do not; its height that of split conformal prediction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from minari_stitch.learn.judging import transition_errors
from minari_stitch.learn.seeds import seeded
from minari_stitch.learn.tables import Tables

COVERAGE = 0.9
"""Share of held-out windows that are within the bound."""
_WINDOWS = 4096
_TINY = 1e-9
_STEEPEST = 4.0
"""Largest slope that is tried."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The bound `scale * disagreement ** slope` on the largest error of the judges along a path.

    Attributes:
        scale: Bound where the disagreement is 1.
        slope: Growth in logarithms, at least 0; 0 for a single judge, which never disagrees.
        windows: Held-out windows that it was fitted to.
    """

    scale: float
    slope: float
    windows: int = 0

    def __call__(self, disagreement: Tensor) -> Tensor:
        """Squared distance `(B,)` between the judges' prediction and the truth, from their largest variance."""
        return self.scale * disagreement.clamp(min=_TINY) ** self.slope

    @classmethod
    def of(cls, disagreement: np.ndarray, errors: np.ndarray) -> Calibration:
        """Fit to windows with a largest disagreement `(W,)` and a largest error `(W,)` each."""
        x, y = (np.log(np.maximum(values.astype(np.float64), _TINY)) for values in (disagreement, errors))

        def pinball(slope: float) -> float:
            above = y - slope * x
            above -= np.quantile(above, COVERAGE)
            return np.maximum(COVERAGE * above, (COVERAGE - 1) * above).mean()

        slope = 0.0
        if np.ptp(x) > 1e-6:
            found: Any = minimize_scalar(pinball, bounds=(0, _STEEPEST))
            slope = float(found.x)
        # The conformal quantile: of W windows and the one to come, a share of COVERAGE is below.
        rank = min(1.0, np.ceil(COVERAGE * (len(y) + 1)) / len(y))
        return cls(scale=float(np.exp(np.quantile(y - slope * x, rank))), slope=slope, windows=len(y))


UNCALIBRATED = Calibration(scale=0.0, slope=0.0)
"""Takes the judges at their word."""


@torch.no_grad()
def calibrate(
    judges: Callable[[Tensor, Tensor], Tensor], tables: Tables, shortest: int, longest: int, seed: int
) -> Calibration:
    """Judge held-out real windows with as many steps as bridges have.

    Args:
        judges: Maps `(B', S)` states and `(B', A)` actions to next states `(M, B', S)`.
        tables: The source; its held-out steps are used.
        shortest: Fewest steps of a window; near the end of an episode they are cut.
        longest: Most steps of a window.
        seed: Draws windows.
    """
    device = tables.held.device
    generator = seeded([seed, 7], device)

    def draw(high: int) -> Tensor:
        return torch.randint(high, (_WINDOWS,), device=device, generator=generator)

    first = tables.held[draw(len(tables.held))]
    length = shortest + draw(longest - shortest + 1)
    along = torch.arange(longest + 1, device=device)
    steps = (first[:, None] + along[:-1]).clamp(max=len(tables.state) - 1)
    rows = tables.state[first][:, None] + along
    # Steps of one episode have states in neighbouring rows; between two episodes a row is left out.
    length = torch.minimum(length, (tables.state[steps] == rows[:, :-1]).sum(1))
    states = tables.z[rows.clamp(max=len(tables.z) - 1)]
    errors, spread = transition_errors(judges, states, tables.u[steps], length - 1)
    return Calibration.of(spread.amax(1).cpu().numpy(), errors.amax(1).cpu().numpy())
