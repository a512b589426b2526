"""The speed and memory benchmarks run, each section through its real command; their figures are not judged."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from minari_stitch.diffstitch.config import DiffusionConfig, ModelConfig

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def run(script, *arguments):
    """Run a benchmark and return what it printed; warnings are errors there too."""
    command = [sys.executable, "-W", "error::UserWarning", BENCHMARKS / script, *arguments]
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-4000:]
    return result.stdout


def test_every_section(write_dataset, make_episodes, tmp_path):
    """`--json` holds what the tables show, and a CPU run says why it has no GPU figures."""
    dataset = write_dataset(episodes=make_episodes(n_episodes=12, length=60, obs_dim=4))
    printed = run("speed.py", "--quick", "--dataset", dataset, "--json", tmp_path / "speed.json")
    sections = json.loads((tmp_path / "speed.json").read_text())
    assert list(sections) == ["sampler", "training", "writer", "fewstep", "parametrisation", "gpu"]
    assert "Skipped: it needs --device cuda" in sections["gpu"]["note"]
    assert printed.count("\n###") == len(sections)
    spreads = [
        cell for part in sections.values() for row in part["rows"] for cell in row.values() if type(cell) is list
    ]
    assert len(spreads) > 20 and all(low <= median <= high for median, low, high in spreads)


def test_what_a_gpu_would_run(monkeypatch):
    """The section's own code, with small networks on the CPU."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    gpu, timing = importlib.import_module("_gpu"), importlib.import_module("_timing")
    models = ModelConfig(
        diffusion=DiffusionConfig(horizon=16, width=8, diffusion_steps=8), hidden=16, layers=1, members=3, judges=2
    )
    setup = timing.Setup(device="cpu", quick=True, dataset="", demo_steps=0, budget=1.0, seeds=1, directory=Path())
    section = gpu.large_networks(setup, timing.Section("gpu", ""), gpu.Work(models=models, batch=4, steps=2, pairs=8))
    jobs = {row["job"]: row for row in section.rows}
    assert len(jobs) == 9 and all(row["rate"].median > 0 for row in jobs.values())


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="memory is read from /proc")
def test_memory(tmp_path):
    sizes = {"--steps": 2000, "--episodes": 10, "--stitch-steps": 200, "--workers": 1, "--fits": 10}
    settings = ["--set", "stitch.repair_steps=0", "--set", "stitch.pool=64"]
    run("memory.py", *[str(part) for pair in sizes.items() for part in pair], *settings, "--json", tmp_path / "m.json")
    rows = json.loads((tmp_path / "m.json").read_text())["rows"]
    peaks = {row["what"]: row["MiB"] for row in rows}
    assert 50 < peaks["parent, resident"] <= peaks["all processes, resident"]
