import numpy as np
import pytest
import torch
import toy
from hypothesis import given, settings
from hypothesis import strategies as st

from minari_stitch.data import minari_io
from minari_stitch.diffstitch.regions import Regions


def regions_of(places, count=8):
    """Regions of trajectories through places on a line."""
    z = torch.tensor(np.concatenate(places), dtype=torch.float32)[:, None]
    episode = torch.repeat_interleave(torch.arange(len(places)), torch.tensor([len(p) for p in places]))
    step = torch.cat([torch.arange(len(p)) for p in places])
    return Regions(z, episode, step, count, seed=0), np.concatenate(places), episode.numpy(), step.numpy()


walks = st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=6), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(walks)
def test_what_a_target_opens_matches_a_loop(places):
    """Chains of trajectories count, unless they lead everywhere."""
    found, place, episode, step = regions_of(places)
    ahead = [set(place[(episode == e) & (step >= t)]) for e, t in zip(episode, step, strict=True)]
    single = {p: {p}.union(*(ahead[i] for i in range(len(place)) if place[i] == p)) for p in set(place)}
    chained = single
    for _ in single:
        chained = {p: set().union(*(chained[q] for q in chained[p])) for p in chained}
    reached = single if all(len(ends) == len(single) for ends in chained.values()) else chained
    rows = torch.arange(len(place))
    opened = found.opened(rows, rows)
    for s in range(len(place)):
        for t in range(len(place)):
            assert opened[s, t] == len(ahead[t] - reached[place[s]])


@settings(max_examples=60, deadline=None)
@given(walks, st.integers(0, 1000))
def test_what_chains_of_trajectories_earn_matches_value_iteration(places, seed):
    """On a line of places, moving from one to the next of a trajectory earns what it earned there."""
    found, place, episode, step = regions_of(places)
    random = np.random.default_rng(seed)
    rewards = [[random.random() for _ in walk[1:]] for walk in places]
    ends = np.concatenate([[False] * (len(walk) - 1) + [random.random() < 0.5] for walk in places])
    returns = np.concatenate(
        [[sum(0.9**k * r for k, r in enumerate(w[t:])) for t in range(len(w) + 1)] for w in rewards]
    )
    value = dict.fromkeys(set(place), -np.inf)
    for i in np.flatnonzero(~ends):
        value[place[i]] = max(value[place[i]], returns[i])
    for _ in range(400):
        for i in np.flatnonzero(~ends[:-1] & (episode[1:] == episode[:-1])):
            following = returns[i + 1] if ends[i + 1] else value[place[i + 1]]
            value[place[i]] = max(value[place[i]], rewards[episode[i]][step[i]] + 0.9 * following)
    earned = found.earned(torch.tensor(returns, dtype=torch.float64), torch.tensor(ends), 0.9)
    for i in range(len(place)):
        assert earned[i] == pytest.approx(returns[i] if ends[i] else value[place[i]], rel=0.15, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(walks, st.integers(0, 1000), st.integers(1, 4))
def test_the_fewest_steps_to_a_place_match_a_search(places, seed, toll):
    """Along a trajectory a step each, from one trajectory to another at the same place for a toll."""
    found, place, episode, _ = regions_of(places)
    end = place == np.random.default_rng(seed).choice(place)
    steps = np.where(end, 0.0, np.inf)
    for _ in range(len(place) * 2):
        for i in np.flatnonzero(~end):
            onward = 1 + steps[i + 1] if i + 1 < len(place) and episode[i + 1] == episode[i] else np.inf
            steps[i] = min(steps[i], onward, toll + steps[place == place[i]].min())
    nothing = torch.zeros(len(place), dtype=torch.float64)
    reached = torch.tensor(end)
    worth = nothing.masked_fill(~reached, -torch.inf)
    onward, across = found.ways(nothing - 1, reached, worth, 1.0, (-toll, 1.0))
    best = torch.where(reached, worth, torch.maximum(onward, across[found.region]))
    np.testing.assert_array_equal(-best.numpy(), steps)
    for i in np.flatnonzero(~end):
        later = i + 1 < len(place) and episode[i + 1] == episode[i]
        assert -onward[i] == (1 + steps[i + 1] if later else np.inf)


def test_regions_are_as_many_as_asked_for_and_the_same_for_the_same_seed():
    places = [np.linspace(0, 1, 300), np.linspace(5, 6, 300)]
    one, again = (regions_of(places, count=6)[0] for _ in range(2))
    assert len(one.joined) == 6 and torch.equal(one.region, again.region)
    left, right = one.region[:300].unique(), one.region[300:].unique()
    assert not set(left.tolist()) & set(right.tolist())
    assert one.joined[left[:, None], left].any() and not one.joined[left[:, None], right].any()


@pytest.mark.parametrize("pairs", ["reach", "connect"])
def test_without_rewards_pairs_are_those_that_connect(pairs):
    """Walks on either side of a gulf that none crosses."""
    parts = toy.walks()
    for number, part in enumerate(parts):
        part["observations"][:, 0] += 100 * (number % 2)
        part["rewards"] *= 0
    toy.write(parts)
    done = toy.invoke(*toy.tiny(toy.ID, "--delta", 1e9, "--pairs", pairs, "--steps", 50, "--set", "stitch.regions=8"))
    assert (done.exit_code == 0) == (pairs == "connect"), done.output
    if pairs == "reach":
        assert "stitch.pairs=connect" in " ".join(done.output.split())
        return
    made = minari_io.read(toy.ID.replace("walk-", "walk-stitched-"), keep_infos=True).episodes
    source = minari_io.read(toy.ID).episodes
    z = torch.tensor((source.observations - source.observations.mean(0)) / source.observations.std(0))
    episode = torch.tensor(np.repeat(np.arange(len(source)), source.lengths + 1))
    offsets = torch.tensor(source.state_offsets)
    regions = Regions(z.float(), episode, torch.arange(len(z)) - offsets[episode], 8, seed=0)
    joined = 0
    for about in made.metadata:
        start, end = (offsets[about[f"{side}_episode"]] + about[f"{side}_step"] for side in ("source", "target"))
        assert regions.opened(start[None], end[None]).item() > 0
        joined += (about["source_episode"] + about["target_episode"]) % 2
    assert joined > 0


def test_where_rewards_tell_pairs_add_to_what_chains_earn():
    """Rewards beyond the gulf alone: every bridge leads there."""
    parts = toy.walks()
    for number, part in enumerate(parts):
        part["observations"][:, 0] += 100 * (number % 2)
        part["rewards"] = np.full_like(part["rewards"], float(number % 2))
    toy.write(parts)
    settings = ("stitch.regions=8", "stitch.nearest=0.5", "qualify.support=1e9")
    words = [word for setting in settings for word in ("--set", setting)]
    done = toy.invoke(*toy.tiny(toy.ID, "--delta", 1e9, "--pairs", "connect", "--steps", 50, *words))
    assert done.exit_code == 0, done.output
    made = minari_io.read(toy.ID.replace("walk-", "walk-stitched-"), keep_infos=True).episodes
    assert len(made) > 0
    assert all(about["source_episode"] % 2 == 0 and about["target_episode"] % 2 == 1 for about in made.metadata)
