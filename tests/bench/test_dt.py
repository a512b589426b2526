"""Decision Transformer: the window sampler, the network and the update against slow references."""

import dataclasses

import numpy as np
import pendulum
import pytest
import torch
from torch import nn

from benchmarks.algos import dt
from benchmarks.batches import Sizes
from benchmarks.data import load
from benchmarks.trainer import TrainingRun, train
from minari_stitch.errors import StitchError

SIZES = Sizes(states=3, actions=2)
TINY = dt.Config(steps=4, batch_size=6, width=16, layers=2, heads=2, dropout=0.0, target_return=1.0)


def generators(count):
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


def windows(runs=2, size=4, lengths=(20, 7, 1, 13), seed=0, sizes=SIZES):
    """Random windows, padded on the left to real `lengths`."""
    g = torch.Generator().manual_seed(seed)
    mask = (torch.arange(20) >= 20 - torch.tensor(lengths)[:, None]).float().expand(runs, size, 20)
    return {
        "states": torch.randn(runs, size, 20, sizes.states, generator=g) * mask[..., None],
        "actions": (torch.rand(runs, size, 20, sizes.actions, generator=g) * 2 - 1) * mask[..., None],
        "returns_to_go": torch.randn(runs, size, 20, generator=g) * 1000 * mask,
        "timesteps": (torch.arange(20) + 5).expand(runs, size, 20) * mask.long(),
        "mask": mask,
    }


class Plain(nn.Module):
    """The network as one would write it for one run, from PyTorch's own layers."""

    def __init__(self, parameters, run, layers, heads):
        super().__init__()
        p = {name: value[run] for name, value in parameters.items()}

        def linear(name):
            layer = nn.Linear(*p[f"{name}.weight"].shape)
            layer.weight.data, layer.bias.data = p[f"{name}.weight"].T.clone(), p[f"{name}.bias"].flatten().clone()
            return layer

        def norm(name):
            layer = nn.LayerNorm(p[f"{name}.weight"].numel())
            layer.weight.data, layer.bias.data = (p[f"{name}.{x}"].flatten().clone() for x in ("weight", "bias"))
            return layer

        self.time = nn.Parameter(parameters["time"][run].clone())
        self.inputs = nn.ModuleList(linear(name) for name in ("return", "state", "action"))
        self.first, self.out, self.head = norm("embedded.norm"), norm("out.norm"), linear("head")
        self.blocks = nn.ModuleList()
        for b in range(layers):
            attention = nn.MultiheadAttention(p["out.norm.weight"].numel(), heads, batch_first=True)
            qkv, out = linear(f"{b}.attend"), linear(f"{b}.project")
            attention.in_proj_weight.data, attention.in_proj_bias.data = qkv.weight.data, qkv.bias.data
            attention.out_proj.weight.data, attention.out_proj.bias.data = out.weight.data, out.bias.data
            rest = [norm(f"{b}.norm1"), norm(f"{b}.norm2"), linear(f"{b}.expand"), linear(f"{b}.contract")]
            self.blocks.append(nn.ModuleList([attention, *rest]))

    def forward(self, states, actions, returns_to_go, timesteps):
        """Actions `(T, A)` of one window without padding."""
        tokens = []
        for t in range(len(states)):
            for layer, x in zip(self.inputs, (returns_to_go[t, None] * 0.001, states[t], actions[t]), strict=True):
                tokens.append(layer(x) + self.time[timesteps[t]])
        x = self.first(torch.stack(tokens))[None]
        causal = torch.ones(len(tokens), len(tokens), dtype=torch.bool).triu(1)
        for attention, norm1, norm2, expand, contract in self.blocks:
            h = norm1(x)
            x = x + attention(h, h, h, attn_mask=causal, need_weights=False)[0]
            x = x + contract(nn.functional.gelu(expand(norm2(x))))
        return torch.tanh(self.head(self.out(x)))[0, 1::3]

    def loss(self, batch, run):
        """Mean over a run's windows, padding counted as zeros."""
        total = 0.0
        for i in range(len(batch["mask"][run])):
            real = batch["mask"][run, i].bool()
            one = {name: value[run, i][real] for name, value in batch.items() if name != "mask"}
            total = total + (self(**one) - one["actions"]).square().sum()
        return total / batch["actions"][run].numel()


@pytest.mark.parametrize("decay", [False, True])
def test_loss_and_update_against_plain_modules(decay):
    config = dataclasses.replace(TINY, steps=30, warmup=3, decay=decay, learning_rate=1e-2, weight_decay=0.1)
    state = dt.init(config, SIZES, generators(2))
    nets = [Plain(state["parameters"], run, config.layers, config.heads) for run in range(2)]
    optimizers = [torch.optim.AdamW(net.parameters(), lr=config.learning_rate, weight_decay=0.1) for net in nets]
    for step in range(5):
        batch = windows(seed=step)
        info = dt.update(config, state, batch, {}, 0)
        for run, (net, optimizer) in enumerate(zip(nets, optimizers, strict=True)):
            rate = config.learning_rate * ((1 + np.cos(np.pi * step / 30)) / 2 if decay else 1)
            optimizer.param_groups[0]["lr"] = rate * min((step + 1) / 3, 1)
            optimizer.zero_grad()
            loss = net.loss(batch, run)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(net.parameters(), config.clip)
            optimizer.step()
            assert info["loss"][run].item() == pytest.approx(loss.item(), rel=1e-4)
            assert info["gradient_norm"][run].item() == pytest.approx(norm.item(), rel=1e-3)


def test_act_is_the_last_action_and_padding_is_unseen():
    state, batch = dt.init(TINY, SIZES, generators(2)), windows()
    acted = dt.act(TINY, state, batch)
    assert acted.shape == (2, 4, 2)
    spoiled = {name: value.clone() for name, value in batch.items()}
    hidden = batch["mask"] == 0
    for name in ("states", "actions", "returns_to_go"):
        spoiled[name][hidden] = 7.0
    spoiled["actions"][:, :, -1] = 7.0  # the action that is asked for
    torch.testing.assert_close(dt.act(TINY, state, spoiled), acted)
    for run in range(2):
        net = Plain(state["parameters"], run, TINY.layers, TINY.heads)
        for i in range(4):
            real = batch["mask"][run, i].bool()
            one = {name: value[run, i][real] for name, value in batch.items() if name != "mask"}
            torch.testing.assert_close(acted[run, i], net(**one)[-1], atol=1e-5, rtol=1e-4)
    short = {name: value[:, :1, -3:] for name, value in windows(lengths=(3, 3, 3, 3)).items()}
    long = {name: value[:, :1] for name, value in windows(lengths=(3, 3, 3, 3)).items()}
    torch.testing.assert_close(dt.act(TINY, state, short), dt.act(TINY, state, long))


@pytest.mark.parametrize("kind", ["bridges", "episodes"])
@pytest.mark.parametrize("context", [20, 3])
def test_windows_against_a_slow_sampler(kind, context):
    pendulum.write()
    data = load(pendulum.ID, pendulum.STITCHED, augmented=kind)
    sampler = dt.sampler(dataclasses.replace(TINY, context=context), data, [(1, 0), (0, 1), (1, 1)], generators(3))
    episodes = list(data.episodes)
    starts = {}
    for draws in sampler.draw(20):
        batch = sampler.gather(draws)
        for run in range(3):
            for i, row in enumerate(draws[run].tolist()):
                e = int(np.searchsorted(data.episodes.offsets, row, side="right")) - 1
                t, part = row - int(data.episodes.offsets[e]), episodes[e]
                stitched = e >= data.original_episodes
                end = 12 if stitched and kind == "bridges" else len(part["rewards"])
                assert not (stitched and kind == "bridges") or 5 <= t < 12
                starts.setdefault((run, stitched), []).append(t)
                n = min(context, end - t)
                pad = context - n
                states = (part["observations"][t : t + n] - data.mean.numpy()) / data.std.numpy()
                togo = [part["rewards"][u:].sum() for u in range(t, t + n)]
                expected = {
                    "states": np.concatenate([np.zeros((pad, 3)), states]),
                    "actions": np.concatenate([np.zeros((pad, 1)), part["actions"][t : t + n] / 2]),
                    "returns_to_go": np.concatenate([np.zeros(pad), togo]),
                    "timesteps": np.concatenate([np.zeros(pad), np.arange(t, t + n)]),
                    "mask": np.concatenate([np.zeros(pad), np.ones(n)]),
                }
                for name, value in expected.items():
                    np.testing.assert_allclose(batch[name][run, i].numpy(), value, rtol=1e-4, atol=1e-4, err_msg=name)
    assert (0, True) not in starts and (1, False) not in starts
    assert len(starts[2, True]) == len(starts[2, False]) == 60  # the ratio is exact


def test_a_part_of_a_stitched_episode_keeps_its_time():
    pendulum.write(began=100)
    data = load(pendulum.ID, pendulum.STITCHED, augmented="bridges")
    batch = dt.sampler(TINY, data, [(0, 1)], generators(1)).gather(torch.tensor([[5 * 30 + 5]]))
    assert batch["timesteps"][0, 0, -7:].tolist() == list(range(105, 112))
    assert data.timesteps[: 5 * 30].tolist() == [*range(30)] * 5


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # of torch's compiler
def test_windows_are_compiled_as_a_whole():
    """Nothing in the lookup is beyond the compiler, not even the first time that it runs."""
    pendulum.write()
    sampler = dt.sampler(TINY, load(pendulum.ID), [(1, 0)], generators(1))
    rows = sampler.draw(1)[0]
    compiled = torch.compile(sampler.gather, backend="eager", fullgraph=True)(rows)
    torch.testing.assert_close(compiled, sampler.gather(rows))


def test_runs_do_not_influence_each_other(write_dataset, make_episodes):
    data = load(write_dataset(episodes=make_episodes(length=40)))
    config = dataclasses.replace(TINY, dropout=0.1)
    together = train(dt, config, data, [TrainingRun(3), TrainingRun(1)])
    for run, seed in enumerate((3, 1)):
        alone = train(dt, config, data, [TrainingRun(seed)])
        for name, value in alone.state["parameters"].items():
            torch.testing.assert_close(together.state["parameters"][name][run], value[0], atol=1e-5, rtol=1e-5)


def test_dropout_rate_and_scale():
    config = dataclasses.replace(TINY, dropout=0.25)
    bits = dt.noise(config, SIZES, generators(2), 8, 3)["bits"]
    assert bits.shape[:2] == (3, 2) and not torch.equal(bits[0, 0], bits[0, 1])
    dropped = dt._Dropout(0.25, bits[0])(torch.ones(2, 8, 60, 16))
    assert (dropped == 0).float().mean() == pytest.approx(0.25, abs=0.02)
    assert dropped.unique().tolist() == pytest.approx([0, 4 / 3])
    drop = dt._Dropout(0.25, bits[0])
    dt.forward(config, dt.init(config, SIZES, generators(2))["parameters"], windows(size=8, lengths=[9] * 8), drop)
    assert drop.used == bits.shape[2]  # no bit is used twice, and none is left
    odd = dt.noise(dataclasses.replace(config, context=1, width=1, layers=1, heads=1), SIZES, generators(1), 1, 1)
    assert odd["bits"].shape[2] >= 2 + 4 + 4


def test_it_learns(write_dataset, make_episodes):
    """Actions that are a function of the state are learned."""
    parts = []
    for part in make_episodes(n_episodes=10, length=50):
        parts.append({**part, "actions": np.tanh(part["observations"][:-1, :2] / 4).astype(np.float32)})
    data = load(write_dataset(episodes=type(make_episodes()).from_list(parts)))
    config = dt.Config(steps=80, batch_size=32, width=32, layers=1, dropout=0.0, learning_rate=1e-2)
    assert train(dt, config, data, [TrainingRun(0)]).info["loss"].item() < 0.1 * data.actions.var().item()


def test_fewer_steps_than_the_context(write_dataset, make_episodes):
    with pytest.raises(StitchError, match="context is 20"):
        train(dt, TINY, load(write_dataset(episodes=make_episodes(n_episodes=1, length=12))), [TrainingRun(0)])


def test_settings_of_corl():
    hopper, pen = dt.Config.for_dataset("d4rl/hopper/medium-v2"), dt.Config.for_dataset("D4RL/pen/human-v2")
    assert (hopper.target_return, hopper.reward_scale, hopper.steps) == (3600, 0.001, 50_000)
    assert (pen.target_return, pen.reward_scale, pen.steps) == (3100, 1.0, 100_000)
    assert dt.Config.for_dataset("my/own-v0").target_return is None


@pytest.mark.parametrize("name", ["halfcheetah/medium-replay-v0", "hopper/medium-20pct-v0", "pen/medium-stitched-v1"])
def test_only_d4rls_data_are_asked_for_d4rls_returns(name):
    """Weaker actors made the demo datasets: what D4RL asks for is out of their reach."""
    ours, d4rls = dt.Config.for_dataset(f"demo/{name}"), dt.Config.for_dataset(f"d4rl/{name}")
    assert ours.target_return is None and d4rls.target_return is not None
    assert ours == dataclasses.replace(d4rls, target_return=None)
