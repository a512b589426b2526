"""Least squares along paths: a Gauss-Newton step is a block-tridiagonal system, solved block by block.

A path is a sequence of points `(state, control)`, each of which has residuals of its own, and the first `S` of them
also say how far the next point's state is from where this one leads. So the normal equations couple neighbours alone,
and elimination from one end to the other costs as much a point as the path is long or short: all paths take it at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Paths:
    """Points of many paths, one path after the other.

    Attributes:
        path: `(N,)` which path a point is of, from 0 on.
        time: `(N,)` its place there, from 0 on.
        count: P, of the paths.
        width: S, of the states.
        low: `(D,)` least values of a point.
        high: `(D,)` greatest values.
        drift: Weight of the square of the sum of a path's residuals beside the sum of their squares.
    """

    path: Tensor
    time: Tensor
    count: int
    width: int
    low: Tensor
    high: Tensor
    drift: float

    def total(self, residuals: Tensor) -> Tensor:
        """What `step` lowers, `(P,)`: the sum of squares of `(N, R)`, and `drift` times the square of their sum."""
        own = residuals.square().sum(-1, keepdim=True)
        return self._sum(own)[:, 0] + self.drift * self._sum(residuals[:, : self.width]).square().sum(-1)

    def step(self, points: Tensor, residuals: Tensor, slopes: Tensor, damping: Tensor) -> Tensor:
        """The points after a damped Gauss-Newton step (Levenberg-Marquardt), within their bounds.

        The state of a path's first point stays, and so does what lies on a bound that it is pushed against.

        Args:
            points: `(N, D)`, the state first.
            residuals: `(N, R)`; the first `S` are what the point leads to minus the state of the next one.
            slopes: `(N, R, D)` derivatives of the residuals by the point itself.
            damping: `(P,)`, added to the diagonal.
        """
        width, joined = self.width, (self.path[1:] == self.path[:-1])[:, None]
        along = slopes[:, :width].mT.clone()  # of the sum of residuals
        along[1:].diagonal(dim1=-2, dim2=-1).sub_(joined.to(points.dtype))
        gradient = (slopes.mT @ residuals[..., None])[..., 0]
        gradient[1:, :width] -= joined * residuals[:-1, :width]
        gradient += self.drift * (along @ self._sum(residuals[:, :width])[self.path][..., None])[..., 0]
        first = (self.time == 0)[:, None] & (torch.arange(points.shape[1], device=points.device) < width)
        stays = first | ((points <= self.low) & (gradient > 0)) | ((points >= self.high) & (gradient < 0))
        free = (~stays).to(points.dtype)
        blocks = slopes.mT @ slopes * free[:, :, None] * free[:, None]
        diagonal = torch.where(stays, 1.0, damping[self.path][:, None])
        diagonal[1:, :width] += joined * free[1:, :width]
        blocks.diagonal(dim1=-2, dim2=-1).add_(diagonal)
        coupling = torch.zeros_like(along)
        coupling[:-1] = -slopes[:-1, :width].mT * free[:-1, :, None] * joined[..., None] * free[1:, None, :width]
        right = torch.cat([-gradient[..., None], along], -1) * free[..., None]
        at, shape = (self.path, self.time), (self.count, int(self.time.max()) + 1, points.shape[-1])
        padding = torch.eye(shape[2], dtype=points.dtype, device=points.device).repeat(*shape[:2], 1, 1)
        moved = solve(
            padding.index_put(at, blocks),
            points.new_zeros(*shape, width).index_put(at, coupling),
            points.new_zeros(*shape, 1 + width).index_put(at, right),
        )[at]
        # The square of a sum joins all points: a matrix of rank S, which Woodbury's identity adds after the solution.
        inner = self.drift * self._sum(right[..., 1:].mT @ moved)  # (P, S, 1 + S)
        inner[..., 1:].diagonal(dim1=-2, dim2=-1).add_(1)
        share = torch.linalg.solve_ex(inner[..., 1:], inner[..., :1]).result[self.path]
        moved = (moved[..., 0] - (moved[..., 1:] @ share)[..., 0]) * free
        return torch.where(first, points, (points + moved).clamp(self.low, self.high))

    def _sum(self, values: Tensor) -> Tensor:
        """Over each path."""
        return values.new_zeros(self.count, *values.shape[1:]).index_add(0, self.path, values)


def solve(blocks: Tensor, coupling: Tensor, right: Tensor) -> Tensor:
    """Solve symmetric block-tridiagonal systems; of those that are not positive definite the solution is worth nothing.

    Args:
        blocks: `(P, T, D, D)` diagonal blocks.
        coupling: `(P, T, D, S)` the block right of each, of which only the first `S` columns are not 0; the last is not
            read.
        right: `(P, T, D, K)`.

    Returns:
        `(P, T, D, K)`.
    """
    width, factors, reduced = coupling.shape[-1], [], []
    block, rest = blocks[:, 0], right[:, 0]
    for t in range(blocks.shape[1]):
        factor = torch.linalg.cholesky_ex(block).L
        solved = torch.cholesky_solve(torch.cat([coupling[:, t], rest], -1), factor)
        factors.append(solved[..., :width])
        reduced.append(solved[..., width:])
        if t + 1 < blocks.shape[1]:
            less = coupling[:, t].mT @ solved
            block, rest = blocks[:, t + 1].clone(), right[:, t + 1].clone()
            block[:, :width, :width] -= less[..., :width]
            rest[:, :width] -= less[..., width:]
    found = [reduced[-1]]
    for solved, rest in zip(factors[-2::-1], reduced[-2::-1], strict=True):
        found.append(rest - solved @ found[-1][:, :width])
    return torch.stack(found[::-1], 1)
