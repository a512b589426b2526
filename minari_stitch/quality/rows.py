"""Rows of tables: which are the same, at 8 bytes a row; and numbers as JSON has them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np


def digests(*columns: np.ndarray) -> np.ndarray:
    """`(N,)` uint64 of the rows of `(N, ...)` arrays side by side: equal rows have equal digests, others hardly ever.

    Values count as float64, so that a table and its copy in another precision that holds the same values agree.
    """
    table = np.concatenate([np.asarray(column, np.float64).reshape(len(column), -1) for column in columns], 1)
    words = np.ascontiguousarray(table + 0.0).view(np.uint64)  # + 0.0: there is one zero
    weights = np.random.default_rng(0).integers(1, 2**63, (2, words.shape[1]), dtype=np.uint64) | np.uint64(1)
    # Two rounds, for the bits of floats sit in the high half, and a product carries upwards only.
    mixed = (words ^ (words >> np.uint64(32))) * weights[0]
    return ((mixed ^ (mixed >> np.uint64(29))) * weights[1]).sum(1, dtype=np.uint64)


def plain_numbers(value: Any) -> Any:
    """The same with None for what is not finite, which JSON lacks."""
    if isinstance(value, Mapping):
        return {key: plain_numbers(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain_numbers(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
