"""The command line: typer and rich, no logic."""

from .app import app, main

__all__ = ["app", "main"]
