"""What a user can get wrong: each has a message with the value and the remedy, and leaves nothing behind."""

import errno
import re
from pathlib import Path

import minari
import numpy as np
import pytest
import toy
from gymnasium import spaces
from minari.dataset.minari_storage import MinariStorage

from minari_stitch.data import hdf5, minari_io


def contents(path):
    """All there is in the datasets folder but the run directory, with its content."""
    files = (file for file in sorted(path.rglob("*")) if ".stitch-runs" not in file.parts)
    return {str(file.relative_to(path)): file.is_file() and file.read_bytes() for file in files}


@pytest.fixture
def refused(datasets_path):
    """Return a function that runs a command which must fail as a user's mistake, and changes nothing."""

    def check(*words, says, code=1):
        before = contents(datasets_path)
        result = toy.invoke(*words)
        output = " ".join(result.stderr.split())
        assert isinstance(result.exception, SystemExit), f"{result.exception!r}\n{output}"
        assert result.exit_code == code, output
        assert not result.stdout and "Traceback" not in output
        for part in says:
            assert re.search(part, output), f"{part!r} is not in: {output}"
        assert contents(datasets_path) == before
        return output

    return check


# Ids


@pytest.mark.parametrize("option", [[], ["--no-download"]])
def test_an_unknown_id_offline(refused, option):
    remedies = [r"minari download toy/none-v0", r"demo/ id", "MINARI_DATASETS_PATH"]
    refused(*toy.tiny("toy/none-v0", *option), says=["'toy/none-v0'", *remedies])


@pytest.mark.parametrize(
    ("dataset_id", "says"),
    [
        ("toy/walk", ["'toy/walk'", "no version", "toy/walk-v0"]),
        ("toy walk-v0", ["'toy walk-v0'", "namespace/name-v0"]),
        ("../toy/walk-v0", ["'../toy/walk-v0'", "namespace/name-v0"]),
        ("", ["''", "namespace/name-v0"]),
        ("demo/hopper/medium", ["demo/hopper/medium"]),
        (f"toy/{'a' * 300}-v0", ["too long", "at most 200"]),
        ("toy/" + "a/" * 400 + "walk-v0", ["too long", "at most 200"]),
    ],
)
def test_a_malformed_id(refused, dataset_id, says):
    refused(*toy.tiny(dataset_id), says=says)


@pytest.mark.parametrize("command", ["augment", "filter"])
def test_an_output_id_that_is_taken(refused, stitched, command):
    words = toy.tiny(toy.ID) if command == "augment" else ["filter", toy.STITCHED, "--delta", 1]
    refused(
        *words,
        "--dataset-id",
        toy.STITCHED,
        says=[f"'{toy.STITCHED}' is taken", "another dataset id", "walk-stitched-v1"],
    )


def test_a_malformed_output_id_is_found_before_any_work(refused, datasets_path):
    toy.write()
    refused(*toy.tiny(toy.ID), "--dataset-id", "nice", says=["'nice'", "nice-v0"])
    refused(*toy.tiny(toy.ID), "--dataset-id", f"{toy.ID}/inside-v0", says=[toy.ID, "another dataset id"])
    assert not (datasets_path / ".stitch-runs").exists()


# Data


def test_no_episode_is_longer_than_the_shortest_bridge(refused, datasets_path):
    toy.write(toy.walks(length=3))
    refused(*toy.tiny(toy.ID), says=["NothingToStitchError", "has 3 steps", r"bridge \d", r"stitch\.min_bridge"])
    assert not (datasets_path / ".stitch-runs").exists()


def test_no_room_before_the_time_limit(refused):
    toy.write(limit=3)
    refused(*toy.tiny(toy.ID), says=["NothingToStitchError", "time limit"])


def test_a_single_episode_is_stitched_to_itself():
    toy.write(toy.walks(episodes=1, length=60), limit=None)
    result = toy.augment("--steps", 100, delta=1e6)
    for episode in minari_io.read(result["dataset_id"], keep_infos=True).episodes:
        about = episode["metadata"]
        assert about["source_episode"] == about["target_episode"] == 0
        assert about["return_after"] > about["return_before"]


def test_constant_observations(refused):
    toy.write([part | {"observations": part["observations"] * 0 + 1} for part in toy.walks()])
    refused(*toy.tiny(toy.ID), says=["NothingToStitchError", "all observations are equal", "check how"])


def test_one_constant_dimension_is_no_obstacle():
    parts = toy.walks()
    for part in parts:
        part["observations"][:, 1] = 4.5
    toy.write(parts)
    made = minari_io.read(toy.augment("--steps", 100)["dataset_id"])
    assert np.isfinite(made.episodes.observations).all()


def test_equal_returns(refused):
    toy.write([part | {"rewards": part["rewards"] * 0} for part in toy.walks()])
    refused(*toy.tiny(toy.ID), says=["NothingToStitchError", "all returns are equal", "rewards"])


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("observations", np.nan, "episode 4.*observations.*nan"),
        ("rewards", np.inf, "episode 4.*rewards.*inf"),
        ("actions", 7, r"episode 4.*actions.*7.*outside \[-1, 1\]"),
        ("terminations", True, "episode 4.*terminations"),
    ],
)
def test_invalid_episodes_are_refused(refused, name, value, says):
    toy.write()
    toy.spoil(toy.ID, episode=4, name=name, value=value)
    refused(*toy.tiny(toy.ID), says=["InvalidDataError", says, "1 of 12 episodes", "--skip-invalid"])


def test_invalid_episodes_are_left_out_on_demand():
    toy.write()
    toy.spoil(toy.ID, episode=4, name="observations")
    result = toy.ok(*toy.tiny(toy.ID, "--delta", 8, "--steps", 60, "--skip-invalid"))
    assert "Left out" in result.stderr and re.search("1 of 12.*episode 4.*nan", " ".join(result.stderr.split()))
    made = minari_io.read(toy.STITCHED, keep_infos=True)
    assert not {4} & {m[key] for m in made.episodes.metadata for key in ("source_episode", "target_episode")}


def test_nothing_valid_is_left(refused):
    toy.write(toy.walks(episodes=1))
    toy.spoil(toy.ID)
    refused(*toy.tiny(toy.ID, "--skip-invalid"), says=["InvalidDataError", "nothing valid"])


def test_a_space_that_cannot_be_stitched(refused, datasets_path):
    storage_id = "toy/images-v0"
    (datasets_path / storage_id).mkdir(parents=True)
    space = spaces.Box(0, 255, (8, 8, 3), np.uint8)
    MinariStorage.new(datasets_path / storage_id / "data", space, spaces.Discrete(2), None).update_metadata(
        {"dataset_id": storage_id, "minari_version": minari.__version__}
    )
    refused(*toy.tiny(storage_id), says=["UnsupportedSpaceError", "cannot be stitched", "Supported is"])


def test_a_damaged_dataset(refused, datasets_path):
    toy.write()
    (datasets_path / toy.ID / "data" / "main_data.hdf5").write_bytes(b"torn")
    refused(*toy.tiny(toy.ID), says=["StorageError", toy.ID, "cannot be read", "minari download --force"])


# Settings


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--delta", "0"], ["delta=0.0", "greater than 0"]),
        (["--delta", "-2"], ["delta=-2.0", "greater than 0"]),
        (["--delta", "nan"], ["delta=nan", "finite number"]),
        (["--steps", "0"], ["--steps=0", "at least 1"]),
        (["--seed", "-1"], ["seed=-1", "use 0 to"]),
        (["--workers", "0"], ["workers=0", "use 1 to"]),
        (["--threads", "0"], ["threads=0", "use 1 to"]),
        (["--workers", "1000000"], ["workers=1000000", "use 1 to"]),
        (["--threads", "1000000"], ["threads=1000000", "use 1 to"]),
        (["--demo-steps", "1000"], ["--demo-steps=1000", "not a demo dataset"]),
        (["--device", "gpu"], ["'gpu'", "use cpu, cuda or mps"]),
        (["--set", "models.diffusion.multipliers=(1,2,4)", "--set", "models.diffusion.horizon=18"], ["16 or 20"]),
        (["--set", "models.diffusion.horizon=8"], ["bridge of 8", "horizon=8"]),
        (["--set", "stitch.paris=paper"], ["'stitch.paris'", "did you mean 'pairs'"]),
        (["--set", "stitch.pairs=pape"], ["stitch.pairs='pape'", "not possible"]),
        (["--set", "stitch.draws=many"], ["stitch.draws='many'", "not possible"]),
        (["--set", "stitch.draws"], ["'stitch.draws' is not a setting", "name=value"]),
        (["--set", "stitch.draws.more=1"], ["'stitch.draws.more'"]),
        (["--set", "models.judges=4"], ["judges=4", "members"]),
        (["--set", "stitch.guidance=1.5"], ["guidance=1.5", "return_dropout"]),
        (["--set", "stitch.sampler_steps=30"], ["sampler_steps=30", "diffusion_steps=20"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_impossible_settings_are_found_before_any_work(refused, datasets_path, words, says):
    toy.write()
    refused(*toy.tiny(toy.ID), *words, says=["ConfigError", *says])
    assert not (datasets_path / ".stitch-runs").exists()


def test_a_device_that_is_not_there(refused, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    toy.write()
    refused(*toy.tiny(toy.ID), "--device", "cuda", says=["ConfigError", "'cuda'", "use cpu"])


def test_a_delta_that_nothing_meets(refused):
    toy.write()
    output = refused(
        *toy.tiny(toy.ID, "--delta", "1e-9"),
        says=["LowAcceptanceError", "only 0 of 512 pairs qualify at delta 1e-09", "0 of 360 steps", "Raise delta"],
    )
    shares = re.findall(r"([\d.]+): ([\d.]+)%", output)
    assert [float(delta) for delta, _ in shares][-2:] == [8, 16] and float(shares[-1][1]) > 50
    toy.augment("--steps", 50)  # and the remedy works


def test_networks_that_no_memory_holds(refused):
    toy.write()
    refused(
        *toy.tiny(toy.ID),
        "--set",
        "models.hidden=10000000",
        says=["OutOfMemoryError", "tried to allocate", "smaller networks"],
    )


def test_the_id_of_a_demo_dataset_is_no_output(refused):
    toy.write()
    refused(*toy.tiny(toy.ID), "--dataset-id", "demo/hopper/medium-v0", says=["demo dataset", "another dataset id"])
    refused("mix", toy.ID, "--dataset-id", "demo/hopper/medium-v0", says=["demo dataset", "another dataset id"])


@pytest.mark.parametrize("record", [None, 3, [], {}, {"method": 3, "source": "toy/walk-v0"}])
@pytest.mark.parametrize("command", [["show"], ["filter", "--delta", 1], ["render"]])
def test_a_damaged_record(refused, stitched, datasets_path, record, command):
    toy.accept(toy.STITCHED, minari_stitch=record or 0)
    refused(command[0], toy.STITCHED, *command[1:], says=["InvalidDataError", "damaged record", "minari delete"])


def test_an_episode_among_the_returns_of_all(refused, stitched):
    refused("render", toy.STITCHED, "--returns", "--episode", 9999, says=["RenderError", "--episode 9999"])


# The machine


def test_a_datasets_path_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "file"))
    result = toy.invoke(*toy.tiny("demo/hopper/medium-v0", "--demo-steps", 500))
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit), repr(result.exception)
    assert "StorageError" in result.stderr and str(tmp_path / "file") in result.stderr
    assert "MINARI_DATASETS_PATH" in result.stderr and (tmp_path / "file").read_bytes() == b""


def test_a_run_directory_that_cannot_be_written(refused, tmp_path):
    toy.write()
    (tmp_path / "file").touch()
    refused(
        *toy.tiny(toy.ID), "--run-dir", tmp_path / "file", says=["StorageError", str(tmp_path / "file"), "another one"]
    )


@pytest.mark.parametrize("calls", [0, 1])
def test_a_disk_that_fills_while_writing(refused, stitched, monkeypatch, calls):
    real, left = hdf5.append, iter(range(calls))

    def full(path, episodes):
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, episodes)

    monkeypatch.setattr(hdf5, "append", full)
    monkeypatch.setattr(hdf5, "BATCH", 4)
    words = toy.tiny(toy.ID, "--delta", toy.DELTA)
    refused(*words, says=["StorageError", "No space left on device", "Free some space", "MINARI_DATASETS_PATH"])


def test_a_disk_that_fills_while_proposing(refused, stitched, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    words = toy.tiny(toy.ID, "--seed", 5)
    refused(*words, says=["StorageError", "No space left on device", "another run directory"])


def test_a_disk_that_fills_while_training(refused, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    toy.write()
    monkeypatch.setattr(Path, "write_bytes", full)
    refused(
        *toy.tiny(toy.ID), says=["StorageError", r"diffusion\.pt", "No space left on device", "another run directory"]
    )


@pytest.mark.parametrize("spoil", [lambda data: data[:100], lambda data: data[:-700] + b"?" + data[-699:]])
@pytest.mark.parametrize("what", ["models-*/dynamics.pt", "chunks-*/000000.npz"])
def test_a_damaged_run_directory(refused, stitched, datasets_path, what, spoil):
    """As after a power cut, or with one byte changed: the file is named, and made again once it is gone."""
    (path,) = (datasets_path / ".stitch-runs").glob(f"*/{what}")
    if path.suffix == ".pt":  # which is read only to propose more
        for chunk in (datasets_path / ".stitch-runs").glob("*/chunks-*/*"):
            chunk.unlink()
    path.write_bytes(spoil(path.read_bytes()))
    words = toy.tiny(toy.ID, "--delta", toy.DELTA)
    refused(*words, says=["StorageError", re.escape(str(path)), "Remove it and run the same again"])
    path.unlink()
    toy.ok(*words)
    fingerprints = {minari_io.read(name).fingerprint for name in (toy.STITCHED, "toy/walk-stitched-v1")}
    assert len(fingerprints) == 1
