import sys

import pytest

from benchmarks import board
from benchmarks.results import Cell
from minari_stitch.errors import ConfigError

CELL = {
    "algo": "iql", "dataset": "a/b-v0", "augmented": "", "kind": "", "ratio": "1:0", "budget": "small", "protocol": "p",
    "settings": "s", "source": "o",
}  # fmt: skip


def test_curves_and_losses_can_be_read_back(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    record = {"curve": [[10, 1.5], [20, 2.5]], "losses": {"critic": 0.25}}
    cells = {Cell(**CELL, seed=seed): record for seed in range(2)}
    for _ in range(2):  # again, which changes nothing
        assert board.write(cells, tmp_path) == 2
    runs = sorted(path.name for path in tmp_path.iterdir())
    assert runs == ["iql-a_b-v0-original-1_0-0", "iql-a_b-v0-original-1_0-1"]
    read = EventAccumulator(str(tmp_path / runs[0])).Reload()
    assert [(event.step, event.value) for event in read.Scalars("score")] == [(10, 1.5), (20, 2.5)]
    assert [(event.step, event.value) for event in read.Scalars("loss/critic")] == [(20, 0.25)]


def test_without_tensorboard_it_is_refused_at_once(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ConfigError, match="needs TensorBoard: pip install"):
        board.check_installed()
