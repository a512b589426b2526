import dataclasses

import numpy as np
import pytest
from linear import HIGH, LOW, episodes, exact

from minari_stitch.data.episodes import Episodes
from minari_stitch.data.provenance import original
from minari_stitch.diffstitch.assemble import stitched
from minari_stitch.diffstitch.config import StitchConfig
from minari_stitch.diffstitch.proposals import propose
from minari_stitch.diffstitch.source import Source
from minari_stitch.diffstitch.ways import BRIDGE_MARGIN, ways_of
from minari_stitch.learn.support import Support
from minari_stitch.learn.tables import Tables

DISCOUNT = 0.9
IDS = [11, 7, 30, 2, 5, 19]
LENGTHS = (14, 9, 20, 12, 6, 20)
INFOS = {"synthetic", "source_episode", "source_step", "dynamics_error", "support", "return_to_go"}


def double(chunk):
    """The same proposals in float64, which no source has to have."""
    floats = {name: array.astype(np.float64) for name, array in vars(chunk).items() if array.dtype == np.float32}
    return dataclasses.replace(chunk, **floats)


def world(limit, dtype=np.float64, chunks=3):
    """A source and chunks of proposals made on it; whether they qualify is beside the point."""
    data = episodes(LENGTHS, dtype=dtype)
    data = dataclasses.replace(data, rewards=data.rewards.astype(dtype))
    models = exact(data)
    models = dataclasses.replace(models, support=Support.of(Tables(data, models.scales, 0), 0))
    source = Source(data, models.scales, DISCOUNT, 1, limit)
    config = StitchConfig(
        min_bridge=1, max_bridge=7, source_fraction=1.0, sampler_steps=2, pool=8, chunk=40, discount=DISCOUNT, draws=1,
        repair_steps=0,
    )  # fmt: skip
    return data, [double(propose(models, source, config, 0, chunk)) for chunk in range(chunks)]


def locate(data, row):
    """Episode and time of a state row, the slow way."""
    for e, length in enumerate(data.lengths):
        if row <= length:
            return e, int(row)
        row -= length + 1
    raise AssertionError


def assembled(limit, form="full", **kwargs):
    data, chunks = world(limit, **kwargs)
    for chunk in chunks:
        rows = np.flatnonzero(chunk.reachable)
        ways = list(ways_of(data, chunk, rows, form=form, max_episode_steps=limit))
        parts = list(stitched(data, IDS, ways, discount=DISCOUNT))
        assert [way.length for way in ways] == [len(part["rewards"]) for part in parts]
        for row, part in zip(rows, parts, strict=True):
            yield data, chunk, row, part


@pytest.mark.parametrize("limit", [None, 20, 22])
@pytest.mark.parametrize("form", ["full", "onward", "bridge"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_stitched_episode_is_prefix_bridge_and_suffix(limit, form, dtype):
    count = cut = 0
    for data, chunk, row, part in assembled(limit, form, dtype=dtype):
        n = int(chunk.steps[row])
        (head, junction), (tail, entry) = (locate(data, at) for at in (chunk.source[row], chunk.target[row]))
        first = {"full": 0, "onward": junction, "bridge": max(0, junction - BRIDGE_MARGIN)}[form]
        stop = int(data.lengths[tail])
        if form == "bridge":
            stop = min(stop, entry + BRIDGE_MARGIN)
        if limit is not None and junction + n + 1 + stop - entry > limit:
            stop, cut = entry + limit - junction - n - 1, cut + 1
        source, target = data.episode(head), data.episode(tail)
        begin, end = junction - first, junction - first + n + 1

        for name in ("actions", "rewards", "terminations", "truncations"):
            assert part[name].dtype == source[name].dtype
            np.testing.assert_array_equal(part[name][:begin], source[name][first:junction])
        for name in ("actions", "rewards", "terminations"):
            np.testing.assert_array_equal(part[name][end:], target[name][entry:stop])
        np.testing.assert_array_equal(part["observations"][: begin + 1], source["observations"][first : junction + 1])
        np.testing.assert_array_equal(part["observations"][end:], target["observations"][entry : stop + 1])
        assert part["observations"].dtype == dtype
        np.testing.assert_allclose(part["observations"][begin + 1 : end], chunk.states[row, 1 : n + 1], rtol=1e-6)
        np.testing.assert_allclose(part["actions"][begin:end], chunk.actions[row, : n + 1], rtol=1e-6)
        np.testing.assert_allclose(part["rewards"][begin:end], chunk.rewards[row, : n + 1], rtol=1e-6)
        assert (part["actions"] >= LOW - 1e-5).all() and (part["actions"] <= HIGH + 1e-5).all()

        length = end + stop - entry
        assert len(part["observations"]) == length + 1 and len(part["rewards"]) == length
        assert stop > entry, "at least one real step of the suffix"
        assert first + length <= (limit or 999)
        # It ends once: with the target's own termination, or truncated.
        assert not part["terminations"][:-1].any() and not part["truncations"][:-1].any()
        assert part["terminations"][-1] == (stop == data.lengths[tail] and target["terminations"][-1])
        assert part["truncations"][-1] == (not part["terminations"][-1])
        meta = part["metadata"]
        assert (meta["source_episode"], meta["source_step"]) == (IDS[head], junction)
        assert (meta["target_episode"], meta["target_step"]) == (IDS[tail], entry)
        assert (meta["bridge_start"], meta["bridge_states"]) == (begin, n)
        assert meta["augmented"] is True and meta["dynamics_error"] == pytest.approx(chunk.errors[row].max())
        assert (meta["return_before"], meta["return_after"]) == (chunk.before[row], chunk.after[row])
        assert all(type(value) in (bool, int, float) for value in meta.values())
        count += 1
    assert count > 60 and (cut > 5 or limit is None)


@pytest.mark.parametrize("form", ["full", "onward", "bridge"])
def test_infos_say_where_each_state_comes_from(form):
    for data, chunk, row, part in assembled(22, form, chunks=1):
        infos, n, begin = part["infos"], int(chunk.steps[row]), part["metadata"]["bridge_start"]
        length = len(part["rewards"])
        assert infos.keys() == INFOS and all(array.shape == (length + 1, 1) for array in infos.values())
        dtypes = {name: str(array.dtype) for name, array in infos.items()}
        assert dtypes == {
            "synthetic": "bool",
            "source_episode": "int64",
            "source_step": "int64",
            "dynamics_error": "float32",
            "support": "float32",
            "return_to_go": "float64",
        }
        for t in range(length + 1):
            synthetic, episode, step, error, distance, ahead = (infos[name][t, 0] for name in infos)
            # A real state stands where it says in the source, and so does the step that follows a real one.
            if begin < t <= begin + n:
                assert (episode, step) == (-1, -1)
            else:
                real = data.episode(IDS.index(episode))
                np.testing.assert_array_equal(part["observations"][t], real["observations"][step])
                if not synthetic and t < length:
                    np.testing.assert_array_equal(part["actions"][t], real["actions"][step])
                    assert part["rewards"][t] == real["rewards"][step]
                    np.testing.assert_array_equal(part["observations"][t + 1], real["observations"][step + 1])
            assert synthetic == (begin <= t <= begin + n)
            assert error == (chunk.errors[row, t - begin] if synthetic else 0)
            assert (distance > 0) == (begin < t <= begin + n)
            assert distance == (np.float32(chunk.support[row, t - begin]) if distance else 0)
            expected = sum(
                DISCOUNT**i * r for i, r in enumerate([*part["rewards"][t:], *follows(data, chunk, row, part, 22)])
            )
            assert ahead == pytest.approx(expected, rel=1e-9, abs=1e-12)


def follows(data, chunk, row, part, limit):
    """Rewards of the whole stitched episode after what is written of it."""
    tail, entry = locate(data, chunk.target[row])
    _, junction = locate(data, chunk.source[row])
    rewards = data.episode(tail)["rewards"][entry : entry + limit - (junction + int(chunk.steps[row]) + 1)]
    begin, n = part["metadata"]["bridge_start"], part["metadata"]["bridge_states"]
    return rewards[len(part["rewards"]) - begin - n - 1 :]


@pytest.mark.parametrize("form", ["full", "onward", "bridge"])
def test_a_bridge_keeps_the_return_to_go_of_its_whole_episode(form):
    beyond = 0
    for data, chunk, row, part in assembled(22, form):
        rest = follows(data, chunk, row, part, 22)
        assert part["metadata"]["return_beyond"] == pytest.approx(sum(rest), rel=1e-9)
        assert form == "bridge" or len(rest) == 0
        begin = part["metadata"]["bridge_start"]
        assert part["infos"]["return_to_go"][begin, 0] == pytest.approx(chunk.after[row], rel=1e-4, abs=1e-4)
        beyond += len(rest)
    assert (beyond > 100) == (form == "bridge")


def test_steps_written_apart_lead_where_the_judges_say():
    data, chunks = world(22)
    chunk = dataclasses.replace(chunks[0], predicted=chunks[0].predicted + 0.25)
    rows = np.flatnonzero(chunk.reachable)
    ways = list(ways_of(data, chunk, rows, form="transitions", max_episode_steps=22))
    whole = stitched(data, IDS, ways, discount=DISCOUNT)
    steps = stitched(data, IDS, ways, discount=DISCOUNT, apart=True)
    for row, way, bridge in zip(rows, ways, whole, strict=True):
        n = int(chunk.steps[row])
        assert len(bridge["rewards"]) == n + 1 == way.length == way.generated
        for t, step in zip(range(n + 1), steps, strict=False):
            np.testing.assert_array_equal(step["observations"][0], bridge["observations"][t])
            np.testing.assert_allclose(step["observations"][1], chunk.predicted[row, t], rtol=1e-6)
            for name in ("actions", "rewards"):
                np.testing.assert_array_equal(step[name], bridge[name][t : t + 1])
            assert not step["terminations"].any() and step["truncations"].all()
            assert step["infos"].keys() == INFOS
            infos = {name: values[:, 0].tolist() for name, values in step["infos"].items()}
            assert infos["synthetic"] == [True, False]
            assert infos["source_episode"] == [bridge["metadata"]["source_episode"] if t == 0 else -1, -1]
            assert infos["return_to_go"] == bridge["infos"]["return_to_go"][t : t + 2, 0].tolist()
            about = bridge["metadata"] | {"bridge_states": 0, "bridge_step": t}
            assert step["metadata"] == about
    assert next(steps, None) is None


@pytest.mark.parametrize("limit", [None, 20, 22])
def test_the_verdict_is_the_return_of_the_episode_that_is_written(limit):
    cut = 0
    for data, chunk, row, part in assembled(limit):
        begin = part["metadata"]["bridge_start"]
        after = sum(DISCOUNT**i * r for i, r in enumerate(part["rewards"][begin:]))
        assert chunk.after[row] == pytest.approx(after, rel=1e-4, abs=1e-4)
        head, junction = locate(data, chunk.source[row])
        rewards = data.episode(head)["rewards"][junction:]
        assert chunk.before[row] == pytest.approx(sum(DISCOUNT**i * r for i, r in enumerate(rewards)), rel=1e-9)
        cut += len(part["rewards"]) == limit
    assert cut > 5 or limit is None


def test_stitched_episodes_make_a_dataset():
    parts = [part for *_, part in assembled(20)]
    data = Episodes.concatenate([Episodes.from_list(parts), Episodes.from_list(original(episodes(), IDS, DISCOUNT))])
    assert set(data.infos) == INFOS and data.lengths.max() <= 20
    assert len(data) == len(parts) + 4
    np.testing.assert_allclose(data.returns_to_go(DISCOUNT), data.infos["return_to_go"][:, 0], rtol=1e-9, atol=1e-9)


def test_only_the_rows_asked_for_are_assembled():
    data, (chunk,) = world(None, chunks=1)
    rows = np.flatnonzero(chunk.reachable)[[3, 0]]
    ways = ways_of(data, chunk, rows, form="full", max_episode_steps=None)
    parts = list(stitched(data, IDS, ways, discount=DISCOUNT))
    assert [part["metadata"]["similarity"] for part in parts] == chunk.similarity[rows].tolist()


def test_originals_are_themselves():
    data = episodes()
    for index, (part, expected) in enumerate(zip(original(data, IDS, DISCOUNT), data, strict=True)):
        for name in ("observations", "actions", "rewards", "terminations", "truncations"):
            np.testing.assert_array_equal(part[name], expected[name])
        length = len(expected["rewards"])
        infos = {name: array[:, 0].tolist() for name, array in part["infos"].items()}
        assert infos.keys() == INFOS
        assert infos["synthetic"] == [False] * (length + 1) and infos["dynamics_error"] == [0] * (length + 1)
        assert infos["source_episode"] == [IDS[index]] * (length + 1) and infos["source_step"] == list(
            range(length + 1)
        )
        for t in range(length + 1):
            ahead = sum(DISCOUNT**i * r for i, r in enumerate(expected["rewards"][t:]))
            assert infos["return_to_go"][t] == pytest.approx(ahead, rel=1e-9)
        assert part["metadata"] == {"augmented": False, "source_episode": IDS[index]}
