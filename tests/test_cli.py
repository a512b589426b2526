"""The command line as a user types it."""

import json
import re
from importlib.metadata import version

import minari
import numpy as np
import pytest
import toy

from minari_stitch.data import minari_io
from minari_stitch.data.provenance import ORACLE_KEY, RECORD_KEY
from minari_stitch.sim import demo

HOPPER = "demo/hopper/medium-replay-v0"
HOPPER_STITCHED = "demo/hopper/medium-replay-stitched-v0"


def read(dataset_id):
    return minari_io.read(dataset_id, download=False, keep_infos=True)


def words(text):
    """Text without the frames of tables and the breaks of lines."""
    return " ".join(re.sub(r"[^\w\s.,:;/%()<>=*'\[\]-]", " ", text).split())


# Help and version


@pytest.mark.parametrize(
    ("command", "example"),
    [
        ([], "minari-stitch augment demo/hopper/medium-replay-v0 --delta 2"),
        (["augment"], "minari-stitch augment demo/hopper/medium-replay-v0 --delta 2"),
        (["filter"], "minari-stitch filter demo/hopper/medium-replay-stitched-v0 --delta 0.25"),
        (["show"], "minari-stitch show demo/hopper/medium-replay-stitched-v0"),
        (["demo"], "minari-stitch demo list"),
        (["demo", "list"], "minari-stitch demo list"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_every_help_has_an_example(command, example, option):
    text = words(toy.ok(*command, option).stdout)
    assert "Usage: minari-stitch" in text
    assert re.search(r"Examples? ", text) and example in text


def test_help_says_what_happens_by_default():
    text = words(toy.ok("augment", "--help").stdout)
    for default in ("by device", "as many as the source has", "the next free version", "one a core", "200000"):
        assert re.search(re.escape("[default: ") + default.replace(" ", r"[\w\s<>-]*?"), text), default


def test_every_command_of_the_examples_exists():
    for command in ([], ["augment"], ["filter"], ["show"], ["demo"]):
        for example in re.findall(
            r"minari-stitch (\w+(?: list)?)", toy.ok(*command, "--help").stdout.split("Example")[1]
        ):
            toy.ok(*example.split(), "--help")


def test_every_option_of_augment_is_said():
    text = toy.ok("augment", "--help").stdout
    for option in ("--delta", "--preset", "--steps", "--form", "--pairs", "--set", "--dataset-id", "--run-dir"):
        assert option in text
    for option in ("--device", "--precision", "--seed", "--workers", "--threads", "--skip-invalid", "--json"):
        assert option in text


def test_version():
    assert toy.ok("--version").stdout == f"minari-stitch {version('minari-stitch')}\n"


def test_nothing_typed_shows_the_help():
    result = toy.invoke()
    assert result.exit_code == 2 and "Usage: minari-stitch" in result.output


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["augmen"], "No such command 'augmen'"),
        (["augment"], "Missing argument 'ID'"),
        (["augment", toy.ID, "--delta", "two"], "Invalid value for '--delta'"),
        (["augment", toy.ID, "--form", "half"], "'half' is not one of 'full', 'onward', 'bridge', 'transitions'"),
        (["augment", toy.ID, "--presett", "fast"], "--presett"),
        (["import-d4rl", "a.hdf5"], "Missing option '--env'"),
    ],
    ids=str,
)
def test_what_cannot_be_understood_is_named(typed, message, datasets_path):
    result = toy.invoke(*typed)
    assert result.exit_code == 2 and message in words(result.output)
    assert not datasets_path.exists()


# augment


def test_the_result_is_said_and_what_to_type_next():
    toy.write()
    result = toy.ok(*toy.tiny(toy.ID, "--delta", 8, "--steps", 100))
    made = read(toy.STITCHED)
    text = words(result.stdout)
    for part in (f"{toy.ID} 12 360", f"{toy.STITCHED} {len(made.episodes)} {made.episodes.n_steps}"):
        assert part in text
    for outcome in ("accepted", "unreachable", "terminated", "inconsistent", "not better", "proposed", "100%"):
        assert outcome in text
    assert "standardised state space" in text and re.search(r"Done in (\d+ min )?\d+ s\. Written to", text)
    assert f"minari-stitch show {toy.STITCHED}" in result.stdout
    typed = re.search(r'python -c "(.*)"\n', result.stdout)[1]
    exec(typed)  # what is to be typed next works
    assert not result.stderr


def test_json_is_all_there_is_on_standard_output(datasets_path):
    toy.write()
    toy.spoil(toy.ID)
    result = toy.ok(*toy.tiny(toy.ID, "--delta", 8, "--steps", 100, "--json", "--skip-invalid", "--verbose"))
    printed = json.loads(result.stdout)
    assert result.stdout.count("\n") == 1
    assert "Left out" in result.stderr and '"max_bridge": 8' in result.stderr
    made = minari.load_dataset(printed["dataset_id"])
    assert (made.total_episodes, made.total_steps) == (printed["n_episodes"], printed["n_steps"])
    assert printed["path"] == str(datasets_path / printed["dataset_id"]) and printed["seconds"] > 0
    record = made.storage.metadata[RECORD_KEY]
    assert record["report"] == printed["report"] and record["report"]["accepted"] > 0


def test_settings_reach_the_record():
    toy.write()
    made = toy.augment("--pairs", "paper", "--set", "stitch.draws=1", "--seed", 7, "--precision", "bf16", "--steps", 50)
    record = read(made["dataset_id"]).metadata[RECORD_KEY]
    assert record["config"]["stitch"]["pairs"] == "paper" and record["config"]["stitch"]["draws"] == 1
    assert record["config"]["qualify"]["delta"] == 8 and record["config"]["form"] == "full"
    assert (record["seed"], record["precision"]) == (7, "bf16")


def test_the_order_of_settings_does_not_matter():
    """None of these is possible without the others, in either order."""
    toy.write()
    fingerprints = set()
    for order in (1, -1):
        settings = ["models.diffusion.horizon=32", "stitch.max_bridge=20", "models.members=3", "models.judges=2"][
            ::order
        ]
        made = toy.augment("--steps", 50, *(word for setting in settings for word in ("--set", setting)))
        record = read(made["dataset_id"]).metadata[RECORD_KEY]["config"]
        assert (record["stitch"]["max_bridge"], record["models"]["judges"]) == (20, 2)
        fingerprints.add(read(made["dataset_id"]).fingerprint)
    assert len(fingerprints) == 1


@pytest.mark.parametrize("preset", ["fast", "full", "paper"])
def test_every_preset_runs(preset, monkeypatch):
    toy.write()
    if preset == "paper":  # which clones no behaviour
        pairs = zip(toy.TINY[::2], toy.TINY[1::2], strict=True)
        there = [word for pair in pairs if not pair[1].startswith("models.behaviour") for word in pair]
        monkeypatch.setattr(toy, "TINY", there)
    made = toy.augment("--preset", preset, "--steps", 30)
    stitch = read(made["dataset_id"]).metadata[RECORD_KEY]["config"]["stitch"]
    assert stitch["pairs"] == ("paper" if preset == "paper" else "reach")


def test_stitching_what_is_stitched_works_and_is_said(stitched):
    result = toy.ok(*toy.tiny(toy.STITCHED, "--delta", 8, "--steps", 50))
    assert f"{toy.STITCHED} holds synthetic steps itself" in " ".join(result.stderr.split())
    record = read("toy/walk-stitched-stitched-v0").metadata[RECORD_KEY]
    assert record["source"] == toy.STITCHED and record["source_fingerprint"] == read(toy.STITCHED).fingerprint


@pytest.mark.parametrize(
    ("form", "learner"), [("full", "dt"), ("onward", "dt"), ("bridge", "td3_bc"), ("transitions", "td3_bc")]
)
def test_what_was_made_is_said_with_its_share_of_a_batch(stitched, form, learner):
    said = " ".join(toy.ok(*toy.tiny(toy.ID, "--delta", toy.DELTA, "--steps", 50, "--form", form)).stdout.split())
    synthetic, steps = (int(number) for number in re.search(r"([\d,]+) of ([\d,]+) steps are synthetic", said).groups())
    assert 0 < synthetic <= steps and f"they are {synthetic / steps / 5:.1%} of a batch" in said
    assert (synthetic == steps) == (form == "transitions")
    assert f"run.py --algo {learner} --dataset {toy.ID}" in said and "broken" not in said
    resampled = toy.ok("augment", toy.ID, "--method", "resample").stdout
    assert "are synthetic" not in resampled and "benchmarks/run.py" not in resampled


def test_errors_are_one_line_unless_more_is_asked_for():
    result = toy.invoke("augment", "toy/nothing-v0", "--no-download")
    assert result.exit_code == 1 and not result.stdout
    assert result.stderr.startswith("DatasetNotFoundError: ") and result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr
    assert "Traceback" in toy.invoke("augment", "toy/nothing-v0", "--no-download", "--verbose").stderr


def test_a_bug_keeps_its_traceback(monkeypatch):
    def broken(*args, **kwargs):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(minari_io, "read", broken)
    result = toy.invoke("augment", toy.ID)
    assert isinstance(result.exception, ZeroDivisionError)


def test_an_interruption_says_that_work_is_kept(monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(minari_io, "read", interrupted)
    result = toy.invoke("augment", toy.ID)
    assert result.exit_code == 130 and "run the same command to go on" in words(result.stderr)


# filter


def test_filter_keeps_what_qualifies_at_a_smaller_delta(stitched):
    whole = read(toy.STITCHED)
    errors = [m["error_bound"] for m in whole.episodes.metadata]
    delta = float(np.median(errors))
    kept = [index for index, error in enumerate(errors) if error < delta]
    assert 0 < len(kept) < len(errors)
    result = json.loads(toy.ok("filter", toy.STITCHED, "--delta", delta, "--json").stdout)
    assert result["dataset_id"] == "toy/walk-stitched-v1"
    assert (result["n_episodes"], result["n_steps"]) == (len(kept), int(whole.episodes.lengths[kept].sum()))
    minari_io.check("toy/walk-stitched-v1")
    part = read("toy/walk-stitched-v1")
    assert part.episodes.fingerprint() == whole.episodes.select(kept).fingerprint()
    assert [m["dynamics_error"] for m in part.episodes.metadata] == [
        whole.episodes.metadata[index]["dynamics_error"] for index in kept
    ]
    record = part.metadata[RECORD_KEY]
    assert record["filtered_from"] == toy.STITCHED and record["config"]["qualify"]["delta"] == delta
    assert (record["n_episodes"], record["n_steps"]) == (result["n_episodes"], result["n_steps"])
    assert f"delta {delta:g}" in part.metadata["description"]
    text = words(toy.ok("show", "toy/walk-stitched-v1").stdout)
    assert f"filtered from {toy.STITCHED}" in text


def test_filter_is_what_augment_gives_at_that_delta(stitched):
    """Of the same proposals: all that qualify at 0.5 among those that the first run wrote."""
    strict = toy.augment("--steps", 1, delta=0.5)
    toy.ok("filter", toy.STITCHED, "--delta", 0.5, "--dataset-id", "toy/filtered-v0")
    first = read(strict["dataset_id"]).episodes.episode(0)
    np.testing.assert_array_equal(first["observations"], read("toy/filtered-v0").episodes.episode(0)["observations"])


def test_filter_keeps_the_originals(stitched):
    made = toy.augment("--include-original", "--steps", 200)["dataset_id"]
    result = toy.ok("filter", made, "--delta", 0.5)
    assert "stitched episodes" in result.stdout and "minari-stitch show" in result.stdout
    part = read("toy/walk-stitched-v2")
    originals = [m for m in part.episodes.metadata if not m["augmented"]]
    assert len(originals) == 12 and len(part.episodes) > 12
    text = words(toy.ok("show", "toy/walk-stitched-v2").stdout)
    assert f"{len(part.episodes) - 12} episodes made" in text and "12 original episodes" in text


@pytest.mark.parametrize(
    ("dataset_id", "delta", "message"),
    [
        (toy.STITCHED, 9, r"delta=9.*qualified at 8; use a smaller one.*augment"),
        (toy.STITCHED, 0, "delta=0"),
        (toy.STITCHED, -1, "delta=-1"),
        (toy.STITCHED, "nan", "delta=nan"),
        (toy.STITCHED, 1e-9, "delta 1e-09: the smallest error is"),
        (toy.ID, 1, f"{toy.ID}.*not written by minari-stitch.*augmented dataset"),
        ("toy/nothing-v0", 1, "toy/nothing-v0"),
    ],
)
def test_filter_refuses(stitched, dataset_id, delta, message):
    result = toy.invoke("filter", dataset_id, "--delta", delta)
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    assert re.search(message, result.stderr), result.stderr
    assert set(minari_io.local_ids()) == {toy.ID, toy.STITCHED}


# show


def test_show_says_what_the_metadata_hold(stitched):
    text = words(toy.ok("show", toy.STITCHED).stdout)
    report = stitched["report"]
    assert f"DiffStitch of {toy.ID}, seed 0" in text
    assert f"{stitched['n_episodes']} episodes made, {stitched['n_steps']} steps" in text
    assert f"accepted {report['accepted']} {report['accepted'] / report['proposed']:.1%}" in text
    assert f"proposed {report['proposed']} 100%" in text
    for name in ("generated states", "dynamics error", "return before", "return after", "return raised by"):
        assert name in text
    assert f"Oracle error: not measured (minari-stitch verify {toy.STITCHED})" in text


def test_show_json_is_the_record_and_the_bridges(stitched):
    result = toy.ok("show", toy.STITCHED, "--json")
    printed = json.loads(result.stdout)
    made = read(toy.STITCHED)
    assert result.stdout.count("\n") == 1 and not result.stderr
    assert printed["dataset_id"] == toy.STITCHED
    assert {name: printed[name] for name in made.metadata[RECORD_KEY]} == made.metadata[RECORD_KEY]
    rows = made.episodes.metadata
    raised = [row["return_after"] - row["return_before"] for row in rows]
    assert printed["bridges"]["return raised by"]["mean"] == pytest.approx(np.mean(raised))
    assert printed["bridges"]["return raised by"]["q0.05"] > 0
    assert printed["bridges"]["generated states"]["q0.5"] == np.median([row["bridge_states"] for row in rows])
    assert printed["bridges"]["dynamics error"]["q0.95"] < toy.DELTA


def test_show_says_what_the_oracle_measured(stitched):
    minari_io.annotate(
        toy.STITCHED,
        {ORACLE_KEY: {"judge": "Toy-v0", "delta": 8, "bridges": {"n": 9, "median": 0.123, "confirmed": 0.9}}},
    )
    text = words(toy.ok("show", toy.STITCHED).stdout)
    assert "0.123" in text and "90.0% are within delta 8" in text and "not measured" not in text


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_show_refuses_what_is_not_stitched(stitched, option):
    result = toy.invoke("show", toy.ID, *option)
    assert result.exit_code == 1 and "not written by minari-stitch" in result.stderr and not result.stdout


# demo


def test_demo_list_names_every_recipe_in_full(datasets_path):
    demo.ensure("demo/halfcheetah/random-v0", n_steps=50, workers=1)
    lines = [line.strip() for line in toy.ok("demo", "list").stdout.splitlines()]
    for dataset_id, recipe in demo.RECIPES.items():
        assert recipe.env_id in lines
        assert (f"{dataset_id}  local" if dataset_id == "demo/halfcheetah/random-v0" else dataset_id) in lines
    assert "minari-stitch augment demo/hopper/medium-replay-v0" in lines[-1]


def test_an_unknown_recipe_names_those_there_are():
    result = toy.invoke("augment", "demo/hopper/good-v0")
    assert result.exit_code == 1 and "demo/hopper/good-v0" in result.stderr
    assert "demo/hopper/medium-replay-v0" in result.stderr


# Real processes, and Minari's own commands, on a real environment


@pytest.fixture(scope="module")
def hopper(tmp_path_factory):
    """A datasets folder with a small demo dataset and its stitched version, made by the real command; its output."""
    path = tmp_path_factory.mktemp("hopper") / "datasets"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(path))
        done = toy.run("minari-stitch", *toy.tiny(HOPPER, "--delta", 1e6, "--demo-steps", 2000, "--json"))
    assert done.returncode == 0, done.stderr
    return path, done


@pytest.fixture
def in_hopper(hopper, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(hopper[0]))
    return hopper[0]


def test_a_demo_dataset_is_made_and_stitched(hopper, in_hopper):
    result = json.loads(hopper[1].stdout)
    assert hopper[1].stdout.count("\n") == 1 and not hopper[1].stderr
    assert result["dataset_id"] == HOPPER_STITCHED
    source, made = minari.load_dataset(HOPPER), minari.load_dataset(HOPPER_STITCHED)
    assert source.total_steps == 2000 <= made.total_steps == result["n_steps"]
    assert made.env_spec.id == "Hopper-v5" and made.env_spec.max_episode_steps == 1000
    assert made.observation_space == source.observation_space and made[0].observations.dtype == np.float64
    assert made.recover_environment().observation_space == made.observation_space
    minari_io.check(HOPPER_STITCHED)
    assert not [path for path in in_hopper.iterdir() if path.name not in ("demo", ".stitch-runs")]


def test_minari_lists_shows_and_combines_the_result(in_hopper):
    listed = toy.run("minari", "list", "local")
    assert listed.returncode == 0, listed.stderr
    assert "medium-replay" in listed.stdout and "Number of datasets: 2" in listed.stdout
    shown = toy.run("minari", "show", HOPPER_STITCHED)
    assert shown.returncode == 0, shown.stderr
    for word in ("DiffStitch", "episodes made from", "Hopper-v5", HOPPER):
        assert word in words(shown.stdout)
    assert (in_hopper / ".stitch-runs").is_dir()  # which Minari does not take for a dataset
    combined = toy.run("minari", "combine", HOPPER, HOPPER_STITCHED, "--dataset-id", "demo/hopper/combined-v0")
    assert combined.returncode == 0, combined.stderr
    source, made, both = map(minari.load_dataset, (HOPPER, HOPPER_STITCHED, "demo/hopper/combined-v0"))
    assert both.total_steps == source.total_steps + made.total_steps
    assert both.total_episodes == source.total_episodes + made.total_episodes
    listed = toy.run("minari", "list", "local")
    assert listed.returncode == 0 and "Number of datasets: 3" in listed.stdout


def test_the_command_fails_as_it_should():
    done = toy.run("minari-stitch", "augment", "toy/nothing-v0", "--no-download")
    assert done.returncode == 1 and not done.stdout
    assert done.stderr.startswith("DatasetNotFoundError: ") and "Traceback" not in done.stderr
