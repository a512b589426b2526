import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from linear import TINY, episodes, exact, next_state, reward

from minari_stitch.diffstitch import dream, stitch
from minari_stitch.diffstitch.config import StitchConfig
from minari_stitch.diffstitch.source import Source
from minari_stitch.diffstitch.stitch import (
    Bridges,
    Candidates,
    Pairs,
    choose_pairs,
    estimate_steps,
    judge,
    stitch_states,
    wrap_up,
)

DISCOUNT = 0.9
LENGTHS = (14, 9, 20, 12, 6, 17)
CONFIG = StitchConfig(min_bridge=2, max_bridge=7, sampler_steps=4, pool=10, chunk=12, discount=DISCOUNT, repair_steps=5)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def world(limit=None, model_config=TINY, offsets=(0.0, 0.0, 0.0, 0.0), lengths=LENGTHS):
    data = episodes(lengths)
    models = exact(data, model_config, offsets)
    return data, models, Source(data, models.scales, DISCOUNT, model_config.diffusion.context, limit)


def with_diffusion(**kwargs):
    return dataclasses.replace(TINY, diffusion=dataclasses.replace(TINY.diffusion, **kwargs))


def pairs_of(source, count=30, seed=0, longest=7):
    """Any rows whatever, with any number of steps; the ends of episodes are among the targets."""
    draw = [torch.randint(len(source.z), (count,), generator=seeded(seed + i)) for i in range(2)]
    steps = torch.randint(0, longest + 1, (count,), generator=seeded(seed + 2))
    return Pairs(
        source=draw[0], target=draw[1], steps=steps, similarity=torch.ones(count), reachable=torch.ones(count) > 0
    )


# Pairs.


def test_paper_pairs_are_random_low_with_random_high():
    _, _, source = world()
    config = dataclasses.replace(CONFIG, pairs="paper", source_fraction=0.4, target_fraction=0.3)
    chosen = choose_pairs(source, config, 2000, seeded())
    assert chosen.source.shape == (2000,) and chosen.targets.shape == (2000, 1)
    assert set(chosen.source.tolist()) == set(source.starts(config).tolist())
    assert set(chosen.targets[:, 0].tolist()) == set(source.targets(config).tolist())
    assert source.returns[source.starts(config)].max() < source.returns[source.targets(config)].max()
    assert abs(np.corrcoef(chosen.source, chosen.targets[:, 0])[0, 1]) < 0.1


def test_reference_pairs_have_a_pool_for_each_high_source():
    _, _, source = world()
    config = dataclasses.replace(CONFIG, pairs="reference", source_fraction=0.2, target_fraction=0.3)
    chosen = choose_pairs(source, config, 50, seeded())
    assert chosen.targets.shape == (50, 10)
    assert not torch.equal(chosen.targets[0], chosen.targets[1])
    starts = set(source.starts(config).tolist())
    assert set(chosen.source.tolist()) <= starts
    others = set(source.starts(dataclasses.replace(config, source_fraction=1.0)).tolist()) - starts
    assert min(source.returns[list(starts)]) >= max(source.returns[list(others)])
    assert set(chosen.targets.flatten().tolist()) <= set(source.targets(config).tolist())


def test_reach_pairs_share_one_pool():
    _, _, source = world()
    for pool in (10, 10_000):
        config = dataclasses.replace(CONFIG, pool=pool)
        chosen = choose_pairs(source, config, 50, seeded())
        assert chosen.targets.shape == (1, min(pool, len(source.targets(config))))


@pytest.mark.parametrize("pairs", ["reach", "paper", "reference", "connect"])
def test_the_choice_depends_on_the_generator_alone(pairs):
    _, _, source = world()
    config = dataclasses.replace(CONFIG, pairs=pairs)
    one, same, other = (choose_pairs(source, config, 40, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(one.source, same.source) and torch.equal(one.targets, same.targets)
    assert not torch.equal(one.source, other.source) and not torch.equal(one.targets, other.targets)


def test_the_nearest_pairs_are_kept_in_order():
    every = torch.arange(4)
    pairs = Pairs(
        source=every,
        target=every,
        steps=every,
        similarity=torch.tensor([0.1, 0.9, 0.5, 1.0]),
        reachable=torch.tensor([True, True, True, False]),
    )
    assert pairs.nearest(2).source.tolist() == [1, 2] and pairs.nearest(4).source.tolist() == [0, 1, 2, 3]


# Module 1.


@pytest.fixture
def dreaming(monkeypatch):
    """Dreams that are known: states near those of the dataset."""

    def stub(models, source, start, target, steps, config, generator):
        assert target is None
        rows = torch.randint(len(source.z), (len(start), 16), generator=generator)
        stub.dream = source.z[rows] + 0.3 * torch.randn(len(start), 16, 3, generator=generator)
        return stub.dream

    monkeypatch.setattr(stitch, "generate", stub)
    return stub


def similarity_of(config, a, b):
    if config.similarity == "cosine":
        return (a @ b / (np.linalg.norm(a) * np.linalg.norm(b))).item()
    return 1 / (1 + np.linalg.norm(a - b))


@pytest.mark.parametrize("similarity", ["euclidean", "cosine"])
@pytest.mark.parametrize("limit", [None, 14])
@pytest.mark.parametrize("floor", [None, 0.62])
def test_steps_match_a_loop_over_dream_and_targets(dreaming, similarity, limit, floor):
    _, models, source = world(limit)
    config = dataclasses.replace(CONFIG, similarity=similarity, min_similarity=floor, source_fraction=1.0)
    candidates = choose_pairs(source, config, 60, seeded(3))
    pairs = estimate_steps(models, source, candidates, config, seeded(4))
    dream = dreaming.dream.double().numpy()
    pool, reached = candidates.targets[0].tolist(), 0
    for b in range(60):
        best = (-np.inf, None, None)
        start = candidates.source[b]
        for target in pool:
            if source.episode[target] == source.episode[start] or source.returns[target] <= source.returns[start]:
                continue
            for n in range(2, 8):
                # n generated states, n + 1 transitions, and a real step after them.
                if limit is not None and source.step[start] + n + 2 > limit:
                    continue
                value = similarity_of(config, dream[b, n + 1], source.z[target].double().numpy())
                if value > best[0]:
                    best = (value, target, n)
        reachable = best[0] > -np.inf and (floor is None or best[0] >= floor)
        assert pairs.reachable[b] == reachable
        if reachable:
            reached += 1
            assert pairs.similarity[b].item() == pytest.approx(best[0], abs=1e-5)
            assert (pairs.target[b], pairs.steps[b]) == best[1:]
        assert pairs.source[b] == start and 2 <= pairs.steps[b] <= 7
    assert 0 < reached < 60 or floor is None


@pytest.mark.parametrize("pairs", ["reach", "reference"])
def test_similarities_in_blocks_are_those_of_one_product(dreaming, pairs, monkeypatch):
    _, models, source = world()
    config = dataclasses.replace(CONFIG, pairs=pairs, source_fraction=1.0)
    candidates = choose_pairs(source, config, 60, seeded(3))
    whole = estimate_steps(models, source, candidates, config, seeded(4))
    monkeypatch.setattr(dream, "_BLOCK", 7 * 6 * candidates.targets.shape[1])
    blocks = estimate_steps(models, source, candidates, config, seeded(4))
    torch.testing.assert_close(whole.similarity, blocks.similarity, rtol=1e-5, atol=1e-6)  # other sizes of a product
    same = (whole.target == blocks.target) & (whole.steps == blocks.steps)
    assert same.float().mean() > 0.95 and torch.equal(whole.reachable, blocks.reachable)


def test_a_shared_pool_is_never_copied(dreaming, monkeypatch):
    _, models, source = world()
    candidates = choose_pairs(source, dataclasses.replace(CONFIG, pool=10_000), 60, seeded(3))
    seen = []
    closest = stitch.closest
    monkeypatch.setattr(stitch, "closest", lambda *args: seen.append(args[2].shape) or closest(*args))
    estimate_steps(models, source, candidates, CONFIG, seeded(4))
    assert seen == [(1, candidates.targets.shape[1], 3)]


def test_reference_takes_any_target_that_is_similar_enough(dreaming):
    _, models, source = world()
    config = dataclasses.replace(CONFIG, pairs="reference", min_similarity=0.5, source_fraction=1.0)
    candidates = choose_pairs(source, config, 100, seeded(3))
    pairs = estimate_steps(models, source, candidates, config, seeded(4))
    dream, taken_best = dreaming.dream.double().numpy(), []
    for b in range(100):
        values = {}
        for target in candidates.targets[b].tolist():
            each = [similarity_of(config, dream[b, n + 1], source.z[target].double().numpy()) for n in range(2, 8)]
            values[target] = (max(each), 2 + int(np.argmax(each)))
        enough = {target: value for target, value in values.items() if value[0] >= 0.5}
        assert pairs.reachable[b] == bool(enough)
        if enough:
            value, n = enough[int(pairs.target[b])]
            assert pairs.similarity[b].item() == pytest.approx(value, abs=1e-5) and pairs.steps[b] == n
            taken_best.append(value == max(enough.values())[0])
    assert 0 < sum(taken_best) < len(taken_best)


def test_a_fixed_length_needs_no_dream(monkeypatch):
    monkeypatch.setattr(stitch, "generate", None)
    _, models, source = world()
    config = dataclasses.replace(CONFIG, fixed_steps=5)
    candidates = choose_pairs(source, config, 40, seeded())
    pairs = estimate_steps(models, source, candidates, config, seeded())
    assert (pairs.steps == 5).all() and pairs.reachable.any()
    for b in pairs.reachable.nonzero().flatten().tolist():
        start, z = candidates.source[b], source.z
        distances = {
            target: ((z[target] - z[start]) / source.pace(6)).norm().item()
            for target in candidates.targets[0].tolist()
            if source.may_follow(start[None], torch.tensor([target]))
        }
        assert pairs.target[b].item() == min(distances, key=distances.__getitem__)


@given(
    heads=st.lists(st.integers(0, 3), min_size=1, max_size=6),
    tails=st.lists(st.integers(0, 3), min_size=1, max_size=6),
    count=st.integers(1, 8),
    seed=st.integers(0, 99),
)
def test_spread_pairs_share_no_trajectory_while_there_are_others(heads, tails, count, seed):
    shape = len(heads), len(tails)
    similarity = torch.randperm(shape[0] * shape[1], generator=seeded(seed)).float().reshape(shape)
    similarity[similarity < 3] = -torch.inf  # closed
    count = min(count, similarity.numel())
    rows, columns = dream.spread(similarity, torch.tensor(heads), torch.tensor(tails), count)
    cells = [(i, j) for i in range(shape[0]) for j in range(shape[1]) if similarity[i, j] > -torch.inf]
    cells.sort(key=lambda cell: -similarity[cell])
    expected, open_ = [], cells
    while cells and len(expected) < count:
        open_ = open_ or cells
        i, j = open_[0]
        expected.append((i, j))
        cells.remove((i, j))
        open_ = [(a, b) for a, b in open_ if heads[a] != heads[i] and tails[b] != tails[j]]
    assert list(zip(rows.tolist(), columns.tolist(), strict=True))[: len(expected)] == expected
    assert len(rows) == count and (similarity[rows, columns][len(expected) :] == -torch.inf).all()


def test_pairs_that_are_spread_fill_a_chunk_with_other_trajectories(dreaming):
    _, models, source = world()
    config = dataclasses.replace(CONFIG, source_fraction=1.0, target_fraction=1.0, chunk=3, pool=200)
    for spread, distinct in ((False, False), (True, True)):
        settings = dataclasses.replace(config, spread=spread)
        pairs = estimate_steps(models, source, choose_pairs(source, config, 60, seeded(3)), settings, seeded(4))
        kept = pairs.nearest(3)
        ends = [len(source.episode[rows].unique()) for rows in (kept.source, kept.target)]
        assert kept.reachable.all() and (ends == [3, 3]) == distinct


def test_a_pair_without_an_open_target_is_unreachable(dreaming):
    _, models, source = world()
    top = source.returns.argmax()
    rows = torch.arange(len(source.z))
    candidates = Candidates(source=top[None], targets=rows[None])
    assert not estimate_steps(models, source, candidates, CONFIG, seeded()).reachable.any()


def test_every_reachable_pair_fits_in_the_time_limit():
    for limit in (8, 11, 16, 21):
        _, models, source = world(limit)
        config = dataclasses.replace(CONFIG, source_fraction=1.0)
        pairs = estimate_steps(models, source, choose_pairs(source, config, 200, seeded()), config, seeded())
        assert pairs.reachable.any()
        total = source.step[pairs.source] + pairs.steps + 1
        assert (total[pairs.reachable] + 1 <= limit).all()


# The window that the diffusion model fills.


class Spy:
    """Replaces the sampler: keeps what was asked, and fills hidden positions with their index."""

    def __call__(self, predict, given, known, schedule, **kwargs):
        self.given, self.known, self.kwargs, self.predict = given, known, kwargs, predict
        position = torch.arange(given.shape[1], dtype=torch.float32)[None, :, None].expand_as(given)
        return torch.where(known[..., None], given, position)


@pytest.mark.parametrize("context", [1, 3])
@pytest.mark.parametrize("dreamt", [False, True])
def test_windows_show_the_source_then_the_target(monkeypatch, context, dreamt):
    monkeypatch.setattr(dream, "draw_windows", spy := Spy())
    data, models, source = world(model_config=with_diffusion(context=context))
    pairs = pairs_of(source)
    target = None if dreamt else pairs.target
    keep = source.step[pairs.source] >= context - 1
    window = stitch.generate(models, source, pairs.source, target, pairs.steps, CONFIG, seeded())
    assert window.shape == (30, 16 - context + 1, 3)
    for b in keep.nonzero().flatten().tolist():
        start, n = pairs.source[b], int(pairs.steps[b])
        for i in range(16):
            row = None
            if i < context:
                row = start - context + 1 + i
            elif not dreamt and i >= context + n:
                row = pairs.target[b] + i - context - n
                row = row if row <= source.last[pairs.target[b]] else None
            assert spy.known[b, i] == (row is not None)
            expected = torch.zeros(3) if row is None else source.z[row]
            assert torch.equal(spy.given[b, i], expected)
        assert torch.equal(window[b, 0], source.z[start])
    assert spy.kwargs["steps"] == 4 and spy.kwargs["eta"] == 0.0 and spy.kwargs["temperature"] == 1.0
    assert torch.equal(torch.stack(spy.kwargs["bounds"]), torch.stack([models.scales.low, models.scales.high]))


class Net:
    """Replaces the U-Net: keeps its inputs; the prediction says what return was asked for."""

    def __call__(self, *inputs):
        self.inputs = inputs
        returns = inputs[5] if len(inputs) > 5 else torch.zeros(len(inputs[0]))
        return returns.nan_to_num(nan=10.0)[:, None, None].expand_as(inputs[0])


def test_the_network_is_told_what_lies_past_the_end_of_the_target(monkeypatch):
    monkeypatch.setattr(dream, "draw_windows", spy := Spy())
    _, models, source = world()
    models = dataclasses.replace(models, diffusion=Net())
    pairs = pairs_of(source)
    stitch.generate(models, source, pairs.source, pairs.target, pairs.steps, CONFIG, seeded())
    x = torch.randn(30, 16, 3)
    spy.predict(x, torch.full((30,), 3))
    noised, masked, known, valid, step = models.diffusion.inputs
    assert torch.equal(noised, x) and torch.equal(masked, spy.given) and torch.equal(known, spy.known.float())
    assert (step == 3).all()
    for b in range(30):
        left = int(source.last[pairs.target[b]] - pairs.target[b])
        inside = 1 + int(pairs.steps[b]) + 1 + left
        assert valid[b].tolist() == [float(i < inside) for i in range(16)]


def test_guidance_extrapolates_from_no_return_to_the_one_asked_for(monkeypatch):
    monkeypatch.setattr(dream, "draw_windows", spy := Spy())
    _, models, source = world(model_config=with_diffusion(return_dropout=0.25))
    models = dataclasses.replace(models, diffusion=Net())
    pairs = pairs_of(source)
    for weight, expected in ((0.0, 10.0), (1.0, 0.9), (2.0, 0.9 + (0.9 - 10))):
        config = dataclasses.replace(CONFIG, guidance=weight)
        stitch.generate(models, source, pairs.source, None, pairs.steps, config, seeded())
        torch.testing.assert_close(spy.predict(spy.given, pairs.steps), torch.full((30, 16, 3), expected))


# Module 2.


@pytest.mark.parametrize("normalizer", ["standard", "minmax", "cdf"])
def test_bridges_keep_both_ends_and_are_padded_with_the_target(normalizer):
    _, models, source = world(model_config=with_diffusion(normalizer=normalizer))
    pairs = pairs_of(source)
    states = stitch_states(models, source, pairs, CONFIG, seeded())
    assert states.shape == (30, 9, 3) and states.isfinite().all()
    tolerance = {"standard": 0, "minmax": 1e-5, "cdf": 2e-3}[normalizer]
    for b, n in enumerate(pairs.steps.tolist()):
        torch.testing.assert_close(states[b, 0], source.z[pairs.source[b]], rtol=0, atol=tolerance)
        for row in states[b, n + 1 :]:
            torch.testing.assert_close(row, source.z[pairs.target[b]], rtol=0, atol=tolerance)
    low, high = models.scales.low, models.scales.high
    assert (states >= low - 1e-2).all() and (states <= high + 1e-2).all()


def test_generated_states_are_the_window_in_order(monkeypatch):
    monkeypatch.setattr(dream, "draw_windows", Spy())
    _, models, source = world()
    pairs = pairs_of(source)
    states = stitch_states(models, source, pairs, CONFIG, seeded())
    for b, n in enumerate(pairs.steps.tolist()):
        assert states[b, 1 : n + 1, 0].tolist() == list(range(1, n + 1))


def test_the_end_of_the_bridge_depends_on_the_target():
    _, models, source = world()
    pairs = pairs_of(source)
    other = dataclasses.replace(pairs, target=pairs.target.flip(0))
    one, same, different = (stitch_states(models, source, p, CONFIG, seeded()) for p in (pairs, pairs, other))
    assert torch.equal(one, same)
    long = (pairs.steps > 2) & (pairs.target != other.target)
    assert (one[long, 1] != different[long, 1]).any(-1).float().mean() > 0.9


# Module 3.


def test_actions_and_rewards_are_those_of_the_world():
    data, models, source = world()
    s = models.scales
    # Bridges that are real windows: the exact models must give back what happened.
    starts = torch.tensor([0, 15, 25, 48])
    steps = torch.tensor([7, 3, 5, 2])
    rows = starts[:, None] + torch.minimum(torch.arange(9), steps[:, None] + 1)
    pairs = dataclasses.replace(
        pairs_of(source, 4), source=starts, target=rows.gather(1, steps[:, None] + 1).squeeze(1), steps=steps
    )
    bridges = wrap_up(models, pairs, source.z[rows], dataclasses.replace(CONFIG, repair_steps=0))
    assert torch.equal(bridges.states, source.z[rows]) and bridges.pairs is pairs
    state_of_step = {int(row): step for step, row in enumerate(data.step_state)}
    for b in range(4):
        for t in range(int(steps[b]) + 1):
            step = state_of_step[int(rows[b, t])]
            np.testing.assert_allclose(s.action.decode(bridges.actions[b, t]), data.actions[step], atol=2e-3)
            assert bridges.rewards[b, t].item() == pytest.approx(data.rewards[step], abs=2e-3)


@pytest.mark.parametrize("repair_steps", [0, 10])
def test_actions_stay_inside_and_rewards_follow_what_was_repaired(repair_steps):
    _, models, source = world()
    pairs, s = pairs_of(source), models.scales
    states = stitch_states(models, source, pairs, CONFIG, seeded())
    config = dataclasses.replace(CONFIG, repair_steps=repair_steps)
    bridges = wrap_up(models, pairs, states, config)
    assert bridges.actions.shape == (30, 8, 2) and bridges.rewards.shape == (30, 8)
    assert bridges.actions.abs().max() <= 1 and (bridges.actions.abs() == 1).any()
    assert torch.equal(bridges.states, states) == (repair_steps == 0)
    decoded = s.state.decode(bridges.states[:, :-1]).double().numpy(), s.action.decode(bridges.actions).double().numpy()
    np.testing.assert_allclose(bridges.rewards, reward(*decoded), rtol=1e-3, atol=1e-3)


# Module 4.


@pytest.mark.parametrize("limit", [None, 16])
def test_the_verdict_matches_a_loop(limit):
    data, models, source = world(limit, offsets=(9.0, 9.0, 1.0, 3.0))
    pairs, s = pairs_of(source), models.scales
    states = stitch_states(models, source, pairs, CONFIG, seeded())
    bridges = wrap_up(models, pairs, states, dataclasses.replace(CONFIG, repair_steps=0))
    verdict = judge(models, source, bridges)
    rewards = bridges.rewards.double()
    for b, n in enumerate(pairs.steps.tolist()):
        decoded = s.state.decode(states[b]).double().numpy(), s.action.decode(bridges.actions[b]).double().numpy()
        following = s.state.encode(torch.tensor(next_state(decoded[0][:-1], decoded[1])).float())
        # The judges are off by 1 and 3 changes: by 2 on average, and by 1 around it.
        expected = (following + 2 * s.change - states[b, 1:]).square().sum(-1)
        torch.testing.assert_close(verdict.errors[b, : n + 1], expected[: n + 1], rtol=1e-3, atol=1e-3)
        assert not verdict.errors[b, n + 1 :].any()
        assert verdict.disagreement[b].item() == pytest.approx(s.change.square().sum().item(), rel=1e-3)
        way = states[b, n + 1] - states[b, 0]
        gained = ((states[b, 1 : n + 2] - following[: n + 1] - 2 * s.change) @ way).sum()
        length = way.square().sum()  # 0 where a state is joined with itself
        assert verdict.drift[b].item() == pytest.approx(gained.item() / length.item() if length else 0, rel=1e-2)
        ends = torch.sigmoid(3 * states[b, 1 : n + 1, 0] - 6)
        assert verdict.termination[b].item() == pytest.approx(ends.max().item() if n else 0, rel=1e-4)
        assert verdict.before[b] == source.returns[pairs.source[b]]
        after = sum(DISCOUNT**t * rewards[b, t].item() for t in range(n + 1))
        tail = data.episode(int(source.episode[pairs.target[b]]))["rewards"][int(source.step[pairs.target[b]]) :]
        time = int(source.step[pairs.source[b]]) + n + 1
        for i, r in enumerate(tail):
            if limit is None or time + i < limit:
                after += DISCOUNT ** (n + 1 + i) * r
        assert verdict.after[b].item() == pytest.approx(after, rel=1e-5, abs=1e-5)


def test_a_real_window_is_found_faultless():
    data, models, source = world()
    starts, steps = torch.tensor([0, 25]), torch.tensor([5, 7])
    rows = starts[:, None] + torch.minimum(torch.arange(9), steps[:, None] + 1)
    pairs = dataclasses.replace(pairs_of(source, 2), source=starts, target=starts + steps + 1, steps=steps)
    config = dataclasses.replace(CONFIG, repair_steps=0)
    verdict = judge(models, source, wrap_up(models, pairs, source.z[rows], config))
    assert verdict.errors.max() < 1e-6 and verdict.disagreement.max() < 1e-8 and verdict.drift.abs().max() < 1e-3
    # Its own rewards, predicted: the return is that of the dataset.
    torch.testing.assert_close(verdict.after, verdict.before, rtol=1e-4, atol=1e-3)


def test_bridges_are_plain_batches():
    _, _, source = world()
    pairs = pairs_of(source, 3)
    bridges = Bridges(pairs=pairs, states=torch.zeros(3, 9, 3), actions=torch.zeros(3, 8, 2), rewards=torch.zeros(3, 8))
    with pytest.raises(dataclasses.FrozenInstanceError):
        bridges.rewards = None


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_drift_is_the_share_of_the_way_that_no_action_explains(share):
    """A target moved away from where a real window leads: the last step jumps there, and nothing else is wrong."""
    _, models, source = world()
    steps = torch.tensor([5])
    pairs = dataclasses.replace(pairs_of(source, 1), source=torch.tensor([0]), target=torch.tensor([6]), steps=steps)
    rows = torch.minimum(torch.arange(9), steps + 1)[None]
    config = dataclasses.replace(CONFIG, repair_steps=0)
    bridges = wrap_up(models, pairs, source.z[rows], config)
    states = bridges.states.clone()
    way = states[0, 6] - states[0, 0]
    states[0, 6:] += share / (1 - share) * way if share < 1 else 1e4 * way
    verdict = judge(models, source, dataclasses.replace(bridges, states=states))
    assert verdict.drift.item() == pytest.approx(share, abs=1e-3)


@pytest.mark.parametrize("aside", [0.0, 0.25, -1.5])
def test_a_bend_is_the_furthest_from_the_straight_way_in_the_plane(aside):
    """By hand: from one place to another 4 away, once `aside` of it to one side; other columns do not count."""
    data, models, _ = world()
    source = Source(data, models.scales, DISCOUNT, 1, None, (0, 2))
    steps = torch.tensor([5])
    pairs = dataclasses.replace(pairs_of(source, 1), source=torch.tensor([0]), target=torch.tensor([6]), steps=steps)
    along = torch.linspace(0, 1, 7)[:, None] * torch.tensor([2.4, 0.0, 3.2])
    away = torch.tensor([0.0, 0.0, 0.0, 1.0, 0.2, 0.0, 0.0])[:, None] * aside * torch.tensor([-3.2, 0.0, 2.4])
    other = torch.tensor([0.0, 9.0, 0.0])
    states = models.scales.state.encode(along + away + other + torch.tensor([5.0, 0.0, -3.0]))
    states = torch.cat([states, states[-1:].expand(2, -1)])[None]  # padded with the target
    bridges = wrap_up(models, pairs, states, dataclasses.replace(CONFIG, repair_steps=0))
    assert judge(models, source, bridges).bend.item() == pytest.approx(abs(aside), abs=1e-5)
    assert judge(models, world()[2], bridges).bend.item() == 0  # no place in the plane


def test_a_bend_counts_what_goes_beyond_the_ends():
    data, models, _ = world()
    source = Source(data, models.scales, DISCOUNT, 1, None, (0, 1))
    steps = torch.tensor([1])
    pairs = dataclasses.replace(pairs_of(source, 1), source=torch.tensor([0]), target=torch.tensor([2]), steps=steps)
    states = models.scales.state.encode(torch.tensor([[0.0, 0, 0], [2.5, 0, 0], [1.0, 0, 0]]))
    states = torch.cat([states, states[-1:].expand(6, -1)])[None]
    bridges = wrap_up(models, pairs, states, dataclasses.replace(CONFIG, repair_steps=0))
    assert judge(models, source, bridges).bend.item() == pytest.approx(1.5, abs=1e-5)
