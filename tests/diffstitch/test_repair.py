import numpy as np
import pytest
import torch
from linear import episodes, exact, next_state

from minari_stitch.diffstitch import repair as module
from minari_stitch.diffstitch.repair import repair
from minari_stitch.learn.judging import transition_errors, transitions


@pytest.fixture(scope="module")
def data():
    return episodes([40] * 6)


@pytest.fixture
def bridges(data):
    """Real windows with noise on the inner states and actions, padded with the last state."""
    models, rng = exact(data), np.random.default_rng(0)
    steps = torch.tensor([1, 3, 6, 6, 4, 2])
    z = models.scales.state.encode(torch.tensor(data.observations, dtype=torch.float32))
    u = models.scales.action.encode(torch.tensor(data.actions))
    states, actions = torch.zeros(6, 8, 3), torch.zeros(6, 7, 2)
    for row, n in enumerate(steps.tolist()):
        first, begin = int(data.state_offsets[row]), int(data.offsets[row])
        states[row] = z[first + n + 1]
        states[row, : n + 2] = z[first : first + n + 2]
        states[row, 1 : n + 1] += torch.tensor(rng.normal(0, 0.2, (n, 3)))
        actions[row] = u[begin : begin + 7]
    low, high = models.scales.low, models.scales.high
    return models, states.clamp(low, high), actions, steps


def test_errors_match_a_loop_over_the_world(bridges):
    models, states, actions, steps = bridges
    models = exact(episodes([40] * 6), offsets=(0.0, 0.0, 1.0, 3.0))
    s = models.scales
    errors, spread = transition_errors(models.judges, states, actions, steps)
    assert errors.shape == spread.shape == (6, 7)
    for b in range(6):
        for t in range(7):
            if t > steps[b]:
                assert errors[b, t] == spread[b, t] == 0
                continue
            world = next_state(
                *(x.double().numpy() for x in (s.state.decode(states[b, t]), s.action.decode(actions[b, t])))
            )
            true = s.state.encode(torch.tensor(world).float())
            # The two judges are off by 1 and 3 steps' changes: on average by 2, and by 1 around that.
            expected = (true + 2 * s.change - states[b, t + 1]).square().sum().item()
            assert errors[b, t].item() == pytest.approx(expected, rel=1e-3)
            assert spread[b, t].item() == pytest.approx(s.change.square().sum().item(), rel=1e-3)


def true_errors(models, states, actions, steps):
    s = models.scales
    decoded = [x.double().numpy() for x in (s.state.decode(states[:, :-1]), s.action.decode(actions))]
    following = s.state.encode(torch.tensor(next_state(*decoded)).float())
    inside = torch.arange(actions.shape[1]) <= steps[:, None]
    return (following - states[:, 1:]).square().sum(-1) * inside


def test_repair_brings_bridges_onto_the_dynamics(bridges):
    models, states, actions, steps = bridges
    before = true_errors(models, states, actions, steps).amax(1)
    repaired = repair(models, states, actions, steps, 8)
    after = true_errors(models, *repaired, steps).amax(1)
    assert before.min() > 0.01
    assert (after < 0.2 * before).all()


def test_more_iterations_repair_further(bridges):
    models, states, actions, steps = bridges
    errors = [
        true_errors(models, *repair(models, states, actions, steps, n), steps).amax(1).mean() for n in (0, 1, 2, 4)
    ]
    assert errors == sorted(errors, reverse=True)


def test_repair_leaves_ends_and_padding_and_stays_within_bounds(bridges):
    models, states, actions, steps = bridges
    actions = (3 * actions).clamp(-1, 1)
    z, u = repair(models, states, actions, steps, 8)
    for b, n in enumerate(steps.tolist()):
        assert torch.equal(z[b, 0], states[b, 0])
        assert torch.equal(z[b, n + 1 :], states[b, n + 1 :])
        assert torch.equal(u[b, n + 1 :], actions[b, n + 1 :])
        assert (z[b, 1 : n + 1] != states[b, 1 : n + 1]).any()
        assert (u[b, : n + 1] != actions[b, : n + 1]).any()
    assert u.abs().max() <= 1
    assert (z >= models.scales.low).all() and (z <= models.scales.high).all()
    assert not z.requires_grad and not u.requires_grad


def test_no_iterations_change_nothing(bridges):
    models, states, actions, steps = bridges
    z, u = repair(models, states, actions, steps, 0)
    assert z is states and u is actions


def test_inputs_are_not_changed_in_place_and_no_gradients_are_needed(bridges):
    models, states, actions, steps = bridges
    kept = states.clone(), actions.clone()
    with torch.no_grad():
        z, _ = repair(models, states, actions, steps, 5)
    assert torch.equal(states, kept[0]) and torch.equal(actions, kept[1]) and not torch.equal(z, states)


def test_a_bridge_that_did_not_get_better_comes_back(data, bridges):
    models, states, actions, steps = bridges
    # One bridge that is already true: what leads nearer to the behaviour can only disturb it.
    z = models.scales.state.encode(torch.tensor(data.observations, dtype=torch.float32))
    states[2], actions[2] = z[:8], models.scales.action.encode(torch.tensor(data.actions[:7]))
    repaired, acted = repair(models, states, actions, steps, 3, 0.1)
    assert torch.equal(repaired[2], states[2]) and torch.equal(acted[2], actions[2])
    assert not torch.equal(repaired[3], states[3])


def test_bridges_are_repaired_one_by_one(bridges):
    models, states, actions, steps = bridges
    together = repair(models, states, actions, steps, 6)
    for row in range(6):
        alone = repair(models, *(x[row : row + 1] for x in (states, actions, steps)), 6)
        for a, b in zip(alone, together, strict=True):
            torch.testing.assert_close(a[0], b[row], rtol=1e-4, atol=1e-4)


def test_judges_have_no_part_in_the_repair(bridges):
    models, states, actions, steps = bridges
    wrong = exact(episodes([40] * 6), offsets=(0.0, 0.0, 5.0, -9.0))
    for a, b in zip(repair(models, states, actions, steps, 4), repair(wrong, states, actions, steps, 4), strict=True):
        assert torch.equal(a, b)
    swayed = exact(episodes([40] * 6), offsets=(5.0, -9.0, 0.0, 0.0))
    assert not torch.equal(repair(swayed, states, actions, steps, 4)[0], repair(models, states, actions, steps, 4)[0])


def test_disagreement_is_repaired_too(bridges):
    models, states, actions, steps = bridges
    # Two networks that err to opposite sides, the more the further the state is from the mean.
    split = exact(episodes([40] * 6))
    with torch.no_grad():
        split.dynamics_net.weights[0][0, 0] += 3
        split.dynamics_net.weights[0][1, 0] -= 3
    before = transition_errors(split.repairers, states, actions, steps)[1].sum(1)
    z, u = repair(split, states, actions, steps, 8)
    after = transition_errors(split.repairers, z, u, steps)[1].sum(1)
    assert after.sum() < 0.8 * before.sum()


def test_errors_of_a_target_out_of_reach_do_not_add_up(bridges, monkeypatch):
    """Both leave errors; without the weight they all lead to the target."""
    models, states, actions, steps = bridges
    states = states.clone()
    for row, n in enumerate(steps.tolist()):
        states[row, n + 1 :] += 3.0
    gained, largest = {}, {}
    for weight in (0.0, 0.3):
        monkeypatch.setattr(module, "_DRIFT", weight)
        z, u = repair(models, states, actions, steps, 20)
        row, time = transitions(z, steps)
        errors = z[row, time + 1] - models.judges(z[row, time], u[row, time]).mean(0)
        gained[weight] = torch.zeros(6, 3).index_add(0, row, errors).norm(dim=1)
        largest[weight] = transition_errors(models.repairers, z, u, steps)[0].amax(1)
    assert (gained[0.3] < gained[0.0]).all() and gained[0.3].sum() < 0.95 * gained[0.0].sum()
    assert (largest[0.0] > 0.01).all()


def test_actions_stay_near_the_behaviour(bridges):
    """The more the heavier the weight, and each bridge still leads along the dynamics where nothing else does."""
    models, states, actions, steps = bridges
    row, time = transitions(states, steps)

    def distance(imitation):
        repaired, acted = repair(models, states, actions, steps, 12, imitation)
        clone = models.behaviour(repaired[row, time])
        return (acted[row, time] - clone).square().sum(-1).mean().item()

    free, held, forced = (distance(weight) for weight in (0.0, 0.03, 10.0))
    assert forced < held < 0.9 * free
