"""On a GPU: networks compute there what they compute here, and the whole job runs; `pytest -m gpu`."""

from typing import Any

import numpy as np
import pytest
import torch
import toy

from minari_stitch.config import adjust, parse
from minari_stitch.data import minari_io
from minari_stitch.data.provenance import RECORD_KEY
from minari_stitch.diffstitch.transform import DiffStitch
from minari_stitch.learn import loop, steps
from minari_stitch.learn.loop import FitConfig, FitResult, train
from minari_stitch.learn.nets import MLP
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
    spread = torch.tensor([1e-3, 1e-2, 1e-1])
    here, there = (models.calibration(spread) for models in both)
    assert ((there / here).log().abs() < 1).all(), "the bound of other windows of the same data is alike"


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


def _fit(steps: int, optimizer: Any, checkpoint=None, until: int | None = None) -> tuple[torch.Tensor, FitResult]:
    """Weights of a small ensemble after a fit that is killed at a step, or runs to its end."""
    host, device = torch.Generator().manual_seed(0), torch.device(DEVICE)
    net = MLP(3, 2, hidden=16, layers=2, members=2, generator=host).to(device)
    inputs = torch.randn(500, 3, generator=host).to(device)
    outputs = inputs[:, :2].sin()

    def loss(net, generator):
        rows = torch.randint(500, (2, 32), device=device, generator=generator)
        return (net(inputs[rows]) - outputs[rows]).square().mean()

    def progress(_, step, total):
        if step == until:
            raise KeyboardInterrupt

    config = FitConfig(steps=steps, batch_size=32, learning_rate=1e-2, evaluate_every=10, optimizer=optimizer)
    generator = torch.Generator(device).manual_seed(1)
    whole = lambda net: (net(inputs[None].expand(2, -1, -1)) - outputs).square().mean()  # noqa: E731
    result = train(net, loss, whole, config, generator, checkpoint=checkpoint, progress=progress)
    return torch.cat([parameter.flatten() for parameter in net.parameters()]).cpu(), result


@pytest.mark.parametrize("optimizer", ["adam", "soap"])
def test_a_recorded_fit_learns_what_an_eager_one_does(optimizer, monkeypatch):
    recorded, result = _fit(100, optimizer)
    monkeypatch.setattr(steps, "_WARM_UP", 1000)
    eager, expected = _fit(100, optimizer)
    torch.testing.assert_close(recorded, eager, rtol=1e-4, atol=1e-5)
    assert (
        result.holdout == pytest.approx(expected.holdout, rel=1e-4) and result.history[0][1] > 2 * result.history[-1][1]
    )


@pytest.mark.parametrize("optimizer", ["adam", "soap"])
def test_a_killed_fit_goes_on_to_the_same_bits(optimizer, tmp_path, monkeypatch):
    expected, result = _fit(100, optimizer)
    monkeypatch.setattr(loop, "_CHECKPOINT_SECONDS", -1.0)
    with pytest.raises(KeyboardInterrupt):
        _fit(100, optimizer, tmp_path / "a.checkpoint", until=40)
    resumed, again = _fit(100, optimizer, tmp_path / "a.checkpoint")
    assert torch.equal(resumed, expected) and again == result
