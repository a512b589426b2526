import dataclasses
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from linear import HIGH, LOW, episodes, exact, next_state, reward

from minari_stitch.diffstitch import proposals as module
from minari_stitch.diffstitch.config import QualifyConfig, StitchConfig
from minari_stitch.diffstitch.proposals import Proposals, StitchReport, propose
from minari_stitch.diffstitch.source import Source
from minari_stitch.diffstitch.stitch import Outcome, doubt, qualify
from minari_stitch.diffstitch.transform import DiffStitch
from minari_stitch.errors import StorageError

CONFIG = StitchConfig(
    min_bridge=2, max_bridge=7, sampler_steps=3, pool=20, chunk=24, discount=0.9, draws=2, repair_steps=4
)


@pytest.fixture(scope="module")
def world():
    data = episodes((14, 9, 20, 12, 6, 17))
    models = exact(data)
    return models, Source(data, models.scales, 0.9, 1, 18)


def judged(**columns):
    """Proposals of which only some columns matter; by default, all accepted."""
    count = len(next(iter(columns.values())))
    defaults = {
        "source": np.arange(count),
        "target": np.arange(count),
        "steps": np.ones(count, int),
        "similarity": np.ones(count),
        "reachable": np.ones(count, bool),
        "states": np.zeros((count, 4, 3), np.float32),
        "actions": np.zeros((count, 3, 2), np.float32),
        "rewards": np.zeros((count, 3), np.float32),
        "predicted": np.zeros((count, 3, 3), np.float32),
        "errors": np.zeros((count, 3), np.float32),
        "disagreement": np.zeros(count),
        "drift": np.zeros(count),
        "support": np.zeros((count, 4)),
        "bend": np.zeros(count),
        "termination": np.zeros(count),
        "before": np.zeros(count),
        "after": np.ones(count),
        "chain": np.arange(count),
    }
    columns = defaults | {name: np.asarray(value) for name, value in columns.items()}
    return Proposals(**{"bound": columns["errors"].max(1)} | columns)


def outcome(config=None, /, **values):
    config = config or QualifyConfig(delta=2.0)
    return Outcome(qualify(judged(**{name: [value] for name, value in values.items()}), config)[0])


@pytest.mark.parametrize(
    ("stray", "expected"), [(9.01, Outcome.ACCEPTED), (9.0, Outcome.FAR), (None, Outcome.ACCEPTED)]
)
def test_a_bridge_may_stray_so_far_and_so_long(stray, expected):
    assert outcome(QualifyConfig(stray=stray), support=[0.0, 4.5, 4.5, 0.0]) == expected


@pytest.mark.parametrize(("bend", "expected"), [(0.5, Outcome.ACCEPTED), (0.4, Outcome.BENT), (None, Outcome.ACCEPTED)])
def test_a_bridge_may_bend_so_far(bend, expected):
    assert outcome(QualifyConfig(bend=bend), bend=0.4) == expected


def test_the_first_reason_counts():
    reasons = [
        ({"reachable": False}, Outcome.UNREACHABLE),
        ({"termination": 0.5}, Outcome.TERMINATED),
        ({"errors": [0.0, 2.0, 0.0]}, Outcome.INCONSISTENT),
        ({"drift": 0.06}, Outcome.ADRIFT),
        ({"support": [0.0, 11.0, 0.0, 0.0]}, Outcome.FAR),
        ({"bend": 0.3}, Outcome.BENT),
        ({"after": 0.0}, Outcome.NOT_BETTER),
    ]
    config = QualifyConfig(delta=2.0, bend=0.3)
    for present in itertools.product([False, True], repeat=len(reasons)):
        chosen = [reason for reason, there in zip(reasons, present, strict=True) if there]
        values = {"similarity": 1.0} | {name: value for columns, _ in chosen for name, value in columns.items()}
        assert outcome(config, **values) == (chosen[0][1] if chosen else Outcome.ACCEPTED)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"errors": [0.0, 1.9999, 0.0]}, Outcome.ACCEPTED),
        ({"errors": [2.0001, 0.0, 0.0]}, Outcome.INCONSISTENT),
        ({"disagreement": 99.0}, Outcome.ACCEPTED),
        ({"support": [0.0, 4.99, 0.0, 0.0]}, Outcome.ACCEPTED),
        ({"support": [0.0, 0.0, 5.0, 0.0]}, Outcome.FAR),
        ({"drift": 0.0499}, Outcome.ACCEPTED),
        ({"drift": -1.0}, Outcome.ACCEPTED),
        ({"drift": 0.05}, Outcome.ADRIFT),
        ({"bound": 1.9999}, Outcome.ACCEPTED),
        ({"bound": 2.0}, Outcome.INCONSISTENT),
        ({"termination": 0.4999}, Outcome.ACCEPTED),
        ({"termination": 0.9}, Outcome.TERMINATED),
        ({"before": -3.0, "after": -2.9}, Outcome.ACCEPTED),
        ({"before": 1.0, "after": 1.0}, Outcome.NOT_BETTER),
    ],
)
def test_thresholds_are_where_they_are_said_to_be(values, expected):
    assert outcome(**values) == expected


@pytest.mark.parametrize(
    ("rule", "expected"), [("calibrated", [3.0, 0.5]), ("judges", [0.9, 2.0]), ("error", [0.9, 0.2])]
)
def test_what_is_compared_with_delta(rule, expected):
    chunk = judged(errors=[[0.1, 0.9, 0.0], [0.2, 0.0, 0.1]], disagreement=[0.5, 2.0], bound=[3.0, 0.5])
    assert doubt(chunk, QualifyConfig(doubt=rule)).tolist() == expected
    for delta in (0.3, 0.6, 1.0, 2.5):
        outcomes = qualify(chunk, QualifyConfig(doubt=rule, delta=delta))
        assert (outcomes == Outcome.ACCEPTED).tolist() == [value < delta for value in expected]


@pytest.mark.parametrize("name", ["errors", "bound", "drift", "bend", "termination", "after"])
def test_what_could_not_be_measured_is_never_accepted(name):
    value = [0.0, np.nan, 0.0] if name == "errors" else np.nan
    assert outcome(QualifyConfig(bend=1.0), **{name: value}) != Outcome.ACCEPTED


def random_proposals(seed, count=200):
    rng = np.random.default_rng(seed)
    return judged(
        reachable=rng.random(count) < 0.8,
        termination=rng.random(count) * 0.7,
        errors=rng.exponential(1.0, (count, 3)),
        disagreement=rng.exponential(0.5, count),
        drift=rng.normal(0.0, 0.05, count),
        support=rng.exponential(2.0, (count, 4)),
        before=rng.normal(size=count),
        after=rng.normal(0.5, size=count),
        chain=np.arange(count) // 3,
        bend=rng.random(count),
    )


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=12))
def test_a_chain_ends_before_the_first_bridge_that_does_not_qualify(bridges):
    chain, good = np.cumsum([new for new, _ in bridges]), np.array([good for _, good in bridges])
    found = qualify(judged(chain=chain, reachable=good), QualifyConfig())
    for b in range(len(bridges)):
        before = [good[a] for a in range(b) if chain[a] == chain[b]]
        expected = Outcome.ACCEPTED if all(before) else Outcome.BROKEN
        assert found[b] == (expected if good[b] else Outcome.UNREACHABLE)


def test_a_report_counts_every_pair_once():
    chunk, config = random_proposals(0), QualifyConfig(delta=1.5, bend=0.8)
    report = StitchReport.of(chunk, config)
    assert next(iter(report.counts)) == 1.5
    for delta, counts in report.counts.items():
        outcomes = qualify(chunk, dataclasses.replace(config, delta=delta)).tolist()
        assert counts.tolist() == [outcomes.count(value) for value in range(len(Outcome))]
    assert report.proposed == 200
    values = report.to_dict()
    assert values["proposed"] == sum(values[o.name.lower()] for o in Outcome) == 200
    assert values["accepted"] == report.accepted == (qualify(chunk, config) == 0).sum() > 0
    assert all(values[o.name.lower()] > 0 for o in Outcome)
    shares = list(report.acceptance.values())
    assert list(report.acceptance) == sorted({1.5, *module.DELTAS})
    assert shares == sorted(shares) and shares[0] < shares[-1]
    assert values["acceptance"]["1.5"] == report.accepted / 200


def test_reports_add_up_to_that_of_all_pairs():
    config = QualifyConfig(delta=1.0)
    chunks = [random_proposals(seed, 50 + seed) for seed in range(3)]
    total = StitchReport()
    for chunk in chunks:
        total = total + StitchReport.of(chunk, config)
    together = StitchReport.of(Proposals.concatenate(chunks), config)
    assert total.to_dict() == together.to_dict() and total.proposed == 153
    assert (total + StitchReport()).to_dict() == total.to_dict()
    assert StitchReport().proposed == StitchReport().accepted == 0


def test_chunks_come_back_from_disk(tmp_path):
    chunk = random_proposals(0)
    chunk.save(tmp_path / "000001.npz")
    chunk.save(tmp_path / "000001.npz")
    loaded = Proposals.load(tmp_path / "000001.npz")
    for name, value in vars(chunk).items():
        assert getattr(loaded, name).dtype == value.dtype
        np.testing.assert_array_equal(getattr(loaded, name), value)
    assert [path.name for path in tmp_path.iterdir()] == ["000001.npz"]
    assert len(loaded) == 200 and np.array_equal(loaded.error, [max(row) for row in chunk.errors])


def test_a_damaged_chunk_is_named(tmp_path):
    path = tmp_path / "000001.npz"
    random_proposals(0).save(path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(StorageError, match="000001.npz cannot be read .* Remove it"):
        Proposals.load(path)


def same(one, other):
    return all(np.array_equal(value, getattr(other, name)) for name, value in vars(one).items())


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_chunk_depends_on_seed_and_number_alone(world, eta):
    config = dataclasses.replace(CONFIG, eta=eta)
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    in_order = [propose(*world, config, 5, chunk) for chunk in range(3)]
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(1)
    assert same(propose(*world, config, 5, 2), in_order[2])
    assert same(propose(*world, config, 5, 0), in_order[0])
    chunks = [*in_order, propose(*world, config, 6, 0)]
    for one, other in itertools.combinations(chunks, 2):
        assert not np.array_equal(one.source, other.source)
        assert not np.array_equal(one.states, other.states)
    # Not even (seed, chunk) and (chunk, seed) share a stream.
    assert not same(propose(*world, config, 2, 1), propose(*world, config, 1, 2))


def test_proposals_are_in_the_units_of_the_source(world):
    models, source = world
    chunk = propose(*world, CONFIG, 0, 0)
    s, data = models.scales, source
    assert len(chunk) == 24 and chunk.states.shape == (24, 9, 3) and chunk.actions.shape == (24, 8, 2)
    assert chunk.reachable.any()
    low, high = (x.numpy() for x in (s.state.decode(s.low), s.state.decode(s.high)))
    assert (chunk.states >= low - 1e-3).all() and (chunk.states <= high + 1e-3).all()
    assert (chunk.actions >= LOW - 1e-5).all() and (chunk.actions <= HIGH + 1e-5).all()
    np.testing.assert_allclose(chunk.rewards, reward(chunk.states[:, :-1], chunk.actions), rtol=1e-3, atol=2e-3)
    scale = s.state.scale.double().numpy()
    following = next_state(chunk.states[:, :-1].astype(float), chunk.actions.astype(float))
    errors = (((following - chunk.states[:, 1:]) / scale) ** 2).sum(-1)
    for b, n in enumerate(chunk.steps):
        np.testing.assert_allclose(chunk.errors[b, : n + 1], errors[b, : n + 1], rtol=2e-3, atol=1e-3)
        np.testing.assert_allclose(chunk.states[b, 0], s.state.decode(data.z[chunk.source[b]]), atol=1e-4)
        np.testing.assert_allclose(chunk.states[b, n + 1], s.state.decode(data.z[chunk.target[b]]), atol=1e-4)


def test_the_truest_draw_is_kept(world, monkeypatch):
    models, source = world
    config = dataclasses.replace(CONFIG, draws=3, repair_steps=0)
    drawn = []

    def recording(models, source, pairs, config, generator):
        drawn.append(module_stitch_states(models, source, pairs, config, generator))
        return drawn[-1]

    module_stitch_states = module.stitch_states
    monkeypatch.setattr(module, "stitch_states", recording)
    chunk = propose(models, source, config, 0, 0)
    assert len(drawn) == 1 and drawn[0].shape[0] == 3 * 24
    choices = []
    for b, n in enumerate(chunk.steps):
        worst = []
        for draw in range(3):
            z = drawn[0][draw * 24 + b]
            states = models.scales.state.decode(z).double().numpy()
            u = models.inverse(z[:-1], z[1:])
            actions = models.scales.action.decode(u).double().numpy()
            gap = (next_state(states[:-1], actions) - states[1:]) / models.scales.state.scale.double().numpy()
            worst.append((gap**2).sum(-1)[: n + 1].max())
        choices.append(int(np.argmin(worst)))
        expected = drawn[0][choices[-1] * 24 + b]
        np.testing.assert_allclose(chunk.states[b], models.scales.state.decode(expected), atol=1e-5)
    assert set(choices) == {0, 1, 2}


def test_judges_do_not_choose_the_draw():
    data = episodes((14, 9, 20, 12))
    chunks = []
    for offsets in ((0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 40.0, -90.0)):
        models = exact(data, offsets=offsets)
        chunks.append(propose(models, Source(data, models.scales, 0.9, 1, None), CONFIG, 0, 0))
    assert np.array_equal(chunks[0].states, chunks[1].states)
    assert np.array_equal(chunks[0].actions, chunks[1].actions)
    assert not np.array_equal(chunks[0].errors, chunks[1].errors)


def test_the_paper_asks_for_nothing_but_small_errors():
    paper = DiffStitch.preset("paper").qualify
    assert outcome(paper, disagreement=99.0, termination=1.0, before=5.0, after=-5.0) == Outcome.ACCEPTED
    assert outcome(paper, errors=[0.0, 2.0, 0.0]) == Outcome.INCONSISTENT
    assert outcome(paper, reachable=False) == Outcome.UNREACHABLE


def test_the_head_of_a_chunk_is_its_first_pairs():
    chunk = judged(source=np.arange(5), errors=np.arange(15.0).reshape(5, 3))
    head = chunk.head(3)
    assert len(head) == 3 and head.source.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(head.errors, chunk.errors[:3])
