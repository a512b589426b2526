"""Whole paths before the oracle: their errors, walls on their way, and whether learned judges say the same."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minari_stitch.data.episodes import Episodes
from minari_stitch.sim.oracle import Simulator

Inverse = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Actions `(B, A)` that lead from states `(B, S)` to the next ones, all in the units of the environment."""


def oracle_errors(
    simulator: Simulator, states: np.ndarray, actions: np.ndarray, steps: np.ndarray, scale: np.ndarray
) -> np.ndarray:
    """Squared distance of each state of a path from what the simulator makes of its predecessor.

    Args:
        simulator: The real environment.
        states: `(B, L + 2, S)` in the units of the environment.
        actions: `(B, L + 1, A)`.
        steps: `(B,)` generated states; a path has one transition more.
        scale: `(S,)` standard deviation of each dimension.

    Returns:
        `(B, L + 1)` in standardised units; NaN after the path, and where the simulator cannot tell.
    """
    inside = np.arange(actions.shape[1]) <= steps[:, None]
    outcome = simulator.step(states[:, :-1][inside], actions[inside])
    errors = np.full(inside.shape, np.nan)
    errors[inside] = (((outcome - states[:, 1:][inside]) / scale) ** 2).sum(-1)
    return errors


def crossed(simulator: Simulator, states: np.ndarray, steps: np.ndarray) -> np.ndarray | None:
    """`(B,)` which paths, as for `oracle_errors`, go through a wall somewhere; None where there are none to cross."""
    crossings = getattr(simulator, "crossings", None)
    if crossings is None:
        return None
    inside = np.arange(states.shape[1] - 1) <= steps[:, None]
    found = np.zeros(inside.shape, bool)
    found[inside] = crossings(states[:, :-1][inside], states[:, 1:][inside])
    return np.asarray(found.any(1))


def real_paths(
    episodes: Episodes, inverse: Inverse, steps: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Real windows as long as given bridges: the floor that no bridge can be expected to beat.

    Args:
        episodes: The source.
        inverse: The inverse dynamics.
        steps: `(B,)` inner states of each window.
        seed: Chooses the windows.

    Returns:
        States `(B, L + 2, S)`, recorded actions and the inverse model's actions `(B, L + 1, A)`, and the
        steps `(B,)` of the windows, where an episode is long enough.
    """
    rng = np.random.default_rng(seed)
    length = int(steps.max()) + 2
    left = np.repeat(episodes.offsets[1:], episodes.lengths) - np.arange(episodes.n_steps)
    starts = rng.permutation(np.flatnonzero(left >= length))[: len(steps)]
    steps = steps[: len(starts)]
    window = starts[:, None] + np.arange(length - 1)
    states = episodes.observations[episodes.step_state[starts][:, None] + np.arange(length)]
    width = states.shape[-1]
    actions = inverse(states[:, :-1].reshape(-1, width), states[:, 1:].reshape(-1, width))
    return states, episodes.actions[window], actions.reshape(*window.shape, -1), steps


def largest(errors: np.ndarray) -> np.ndarray:
    """`(B,)` largest error of each path `(B, L + 1)`, of the steps that could be judged; NaN if there is none."""
    return np.fmax.reduce(errors, axis=1)


def quantile(errors: np.ndarray, share: float = 0.5) -> float:
    """Of the errors that could be judged, by default their median; NaN if there is none."""
    known = errors[~np.isnan(errors)]
    return float(np.quantile(known, share)) if len(known) else float("nan")


def agreement(learned: np.ndarray, oracle: np.ndarray, deltas: tuple[float, ...]) -> list[dict[str, float]]:
    """How well the learned qualification predicts the simulator's, at several thresholds.

    Paths without a step that could be judged are left out.

    Args:
        learned: `(B,)` what qualification compares with its threshold.
        oracle: `(B, L + 1)` errors against the simulator.
        deltas: Thresholds.

    Returns:
        For each delta the share that the networks accept, the share that the simulator would, precision and
        recall of the networks (NaN where nothing is accepted or true), and the median oracle error accepted.
    """
    truth = largest(oracle)
    judged = ~np.isnan(truth)
    learned, truth = learned[judged], truth[judged]
    rows = []
    for delta in deltas:
        accepted, true = learned < delta, truth < delta
        both = (accepted & true).sum()
        rows.append(
            {
                "delta": delta,
                "accepted": float(accepted.mean()),
                "true": float(true.mean()),
                "precision": float(both / accepted.sum()) if accepted.any() else float("nan"),
                "recall": float(both / true.sum()) if true.any() else float("nan"),
                "median_accepted": float(np.median(truth[accepted])) if accepted.any() else float("nan"),
            }
        )
    return rows
