"""On a GPU: networks compute there what they compute here, and the whole job runs; `pytest -m gpu`."""

import numpy as np
import pytest
import torch
import toy

from minari_stitch.config import adjust, parse
from minari_stitch.data import minari_io
from minari_stitch.data.provenance import RECORD_KEY
from minari_stitch.diffstitch.transform import DiffStitch
from minari_stitch.run import Run

pytestmark = pytest.mark.gpu
DEVICE = "cuda"


@pytest.fixture
def both(tmp_path):
    """The same trained networks on the CPU and on the GPU."""
    toy.write()
    method = adjust(DiffStitch.preset("fast"), dict(map(parse, toy.TINY[1::2])))
    source = minari_io.read(toy.ID)
    here, there = (
        method.found(source, Run(directory=tmp_path, workers=1, threads=1, device=device)) for device in ("cpu", DEVICE)
    )
    method.fit(source, here.run)
    for file in here.job.networks.glob("*.pt"):
        (there.job.networks / file.name).write_bytes(file.read_bytes())
    return here.job.models, there.job.models


def test_networks_compute_the_same(both):
    generator = torch.Generator().manual_seed(0)
    states, following = (torch.randn(64, 3, generator=generator) for _ in range(2))
    actions, window = torch.rand(64, 2, generator=generator), torch.randn(8, 16, 3, generator=generator)
    known, step = torch.ones(8, 16), torch.full((8,), 3)
    asked = {
        "judges": (states, actions),
        "repairers": (states, actions),
        "inverse": (states, following),
        "reward": (states, actions),
        "termination": (states,),
        "denoise": (window, window * 0.5, known, known, step),
    }
    for name, inputs in asked.items():
        here = getattr(both[0], name)(*inputs)
        there = getattr(both[1], name)(*(x.to(DEVICE) for x in inputs))
        assert there.device.type == DEVICE
        torch.testing.assert_close(there.cpu(), here, rtol=1e-3, atol=1e-3, msg=name)
    assert both[1].calibration.scale == pytest.approx(both[0].calibration.scale, rel=0.5)  # of other windows


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_whole_job(precision):
    """It is sound, says where it was made, and goes on with what it keeps."""
    toy.write()
    words = ("--device", DEVICE, "--precision", precision)
    made = toy.augment("--steps", 300, *words)
    minari_io.check(made["dataset_id"])
    read = minari_io.read(made["dataset_id"], keep_infos=True)
    record = read.metadata[RECORD_KEY]
    assert (record["device"], record["precision"]) == (DEVICE, precision)
    assert read.episodes.n_steps >= 300 and read.episodes.infos["synthetic"].any()
    again = toy.augment("--steps", 300, "--dataset-id", "toy/again-v0", *words)
    first, second = (minari_io.read(one["dataset_id"]).episodes for one in (made, again))
    np.testing.assert_array_equal(first.observations, second.observations)
