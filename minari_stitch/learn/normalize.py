"""Normalisers fitted to the columns of a dataset.

Every network sees normalised inputs, and the qualification threshold is a squared distance in the `standard`
space: unit variance in each dimension. Constant columns keep scale 1, so nothing is divided by zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

NormalizerKind = Literal["standard", "minmax", "cdf"]
_QUANTILES = 1001
_BLOCK = 2**18
"""Rows that are copied at once: tables are larger than memory has room for twice."""


class Normalizer(Protocol):
    """Maps columns of `(..., S)` to the space of a network and back."""

    def encode(self, x: Tensor) -> Tensor:
        """Into the normalised space."""
        ...

    def decode(self, z: Tensor) -> Tensor:
        """Back to the original units."""
        ...

    def to(self, device: torch.device | str) -> Normalizer:
        """The same map on another device."""
        ...


@dataclass(frozen=True, eq=False)
class Affine:
    """`z = (x - shift) / scale`, with `(S,)` tensors."""

    shift: Tensor
    scale: Tensor

    def encode(self, x: Tensor) -> Tensor:
        """Into the normalised space."""
        return (x - self.shift) / self.scale

    def decode(self, z: Tensor) -> Tensor:
        """Back to the original units."""
        return z * self.scale + self.shift

    def to(self, device: torch.device | str) -> Affine:
        """The same map on another device."""
        return Affine(self.shift.to(device), self.scale.to(device))


@dataclass(frozen=True, eq=False)
class Cdf:
    """Rank transform of each column to [-1, 1], linear between `Q` quantiles `(Q, S)` (released code)."""

    quantiles: Tensor

    def encode(self, x: Tensor) -> Tensor:
        """Into the normalised space."""
        return self._interpolate(x, self.quantiles, self._ranks(x).expand_as(self.quantiles))

    def decode(self, z: Tensor) -> Tensor:
        """Back to the original units."""
        return self._interpolate(z.clamp(-1, 1), self._ranks(z).expand_as(self.quantiles), self.quantiles)

    def to(self, device: torch.device | str) -> Cdf:
        """The same map on another device."""
        return Cdf(self.quantiles.to(device))

    def _ranks(self, like: Tensor) -> Tensor:
        return torch.linspace(-1, 1, len(self.quantiles), device=like.device)[:, None]

    @staticmethod
    def _interpolate(x: Tensor, knots: Tensor, values: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1]).T.contiguous()
        knots, values = knots.T.contiguous(), values.T.contiguous()
        right = torch.searchsorted(knots, flat).clamp(1, knots.shape[1] - 1)
        x0, x1 = knots.gather(1, right - 1), knots.gather(1, right)
        y0, y1 = values.gather(1, right - 1), values.gather(1, right)
        share = ((flat - x0) / (x1 - x0).clamp(min=1e-12)).clamp(0, 1)
        return (y0 + share * (y1 - y0)).T.reshape(x.shape)


def fit_normalizer(rows: np.ndarray, kind: NormalizerKind = "standard") -> Affine | Cdf:
    """Fit a normaliser to `(rows, S)` data.

    Args:
        rows: Data; statistics are computed in float64.
        kind: `standard` (zero mean, unit variance), `minmax` (to [-1, 1]) or `cdf` (rank, to [-1, 1]).

    Returns:
        A normaliser in float32.
    """
    if kind != "cdf":
        return fit_affine(rows, kind)
    spread = np.quantile(rows, np.linspace(0, 1, _QUANTILES), axis=0)
    # Ties (a constant column) get a tiny slope, so that the map stays invertible.
    spread = spread + np.linspace(0, 1e-6, _QUANTILES)[:, None] * np.maximum(1.0, np.abs(spread).max(0))
    return Cdf(torch.as_tensor(spread, dtype=torch.float32))


def fit_affine(rows: np.ndarray, kind: Literal["standard", "minmax"] = "standard") -> Affine:
    """Fit a linear normaliser to `(rows, S)` data; see `fit_normalizer`."""
    if kind == "minmax":
        low, high = rows.min(0), rows.max(0)
        shift, scale = (low + high) / 2, (high - low) / 2
    else:
        shift, scale = mean_and_std(lambda: blocks(rows))
    # Rounding can leave a constant column a spread of 1e-16: treat it as constant.
    scale = np.where(scale > 1e-8 * np.maximum(1.0, np.abs(shift)), scale, 1.0)
    return Affine(torch.as_tensor(shift, dtype=torch.float32), torch.as_tensor(scale, dtype=torch.float32))


def encode_rows(normalizer: Normalizer, rows: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """`(rows, S)` data in float32 on a device and normalised, without another copy of them all."""
    encoded = torch.empty(rows.shape, dtype=torch.float32, device=device)
    for block, into in zip(blocks(rows), encoded.split(_BLOCK), strict=True):
        into.copy_(normalizer.encode(torch.tensor(block, dtype=torch.float32, device=device)))
    return encoded


def blocks(rows: np.ndarray) -> Iterator[np.ndarray]:
    """Views of some rows each, in order."""
    return (rows[first : first + _BLOCK] for first in range(0, len(rows), _BLOCK))


def mean_and_std(passes: Callable[[], Iterator[np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """`(S,)` mean and standard deviation of rows that come in blocks, in float64, once in each of two passes.

    Sums run from row to row, as NumPy's own over the first axis do: the blocks leave no trace in them.
    """
    count, total = 0, None
    for block in passes():
        count, total = count + len(block), _added(total, block.astype(np.float64, copy=False))
    assert total is not None, "of nothing there is no mean"
    mean, squares = total / count, None
    for block in passes():
        squares = _added(squares, np.square(block - mean))
    assert squares is not None, "both passes are over the same"
    return mean, np.sqrt(squares / count)


def _added(total: np.ndarray | None, rows: np.ndarray) -> np.ndarray:
    """The sum over rows, begun with that of earlier ones."""
    return rows.sum(0) if total is None else np.concatenate([total[None], rows]).sum(0)
