"""Mixes hold all that their sources hold, or the share that was asked for, and say so."""

import json
from dataclasses import replace

import gymnasium as gym
import minari
import numpy as np
import pytest
import toy
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from minari_stitch.data import minari_io
from minari_stitch.data.dataset import Dataset
from minari_stitch.data.episodes import Episodes
from minari_stitch.data.mix import MIX_KEY, mix, select, take_share
from minari_stitch.data.validation import ValidationReport
from minari_stitch.errors import ConfigError, DatasetIdError

A, B, BOTH = "toy/a-v0", "toy/b-v0", "toy/both-v0"
STEPS = ("observations", "actions", "rewards", "terminations", "truncations")


def read(dataset_id):
    return minari_io.read(dataset_id, download=False, keep_infos=True)


def files(path):
    return sorted(path.rglob("*"))


def described(parts, **infos):
    """Episodes with a number in their metadata and, for each name, an info of that value."""
    return [
        {
            **part,
            "infos": {name: np.full(len(part["observations"]), value) for name, value in infos.items()},
            "metadata": {"number": number},
        }
        for number, part in enumerate(parts)
    ]


@pytest.fixture
def pair():
    """Two datasets of 5 and 3 episodes that differ in all that may differ."""
    first = described(toy.walks(5, 20, seed=1), synthetic=True, only_here=1.0, value=1)
    second = described(toy.walks(3, 30, seed=2), synthetic=False, value=0.5)
    toy.write(
        first, A, author={"A. Tester", "B. Tester"}, description="The first.", demo={"seed": 1}, requirements=["x"]
    )
    toy.write(second, B, algorithm_name="pull", description="The second.", requirements=["x", "y"])
    return read(A), read(B)


def assert_same(found, wanted):
    found, wanted = list(found), list(wanted)
    assert len(found) == len(wanted)
    for left, right in zip(found, wanted, strict=True):
        for name in STEPS:
            np.testing.assert_array_equal(left[name], right[name], err_msg=name)
            assert left[name].dtype == right[name].dtype


# All of them


def test_all_episodes_of_all_datasets_come_back_in_order(pair):
    made = json.loads(toy.ok("mix", A, B, "--dataset-id", BOTH, "--json").stdout)
    assert (made["dataset_id"], made["n_episodes"], made["n_steps"]) == (BOTH, 8, 190)
    mixed = read(BOTH)
    assert_same(mixed.episodes, [*pair[0].episodes, *pair[1].episodes])
    minari_io.check(BOTH)
    assert minari.load_dataset(BOTH).total_steps == 190
    assert mixed.env_spec == pair[0].env_spec and mixed.observation_space == pair[0].observation_space


def test_episodes_keep_their_metadata_and_say_where_they_stood(pair):
    toy.ok("mix", A, B, "--dataset-id", BOTH)
    metadata = read(BOTH).episodes.metadata
    assert [row["number"] for row in metadata] == [0, 1, 2, 3, 4, 0, 1, 2]
    assert [row["mixed_from"] for row in metadata] == [A] * 5 + [B] * 3
    assert [row["mixed_episode"] for row in metadata] == [0, 1, 2, 3, 4, 0, 1, 2]


def test_infos_that_all_share_are_kept(pair):
    toy.ok("mix", A, B, "--dataset-id", BOTH)
    mixed = read(BOTH)
    assert sorted(mixed.episodes.infos) == ["synthetic", "value"]
    assert mixed.episodes.infos["synthetic"].dtype == bool and mixed.episodes.infos["synthetic"][:105].all()
    assert not mixed.episodes.infos["synthetic"][105:].any()
    assert mixed.episodes.infos["value"][[0, -1], 0].tolist() == [1.0, 0.5]
    assert mixed.metadata[MIX_KEY]["infos"] == ["synthetic", "value"]


def test_infos_of_different_shapes_are_left_out(pair):
    other = Episodes.from_list(
        {**part, "infos": {"synthetic": np.zeros((31, 2)), "value": part["infos"]["value"]}}
        for part in pair[1].episodes
    )
    mix([pair[0], replace(pair[1], episodes=other)], output_id=BOTH)
    assert list(read(BOTH).episodes.infos) == ["value"]


def test_what_describes_the_sources_is_joined(pair):
    toy.ok("mix", A, B, "--dataset-id", BOTH)
    metadata = read(BOTH).metadata
    assert metadata["author"] == ["A. Tester", "B. Tester"] and metadata["algorithm_name"] == "push, pull"
    assert metadata["requirements"] == ["x", "y"] and metadata["ref_min_score"] == 0.0
    for part in (f"5 of 5 episodes of {A} and 3 of 3 episodes of {B}", "The first.", "The second."):
        assert part in metadata["description"]
    assert "demo" not in metadata  # which describes one source
    first, second = metadata[MIX_KEY]["sources"]
    assert (first["dataset_id"], first["fingerprint"]) == (A, pair[0].fingerprint)
    assert (second["dataset_id"], second["fingerprint"]) == (B, pair[1].fingerprint)
    assert first["metadata"] == {"demo": {"seed": 1}} and second["metadata"] == {}
    assert [second[name] for name in ("n_episodes", "n_steps", "of_episodes", "of_steps")] == [3, 90, 3, 90]


def test_the_command_says_what_it_took(pair):
    text = " ".join(toy.ok("mix", A, B, "--dataset-id", BOTH).stdout.split())
    assert "toy/both-v0: 8 episodes, 190 steps" in text
    assert f"5 of 5 episodes (100 of 100 steps) of {A}" in text and f"minari-stitch augment {BOTH}" in text


def test_a_mix_can_be_mixed_again(pair):
    mix(pair, output_id=BOTH)
    mix([read(BOTH), pair[0]], output_id="toy/three-v0")
    again = read("toy/three-v0")
    assert_same(again.episodes, [*pair[0].episodes, *pair[1].episodes, *pair[0].episodes])
    source = again.metadata[MIX_KEY]["sources"][0]
    assert source["dataset_id"] == BOTH and MIX_KEY in source["metadata"]
    assert again.episodes.metadata[7]["mixed_from"] == BOTH and again.episodes.metadata[7]["mixed_episode"] == 7


def test_a_mix_of_a_stitched_dataset_is_not_taken_for_one(stitched):
    toy.ok("mix", toy.ID, toy.STITCHED, "--dataset-id", BOTH)
    mixed, source = read(BOTH), read(toy.STITCHED)
    assert "minari_stitch" not in mixed.metadata
    assert mixed.metadata[MIX_KEY]["sources"][1]["metadata"]["minari_stitch"] == source.metadata["minari_stitch"]
    assert mixed.episodes.metadata[-1].items() >= source.episodes.metadata[-1].items()
    result = toy.invoke("filter", BOTH, "--delta", 1)
    assert result.exit_code == 1 and "InvalidDataError" in result.stderr
    toy.ok("mix", toy.STITCHED, "--dataset-id", "toy/copy-v0")
    copy = read("toy/copy-v0").episodes
    np.testing.assert_array_equal(copy.infos["synthetic"], source.episodes.infos["synthetic"])


# Views


def test_a_selection_is_honoured(pair):
    """Minari's own `combine_datasets` would write all eight."""
    mix([select(pair[0], [3, 1]), select(pair[1], [2])], output_id=BOTH)
    mixed = read(BOTH)
    assert_same(mixed.episodes, [pair[0].episodes.episode(3), pair[0].episodes.episode(1), pair[1].episodes.episode(2)])
    assert [row["mixed_episode"] for row in mixed.episodes.metadata] == [3, 1, 2]
    first = mixed.metadata[MIX_KEY]["sources"][0]
    assert first["fingerprint"] == pair[0].episodes.select([3, 1]).fingerprint() != pair[0].fingerprint


def test_the_halves_of_a_dataset_are_the_dataset(pair):
    mix([select(pair[0], [0, 1, 2]), select(pair[0], [3, 4])], output_id=BOTH)
    assert read(BOTH).fingerprint == pair[0].fingerprint


# A share


def dataset(lengths):
    """Episodes of these lengths in memory, whose first reward is their number."""
    parts = [
        {
            "observations": np.zeros((steps + 1, 1)),
            "actions": np.zeros((steps, 1)),
            "rewards": np.full(steps, float(number)),
            "terminations": np.zeros(steps, bool),
            "truncations": np.arange(steps) == steps - 1,
        }
        for number, steps in enumerate(lengths)
    ]
    box = spaces.Box(-1, 1, (1,))
    return Dataset(
        dataset_id="in/memory-v0",
        episodes=Episodes.from_list(parts),
        observation_space=box,
        action_space=box,
        env_spec=None,
        episode_ids=np.arange(len(parts)),
        skipped=ValidationReport(len(parts)),
    )


@given(
    st.lists(st.integers(1, 20), min_size=1, max_size=12),
    st.floats(0.01, 1),
    st.integers(0, 9),
)
def test_a_share_has_whole_episodes_and_no_more_than_it_needs(lengths, fraction, seed):
    source = dataset(lengths)
    part = take_share(source, fraction, np.random.default_rng(seed))
    taken = part.episode_ids
    assert len(set(taken.tolist())) == len(taken) and (np.diff(taken) > 0).all()
    assert part.episodes.lengths.tolist() == [lengths[number] for number in taken]
    assert part.episodes.rewards[part.episodes.offsets[:-1]].tolist() == taken.tolist()
    wanted = fraction * sum(lengths) - 1e-6
    assert part.episodes.n_steps >= wanted
    assert part.episodes.n_steps - part.episodes.lengths.max() < wanted


def test_a_share_of_equal_episodes_is_exact():
    """0.1 * 30 and the like are a little more than they should be."""
    for count in range(1, 11):
        assert len(take_share(dataset([3] * 10), count / 10, np.random.default_rng(0)).episodes) == count


def test_a_share_of_one_dataset_has_a_name_of_its_own(pair):
    first = json.loads(toy.ok("mix", A, "--fraction", 0.2, "--json").stdout)
    assert (first["dataset_id"], first["n_steps"]) == ("toy/a-20pct-v0", 20)
    assert read("toy/a-20pct-v0").metadata[MIX_KEY]["fraction"] == 0.2
    assert json.loads(toy.ok("mix", A, "--fraction", 0.2, "--json").stdout)["dataset_id"] == "toy/a-20pct-v1"
    assert json.loads(toy.ok("mix", A, "--fraction", 0.125, "--json").stdout)["dataset_id"] == "toy/a-12_5pct-v0"


def test_each_dataset_gives_its_share(pair):
    made = json.loads(toy.ok("mix", A, B, "--fraction", 0.4, "--dataset-id", BOTH, "--json").stdout)
    assert [source["n_steps"] for source in made["sources"]] == [40, 60]
    assert [source["of_steps"] for source in made["sources"]] == [100, 90]


def test_the_seed_decides(pair):
    def numbers(*words, seed):
        words = [*words, "--fraction", 0.4, "--seed", seed, "--json", "--dataset-id", f"seed/{seed}{len(words)}-v0"]
        rows = read(json.loads(toy.ok("mix", *words).stdout)["dataset_id"]).episodes.metadata
        return [row["mixed_episode"] for row in rows if row["mixed_from"] == A]

    drawn = [numbers(A, seed=seed) for seed in range(5)]
    assert len(set(map(tuple, drawn))) > 1
    assert numbers(A, B, seed=3) == drawn[3]  # whatever else is mixed


def test_a_share_of_a_demo_dataset_can_be_augmented(write_dataset):
    """It stays in the namespace of its source, where there is no recipe for it."""
    toy.write(dataset_id="demo/hopper/medium-v0")
    toy.ok("mix", "demo/hopper/medium-v0", "--fraction", 0.5)
    made = json.loads(toy.ok(*toy.tiny("demo/hopper/medium-50pct-v0", "--delta", 8, "--steps", 20, "--json")).stdout)
    assert made["dataset_id"] == "demo/hopper/medium-50pct-stitched-v0"


# What does not go together


def refused(*words, kind, says):
    result = toy.invoke("mix", *words)
    assert result.exit_code == 1, result.output
    for part in (f"{kind}: ", *says):
        assert part in result.stderr
    assert not result.stdout


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"limit": 50}, ["different environments: Toy-v0 (time limit 40, {})", "Toy-v0 (time limit 50, {})"]),
        ({"limit": None}, ["different environments: Toy-v0 (time limit 40, {}) and unknown"]),
        ({"observation_space": spaces.Box(0, 1, (3,), np.float32)}, ["different observation spaces: Box(-inf, inf"]),
        ({"action_space": spaces.Box(-2, 2, (2,), np.float32)}, ["different action spaces: Box(-1.0, 1.0"]),
    ],
    ids=["limit", "no environment", "observations", "actions"],
)
def test_datasets_of_different_kinds_are_refused(pair, datasets_path, change, says):
    toy.write(toy.walks(2), "toy/other-v0", **change)
    before = files(datasets_path)
    says = [f"'{A}' and 'toy/other-v0' have", *says, "Mix datasets of one environment"]
    refused(A, B, "toy/other-v0", "--dataset-id", BOTH, kind="InvalidDataError", says=says)
    assert files(datasets_path) == before


def test_different_reference_scores_need_a_word(pair):
    toy.write(toy.walks(2), "toy/other-v0", ref_min_score=5.0, ref_max_score=9.0)
    words = [A, B, "toy/other-v0", "--dataset-id", BOTH]
    says = [f"'{A}' and 'toy/other-v0' have different reference scores: [0.0, None] and [5.0, 9.0]", "--scores-of"]
    refused(*words, kind="InvalidDataError", says=says)
    refused(*words, "--scores-of", "toy/none-v0", kind="ConfigError", says=[f"choose one of {A}, {B}, toy/other-v0"])
    toy.ok(*["mix", *words], "--scores-of", "toy/other-v0")
    metadata = read(BOTH).metadata
    assert (metadata["ref_min_score"], metadata["ref_max_score"]) == (5.0, 9.0)


def test_a_dataset_without_reference_scores_has_no_say(pair):
    toy.write(toy.walks(2), "toy/other-v0", ref_min_score=None)
    toy.ok("mix", "toy/other-v0", A, "--dataset-id", BOTH)
    assert read(BOTH).metadata["ref_min_score"] == 0.0


def test_an_evaluation_environment_is_kept_where_all_agree(pair):
    spec = gym.spec("Pendulum-v1").to_json()
    for name in ("c", "d"):
        toy.write(toy.walks(2), f"toy/{name}-v0", eval_env_spec=spec)
    toy.write(toy.walks(2), "toy/e-v0", eval_env_spec=gym.spec("CartPole-v1").to_json())
    mix([read("toy/c-v0"), read("toy/d-v0"), pair[0]], output_id=BOTH)
    assert read(BOTH).metadata["eval_env_spec"] == spec
    mix([read("toy/c-v0"), read("toy/e-v0")], output_id="toy/both-v1")
    assert "eval_env_spec" not in read("toy/both-v1").metadata


# Errors


@pytest.mark.parametrize(
    ("words", "kind", "says"),
    [
        ([A, B], "ConfigError", ["no name", "choose a dataset id"]),
        ([A], "ConfigError", ["no name", "choose a dataset id"]),
        ([A, "--fraction", "0"], "ConfigError", ["fraction=0 is not possible"]),
        ([A, "--fraction", "1.5"], "ConfigError", ["fraction=1.5 is not possible"]),
        ([A, "--fraction", "nan"], "ConfigError", ["fraction=nan is not possible"]),
        ([A, "--fraction", "0.5", "--seed", "-1"], "ConfigError", ["seed=-1 is not possible"]),
        ([A, "--dataset-id", B], "DatasetIdError", ["is taken", "Choose another dataset id"]),
        ([A, "--dataset-id", "x"], "DatasetIdError", ["has no version"]),
        ([A, "toy/none-v0", "--dataset-id", BOTH], "DatasetNotFoundError", ["'toy/none-v0'", "minari download"]),
        (["demo/none-v0", A, "--dataset-id", BOTH], "DatasetIdError", ["no demo dataset 'demo/none-v0'"]),
    ],
    ids=str,
)
def test_what_is_impossible_is_named(pair, datasets_path, words, kind, says):
    before = files(datasets_path)
    refused(*words, kind=kind, says=says)
    assert files(datasets_path) == before


def test_the_function_refuses_nothing():
    with pytest.raises(ConfigError, match="nothing to mix"):
        mix([])


def test_invalid_episodes_are_left_out_on_request(pair):
    toy.spoil(A, episode=2)
    refused(A, B, "--dataset-id", BOTH, kind="InvalidDataError", says=["episode 2, step 3", "--skip-invalid"])
    made = json.loads(toy.ok("mix", A, B, "--dataset-id", BOTH, "--skip-invalid", "--json").stdout)
    assert made["n_episodes"] == 7
    assert [row["mixed_episode"] for row in read(BOTH).episodes.metadata][:4] == [0, 1, 3, 4]


def test_what_other_writers_left_in_episode_metadata_is_left_behind(pair):
    rows = [{"seed": 3, "empty": [], "deep": {"x": 1}, "long": [0] * 2000} for _ in range(5)]
    mix([replace(pair[0], episodes=replace(pair[0].episodes, metadata=rows))], output_id=BOTH)
    assert read(BOTH).episodes.metadata[4] == {"seed": 3, "empty": [], "mixed_from": A, "mixed_episode": 4}


def test_infos_of_changing_shape_are_no_obstacle(datasets_path):
    """As real datasets have them: one episode with more columns."""
    parts = described(toy.walks(3), good=1.0)
    parts[0]["infos"]["ragged"] = np.zeros((31, 2))
    for part in parts[1:]:
        part["infos"]["ragged"] = np.zeros((31, 3))
    toy.write(parts, A)
    toy.ok("mix", A, "--dataset-id", BOTH)
    assert list(read(BOTH).episodes.infos) == ["good"]


def test_a_program_of_its_own_writes_json_and_nothing_else(pair):
    result = toy.run("minari-stitch", "mix", A, B, "--dataset-id", BOTH, "--json")
    assert result.returncode == 0 and not result.stderr
    assert json.loads(result.stdout)["n_episodes"] == 8
    with pytest.raises(DatasetIdError):
        minari_io.check_output_id(BOTH)


def test_a_mix_says_which_steps_are_synthetic(stitched):
    toy.ok("mix", toy.ID, toy.STITCHED, "--dataset-id", "mixed/both-v0")
    both, made = read("mixed/both-v0"), read(toy.STITCHED)
    synthetic = both.episodes.infos["synthetic"][both.episodes.step_state][:, 0]
    n_real = read(toy.ID).episodes.n_steps
    assert not synthetic[:n_real].any()
    expected = made.episodes.infos["synthetic"][made.episodes.step_state][:, 0]
    np.testing.assert_array_equal(synthetic[n_real:], expected)
    first = both.episodes.episode(0)
    assert first["metadata"]["augmented"] is False or first["metadata"]["augmented"] == 0
    np.testing.assert_array_equal(first["infos"]["source_step"][:, 0], np.arange(len(first["observations"])))
    said = toy.ok("show", "mixed/both-v0").stdout
    assert f"{expected.sum():,} of {len(synthetic):,} steps are synthetic" in " ".join(said.split())
    refused = toy.invoke("filter", "mixed/both-v0", "--delta", 1)
    assert refused.exit_code == 1 and toy.STITCHED in refused.stderr and "mix again" in refused.stderr
