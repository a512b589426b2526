"""The peer's environment is optional: without it there is a remedy."""

import pendulum
import typer
from typer.testing import CliRunner

from benchmarks import peers


def test_without_the_peer(tmp_path):
    pendulum.write(stitched=None)
    app = typer.Typer()
    app.command()(peers.main)
    words = ["--algo", "td3_bc", "--dataset", pendulum.ID, "--steps", "2", "--episodes", "1"]
    result = CliRunner().invoke(app, [*words, "--python", str(tmp_path / "python")])
    assert result.exit_code == 1 and "make peers" in result.output
