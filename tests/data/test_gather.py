"""Episodes that come one after the other."""

import numpy as np
import pytest

from minari_stitch.data.episodes import STEP_FIELDS, Episodes
from minari_stitch.data.gather import Gathered


def gather(parts, room=(1000, 100), **kwargs):
    gathered = Gathered(*room, **kwargs)
    for part in parts:
        gathered.add(part)
    return gathered.episodes()


@pytest.mark.parametrize("room", [(40, 4), (1, 1), (10**9, 10**6)], ids=["exact", "too small", "far too large"])
def test_what_is_gathered_is_what_is_joined(make_episodes, room):
    parts = [*make_episodes(3), *make_episodes(2, length=7, seed=1)]
    found, wanted = gather(parts, room), Episodes.from_list(parts)
    assert found.fingerprint() == wanted.fingerprint() and len(found) == 5
    assert all(getattr(found, name).flags.c_contiguous for name in ("observations", *STEP_FIELDS))


def test_dtypes_are_those_that_hold_everything(make_episodes):
    parts = [*make_episodes(2, dtype=np.float32), *make_episodes(2, dtype=np.float64, seed=1)]
    found, wanted = gather(parts), Episodes.from_list(parts)
    assert found.observations.dtype == np.float64 and found.actions.dtype == np.float32
    assert found.fingerprint() == wanted.fingerprint()


def test_infos_that_not_all_have_in_one_shape_are_left_out(make_episodes):
    parts = list(make_episodes(3))
    for number, part in enumerate(parts):
        rows = len(part["observations"])
        part["infos"] = {"both": np.full((rows, 1), number), "shape": np.zeros((rows, 1 + number // 2))}
        part["metadata"] = {"number": number}
    parts[1]["infos"]["once"] = np.zeros((rows, 1))
    found = gather(parts, extras=True)
    assert found.infos.keys() == {"both"}
    np.testing.assert_array_equal(found.infos["both"][:, 0], np.repeat([0, 1, 2], rows))
    assert [about["number"] for about in found.metadata] == [0, 1, 2]
    assert not gather(parts).infos and gather(parts).metadata == [{}] * 3
