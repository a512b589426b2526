"""Clusters of states: found by k-means on a sample, and all states assigned to them."""

from __future__ import annotations

import warnings

import numpy as np
from scipy.cluster.vq import kmeans2, vq


def clusters(
    states: np.ndarray, count: int, rng: np.random.Generator, *, sample: int, rounds: int = 10
) -> tuple[np.ndarray, int]:
    """Cluster of each state.

    Args:
        states: `(N, S)` float64, each dimension in units of its own.
        count: Clusters at most; fewer where there are fewer distinct states.
        rng: Draws the sample and the first centres.
        sample: States that centres are found from.
        rounds: Of k-means.

    Returns:
        `(N,)` labels below the number of clusters, and this number K; a cluster may be empty.
    """
    some = states if len(states) <= sample else states[rng.choice(len(states), sample, replace=False)]
    centres = np.unique(some, axis=0)
    if len(centres) > count:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "One of the clusters is empty")  # whose centre stays where it was
            centres = kmeans2(some, count, iter=rounds, minit="++", rng=rng)[0]
    return vq(states, centres)[0], len(centres)
