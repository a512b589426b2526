import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from minari_stitch.diffstitch.diffusion import Schedule, draw_windows, masked_loss, sampling_steps, training_masks

K = 100
PREDICTIONS = {"v": "v_prediction", "eps": "epsilon", "x0": "sample"}


def diffusers(kind, parametrisation, **kwargs):
    return kind(
        num_train_timesteps=K,
        beta_schedule="squaredcos_cap_v2",
        prediction_type=PREDICTIONS[parametrisation],
        clip_sample=False,
        **kwargs,
    )


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def denoiser(parametrisation):
    """A smooth stand-in for a trained network: a guess of x_0, told in the parametrisation, from diffusers' alphas."""
    kept = diffusers(DDPMScheduler, parametrisation).alphas_cumprod.double()

    def predict(x, step):
        signal, sigma = (y[step][:, None, None].to(x.dtype) for y in (kept.sqrt(), (1 - kept).sqrt()))
        x0 = torch.tanh(signal * x + 0.3 * x.roll(1, 1))
        eps = (x - signal * x0) / sigma
        return {"x0": x0, "eps": eps, "v": signal * eps - sigma * x0}[parametrisation]

    return predict


@pytest.mark.parametrize("steps", [K, 1000])
def test_the_cosine_schedule_is_that_of_diffusers(steps):
    schedule = Schedule.cosine(steps, "v")
    kept = DDPMScheduler(num_train_timesteps=steps, beta_schedule="squaredcos_cap_v2").alphas_cumprod
    torch.testing.assert_close(schedule.signal, kept.sqrt(), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(schedule.noise, (1 - kept).sqrt(), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(schedule.signal**2 + schedule.noise**2, torch.ones(steps))


@pytest.mark.parametrize("parametrisation", PREDICTIONS)
def test_noise_target_and_clean_agree_with_diffusers(parametrisation):
    schedule, other = Schedule.cosine(K, parametrisation), diffusers(DDPMScheduler, parametrisation)
    x0, noise = torch.randn(2, 6, 4, 3, generator=seeded())
    step = torch.tensor([0, 1, 30, 60, 90, 98])
    noised = schedule.add_noise(x0, noise, step)
    torch.testing.assert_close(noised, other.add_noise(x0, noise, step), rtol=0, atol=1e-5)
    target = schedule.target(x0, noise, step)
    expected = {"v": other.get_velocity(x0, noise, step), "eps": noise, "x0": x0}[parametrisation]
    torch.testing.assert_close(target, expected, rtol=0, atol=1e-5)
    # A perfect prediction gives the clean window back; noise prediction is ill-conditioned at the last steps.
    rounding = 1e-5 / schedule.signal.min().item() if parametrisation == "eps" else 1e-5
    torch.testing.assert_close(schedule.clean(noised, target, step), x0, rtol=0, atol=rounding)


@pytest.mark.parametrize("steps", [1, 2, 5, 10, 20, 50, K])
def test_sampling_steps_are_the_trailing_ones(steps):
    other = diffusers(DDIMScheduler, "v", timestep_spacing="trailing")
    other.set_timesteps(steps)
    assert sampling_steps(K, steps) == other.timesteps.tolist()


@pytest.mark.parametrize("steps", [3, 7, 30, 64, 99])
def test_sampling_steps_descend_from_the_last_without_repeats(steps):
    order = sampling_steps(K, steps)
    assert len(order) == steps and order[0] == K - 1 and order[-1] >= 0
    gaps = [a - b for a, b in zip(order[:-1], order[1:], strict=True)]
    assert min(gaps) >= 1 and max(gaps) - min(gaps) <= 1


def unconditional(parametrisation, seed, **kwargs):
    given, known = torch.zeros(4, 8, 3), torch.zeros(4, 8, dtype=torch.bool)
    schedule = Schedule.cosine(K, parametrisation)
    return draw_windows(denoiser(parametrisation), given, known, schedule, generator=seeded(seed), **kwargs)


@pytest.mark.parametrize("parametrisation", PREDICTIONS)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps", [10, 50])
def test_the_sampler_is_ddim_of_diffusers(parametrisation, eta, steps):
    other = diffusers(DDIMScheduler, parametrisation, timestep_spacing="trailing", set_alpha_to_one=True)
    other.set_timesteps(steps)
    generator, predict = seeded(7), denoiser(parametrisation)
    x = torch.randn(4, 8, 3, generator=generator)
    for k in other.timesteps:
        x = other.step(predict(x, k.expand(4)), int(k), x, eta=eta, generator=generator).prev_sample
    mine = unconditional(parametrisation, 7, steps=steps, eta=eta)
    torch.testing.assert_close(mine, x, rtol=0, atol=1e-5)


@pytest.mark.parametrize("parametrisation", PREDICTIONS)
def test_all_steps_with_full_noise_is_ancestral_sampling(parametrisation):
    other = diffusers(DDPMScheduler, parametrisation, variance_type="fixed_small")
    other.set_timesteps(K)
    generator, predict = seeded(8), denoiser(parametrisation)
    x = torch.randn(4, 8, 3, generator=generator)
    for k in other.timesteps:
        x = other.step(predict(x, k.expand(4)), int(k), x, generator=generator).prev_sample
    mine = unconditional(parametrisation, 8, steps=K, eta=1.0)
    torch.testing.assert_close(mine, x, rtol=0, atol=1e-5)


def test_known_positions_are_in_place_at_each_step_and_steer_the_rest():
    given, known = torch.randn(4, 8, 3, generator=seeded(1)), torch.rand(4, 8, generator=seeded(2)) < 0.4
    schedule, seen = Schedule.cosine(K, "v"), []

    def predict(x, step):
        seen.append((x.clone(), step.tolist()))
        return denoiser("v")(x, step)

    result = draw_windows(predict, given, known, schedule, steps=5, eta=1.0, generator=seeded(3))
    assert [step for _, step in seen] == [[k] * 4 for k in (99, 79, 59, 39, 19)]
    for x in (*(x for x, _ in seen), result):
        assert torch.equal(x[known], given[known])
    free = unconditional("v", 3, steps=5, eta=1.0)
    assert (result - free)[~known].abs().max() > 1e-3


def test_estimates_are_clipped_to_the_bounds():
    low, high = torch.tensor([-0.2, -0.1, 0.0]), torch.tensor([0.1, 0.3, 0.05])
    result = unconditional("v", 0, steps=10, eta=0.0, bounds=(low, high))
    assert (result >= low).all() and (result <= high).all()
    assert (result == low).any() and (result == high).any()
    far = torch.full((3,), 1e6)
    wide = unconditional("v", 0, steps=10, eta=0.5, bounds=(-far, far))
    assert torch.equal(wide, unconditional("v", 0, steps=10, eta=0.5))


def test_clipping_to_a_box_is_that_of_diffusers():
    other = DDPMScheduler(num_train_timesteps=K, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction",
                          clip_sample=True, clip_sample_range=0.2)  # fmt: skip
    other.set_timesteps(K)
    generator, predict = seeded(8), denoiser("v")
    x = torch.randn(4, 8, 3, generator=generator)
    for k in other.timesteps:
        x = other.step(predict(x, k.expand(4)), int(k), x, generator=generator).prev_sample
    edge = torch.full((3,), 0.2)
    mine = unconditional("v", 8, steps=K, eta=1.0, bounds=(-edge, edge))
    torch.testing.assert_close(mine, x, rtol=0, atol=1e-5)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_the_temperature_scales_all_noise(eta):
    # With a denoiser that always says 0, the path is a linear map of the noise.
    given, known, schedule = torch.zeros(2, 4, 3), torch.zeros(2, 4, dtype=torch.bool), Schedule.cosine(K, "x0")
    paths = []

    def predict(x, step):
        paths.append(x.clone())
        return torch.zeros_like(x)

    for temperature in (1.0, 0.5):
        draw_windows(predict, given, known, schedule, steps=4, eta=eta, temperature=temperature, generator=seeded())
    for full, half in zip(paths[:4], paths[4:], strict=True):
        assert full.abs().max() > 0.1
        torch.testing.assert_close(0.5 * full, half)


lengths_of_windows = st.lists(st.integers(1, 12), min_size=1, max_size=5)


@settings(max_examples=100, deadline=None)
@given(
    lengths=lengths_of_windows,
    kind=st.sampled_from(["inference", "paper", "reference"]),
    context=st.integers(1, 4),
    seed=st.integers(0, 10_000),
)
def test_masks_show_the_context_and_hide_what_is_to_be_learned(lengths, kind, context, seed):
    horizon = 12
    valid = torch.arange(horizon) < torch.tensor(lengths)[:, None]
    known = training_masks(valid, kind, context, seeded(seed))
    assert known.dtype == torch.bool and known.shape == valid.shape
    assert not (known & ~valid).any()
    for row, length in zip(known.tolist(), lengths, strict=True):
        assert all(row[: min(context, length)])
        if length > context:
            if kind != "reference":
                assert not row[context], "the state after the context is always hidden"
            shown = [i for i in range(context, length) if row[i]]
            assert not shown or shown == list(range(shown[0], shown[-1] + 1)), "one block"
            if kind != "inference":
                assert not row[length - 1], "the end is hidden"


def shapes(kind, horizon=12, context=2, count=8000):
    """Share of masks by where the shown block lies."""
    known = training_masks(torch.ones(count, horizon, dtype=torch.bool), kind, context, seeded())
    later = known[:, context:]
    return {
        "alone": (~later).all(1).float().mean().item(),
        "tail": later[:, -1].float().mean().item(),
        "block": (later.any(1) & ~later[:, -1]).float().mean().item(),
        "starts": {int(row.float().argmax()) for row in later[later.any(1)]},
    }


def test_inference_masks_are_what_stitching_asks():
    share = shapes("inference")
    assert share["alone"] == pytest.approx(0.25, abs=0.02)
    # Half are asked for; a block may end with the window too.
    assert 0.5 < share["tail"] < 0.65
    assert share["block"] > 0.12
    assert share["starts"] == set(range(1, 10)), "a bridge of each length"


def intervals(row):
    """Number of runs of hidden positions."""
    hidden = [0, *(not shown for shown in row)]
    return sum(b and not a for a, b in zip(hidden[:-1], hidden[1:], strict=True))


@settings(max_examples=60, deadline=None)
@given(length=st.integers(1, 14), context=st.integers(1, 3), seed=st.integers(0, 10_000))
def test_paper_masks_hide_two_intervals_wherever_they_fit(length, context, seed):
    valid = (torch.arange(14) < length).expand(64, -1)
    for row in training_masks(valid, "paper", context, seeded(seed))[:, :length].tolist():
        room = length - context
        assert all(row[:context]) and (room < 1 or not row[-1])
        assert intervals(row) == (2 if room >= 3 else min(1, max(room, 0)))


def test_paper_masks_show_a_block_of_any_length_anywhere():
    known = training_masks(torch.ones(8000, 12, dtype=torch.bool), "paper", 2, seeded())[:, 2:]
    assert {int(row.float().argmax()) for row in known} == set(range(1, 9))
    assert {int(row.sum()) for row in known} == set(range(1, 9))


def test_reference_masks_show_one_block_that_may_follow_the_start_and_never_the_end():
    share = shapes("reference")
    assert (share["alone"], share["tail"], share["block"]) == (0, 0, 1)
    assert share["starts"] == set(range(9))


def slow_loss(predicted, target, known, valid, edge_weight):
    total = weights = 0.0
    batch, horizon, width = predicted.shape
    for b in range(batch):
        for h in range(horizon):
            if known[b, h] or not valid[b, h]:
                continue
            beside = (h > 0 and known[b, h - 1]) or (h < horizon - 1 and known[b, h + 1])
            weight = edge_weight if beside else 1.0
            error = sum((predicted[b, h, i].item() - target[b, h, i].item()) ** 2 for i in range(width)) / width
            total, weights = total + weight * error, weights + weight
    return total / max(weights, 1.0)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), edge_weight=st.sampled_from([1.0, 2.5, 10.0]), shown=st.floats(0, 1))
def test_the_loss_is_a_mean_over_hidden_positions(seed, edge_weight, shown):
    generator = seeded(seed)
    predicted, target = torch.randn(2, 3, 7, 2, generator=generator)
    known = torch.rand(3, 7, generator=generator) < shown
    valid = torch.arange(7) < torch.randint(1, 8, (3, 1), generator=generator)
    loss = masked_loss(predicted, target, known, valid, edge_weight)
    assert loss.item() == pytest.approx(slow_loss(predicted, target, known, valid, edge_weight), rel=1e-4, abs=1e-6)


def test_what_is_given_or_outside_carries_no_gradient():
    predicted = torch.randn(2, 6, 3, requires_grad=True)
    known, valid = torch.rand(2, 6, generator=seeded(4)) < 0.4, torch.arange(6) < torch.tensor([[6], [4]])
    masked_loss(predicted, torch.zeros(2, 6, 3), known, valid).backward()
    assert torch.equal(predicted.grad.abs().sum(-1) > 0, valid & ~known)


def test_a_batch_with_nothing_hidden_has_no_loss():
    everything = torch.ones(2, 6, dtype=torch.bool)
    loss = masked_loss(torch.randn(2, 6, 3), torch.zeros(2, 6, 3), everything, everything)
    assert loss.item() == 0
