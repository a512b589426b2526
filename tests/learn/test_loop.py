import dataclasses
import errno
import math
import os

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from minari_stitch.errors import StorageError, TrainingError
from minari_stitch.learn import loop
from minari_stitch.learn.loop import FitConfig, save_atomically, train

CONFIG = FitConfig(
    steps=40, batch_size=8, learning_rate=0.05, warmup=5, ema=0.8, clip=0.5, evaluate_every=7, patience=99
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def network():
    net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.uniform_(-0.5, 0.5, generator=seeded(parameter.numel()))
    return net


def loss(net, generator):
    x = torch.randn(CONFIG.batch_size, 3, generator=generator)
    return (net(x) - x.prod(1, keepdim=True)).square().mean()


def holdout(net):
    x = torch.randn(64, 3, generator=seeded(99))
    return (net(x) - x.prod(1, keepdim=True)).square().mean()


def weights(net):
    return torch.cat([parameter.detach().flatten() for parameter in net.parameters()])


class Killed(Exception):
    pass


@pytest.mark.parametrize("optimizer", ["adam", "soap"])
@pytest.mark.parametrize("killed_at", [2, 8, 14, 25, 30, 39])
def test_a_killed_fit_goes_on_to_the_same_bits(killed_at, optimizer, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_CHECKPOINT_SECONDS", -1.0)
    config = dataclasses.replace(CONFIG, optimizer=optimizer)
    straight, generator = network(), seeded(1)
    expected = train(straight, loss, holdout, config, generator)

    calls = 0

    def dying(net, generator):
        nonlocal calls
        calls += 1
        if calls == killed_at:
            raise Killed
        return loss(net, generator)

    checkpoint = tmp_path / "net.checkpoint"
    with pytest.raises(Killed):
        train(network(), dying, holdout, config, seeded(1), checkpoint=checkpoint)
    assert checkpoint.exists()

    # A new process: other weights and another generator, all of which the checkpoint replaces.
    resumed, other, calls = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)), seeded(77), -1000
    result = train(resumed, dying, holdout, config, other, checkpoint=checkpoint)
    assert calls == -1000 + CONFIG.steps - (killed_at - 1), "only what the checkpoint lacks is done again"
    assert torch.equal(weights(resumed), weights(straight))
    assert result == expected
    assert torch.equal(other.get_state(), generator.get_state())
    assert list(tmp_path.iterdir()) == []


def test_checkpoints_do_not_change_the_fit(tmp_path, monkeypatch):
    without, often = network(), network()
    expected = train(without, loss, holdout, CONFIG, seeded(1))
    monkeypatch.setattr(loop, "_CHECKPOINT_SECONDS", -1.0)
    assert train(often, loss, holdout, CONFIG, seeded(1), checkpoint=tmp_path / "checkpoint") == expected
    assert torch.equal(weights(without), weights(often))


def test_a_fit_is_repeatable_and_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    nets = [network() for _ in range(3)]
    before = torch.random.get_rng_state()
    for net, seed in zip(nets, (1, 1, 2), strict=True):
        train(net, loss, holdout, CONFIG, seeded(seed))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(weights(nets[0]), weights(nets[1])) and not torch.equal(weights(nets[0]), weights(nets[2]))


def test_a_fit_learns():
    net = network()
    before = holdout(net).item()
    result = train(net, loss, holdout, dataclasses.replace(CONFIG, steps=300, evaluate_every=50, ema=0.95), seeded())
    assert result.holdout < 0.6 * before
    assert result.holdout == min(held_out for _, _, held_out in result.history)
    assert holdout(net).item() == pytest.approx(result.holdout, rel=1e-6)
    assert not net.training and not any(parameter.requires_grad for parameter in net.parameters())


def test_the_held_out_loss_is_that_of_the_average():
    trained, averages = [], []

    def recording(net, generator):
        trained.append(weights(net))
        assert net.training and all(parameter.requires_grad for parameter in net.parameters())
        return loss(net, generator)

    def watching(net):
        assert not net.training and not torch.is_grad_enabled()
        assert not any(parameter.requires_grad for parameter in net.parameters()), "an average of no history"
        averages.append(weights(net))
        return holdout(net)

    config = dataclasses.replace(CONFIG, steps=30, evaluate_every=1)
    train(network(), recording, watching, config, seeded())
    expected = trained[0].double()
    for step in range(1, 30):
        decay = min(config.ema, step / (step + 10))
        expected = decay * expected + (1 - decay) * trained[step].double()
        torch.testing.assert_close(averages[step - 1].double(), expected, rtol=1e-5, atol=1e-6)
    assert (averages[-2] - trained[-1]).abs().max() > 1e-3, "the average lags behind"


@pytest.mark.parametrize("script", [[5, 3, 2, 4, 4, 4], [3, 9, 9, 9], [5, 6, 4, 4, 5, 3, 3, 3, 3]])
def test_early_stopping_keeps_the_best_average(script):
    seen = []

    def scripted(net):
        seen.append(weights(net))
        return torch.tensor(float(script[len(seen) - 1]))

    net = network()
    result = train(net, loss, scripted, dataclasses.replace(CONFIG, patience=3, steps=1000), seeded())
    assert len(seen) == len(script) and result.steps == 7 * len(script)
    assert result.holdout == min(script)
    assert torch.equal(weights(net), seen[script.index(min(script))])


def test_the_history_holds_the_mean_loss_of_each_interval():
    values = []

    def recording(net, generator):
        values.append(loss(net, generator))
        return values[-1]

    result = train(network(), recording, holdout, CONFIG, seeded())
    assert [step for step, _, _ in result.history] == [7, 14, 21, 28, 35, 40]
    for start, (stop, mean, _) in zip((0, 7, 14, 21, 28, 35), result.history, strict=True):
        assert mean == pytest.approx(sum(value.item() for value in values[start:stop]) / (stop - start), rel=1e-5)


def test_the_rate_warms_up_and_falls_to_a_hundredth():
    config = dataclasses.replace(CONFIG, steps=200, warmup=20, evaluate_every=200)
    positions = []

    def constant(net, generator):
        # Under a constant gradient, Adam moves by exactly the rate.
        positions.append(weights(net)[0].double().item())
        return sum(parameter.sum() for parameter in net.parameters())

    train(network(), constant, holdout, config, seeded())
    for step in range(199):
        cosine = (1 + math.cos(math.pi * step / 200)) / 2
        expected = 0.05 * min(1, (step + 1) / 20) * (0.01 + 0.99 * cosine)
        assert positions[step] - positions[step + 1] == pytest.approx(expected, rel=0.02, abs=2e-6)


def test_gradients_are_clipped():
    norms = []

    def norm(optimizer, args, kwargs):
        gradients = [p.grad.flatten() for p in optimizer.param_groups[0]["params"]]
        norms.append(torch.cat(gradients).norm().item())

    handle = register_optimizer_step_pre_hook(norm)
    try:
        train(network(), lambda net, generator: 1000 * loss(net, generator), holdout, CONFIG, seeded())
    finally:
        handle.remove()
    assert norms == pytest.approx([CONFIG.clip] * CONFIG.steps, rel=1e-3)


def test_progress_is_told_now_and_then_and_at_the_end():
    calls = []
    config = dataclasses.replace(CONFIG, steps=25)
    train(network(), loss, holdout, config, seeded(), stage="demo", progress=lambda *args: calls.append(args))
    assert calls == [("demo", 10, 25), ("demo", 20, 25), ("demo", 25, 25)]


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "value.pt"
    save_atomically({"a": 1}, path)

    def full(self, *args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(StorageError, match=r"value.pt \(No space left on device\).*run directory"):
            save_atomically({"a": 2}, path)
    assert torch.load(path, weights_only=True) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_damaged_checkpoint_is_named(tmp_path):
    path = tmp_path / "net.checkpoint"
    path.write_bytes(b"half a checkpo")
    with pytest.raises(StorageError, match="net.checkpoint cannot be read .* Remove it"):
        train(network(), loss, holdout, CONFIG, seeded(), checkpoint=path)


@pytest.mark.parametrize("where", ["held out", "training"])
@pytest.mark.parametrize("optimizer", ["adam", "soap"])
def test_a_diverged_fit_is_an_error_and_leaves_nothing(optimizer, where, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_CHECKPOINT_SECONDS", -1.0)
    config = dataclasses.replace(CONFIG, optimizer=optimizer)
    checkpoint, calls = tmp_path / "net.checkpoint", 0

    def diverges(net, generator):
        nonlocal calls
        calls += 1
        return loss(net, generator) * (math.nan if where == "training" and calls > 20 else 1.0)

    def ends(net):
        return holdout(net) * (math.inf if where == "held out" and calls > 20 else 1.0)

    with pytest.raises(TrainingError, match=r"train net diverged: at step 21 of 40 .* learning_rate=0.05"):
        train(network(), diverges, ends, config, seeded(), stage="train net", checkpoint=checkpoint)
    assert list(tmp_path.iterdir()) == []
