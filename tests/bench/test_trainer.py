"""Many runs in one program: each as if it were alone, compiled or not."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from naive import stitched_version
from torch.utils import _pytree as pytree

from benchmarks.algos import bc, iql, td3_bc
from benchmarks.batches import RatioError
from benchmarks.data import load
from benchmarks.trainer import Program, TrainingRun, seeded_generators, train
from minari_stitch.errors import ConfigError

LEARNERS = {
    "td3_bc": (td3_bc, td3_bc.Config(hidden=16, batch_size=20, steps=30)),
    "iql": (iql, iql.Config(hidden=16, batch_size=20, steps=30, normalize_rewards=True)),
    "iql-dropout": (iql, iql.Config(hidden=16, batch_size=20, steps=30, dropout=0.1)),
    "bc": (bc, bc.Config(hidden=16, batch_size=20, steps=30)),
}
RUNS = [TrainingRun(seed, ratio) for seed in (3, 4) for ratio in ((1, 0), (4, 1))]
pytestmark = pytest.mark.filterwarnings(  # of torch, while it imports its own compiler
    "ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"
)
each_learner = pytest.mark.parametrize(("learner", "config"), LEARNERS.values(), ids=LEARNERS)


@pytest.fixture
def data(write_dataset, make_episodes):
    source = write_dataset()
    return load(source, stitched_version(source, make_episodes(n_episodes=4, seed=1)))


def tensors(state, run=slice(None)):
    """Everything in a state but the step, of some runs."""
    return {pytree.keystr(path): leaf[run] for path, leaf in pytree.tree_flatten_with_path(state)[0] if leaf.ndim > 0}


def assert_equal(state, other, run=slice(None), atol=1e-5):
    for name, value in tensors(state, run).items():
        torch.testing.assert_close(value, tensors(other)[name], atol=atol, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


@each_learner
def test_runs_equal_single_runs(data, learner, config):
    together = train(learner, config, data, RUNS)
    for k, run in enumerate(RUNS):
        alone = train(learner, config, data, [run])
        assert_equal(together.state, alone.state, slice(k, k + 1))
        for name, value in together.info.items():
            torch.testing.assert_close(value[k : k + 1], alone.info[name], atol=1e-5, rtol=1e-4)
    weights = together.state["actor"]["weight1"]
    assert all(not torch.equal(weights[i], weights[j]) for i in range(4) for j in range(i))


def test_runs_of_one_seed_start_alike(data):
    state = Program(td3_bc, LEARNERS["td3_bc"][1], data, RUNS).state
    weights = state["actor"]["weight0"]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    first, second = seeded_generators([TrainingRun(0)], "a", "cpu"), seeded_generators([TrainingRun(0)], "b", "cpu")
    assert first[0].initial_seed() != second[0].initial_seed()


@each_learner
def test_repeatable_and_without_global_randomness(data, learner, config):
    torch.manual_seed(0)
    np.random.seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = train(learner, config, data, RUNS[:2])
    assert torch.equal(torch.get_rng_state(), before[0]) and (np.random.get_state()[1] == before[1]).all()
    torch.manual_seed(1)
    assert_equal(first.state, train(learner, config, data, RUNS[:2]).state, atol=0)


def test_evaluations_do_not_change_the_result(data, monkeypatch):
    monkeypatch.setattr(td3_bc, "BLOCK", 8)
    learner, config = LEARNERS["td3_bc"]
    seen, progress = [], []
    often = train(
        learner,
        config,
        data,
        RUNS[:2],
        evaluate_every=7,
        on_eval=lambda step, state, info: seen.append((step, int(state["step"]), sorted(info))),
        progress=lambda done, total: progress.append((done, total)),
    )
    assert [step for step, _, _ in seen] == [step for _, step, _ in seen] == [7, 14, 21, 28, 30]
    assert seen[0][2] == ["actor_loss", "critic_loss", "imitation_loss", "value"]
    assert progress[-1] == (30, 30) and [done for done, _ in progress] == sorted(done for done, _ in progress)
    assert_equal(often.state, train(learner, config, data, RUNS[:2]).state, atol=0)
    assert often.seconds > 0 and not often.compiled


def test_last_step_is_evaluated_once(data):
    learner, config = LEARNERS["bc"]
    for every in (None, 10, 100):
        seen = []
        train(learner, config, data, RUNS[:1], evaluate_every=every, on_eval=lambda step, *_, s=seen: s.append(step))
        assert seen == ([10, 20, 30] if every == 10 else [30])


def check_compiled(data, learner, config):
    """Two runs, with and without an update of the policy; and the compiler's limits do not add up over programs."""
    eager = train(learner, config, data, RUNS[:2], compile=False)
    compiled = train(learner, config, data, RUNS[:2], compile=True)
    assert compiled.compiled
    assert_equal(compiled.state, eager.state)
    for name, value in eager.info.items():
        torch.testing.assert_close(compiled.info[name], value, atol=1e-5, rtol=1e-4)


def test_compiled_equals_eager(data):
    check_compiled(data, *LEARNERS["td3_bc"])


@pytest.mark.slow
@each_learner
def test_each_compiled_equals_eager(data, learner, config):
    check_compiled(data, learner, config)


@pytest.mark.slow
def test_many_programs_compile_in_one_process(data):
    learner, config = LEARNERS["bc"]
    for hidden in range(8, 18):  # the limit is 8
        train(learner, replace(config, hidden=hidden, steps=2), data, RUNS[:1], compile=True)


@pytest.mark.gpu
@each_learner
def test_graph_equals_eager(data, learner, config):
    on_gpu = type(data)(data.source, device="cuda")
    runs = [TrainingRun(0), TrainingRun(1)]
    eager = train(learner, config, on_gpu, runs, compile=False)
    assert_equal(train(learner, config, on_gpu, runs, compile=True).state, eager.state)


def test_no_denormals_in_training_alone(data):
    """A CPU is slow at them, and a dead unit's moments would be nothing else."""
    learner, config = LEARNERS["bc"]
    smallest, program = torch.tensor(torch.finfo(torch.float32).tiny), Program(learner, config, data, RUNS)
    program.state["actor"]["bias0"][..., 3] = -1e6  # never active again
    program.state["moments"]["mean"]["weight1"][:, :, 3] = smallest
    program.run(1)
    assert (program.state["moments"]["mean"]["weight1"][:, :, 3] == 0).all()
    assert smallest / 2 > 0


def test_bf16_is_close(data):
    learner, config = LEARNERS["td3_bc"]
    exact, rough = (train(learner, config, data, RUNS, precision=p) for p in ("fp32", "bf16"))
    torch.testing.assert_close(rough.info["critic_loss"], exact.info["critic_loss"], rtol=0.05, atol=0.05)
    assert all(value.dtype == torch.float32 for value in tensors(rough.state).values())


def test_refusals(data, monkeypatch):
    learner, config = LEARNERS["bc"]
    for field in ("steps", "batch_size"):
        with pytest.raises(ConfigError, match=f"{field}=0"):
            train(learner, replace(config, **{field: 0}), data, RUNS)
    with pytest.raises(ConfigError, match="evaluate_every=0"):
        train(learner, config, data, RUNS, evaluate_every=0)
    with pytest.raises(ConfigError, match="runs"):
        train(learner, config, data, [])
    for precision in ("tf32", "fp8"):
        with pytest.raises(ConfigError, match=f"{precision}.*cpu"):
            train(learner, config, data, RUNS, precision=precision)
    with pytest.raises(RatioError, match="0:0"):
        train(learner, config, data, [TrainingRun(0, (0, 0))])
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ConfigError, match="install g"):
        train(learner, config, data, RUNS, compile=True)
    monkeypatch.setattr("benchmarks.trainer._COMPILE_FROM", 1)
    assert not train(learner, config, data, RUNS).compiled  # on its own it does without


@pytest.mark.slow
def test_speed_command(tmp_path):
    script = Path(__file__).parents[2] / "benchmarks" / "learner_speed.py"
    command = [sys.executable, str(script), "--quick", "--json", str(tmp_path / "speed.json")]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-4000:]
    sections = json.loads((tmp_path / "speed.json").read_text())
    assert len(sections["learners"]["rows"]) == 12 and "needs --device cuda" in sections["runs"]["note"]
    work = {row["learner"]: round(row["mflop"]) for row in sections["learners"]["rows"]}
    assert work == {"td3_bc": 404, "iql": 524, "bc": 105}
