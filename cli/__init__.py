"""The command line: typer and rich, no logic."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Entry point of the `minari-stitch` command."""
    try:
        from .app import app

        app()
    except KeyboardInterrupt:  # while modules are loaded; later the commands say more
        raise SystemExit(130) from None
