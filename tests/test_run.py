"""A run: its folders and its refusals."""

import pytest
import torch

from minari_stitch.errors import ConfigError, StorageError
from minari_stitch.run import Run


def run(tmp_path, workers, **kwargs):
    return Run(directory=tmp_path / "run", workers=workers, threads=1, **kwargs)


def test_folders_are_made_on_first_use(tmp_path):
    job = run(tmp_path, 1)
    assert not job.directory.exists()
    assert job.folder("models-1").is_dir() and job.folder("models-1") == job.directory / "models-1"


def test_a_run_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(StorageError, match=r"run/models.*name another"):
        run(tmp_path, 1).folder("models")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"workers": 10**6}, "workers=1000000.*use 1 to"),
        ({"workers": 0}, "workers=0.*use 1 to"),
        ({"threads": 0}, "threads=0.*use 1 to"),
        ({"device": "gpu"}, "'gpu'.*cpu, cuda or mps"),
        ({"seed": -1}, "seed=-1.*0 to 2"),
        ({"seed": 2**63}, "seed="),
    ],
    ids=str,
)
def test_impossible_runs_are_refused(tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        Run(directory=tmp_path, **settings)


def test_a_device_that_is_not_there_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="'cuda:1'.*use cpu"):
        Run(directory=tmp_path, device="cuda:1")


def test_precision_is_that_of_the_arithmetic(tmp_path):
    assert Run(directory=tmp_path).autocast is None
    assert Run(directory=tmp_path, precision="bf16").autocast is torch.bfloat16


def test_a_gpu_works_in_this_process(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match="'cuda:9' is not there: torch sees 1, cuda:0 to cuda:0"):
        Run(directory=tmp_path, device="cuda:9")
    assert Run(directory=tmp_path, device="cuda", workers=8).pool().workers == 1
    assert Run(directory=tmp_path, workers=3).pool(threads=2).workers == 3
