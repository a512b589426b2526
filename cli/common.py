"""What every command shares: the two consoles, common options, and how errors are shown."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from typing import Annotated, Any, Optional

import typer
from rich.console import Console

out = Console()
err = Console(stderr=True)

Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Say more; show tracebacks of errors.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else, to standard output.")]
Force = Annotated[bool, typer.Option("--force", help="Write it once more where the same is there already.")]
OutputId = Annotated[
    Optional[str],  # noqa: UP045 - typer reads this at run time
    typer.Option("--dataset-id", metavar="ID", help="Id of the new dataset \\[default: the next free version]."),
]

Workers = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(help="Processes; the result does not depend on it \\[default: one a core]."),
]


def processes(workers: int | None) -> int:
    """How many were asked for, or one a core."""
    return (os.cpu_count() or 1) if workers is None else workers


def local_ids(incomplete: str) -> list[str]:
    """Ids of local datasets that begin so: what a shell completes."""
    from minari_stitch.data.ids import datasets_path, id_of

    found = (id_of(folder.parent) for folder in datasets_path().glob("**/data"))
    return sorted(dataset_id for dataset_id in found if dataset_id.startswith(incomplete) and dataset_id[0] != ".")


def _well_formed(given: Any) -> Any:
    """Refuse a malformed id before anything heavy is imported."""
    from minari_stitch.data.ids import parse_id

    with errors(verbose=False):
        for dataset_id in [given] if isinstance(given, str) else given or ():
            parse_id(dataset_id)
    return given


def id_argument(help: str) -> Any:  # noqa: A002 - as typer calls it
    """An argument that is a dataset's id, or several: checked, and completed by the shell."""
    return typer.Argument(metavar="ID", help=help, callback=_well_formed, autocompletion=local_ids)


_OPTIONS = {name: f"--{name.replace('_', '-')}" for name in ("skip_invalid", "scores_of", "demo_steps", "run_dir")}
_OPTIONS |= {"n_steps": "--steps"}


def _as_options(message: str) -> str:
    """The library speaks of its parameters; here they are options."""
    return re.sub(r"\b(" + "|".join(_OPTIONS) + r")\b", lambda match: _OPTIONS[match[0]], message)


@contextlib.contextmanager
def errors(verbose: bool) -> Iterator[None]:
    """Named errors become a red message and exit code 1; anything else is a bug and keeps its traceback."""
    from minari_stitch.errors import StitchError, memory_errors

    # Its retries say in many lines what our error says in one.
    os.environ.setdefault("HF_HUB_VERBOSITY", "info" if verbose else "critical")
    try:
        with memory_errors():
            yield
    except StitchError as error:
        if verbose:
            err.print_exception()
        err.print(f"[bold red]{type(error).__name__}[/]: ", end="")
        err.print(_as_options(str(error)), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        err.print("\nInterrupted. Trained models and finished chunks are kept: run the same command to go on.")
        raise typer.Exit(130) from None
