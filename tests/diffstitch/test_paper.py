"""The `paper` preset against section 4 of the paper, and the `reference` settings against the released code.

`literal` is the paper in loops, one pair at a time; here the package does the same in batches. Only sizes are shrunk.
Each comparison comes with the default settings, which must differ.
"""

import itertools
from dataclasses import dataclass
from types import SimpleNamespace

import linear
import literal
import numpy as np
import pytest
import torch
import toy

from minari_stitch.config import adjust
from minari_stitch.data import minari_io
from minari_stitch.data.episodes import Episodes
from minari_stitch.diffstitch import stitch
from minari_stitch.diffstitch.assemble import stitched
from minari_stitch.diffstitch.diffusion import Schedule, training_masks
from minari_stitch.diffstitch.models import Models, build
from minari_stitch.diffstitch.proposals import propose
from minari_stitch.diffstitch.source import Source
from minari_stitch.diffstitch.stitch import Candidates, Outcome, Pairs, choose_pairs, estimate_steps, qualify
from minari_stitch.diffstitch.training import WindowTables
from minari_stitch.diffstitch.transform import DiffStitch
from minari_stitch.diffstitch.ways import ways_of
from minari_stitch.errors import ConfigError
from minari_stitch.learn.seeds import chunk_generator
from minari_stitch.run import Run

H, K, GAMMA = 16, 12, 0.99
LENGTHS = (14, 9, 20, 12, 7, 18)
CLOSE = {"rtol": 0, "atol": 2e-4}  # float32 against float64, over K steps

SHRUNK = {
    "models.diffusion.horizon": H,
    "models.diffusion.diffusion_steps": K,
    "models.diffusion.width": 8,
    "models.diffusion.multipliers": (1, 2),
    "models.diffusion.kernel": 3,
    "models.hidden": 16,
    "stitch.max_bridge": H - 2,
    "stitch.sampler_steps": K,
    "stitch.chunk": 30,
    **{f"models.{fit}": linear.FIT for fit in ("diffusion.fit", "dynamics", "inverse", "reward", "termination")},
}
PAPER = adjust(DiffStitch.preset("paper"), SHRUNK)
REFERENCE = {
    "models.diffusion.mask": "reference",
    "stitch.pairs": "reference",
    "stitch.literal_delta": True,
    "stitch.similarity": "cosine",
    "stitch.min_similarity": 0.9,
    "stitch.steps_left": 100,
    "stitch.source_fraction": 0.3,
    "stitch.target_fraction": 0.02,
    "stitch.pool": 512,
    "stitch.min_bridge": 10,
    "stitch.max_bridge": 39,
}


def default(**settings):
    """The default settings at the same sizes; `stitch__eta=1` sets `stitch.eta`."""
    sizes = {**SHRUNK, "stitch.min_bridge": 1}
    return adjust(DiffStitch(), sizes | {name.replace("__", "."): value for name, value in settings.items()})


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def row(values):
    return torch.as_tensor(np.asarray(values), dtype=torch.float32)[None]


@dataclass
class World:
    """A dataset with networks; all that is asked of it here is one state, one pair, one window."""

    data: Episodes
    models: Models
    source: Source

    def __post_init__(self):
        observations = self.data.observations.astype(np.float64)
        self.mean, self.std = observations.mean(0), observations.std(0)
        self.low, self.high = self.z(observations.min(0)), self.z(observations.max(0))
        self.rewards = [episode["rewards"] for episode in self.data]
        self.states = [episode["observations"].astype(np.float64) for episode in self.data]

    def z(self, state):
        return (state - self.mean) / self.std

    def raw(self, z):
        return z * self.std + self.mean

    def place(self, state_row):
        """Episode and step of a state."""
        state_row = int(state_row)
        for episode, length in enumerate(self.data.lengths):
            if state_row <= length:
                return episode, state_row
            state_row -= length + 1
        raise AssertionError

    def tau(self, episode):
        """The standardised states of an episode."""
        return [self.z(state) for state in self.states[episode]]

    def eps_theta(self, tau, masked, shown, k):
        """The U-Net. It is also told which positions lie past the end of the target's episode."""
        after = [position for position, visible in enumerate(shown) if visible and position > 0]
        inside = [position <= after[-1] if after else True for position in range(len(shown))]
        return self.models.denoise(row(tau), row(masked), row(shown), row(inside), torch.tensor([k - 1]))[0].numpy()

    def G(self, noises):
        """The generative model; each call takes the next K draws."""
        calls = iter(noises)
        return lambda masked, shown: literal.generate(
            self.eps_theta, masked, shown, len(self.models.schedule.signal), next(calls), self.low, self.high
        )

    def f_psi(self, z, z_next):
        return self.models.inverse(row(z), row(z_next))[0].double().numpy()

    def f_phi(self, z, u):
        return self.models.reward(row(z), row(u))[0].item()

    def f_omega(self, z, u):
        return self.models.judges(row(z), row(u))[0, 0].double().numpy()


class LinearWorld(World):
    """Here the networks equal the laws of the world, so the laws stand in for them, in float64."""

    middle, half = (linear.LOW + linear.HIGH) / 2, (linear.HIGH - linear.LOW) / 2

    def f_psi(self, z, z_next):
        return np.clip((linear.inverse(self.raw(z), self.raw(z_next)) - self.middle) / self.half, -1, 1)

    def f_phi(self, z, u):
        return linear.reward(self.raw(z), u * self.half + self.middle)

    def f_omega(self, z, u):
        return self.z(linear.next_state(self.raw(z), u * self.half + self.middle))


def linear_world(method=PAPER, limit=None, lengths=LENGTHS, offsets=None):
    data = linear.episodes(lengths)
    models = linear.exact(data, method.models, offsets or (0.0,) * method.models.members)
    return LinearWorld(data, models, Source(data, models.scales, GAMMA, 1, limit))


def noises(generator, count, dimensions=3):
    """The draws of one sampler run, by pair: `(count, K, H, S)`."""
    return torch.stack([torch.randn(count, H, dimensions, generator=generator) for _ in range(K)], 1).double().numpy()


def masks(kind, length, context=1, horizon=10, count=4000):
    """All the masks that are drawn for windows with `length` states inside their episode."""
    valid = (torch.arange(horizon) < length).expand(count, -1)
    return {tuple(shown) for shown in training_masks(valid, kind, context, seeded()).tolist()}


# Section 4.2.


@pytest.mark.parametrize("context", [1, 2])
@pytest.mark.parametrize("length", [2, 3, 4, 5, 7, 10])
@pytest.mark.parametrize("kind", ["paper", "reference"])
def test_training_draws_every_mask_of_its_kind_and_no_other(kind, length, context):
    if length <= context:
        return
    holds = {"paper": literal.is_paper_mask, "reference": literal.is_reference_mask}[kind]
    possible = {shown for shown in itertools.product([False, True], repeat=10) if holds(shown, length, context)}
    assert masks(kind, length, context) == possible


def test_the_default_masks_are_neither():
    drawn = masks("inference", 10)
    assert not all(literal.is_paper_mask(shown, 10) for shown in drawn)
    assert not all(literal.is_reference_mask(shown, 10) for shown in drawn)
    # The paper never trains on what Eq. 5 asks: a shown tail. The two kinds differ by a block right after the start.
    assert any(shown[-1] for shown in drawn)
    assert not any(shown[-1] for shown in masks("paper", 10) | masks("reference", 10))
    assert masks("reference", 10) - masks("paper", 10)


def guess(noised, masked, k):
    """A network that is easy to follow: it shows which inputs it was given."""
    return 0.5 * noised + 0.3 * masked + 0.01 * k


class Recorder(torch.nn.Module):
    """In place of the U-Net: keeps its inputs."""

    def forward(self, noised, masked, known, valid, k, returns=None):
        self.noised, self.masked, self.shown, self.inside, self.k = noised, masked, known.bool(), valid.bool(), k
        return guess(noised, masked, k[:, None, None])


def one_training_step(method):
    """What the network is given, the loss, and the windows, noises and diffusion steps behind it."""
    world, steps = linear_world(method), torch.tensor([0, 3, 15, 24, 30, 70])
    config = method.models.diffusion
    tables, net = WindowTables(world.data, world.models.scales, config, GAMMA, 0), Recorder()
    loss = tables.loss(net, steps, Schedule.cosine(K, config.parametrisation), seeded(3)).item()
    generator = seeded(3)
    torch.rand(3, len(steps), 1, generator=generator)  # the masks
    k = torch.randint(K, (len(steps),), generator=generator) + 1
    eps = torch.randn(len(steps), H, 3, generator=generator).double().numpy()
    windows = []
    for state_row in world.data.step_state[steps]:
        episode, step = world.place(state_row)
        windows.append(np.array(world.tau(episode)[step : step + H]))
    return net, loss, windows, eps, k.tolist()


def eq_12(net, windows, eps, k, *, as_printed):
    """Eq. 12 over whole windows of noised states, or over the hidden ones, where the shown ones carry no noise."""
    total, count = 0.0, 0
    for b, tau in enumerate(windows):
        shown = net.shown[b, : len(tau)].tolist()
        masked = literal.overwrite(np.zeros_like(tau), tau, shown)
        noised = literal.noised(tau, eps[b, : len(tau)], k[b], K)
        if not as_printed:
            noised = literal.overwrite(noised, tau, shown)
        positions = [position for position in range(len(tau)) if as_printed or not shown[position]]
        predicted = guess(noised, masked, k[b] - 1)
        total += len(positions) * literal.squared_error(eps[b], predicted, positions)
        count += len(positions)
    return total / count


def test_the_network_is_given_the_masked_sequence_and_learns_the_noise_of_whole_windows():
    net, loss, windows, eps, k = one_training_step(PAPER)
    assert (net.k + 1).tolist() == k and {len(tau) for tau in windows} > {H}
    for b, tau in enumerate(windows):
        shown = net.shown[b].tolist()
        assert literal.is_paper_mask(shown, len(tau))
        assert net.inside[b].tolist() == [position < len(tau) for position in range(H)]
        masked = literal.overwrite(np.zeros_like(tau), tau, shown[: len(tau)])
        np.testing.assert_allclose(net.masked[b, : len(tau)], masked, **CLOSE)
    assert loss == pytest.approx(eq_12(net, windows, eps, k, as_printed=True), rel=1e-4)


def test_the_released_code_learns_the_noise_of_hidden_states():
    net, loss, windows, eps, k = one_training_step(adjust(PAPER, {"models.diffusion.known": "clean"}))
    hidden, printed = (eq_12(net, windows, eps, k, as_printed=as_printed) for as_printed in (False, True))
    assert loss == pytest.approx(hidden, rel=1e-4) and loss != pytest.approx(printed, rel=0.01)


def test_the_default_learns_something_else():
    net, loss, windows, eps, k = one_training_step(default())
    assert not all(literal.is_paper_mask(net.shown[b].tolist(), len(tau)) for b, tau in enumerate(windows))
    assert loss != pytest.approx(eq_12(net, windows, eps, k, as_printed=True), rel=0.01)


def test_networks_are_those_of_the_paper():
    method = DiffStitch.preset("paper")
    diffusion, stitching = method.models.diffusion, method.stitch
    assert (diffusion.horizon, diffusion.diffusion_steps, diffusion.context) == (100, 100, 1)
    assert (diffusion.parametrisation, diffusion.return_dropout, diffusion.edge_weight) == ("eps", 0, 1)
    assert (stitching.min_bridge, stitching.max_bridge) == (1, diffusion.horizon - 2)
    assert stitching.sampler_steps == diffusion.diffusion_steps
    layers = {
        name: len(build(name, 3, 2, PAPER.models, seeded()).weights) for name in ("inverse", "reward", "dynamics")
    }
    hidden = {name: count - 1 for name, count in layers.items()}
    assert hidden == {"inverse": 2, "reward": 4, "dynamics": 4}


def test_the_horizon_of_pen_is_rounded_to_what_three_levels_can_halve():
    """55 in the paper."""
    pen = {"models.diffusion.horizon": 55, "stitch.max_bridge": 53}
    with pytest.raises(ConfigError, match="horizon=55 .* multiple of 4; use 52 or 56"):
        adjust(DiffStitch.preset("paper"), pen)
    adjust(DiffStitch.preset("paper"), pen | {"models.diffusion.horizon": 56})


# Sources and targets.


def places(world, rows):
    return {world.place(state_row) for state_row in rows}


def test_sources_are_the_lower_half_and_targets_the_upper():
    world = linear_world()
    ranked = literal.ranked(world.rewards, GAMMA)
    lower, upper = literal.lowest(ranked, 0.5), literal.highest(ranked, 0.5)
    assert places(world, world.source.starts(PAPER.stitch)) == set(lower)
    assert places(world, world.source.targets(PAPER.stitch)) == set(upper)
    # The last (s_T, a_T) of an episode is a source like any other.
    last = {(episode, len(rewards) - 1) for episode, rewards in enumerate(world.rewards)}
    assert last & set(lower) and not last & places(world, world.source.starts(default().stitch))
    # Every source meets every target.
    drawn = choose_pairs(world.source, PAPER.stitch, 5000, seeded())
    assert drawn.targets.shape == (5000, 1)
    assert places(world, drawn.source.unique()) == set(lower)
    assert places(world, drawn.targets.unique()) == set(upper)
    assert len({*zip(drawn.source.tolist(), drawn.targets[:, 0].tolist(), strict=True)}) > 0.9 * 40 * 40


# Section 4.1: the four modules.


def test_steps_are_estimated_by_eqs_3_and_4():
    world = linear_world()
    candidates = choose_pairs(world.source, PAPER.stitch, 30, seeded(3))
    pairs = estimate_steps(world.models, world.source, candidates, PAPER.stitch, seeded(2))
    # By default Delta is one less, and the target stands where the dream came closest to it.
    usual = adjust(PAPER, {"stitch.literal_delta": False}).stitch
    between = estimate_steps(world.models, world.source, candidates, usual, seeded(2)).steps
    draws, deltas = noises(seeded(2), 30), []
    for b in range(30):
        (source, T), (target, start) = world.place(candidates.source[b]), world.place(candidates.targets[b, 0])
        dream = world.G(draws[b : b + 1])(*literal.dream_sequence(world.tau(source)[T], H))
        delta, similarity = literal.steps_needed(dream, world.tau(target)[start])
        assert pairs.steps[b] == delta
        if pairs.reachable[b]:
            assert pairs.similarity[b].item() == pytest.approx(similarity, abs=1e-3)
        similarities = [literal.cosine(dream[i], world.tau(target)[start]) for i in range(2, H)]
        assert between[b] == 2 + int(np.argmax(similarities)) - 1
        deltas.append(delta)
    assert min(deltas) >= 1 and H - 5 < max(deltas) <= H - 2 and between.tolist() != deltas
    for change in ({"stitch.similarity": "euclidean"}, {"stitch.eta": 0.0}):
        other = estimate_steps(world.models, world.source, candidates, adjust(PAPER, change).stitch, seeded(2))
        assert other.steps.tolist() != deltas, change


def pairs_with(world, steps, seed=4):
    """Any sources and any targets, with all numbers of steps."""
    ranked = torch.arange(len(world.source.z))[world.source.last > torch.arange(len(world.source.z))]
    source, target = (ranked[torch.randint(len(ranked), (len(steps),), generator=seeded(seed + i))] for i in (0, 1))
    ones = torch.ones(len(steps))
    return Pairs(source=source, target=target, steps=torch.tensor(steps), similarity=ones, reachable=ones > 0)


def test_masked_sequences_are_those_of_eq_5():
    world = linear_world()
    world.models = Models(**vars(world.models) | {"diffusion": Recorder()})
    pairs = pairs_with(world, [*range(1, H - 1)] * 2)
    stitch.stitch_states(world.models, world.source, pairs, PAPER.stitch, seeded())
    net, filled = world.models.diffusion, 0
    for b, delta in enumerate(pairs.steps.tolist()):
        (source, T), (target, start) = world.place(pairs.source[b]), world.place(pairs.target[b])
        tau_prime = world.tau(target)[start:]
        masked, shown = literal.stitch_sequence(world.tau(source)[T], delta, tau_prime, H)
        assert net.shown[b].tolist() == shown
        np.testing.assert_allclose(net.masked[b], masked, **CLOSE)
        known = np.array(shown)
        assert np.abs(net.noised[b].numpy()[known] - masked[known]).max() > 0.1  # noised too: only shown beside
        filled += len(tau_prime) >= H - 1 - delta
    assert 0 < filled < len(pairs.steps)


def test_stitching_states_are_generated_by_eqs_6_and_11():
    world = linear_world()
    pairs = pairs_with(world, [*range(1, H - 1)])
    states = stitch.stitch_states(world.models, world.source, pairs, PAPER.stitch, seeded(5))
    draws = noises(seeded(5), H - 2)
    for b, delta in enumerate(pairs.steps.tolist()):
        (source, T), (target, start) = world.place(pairs.source[b]), world.place(pairs.target[b])
        tau, tau_prime = world.tau(source), world.tau(target)[start:]
        window = world.G(draws[b : b + 1])(*literal.stitch_sequence(tau[T], delta, tau_prime, H))
        path = [tau[T], *literal.stitching_states(window, delta), tau_prime[0]]
        np.testing.assert_allclose(states[b, : delta + 2], path, **CLOSE)
    for change in ({"stitch.eta": 0.0}, {"stitch.sampler_steps": K // 2}, {"stitch.temperature": 0.5}):
        other = stitch.stitch_states(world.models, world.source, pairs, adjust(PAPER, change).stitch, seeded(5))
        assert not np.allclose(other, states, **CLOSE), change


def test_actions_rewards_and_verdicts_are_those_of_eqs_7_to_10():
    world = linear_world()
    pairs = pairs_with(world, [*range(1, H - 1)])
    states = stitch.stitch_states(world.models, world.source, pairs, PAPER.stitch, seeded(5))
    bridges = stitch.wrap_up(world.models, pairs, states, PAPER.stitch)
    verdict = stitch.judge(world.models, world.source, bridges)
    for b, delta in enumerate(pairs.steps.tolist()):
        path = states[b, : delta + 2].double().numpy()
        actions, rewards = literal.wrap_up(path, world.f_psi, world.f_phi)
        assert len(actions) == delta + 1
        np.testing.assert_array_equal(bridges.states[b, : delta + 2], path)
        np.testing.assert_allclose(bridges.actions[b, : delta + 1], actions, **CLOSE)
        np.testing.assert_allclose(bridges.rewards[b, : delta + 1], rewards, **CLOSE)
        worst = verdict.errors[b].max().item()
        assert not literal.qualifies(path, actions, world.f_omega, 0.99 * worst)
        assert literal.qualifies(path, actions, world.f_omega, 1.01 * worst)
    # By default a repair comes between Eq. 7 and Eq. 8.
    usual = default()
    repaired = stitch.wrap_up(linear_world(usual).models, pairs, states, usual.stitch)
    assert not torch.equal(repaired.states, states) and not np.allclose(repaired.actions, bridges.actions, **CLOSE)


def judged(errors, **columns):
    """Two bridges with some errors, good in every other way."""
    zeros = dict.fromkeys(("disagreement", "drift", "termination", "before"), 0.0)
    columns = {"reachable": True, "after": 1.0} | zeros | columns
    filled = {name: np.full(2, value) for name, value in columns.items()}
    bound = errors.max(1) + filled["disagreement"]
    return SimpleNamespace(
        chain=np.arange(2), errors=errors, support=np.zeros((2, 3)), bend=np.zeros(2), bound=bound, **filled
    )


@pytest.mark.parametrize(
    "reason", [{}, {"disagreement": 99.0}, {"termination": 1.0}, {"termination": 0.7}, {"before": 1.0, "after": 0.5}]
)
def test_one_transition_off_by_delta_or_more_rejects_and_nothing_else(reason):
    config = adjust(PAPER, {"qualify.delta": 2.0}).qualify
    errors = np.array([[0.0, 1.9, 1.999], [0.0, 2.0, 0.1]])
    assert qualify(judged(errors, **reason), config).tolist() == [Outcome.ACCEPTED, Outcome.INCONSISTENT]
    usual = qualify(judged(errors, **reason), default(qualify__delta=2.0).qualify)
    assert (usual[0] == Outcome.ACCEPTED) == (not reason)


def test_disagreeing_networks_reject_only_by_default():
    usual = default(stitch__repair_steps=0, stitch__pairs="paper")
    world = linear_world(usual, offsets=(0.0, 0.0, 9.0, -9.0))  # the two judges, about the truth
    chunk = propose(world.models, world.source, usual.stitch, 0, 0)
    large = adjust(usual, {"qualify.delta": float(chunk.error.max()) + 1, "qualify.better": False})
    alone = adjust(large, {"qualify.doubt": "error", "qualify.drift": None, "qualify.termination": 1})
    large = adjust(large, {"qualify.doubt": "judges"})
    assert (chunk.disagreement > large.qualify.delta).all()
    assert not (qualify(chunk, large.qualify) == Outcome.ACCEPTED).any()
    assert (qualify(chunk, alone.qualify) == Outcome.ACCEPTED).tolist() == chunk.reachable.tolist()


def rejected_for_no_reason_of_the_paper():
    """Episodes of the two ends: of pairs turned down at a delta that everything passes, and of all."""
    world = linear_world()
    chunk = propose(world.models, world.source, PAPER.stitch, 0, 0)
    outcomes = qualify(chunk, adjust(PAPER, {"qualify.delta": 1e9}).qualify)
    ends = [(world.place(a)[0], world.place(b)[0]) for a, b in zip(chunk.source, chunk.target, strict=True)]
    return [pair for pair, outcome in zip(ends, outcomes, strict=True) if outcome != Outcome.ACCEPTED], ends


def test_nothing_but_eq_10_rejects():
    """Pieces of one episode are two trajectories too."""
    rejected, ends = rejected_for_no_reason_of_the_paper()
    assert not rejected and any(source == target for source, target in ends)


def test_a_target_may_promise_as_much_as_its_source_and_no_more():
    world = linear_world()
    world.source.returns = torch.ones_like(world.source.returns)
    candidates = Candidates(source=torch.tensor([0]), targets=torch.tensor([[20]]))
    assert estimate_steps(world.models, world.source, candidates, PAPER.stitch, seeded()).reachable.all()
    assert not estimate_steps(world.models, world.source, candidates, default().stitch, seeded()).reachable.any()


# tau_gen.


def matches(part, expected):
    for name, array in zip(("observations", "actions", "rewards"), expected, strict=True):
        np.testing.assert_allclose(part[name], array, err_msg=name, **CLOSE)
    end = np.arange(len(part["rewards"])) == len(part["rewards"]) - 1
    return not ((part["terminations"] | part["truncations"]) ^ end).any()


@pytest.mark.parametrize("limit", [None, 22])
def test_tau_gen_is_the_source_the_bridge_and_the_whole_target(limit):
    world = linear_world(limit=limit)
    chunk = propose(world.models, world.source, PAPER.stitch, 0, 0)
    rows = np.flatnonzero(chunk.reachable)
    ways, alone = (
        list(ways_of(world.data, chunk, rows, form=form, max_episode_steps=limit)) for form in ("full", "bridge")
    )
    parts = list(stitched(world.data, range(len(LENGTHS)), ways, discount=GAMMA))
    whole = [(e["observations"], e["actions"], e["rewards"]) for e in world.data]
    cut = 0
    for b, bridge_alone, part in zip(rows, alone, parts, strict=True):
        (source, T), (target, start) = world.place(chunk.source[b]), world.place(chunk.target[b])
        delta = int(chunk.steps[b])
        bridge = chunk.states[b, 1 : delta + 1], chunk.actions[b, : delta + 1], chunk.rewards[b, : delta + 1]
        expected = literal.tau_gen(whole[source], T, bridge, whole[target], start, limit)
        assert matches(part, expected)
        cut += len(expected[1]) < T + delta + 1 + len(whole[target][1]) - start
        # The released code keeps the bridge, `form=bridge` with a little of what is around it.
        assert bridge_alone.length <= min(len(expected[1]), delta + 11)
    assert len(parts) > 15 and (cut > 0) == (limit is not None)


def test_a_whole_run_is_algorithm_1(tmp_path):
    toy.write()
    dataset = minari_io.read(toy.ID)
    method = adjust(PAPER, {"stitch.chunk": 24, "qualify.delta": 20.0})
    fitted = method.fit(dataset, Run(directory=tmp_path / "run", seed=7, workers=1, threads=1))
    sample = fitted.sample(150)
    parts = list(sample.parts())

    world = World(dataset.episodes, fitted.job.models, fitted.job.origin)
    whole = [(e["observations"], e["actions"], e["rewards"]) for e in dataset.episodes]
    half = (dataset.action_space.high - dataset.action_space.low) / 2
    middle = (dataset.action_space.high + dataset.action_space.low) / 2
    ranked = literal.ranked(world.rewards, GAMMA)
    sources = sorted(literal.lowest(ranked, 0.5))
    targets = sorted(literal.highest(ranked, 0.5))
    generator = chunk_generator(7, 0, "cpu")
    picks = [torch.randint(len(rows), (24,), generator=generator).tolist() for rows in (sources, targets)]
    draws = noises(generator, 24), noises(generator, 24)

    made, steps, rejected = [], 0, 0
    for b in range(24):
        (source, T), (target, start) = sources[picks[0][b]], targets[picks[1][b]]
        delta, bridge, actions, rewards, good = literal.algorithm_1(
            world.tau(source),
            T,
            world.tau(target),
            start,
            H=H,
            G=world.G([draws[0][b], draws[1][b]]),
            f_psi=world.f_psi,
            f_phi=world.f_phi,
            f_omega=world.f_omega,
            delta=20.0,
            last=toy.LIMIT - T - 2,  # the bridge and one real step fit in the time limit
        )
        if not good:
            rejected += 1
            continue
        bridge = [world.raw(state) for state in bridge], [middle + half * action for action in actions], rewards
        made.append(literal.tau_gen(whole[source], T, bridge, whole[target], start, toy.LIMIT))
        steps += len(made[-1][1])
        if steps >= 150:
            break
    assert len(made) == len(parts) == sample.n_episodes > 2 and rejected > 2
    assert all(matches(part, expected) for part, expected in zip(parts, made, strict=True))
    assert sample.n_steps == steps and sample.report["inconsistent"] == rejected
    assert len({part["metadata"]["bridge_states"] for part in parts}) > 1


# The released code.


def test_reference_sources_are_the_best_thirty_percent_and_targets_the_best_two():
    method = adjust(DiffStitch(), {"models.diffusion.horizon": 44} | REFERENCE)
    data = linear.episodes((160, 190, 175, 210))
    models = linear.exact(data)
    source = Source(data, models.scales, GAMMA, 1, None)
    world = World(data, models, source)
    room = [
        (episode, step) for episode, step in literal.ranked(world.rewards, GAMMA)
        if len(world.rewards[episode]) - step > 100
    ]  # fmt: skip
    assert places(world, source.starts(method.stitch)) == set(literal.highest(room, 0.3))
    best = literal.highest(literal.ranked(world.rewards, GAMMA), 0.02)
    assert places(world, source.targets(method.stitch)) == set(best)
    drawn = choose_pairs(source, method.stitch, 300, seeded())
    assert places(world, drawn.targets.unique()) == set(best)
    assert not places(world, source.starts(default().stitch)) & set(literal.highest(room, 0.2))


@pytest.fixture
def picked(monkeypatch):
    """One source state 3000 times over, with one dream of 44 states and 40 targets."""
    world = linear_world()
    dream = world.source.z[torch.randint(len(world.source.z), (44,), generator=seeded(8))]
    monkeypatch.setattr(stitch, "generate", lambda models, source, start, *_: dream.expand(len(start), -1, -1))
    middle = world.source.returns.argsort()[len(world.source.z) // 2]
    pool = torch.randperm(len(world.source.z), generator=seeded(9))[:40]
    candidates = Candidates(source=middle.expand(3000), targets=pool.expand(3000, -1))

    def pick(**settings):
        settings = {f"stitch.{name}": value for name, value in settings.items()}
        method = adjust(DiffStitch(), {"models.diffusion.horizon": 44} | REFERENCE | settings)
        return estimate_steps(world.models, world.source, candidates, method.stitch, seeded())

    pick.dream = [state.double().numpy() for state in dream]
    pick.pool = pool.tolist()
    pick.targets = [world.source.z[at].double().numpy() for at in pool]
    return pick


def test_reference_picks_any_target_that_one_of_the_dreamed_states_10_to_39_is_like(picked):
    similarity = 0.97
    pairs = picked(min_similarity=similarity)
    matches = {picked.pool[i] for i in literal.reference_matches(picked.dream, picked.targets, similarity)}
    anywhere = literal.reference_matches(picked.dream, picked.targets, similarity, 1, 42)
    assert matches < {picked.pool[i] for i in anywhere}
    allowed = matches  # whether the return rises is asked after the choice
    counts = pairs.target.bincount(minlength=max(allowed) + 1)
    assert pairs.reachable.all() and set(counts.nonzero().flatten().tolist()) == allowed and len(allowed) > 3
    share = 1 / len(allowed)
    spread = (3000 * share * (1 - share)) ** 0.5
    assert all(abs(counts[at] - 3000 * share) < 5 * spread for at in allowed)
    for at in allowed:
        expected = literal.steps_needed(picked.dream, picked.targets[picked.pool.index(at)], 10, 39)[0]
        assert (pairs.steps[pairs.target == at] == expected).all()
    # By default it is the most similar one, always.
    assert len(picked(min_similarity=similarity, pairs="reach").target.unique()) == 1
    assert (picked(min_similarity=similarity, literal_delta=False).steps != pairs.steps).any()


def test_reference_turns_a_source_down_that_no_target_matches(picked):
    best = max(literal.cosine(state, target) for state in picked.dream[10:40] for target in picked.targets)
    for similarity, reachable in ((best - 1e-5, True), (best + 1e-5, False)):
        assert bool(literal.reference_matches(picked.dream, picked.targets, similarity)) == reachable
        assert (picked(min_similarity=similarity).reachable == reachable).all()
