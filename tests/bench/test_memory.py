"""What the memory benchmark asks of the command."""

import itertools

from benchmarks import memory


def test_settings_reach_the_command(monkeypatch, datasets_path):
    """Those that let hardly trained models pass, and then those of the user, which count."""
    commands = []
    monkeypatch.setattr(memory, "watch", lambda command, environment: commands.append(command))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(datasets_path))
    memory.measure(60, 2, stitch_steps=100, workers=1, fits=7, settings=["stitch.pool=64", "qualify.termination=0.5"])
    (command,) = commands
    settings = [value for name, value in itertools.pairwise(command) if name == "--set"]
    assert settings[-3:] == ["qualify.termination=1", "stitch.pool=64", "qualify.termination=0.5"]
    assert "models.dynamics.steps=7" in settings
