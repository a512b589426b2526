"""Chains of joins, on a corridor that no single trajectory walks."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from linear import scales

from minari_stitch.data.episodes import Episodes
from minari_stitch.diffstitch import chains
from minari_stitch.diffstitch.config import StitchConfig
from minari_stitch.diffstitch.source import Source
from minari_stitch.errors import ConfigError, NothingToStitchError

CONFIG = StitchConfig(pairs="connect", rising=False, hops=8, regions=64, min_bridge=1, max_bridge=3, chunk=12)


def corridor(stretches, limit=None, rewards=None):
    """Trajectories along a line: each from a place to another, a unit a step."""
    parts = []
    for first, last in stretches:
        x = np.arange(first, last + np.sign(last - first), np.sign(last - first), dtype=float)
        states = np.stack([x, 0 * x, 0 * x], 1)
        length = len(x) - 1
        ends = np.arange(length) == length - 1
        paid = np.zeros(length) if rewards is None else np.array([rewards.get(int(place), 0.0) for place in x[1:]])
        parts.append(
            {
                "observations": states,
                "actions": np.zeros((length, 2), np.float32),
                "rewards": paid,
                "terminations": ends & False,
                "truncations": ends,
            }
        )
    data = Episodes.from_list(parts)
    return data, Source(data, scales(data), 0.95, 1, limit)


def drawn(source, config=CONFIG, seed=0):
    joins = chains.draw(source, config, torch.Generator().manual_seed(seed))
    return {name: value.tolist() for name, value in vars(joins).items()}


def by_chain(joins):
    for number in sorted(set(joins["chain"])):
        rows = [b for b, chain in enumerate(joins["chain"]) if chain == number]
        assert rows == list(range(rows[0], rows[-1] + 1))
        yield rows


def walked(source, joins, rows):
    """Steps of a chain until it enters its last trajectory; each join leaves later than the one before entered."""
    episode, step, time = source.episode, source.step, 0
    at = None
    for b in rows:
        head, tail = joins["source"][b], joins["target"][b]
        if at is not None:
            assert episode[head] == episode[at] and step[head] > step[at]
        time += int(step[head] - (0 if at is None else step[at])) + joins["steps"][b] + 1
        at = tail
    return time


def fewest(source, first, region):
    """Steps from a state to a region, four for changing over from one trajectory to another."""
    found = source.regions(CONFIG.regions)
    end = found.region == region
    nothing = source.returns.new_zeros(len(end))
    onward, across = found.ways(
        nothing - 1, end | ~source.inner, nothing.masked_fill(~end, -torch.inf), 1.0, (-4.0, 1.0)
    )
    return -max(onward[first], across[found.region[first]]).item()


SEGMENTS = [(3 * k, 3 * k + 5) for k in range(8)] + [(3 * k + 5, 3 * k) for k in range(8)]


@pytest.mark.parametrize("limit", [None, 30])
def test_chains_lead_where_no_trajectory_leads_in_few_steps(limit):
    data, source = corridor(SEGMENTS, limit)
    far = 0
    for seed in range(20):
        joins = drawn(source, seed=seed)
        assert CONFIG.chunk <= len(joins["source"]) < CONFIG.chunk + CONFIG.hops
        for rows in by_chain(joins):
            assert len(rows) <= CONFIG.hops
            steps, entry = walked(source, joins, rows), joins["target"][rows[-1]]
            assert limit is None or steps < limit
            first = joins["source"][rows[0]] - int(source.step[joins["source"][rows[0]]])
            # As planned, each bridge takes four steps; it may end half as many from the best state of a region.
            planned = steps - sum(joins["steps"][b] + 1 for b in rows) + 4 * len(rows)
            found, good = source.regions(CONFIG.regions), []
            for stop in range(entry + 1, int(source.last[entry]) + 1):
                least, taken = fewest(source, first, found.region[stop]), planned + stop - entry
                assert taken >= least
                if taken <= least + 2 * len(rows) and not found.led[found.region[first], found.region[stop]]:
                    good.append(stop)
            assert good
            far += abs(data.observations[good[0], 0] - data.observations[first, 0]) > 10
        for source_row, target, between in zip(joins["source"], joins["target"], joins["steps"], strict=True):
            assert 1 <= between <= 3
            assert abs(data.observations[source_row, 0] - data.observations[target, 0]) <= 4
    assert far > 20


def test_a_bridge_has_half_as_many_steps_again_as_the_fastest_need():
    data, source = corridor(SEGMENTS)
    joins = drawn(source, dataclasses.replace(CONFIG, regions=6, max_bridge=9))
    x = data.observations[:, 0]
    way = np.abs(x[joins["target"]] - x[joins["source"]])  # a unit a step
    taken = np.array(joins["steps"]) + 1
    assert way.max() > 2 and (taken >= 1.5 * way).all() and (taken <= np.maximum(2, 1.6 * way + 1)).all()


def test_chains_have_no_more_bridges_than_asked_for():
    _, source = corridor(SEGMENTS)
    for hops in (2, 3):
        joins = drawn(source, dataclasses.replace(CONFIG, hops=hops))
        lengths = [len(rows) for rows in by_chain(joins)]
        assert max(lengths) == hops


def test_chains_lead_to_the_highest_return():
    """At the right end is all there is to earn, and each trajectory gets a fifth of the way."""
    data, source = corridor(SEGMENTS, rewards={26: 10.0})
    config = dataclasses.replace(CONFIG, rising=True)
    joins = drawn(source, config)
    for rows in by_chain(joins):
        assert walked(source, joins, rows) > 0
        last = int(source.last[joins["target"][rows[-1]]])
        assert data.observations[last, 0] == 26
        assert (np.diff(data.observations[[joins["target"][b] for b in rows], 0]) > 0).all()


def test_the_same_generator_draws_the_same_chains():
    _, source = corridor(SEGMENTS)
    assert drawn(source) == drawn(source) != drawn(source, seed=1)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)).filter(lambda x: x[0] != x[1]), min_size=2, max_size=8),
    st.integers(0, 50),
    st.booleans(),
)
def test_whatever_the_trajectories_chains_hold_together(stretches, seed, rising):
    _, source = corridor(stretches, 40, rewards={5: 1.0, 9: -1.0})
    try:
        joins = drawn(source, dataclasses.replace(CONFIG, rising=rising), seed)
    except NothingToStitchError as error:
        assert "stitch.hops" in str(error)
        return
    for rows in by_chain(joins):
        assert 1 <= len(rows) <= CONFIG.hops
        assert walked(source, joins, rows) > 0


def test_one_trajectory_that_goes_straight_offers_no_chain():
    _, source = corridor([(0, 9)])
    with pytest.raises(NothingToStitchError, match=r"no chain of up to 8 bridges .* stitch.hops=1"):
        drawn(source)


def test_chains_are_of_pairs_that_connect():
    with pytest.raises(ConfigError, match="hops=3 is not possible with pairs=reach: use pairs=connect"):
        StitchConfig(hops=3)
