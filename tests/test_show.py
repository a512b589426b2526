"""`show` of one episode, and of how the networks were trained."""

import json

import numpy as np
import pytest
import toy

from minari_stitch.data import minari_io
from minari_stitch.data.segments import segments


def test_an_episode_is_said_to_be_what_its_infos_say(stitched):
    dataset = minari_io.read(toy.STITCHED, keep_infos=True)
    about = dataset.episodes.metadata[1]
    before, bridge, after = segments(dataset, 1)
    assert (before.start, before.stop) == (0, about["bridge_start"]) and not before.synthetic
    assert bridge.n_steps == about["bridge_states"] + 1 and bridge.synthetic and bridge.source is None
    assert (before.source, after.source) == (about["source_episode"], about["target_episode"])
    assert after.first == about["target_step"] and after.stop == dataset.episodes.lengths[1]
    assert before.total + bridge.total + after.total == pytest.approx(dataset.episodes.returns[1])
    assert bridge.error == pytest.approx(about["dynamics_error"]) and after.end in ("terminated", "truncated")
    text = " ".join(toy.ok("show", toy.STITCHED, "--episode", 1).stdout.split())
    for part in ("episode 1", f"{bridge.n_steps} of them synthetic", "generated", f"episode {before.source} from step"):
        assert part in text
    said = json.loads(toy.ok("show", toy.STITCHED, "--episode", 1, "--json").stdout)
    assert [part["synthetic"] for part in said["segments"]] == [False, True, False]


def test_an_episode_of_any_dataset():
    toy.write()
    (whole,) = segments(minari_io.read(toy.ID, keep_infos=True), 3)
    assert (whole.start, whole.stop, whole.synthetic, whole.source, whole.error) == (0, 30, False, None, None)
    assert "0 to 29" in toy.ok("show", toy.ID, "--episode", 3).stdout
    result = toy.invoke("show", toy.ID, "--episode", 12)
    assert result.exit_code == 1 and "has no episode 12: choose one of 0 to 11" in " ".join(result.stderr.split())


@pytest.mark.parametrize("method", ["diffstitch", "synther", "tatu"])
def test_losses_are_those_of_all_fits(datasets_path, method):
    toy.write()
    words = toy.tiny(toy.ID, "--delta", 1e6) if method == "diffstitch" else toy.other(method)
    made = json.loads(toy.ok(*words, "--steps", 50, "--json").stdout)
    curves = json.loads(toy.ok("show", made["dataset_id"], "--losses", "--json").stdout)
    (models,) = datasets_path.glob(".stitch-runs/*/models-*")
    trained = {path.stem for path in models.glob("*.pt")} - {"whitening", "limits"}
    assert curves.keys() == trained and len(trained) >= 2
    for curve in curves.values():
        assert np.isfinite(curve["history"]).all() and curve["holdout"] == min(row[2] for row in curve["history"])
    text = toy.ok("show", made["dataset_id"], "--losses").stdout
    assert all(name in text for name in trained)


def test_where_there_are_no_losses(stitched, datasets_path, tmp_path):
    def refused(*words):
        result = toy.invoke("show", *words, "--losses")
        assert result.exit_code == 1 and "InvalidDataError" in result.stderr
        return " ".join(result.stderr.split())

    assert "are not in" in refused(toy.STITCHED, "--run-dir", tmp_path)
    toy.ok(*toy.other("resample", "--steps", 50))
    assert "has no networks" in refused("toy/walk-resampled-v0")
    assert "was not written by minari-stitch" in refused(toy.ID)
    toy.ok("runs", "clean", "--yes")
    assert "augment again" in refused(toy.STITCHED)
    assert not list(datasets_path.glob(".stitch-runs/*"))


def test_losses_need_no_device_that_the_run_had(stitched, datasets_path):
    from minari_stitch.api.training import fits_of
    from minari_stitch.errors import InvalidDataError

    dataset = minari_io.read(toy.STITCHED)
    dataset.metadata["minari_stitch"] |= {"device": "cuda:9"}
    with pytest.raises(InvalidDataError, match="are not in"):  # others' networks: a device is a part of their name
        fits_of(dataset)


def test_curves_fall_from_full_to_empty():
    from minari_stitch.cli.look import curve

    assert curve([100, 10, 1, 0.1]) == "█▆▃▁" and curve([2.0, 2.0]) == "▁▁" and curve([-1, 0, 1]) == "▁▅█"
    assert len(curve(range(1, 1000))) == 20
