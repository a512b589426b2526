"""GCBC, GCIVL and GCIQL against the same learners written with plain modules, one sample at a time."""

import dataclasses

import pytest
import torch
from torch import nn

from benchmarks import nets
from benchmarks.algos import gcbc, gciql, gcivl

from .naive import SIZES, generators

RUNS, SIZE, HIDDEN = 2, 6, 8


class Perceptron(nn.Module):
    """A network of `glorot` as modules, in float64."""

    def __init__(self, parameters, run, member=0):
        super().__init__()
        self.layers, self.norms = nn.ModuleList(), nn.ModuleDict()
        for layer in range(sum(name.startswith("weight") for name in parameters)):
            weight = parameters[f"weight{layer}"][run, member].double()
            linear = nn.Linear(*weight.shape).double()
            linear.weight.data, linear.bias.data = weight.T.clone(), parameters[f"bias{layer}"][run, member, 0].double()
            self.layers.append(linear)
            if f"scale{layer}" in parameters:
                self.norms[str(layer)] = nn.LayerNorm(weight.shape[1], eps=1e-6).double()

    def forward(self, *x):
        x = torch.cat(x)
        for number, layer in enumerate(self.layers):
            x = layer(x)
            if number < len(self.layers) - 1:
                x = 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))
                x = self.norms[str(number)](x) if str(number) in self.norms else x
        return x


def batch(seed=0):
    g = torch.Generator().manual_seed(seed)
    made = {name: torch.randn(RUNS, SIZE, SIZES.states, generator=g) for name in ("states", "next_states")}
    made |= {name: torch.randn(RUNS, SIZE, SIZES.states, generator=g) for name in ("value_goals", "actor_goals")}
    here = torch.zeros(RUNS, SIZE, dtype=torch.bool)
    here[:, 1] = True  # one state is its own goal
    made["value_goals"][here] = made["states"][here]
    actions = torch.rand(RUNS, SIZE, SIZES.actions, generator=g) * 2 - 1
    return made | {"actions": actions, "rewards": here.float() - 1, "continues": 1 - here.float()}


def samples(values, run):
    arrays = {name: value[run].double() for name, value in values.items()}
    return [{name: array[i] for name, array in arrays.items()} for i in range(SIZE)]


def likelihood(actor, sample):
    mean = actor(sample["states"], sample["actor_goals"])
    return -torch.distributions.Normal(mean, 1.0).log_prob(sample["actions"]).sum(), mean


def slope(advantage, expectile):
    return expectile if advantage >= 0 else 1 - expectile


def slow_gcbc(config, state, values, run):
    actor = Perceptron(state["actor"], run)
    loss = sum(likelihood(actor, sample)[0] for sample in samples(values, run)) / SIZE
    return loss, {"actor": [actor]}


def slow_gcivl(config, state, values, run):
    actor = Perceptron(state["actor"], run)
    value, target = ([Perceptron(state[name], run, m) for m in range(2)] for name in ("value", "value_target"))
    loss = torch.zeros((), dtype=torch.float64)
    for x in samples(values, run):
        with torch.no_grad():
            after = [float(net(x["next_states"], x["value_goals"])) for net in target]
            here = sum(float(net(x["states"], x["value_goals"])) for net in target) / 2
            after_goal, here_goal = (
                sum(float(net(x[name], x["actor_goals"])) for net in value) / 2 for name in ("next_states", "states")
            )
        factor = config.discount * x["continues"]
        advantage = x["rewards"] + factor * min(after) - here
        for net, follows in zip(value, after, strict=True):
            error = x["rewards"] + factor * follows - net(x["states"], x["value_goals"])
            loss = loss + slope(advantage, config.expectile) * error.square().sum() / SIZE
        weight = min(float(torch.tensor(config.alpha * (after_goal - here_goal)).exp()), 100.0)
        loss = loss + weight * likelihood(actor, x)[0] / SIZE
    return loss, {"actor": [actor], "value": value}


def slow_gciql(config, state, values, run):
    actor, value = Perceptron(state["actor"], run), Perceptron(state["value"], run)
    critic, target = ([Perceptron(state[name], run, m) for m in range(2)] for name in ("critic", "critic_target"))
    loss, gains = torch.zeros((), dtype=torch.float64), []
    for x in samples(values, run):
        goal, acted = x["value_goals"], x["actions"]
        with torch.no_grad():
            best = min(float(net(x["states"], goal, acted)) for net in target)
            backup = x["rewards"] + config.discount * x["continues"] * value(x["next_states"], goal)
        found = value(x["states"], goal)
        loss = loss + slope(best - float(found.detach()), config.expectile) * (best - found).square().sum() / SIZE
        loss = loss + sum((net(x["states"], goal, acted) - backup).square().sum() for net in critic) / SIZE
        cost, mean = likelihood(actor, x)
        for net in critic:  # the policy does not teach them
            net.requires_grad_(False)
        gains.append(min(net(x["states"], x["actor_goals"], mean.clamp(-1, 1))[0] for net in critic))
        for net in critic:
            net.requires_grad_(True)
        loss = loss + config.alpha * cost / SIZE
    gains = torch.stack(gains)
    loss = loss - gains.mean() / (gains.abs().mean().detach() + 1e-6)
    return loss, {"actor": [actor], "critic": critic, "value": [value]}


SLOW = {gcbc: slow_gcbc, gcivl: slow_gcivl, gciql: slow_gciql}
TARGETS = {gcbc: {}, gcivl: {"value_target": "value"}, gciql: {"critic_target": "critic"}}


def ready(algorithm, **changes):
    """Settings and a state in which no two networks are alike."""
    config = dataclasses.replace(algorithm.Config(), hidden=HIDDEN, batch_size=SIZE, learning_rate=1e-3, **changes)
    state = algorithm.init(config, SIZES, generators(RUNS))
    g = torch.Generator().manual_seed(1)
    for value in state.values():
        if isinstance(value, dict) and "weight0" in value:
            for tensor in (t for n, t in value.items() if n.startswith("weight")):
                tensor += 0.3 * torch.randn(tensor.shape, generator=g)
    return config, state


@pytest.mark.parametrize("algorithm", SLOW, ids=lambda module: module.__name__.rpartition(".")[2])
def test_a_step_is_that_of_plain_modules(algorithm):
    config, state = ready(algorithm)
    values = batch()
    wanted, before = [], {name: _copy(state[name]) for name in TARGETS[algorithm]}
    for run in range(RUNS):
        loss, networks = SLOW[algorithm](config, state, values, run)
        parameters = [p for nets_ in networks.values() for net in nets_ for p in net.parameters()]
        optimiser = torch.optim.Adam(parameters, config.learning_rate)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        wanted.append(networks)
    old = {name: _copy(state[of]) for name, of in TARGETS[algorithm].items()}
    info = algorithm.update(config, state, values, {}, True)
    assert all(value.shape == (RUNS,) for value in info.values())
    for run in range(RUNS):
        for name, networks in wanted[run].items():
            for member, net in enumerate(networks):
                for layer, linear in enumerate(net.layers):
                    ours = state[name][f"weight{layer}"][run, member].double()
                    torch.testing.assert_close(ours, linear.weight.T, atol=2e-5, rtol=1e-4, check_stride=False)
                for layer, norm in net.norms.items():
                    ours = state[name][f"scale{layer}"][run, member, 0].double()
                    torch.testing.assert_close(ours, norm.weight, atol=2e-5, rtol=1e-4)
    for name in TARGETS[algorithm]:
        for key, value in state[name].items():
            moved = before[name][key] + config.target_rate * (old[name][key] - before[name][key])
            torch.testing.assert_close(value, moved, atol=1e-6, rtol=1e-5)


def test_a_learning_rate_that_decays_is_torchs_cosine():
    config, state = ready(gcbc, steps=4, decay=True)
    actors = [Perceptron(state["actor"], run) for run in range(RUNS)]
    for run, actor in enumerate(actors):
        optimiser = torch.optim.Adam(actor.parameters(), config.learning_rate)
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.steps)
        for step in range(config.steps):
            optimiser.zero_grad()
            sum(likelihood(actor, sample)[0] / SIZE for sample in samples(batch(step), run)).backward()
            optimiser.step()
            decay.step()
    for step in range(config.steps):
        gcbc.update(config, state, batch(step), {}, True)
    for run, actor in enumerate(actors):
        for layer, linear in enumerate(actor.layers):
            ours = state["actor"][f"weight{layer}"][run, 0].double()
            torch.testing.assert_close(ours, linear.weight.T, atol=2e-5, rtol=1e-4, check_stride=False)


@pytest.mark.parametrize("algorithm", SLOW, ids=lambda module: module.__name__.rpartition(".")[2])
def test_no_run_changes_another(algorithm):
    config, state = ready(algorithm)
    values = batch()
    alone = {name: _first(value) for name, value in state.items()}
    algorithm.update(config, state, values, {}, True)
    algorithm.update(config, alone, {name: value[:1] for name, value in values.items()}, {}, True)
    for name, tensor in alone["actor"].items():
        torch.testing.assert_close(tensor[0], state["actor"][name][0], atol=1e-6, rtol=1e-5)


def _copy(parameters):
    return {name: value.clone() for name, value in parameters.items()}


def _first(value):
    if isinstance(value, dict):
        return {name: _first(inner) for name, inner in value.items()}
    return value[:1].clone() if value.ndim else value.clone()


def test_actions_are_bounded_and_near_zero_at_first():
    config = dataclasses.replace(gcbc.Config(), hidden=32)
    state = gcbc.init(config, SIZES, generators(RUNS))
    observations = torch.randn(RUNS, 50, 2 * SIZES.states)
    assert gcbc.act(config, state, observations).abs().max() < 0.3
    state["actor"]["bias3"] += 5
    assert gcbc.act(config, state, observations).max() == 1


def test_first_weights_have_the_variance_that_they_should():
    found = nets.glorot(generators(1), [200, 300, 2], norm=True, last=0.01)
    assert found["weight0"].var() == pytest.approx(2 / 500, rel=0.05)
    assert found["weight1"].var() == pytest.approx(0.01 * 2 / 302, rel=0.15)
    assert not found["bias0"].any() and "scale1" not in found and (found["scale0"] == 1).all()


@pytest.mark.parametrize(
    ("dataset", "alpha", "discount", "trajectory"),
    [
        ("ogbench/pointmaze-medium-stitch-v0", 0.003, 0.99, 0.5),
        ("ogbench/pointmaze-giant-navigate-v0", 0.003, 0.995, 1.0),
        ("ogbench/antmaze-large-stitch-v0", 0.3, 0.99, 0.5),
    ],
)
def test_settings_are_those_that_ogbench_names(dataset, alpha, discount, trajectory):
    found = gciql.Config.for_dataset(dataset)
    assert (found.alpha, found.discount, found.actor_trajectory) == (alpha, discount, trajectory)
    assert gcivl.Config.for_dataset(dataset).alpha == 10 and gcbc.Config.for_dataset(dataset).actor_trajectory == 1
