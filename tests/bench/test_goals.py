"""Goals in hindsight: against a loop, against their distributions, and what no run may change in another."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import data
from benchmarks.goals import Goals, Hindsight, pick
from minari_stitch.errors import ConfigError

from .naive import stitched_version

FAIR = {"current": 0.2, "trajectory": 0.5, "random": 0.3}


def goals(geometric=True, discount=0.9, **shares):
    return Goals(**(FAIR | shares), geometric=geometric, discount=discount)


def slowly(kind, row, last, random, uniform):
    """One goal, as OGBench's text says it."""
    if uniform[2] < kind.current:
        return row
    if uniform[1] >= kind.trajectory / (1 - kind.current):
        return random
    if kind.geometric:
        distance = 1  # the smallest whose cumulative probability exceeds the number
        while uniform[0] > 1 - kind.discount**distance:
            distance += 1
        return min(row + distance, last)
    return round(min(row + 1, last) * uniform[0] + last * (1 - uniform[0]))


@given(
    st.integers(0, 20),
    st.integers(0, 30),
    st.lists(st.floats(0, 0.998), min_size=3, max_size=3),
    st.booleans(),
)
def test_goals_are_those_of_a_loop(row, ahead, uniform, geometric):
    kind = goals(geometric)
    numbers = [float(np.float32(u)) for u in uniform]
    found = pick(kind, *map(torch.tensor, (row, row + ahead, 99, numbers)))
    near = (max(0.0, numbers[0] - 1e-5), numbers[0] + 1e-5)  # numbers at an edge may be rounded to either side
    wanted = [slowly(kind, row, row + ahead, 99, [u, *numbers[1:]]) for u in near]
    assert min(wanted) <= int(found) <= max(wanted)


def frequencies(kind, row, last, rows, n=200_000):
    """Shares of each row among goals."""
    g = torch.Generator().manual_seed(0)
    uniform, random = torch.rand(3, n, generator=g), torch.randint(rows, (n,), generator=g)
    chosen = pick(kind, torch.full((n,), row), torch.full((n,), last), random, uniform)
    return np.bincount(chosen.numpy(), minlength=rows) / n


def test_distances_are_geometric_and_cut_at_the_end():
    wanted = np.full(12, 0.3 / 12)
    steps = np.arange(1, 5)
    wanted[3:7] += 0.5 * 0.9 ** (steps - 1) * 0.1
    wanted[7] += 0.5 * 0.9**4
    wanted[2] += 0.2
    np.testing.assert_allclose(frequencies(goals(), 2, 7, 12), wanted, atol=0.005)


def test_later_states_are_uniform_and_a_last_state_is_its_own_goal():
    only = goals(False, current=0, trajectory=1, random=0)
    found = frequencies(only, 2, 7, 12)
    # Rounding gives the two ends half of what the others have, there as here.
    np.testing.assert_allclose(found[3:8], np.array([0.5, 1, 1, 1, 0.5]) / 4, atol=0.005)
    assert frequencies(only, 7, 7, 12)[7] == 1
    assert frequencies(goals(True, current=1, trajectory=0, random=0), 2, 7, 12)[2] == 1


@pytest.mark.parametrize("wrong", [{"current": 0.9}, {"current": -0.2, "trajectory": 0.9}, {"discount": 1.0}])
def test_what_are_no_probabilities_is_refused(wrong):
    with pytest.raises(ConfigError, match="not possible"):
        goals(**wrong)


def table(write_dataset, make_episodes):
    episodes = make_episodes(5, 6)
    write_dataset(episodes=episodes)
    return data.load("test/walk-v0", stitched_version("test/walk-v0", episodes))


def hindsight(table, ratios, seeds, size=8):
    kinds = {"value": goals(), "actor": goals(False, current=0, trajectory=0.5, random=0.5)}
    return Hindsight(table, ratios, [torch.Generator().manual_seed(seed) for seed in seeds], size, **kinds)


def test_batches_hold_what_the_rows_say(write_dataset, make_episodes):
    found = table(write_dataset, make_episodes)
    sampler = hindsight(found, [(1, 0), (1, 1)], (0, 1))
    rows = sampler.draw(50)
    assert rows.shape == (50, 2, 3, 8)
    states = torch.tensor(found.episodes.observations[found.episodes.step_state])  # as they were recorded
    for at in rows[:5]:
        batch = sampler.gather(at)
        row, value, actor = at.unbind(1)
        for name, wanted in (("states", row), ("value_goals", value), ("actor_goals", actor)):
            torch.testing.assert_close(batch[name], states[wanted])
        torch.testing.assert_close(batch["actions"], found.actions[row])
        goes_on = row < found.offsets[found.step_episode[row] + 1] - 1
        torch.testing.assert_close(batch["next_states"][goes_on], states[row[goes_on] + 1])
        torch.testing.assert_close(batch["rewards"], torch.where(row == value, 0.0, -1.0))
        torch.testing.assert_close(batch["continues"], torch.where(row == value, 0.0, 1.0))
    assert (rows[:, 0] < found.original_steps).all()  # of a run on the original data, goals too
    assert (rows[:, 1, 0] >= found.original_steps).float().mean() == 0.5
    assert 0.3 < (rows[:, 1, 2] >= found.original_steps).float().mean() < 0.7


def test_a_run_draws_the_same_whatever_runs_beside_it(write_dataset, make_episodes):
    found = table(write_dataset, make_episodes)
    together = hindsight(found, [(1, 0), (1, 1)], (3, 4)).draw(20)
    for k, (ratio, seed) in enumerate((((1, 0), 3), ((1, 1), 4))):
        torch.testing.assert_close(hindsight(found, [ratio], (seed,)).draw(20)[:, 0], together[:, k])
