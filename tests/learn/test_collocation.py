"""Gauss-Newton steps along paths against dense linear algebra."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minari_stitch.learn.collocation import Paths, solve

WIDTH, SIZE, ROWS = 2, 3, 5
FAR = torch.full((SIZE,), 1e6)


def paths(lengths, drift=0.0, low=-FAR, high=FAR):
    return Paths(
        path=torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)),
        time=torch.cat([torch.arange(length) for length in lengths]),
        count=len(lengths),
        width=WIDTH,
        low=low,
        high=high,
        drift=drift,
    )


def draws(seed, *shapes):
    rng = np.random.default_rng(seed)
    return [torch.tensor(rng.normal(size=shape)) for shape in shapes]


def dense(slopes, length):
    """Derivatives of all residuals of one path by all of its points: `(T R, T D)`."""
    full = torch.zeros(length, ROWS, length, SIZE, dtype=torch.float64)
    for t in range(length):
        full[t, :, t] = slopes[t]
        if t + 1 < length:
            full[t, :WIDTH, t + 1, :WIDTH] -= torch.eye(WIDTH)
    return full


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 6), min_size=1, max_size=4), st.sampled_from([0.0, 0.3, 7.0]))
def test_a_step_solves_the_normal_equations_of_each_path(seed, lengths, drift):
    count = sum(lengths)
    points, residuals, slopes, damping = draws(seed, (count, SIZE), (count, ROWS), (count, ROWS, SIZE), len(lengths))
    damping = damping.exp()
    moved = paths(lengths, drift).step(points, residuals, slopes, damping) - points
    at = 0
    for path, length in enumerate(lengths):
        own = slice(at, at + length)
        full = dense(slopes[own], length)
        summed = full[:, :WIDTH].sum(0).reshape(WIDTH, -1) * drift**0.5
        jacobian = torch.cat([full.reshape(length * ROWS, -1), summed])[:, WIDTH:]  # the first state stays
        right = torch.cat([residuals[own].flatten(), residuals[own, :WIDTH].sum(0) * drift**0.5])
        system = jacobian.T @ jacobian + damping[path] * torch.eye(jacobian.shape[1])
        expected = -torch.linalg.solve(system, jacobian.T @ right)
        torch.testing.assert_close(moved[own].flatten()[WIDTH:], expected, rtol=1e-6, atol=1e-8)
        assert (moved[own][0, :WIDTH] == 0).all()
        at += length


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 5), min_size=1, max_size=3))
def test_what_is_pushed_against_a_bound_stays_and_the_rest_moves_as_without_it(seed, lengths):
    """In a world of one dimension a point, where the bound cuts off nothing else."""
    count = sum(lengths)
    points, residuals, slopes = draws(seed, (count, SIZE), (count, ROWS), (count, ROWS, SIZE))
    damping = torch.ones(len(lengths), dtype=torch.float64)
    free = paths(lengths)
    control = torch.tensor([False, False, True])
    gradient = (slopes.mT @ residuals[..., None])[..., 0]
    low = torch.where(control, points.min(0).values.min() - 1, -FAR)
    points = torch.where(control & (gradient > 0), low, points)  # on the bound, and pushed down
    bounded = dataclasses.replace(free, low=low)
    after = bounded.step(points, residuals, slopes, damping)
    held = gradient[:, 2] > 0
    assert torch.equal(after[held, 2], points[held, 2]) and (after >= low).all()
    without = torch.where(held[:, None, None] & control, 0.0, slopes)  # as if those controls did nothing
    torch.testing.assert_close(after, free.step(points, residuals, without, damping), rtol=1e-6, atol=1e-8)


def test_the_first_state_stays_wherever_it_is():
    points, residuals, slopes = draws(3, (4, SIZE), (4, ROWS), (4, ROWS, SIZE))
    bound = torch.full((SIZE,), 0.1)
    after = paths([3, 1], low=-bound, high=bound).step(10 * points, residuals, slopes, torch.ones(2).double())
    assert torch.equal(after[[0, 3], :WIDTH], 10 * points[[0, 3], :WIDTH])
    assert (after[1:3].abs() <= bound).all() and (after[[0, 3], WIDTH:].abs() <= bound[WIDTH:]).all()


def test_steps_on_linear_paths_arrive_at_once():
    lengths = [4, 6]
    (points, slopes) = draws(0, (10, SIZE), (10, ROWS, SIZE))
    world = paths(lengths, drift=0.5)
    (shift,) = draws(1, (10, ROWS))

    def residuals(points):
        following = torch.where((world.time == torch.tensor(lengths)[world.path] - 1)[:, None], 0.0, points.roll(-1, 0))
        value = (slopes @ points[..., None])[..., 0] + shift
        value[:, :WIDTH] -= following[:, :WIDTH]
        return value

    nothing = torch.full((2,), 1e-9, dtype=torch.float64)
    once = world.step(points, residuals(points), slopes, nothing)
    twice = world.step(once, residuals(once), slopes, nothing)
    torch.testing.assert_close(once, twice, rtol=1e-5, atol=1e-6)
    assert (world.total(residuals(once)) < world.total(residuals(points))).all()
    # The least: no random neighbour that leaves the first states is lower.
    for seed in range(20):
        (aside,) = draws(seed, (10, SIZE))
        aside[world.time == 0, :WIDTH] = 0
        assert (world.total(residuals(once + 0.1 * aside)) >= world.total(residuals(once))).all()


def test_the_total_counts_each_error_and_their_sum():
    world = paths([2, 1], drift=0.5)
    residuals = torch.tensor([[1.0, 0, 0, 0, 2], [3, -1, 0, 0, 0], [0, 2, 1, 0, 0]])
    assert world.total(residuals).tolist() == pytest.approx([1 + 4 + 9 + 1 + 0.5 * (16 + 1), 4 + 1 + 0.5 * 4])


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 4))
def test_block_tridiagonal_systems_against_a_dense_solution(seed, length, columns):
    root, right = draws(seed, (3, length * SIZE, length * SIZE), (3, length, SIZE, columns))
    inside = torch.zeros(length, SIZE, length, SIZE, dtype=torch.bool)
    for t in range(length):
        inside[t, :, t] = True
        if t + 1 < length:
            inside[t, :, t + 1, :WIDTH] = inside[t + 1, :WIDTH, t] = True
    dominant = (root + root.mT) * inside.reshape(length * SIZE, -1) + 40 * torch.eye(length * SIZE)
    grid = dominant.reshape(3, length, SIZE, length, SIZE)
    blocks = torch.stack([grid[:, t, :, t] for t in range(length)], 1)
    coupling = torch.stack([grid[:, t, :, min(t + 1, length - 1), :WIDTH] for t in range(length)], 1)
    expected = torch.linalg.solve(dominant, right.flatten(1, 2)).reshape(right.shape)
    torch.testing.assert_close(solve(blocks, coupling, right), expected)
