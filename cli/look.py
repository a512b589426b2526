"""The commands that only look: `show` (a dataset, one of its episodes, its losses), `settings` and `demo list`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import numpy as np
import typer

from minari_stitch.transforms.registry import found

from . import view
from .common import Json, Verbose, errors, id_argument, out

if TYPE_CHECKING:
    from minari_stitch.data.minari_io import Dataset
    from minari_stitch.data.segments import Segment
    from minari_stitch.learn.loop import FitResult

EXAMPLES = (
    "[bold]Examples[/]",
    "minari-stitch show demo/hopper/medium-replay-stitched-v0",
    "minari-stitch show demo/hopper/medium-replay-stitched-v0 --episode 12",
    "minari-stitch show demo/hopper/medium-replay-stitched-v0 --losses",
)
SETTINGS_EXAMPLES = ("[bold]Examples[/]", "minari-stitch settings", "minari-stitch settings tatu --preset full")
_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 20  # places of a curve


def show(
    dataset_id: Annotated[str, id_argument(help="A dataset that augment wrote.")],
    episode: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(metavar="N", help="One episode instead: what it is made of."),
    ] = None,
    losses: Annotated[bool, typer.Option("--losses", help="The training of its networks instead.")] = False,
    run_dir: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Run directory of the augmentation, for --losses \\[default: beside the datasets]."),
    ] = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Report of a stitched dataset: outcomes, acceptance by delta, bridges, returns, and the oracle's word."""
    with errors(verbose):
        from minari_stitch.api.training import fits_of
        from minari_stitch.data import minari_io
        from minari_stitch.data.segments import segments

        dataset = minari_io.read(dataset_id, download=False, keep_infos=True)
        if losses:
            fits = fits_of(dataset, run_dir)
            if as_json:
                print(json.dumps({name: dataclasses.asdict(fit) for name, fit in fits.items()}))
            else:
                print_losses(fits)
        elif episode is not None:
            parts = segments(dataset, episode)
            if as_json:
                print(json.dumps({"episode": episode, "segments": [dataclasses.asdict(part) for part in parts]}))
            else:
                print_episode(dataset, episode, parts)
        elif as_json:
            print(json.dumps(view.report_json(dataset)))
        else:
            view.print_report(out, dataset)


def print_episode(dataset: Dataset, episode: int, parts: Sequence[Segment]) -> None:
    """Print what an episode is made of."""
    last, total = parts[-1], sum(part.total for part in parts)
    generated = sum(part.n_steps for part in parts if part.synthetic)
    out.print(
        f"[cyan]{dataset.dataset_id}[/], episode {episode}: {last.stop:,} steps, {generated:,} of them synthetic; "
        f"return {total:,.6g}; {last.end}",
        highlight=False,
        soft_wrap=True,
    )
    table = view.new_table(None, "Steps", "What", "Return", "Largest error")
    for part in parts:
        origin = f"real: episode {part.source} from step {part.first}" if part.source is not None else "real"
        error = f"{part.error:.3g}" if part.synthetic and part.error is not None else ""
        what = "[yellow]generated[/]" if part.synthetic else origin
        table.add_row(f"{part.start:,} to {part.stop - 1:,}", what, f"{part.total:,.6g}", error)
    table.columns[1].justify = "left"
    out.print(table)


def print_losses(fits: dict[str, FitResult]) -> None:
    """Print a line for each network: its last losses, and the held-out one over its training, in logarithms."""
    table = view.new_table(None, "Network", "Steps", "Loss", "Held-out", "Best", "Over time")
    width = min(_WIDTH, max(4, out.width - 56))  # of what the numbers leave
    table.columns[5].justify, table.columns[5].no_wrap = "left", True
    for name, fit in fits.items():
        _, trained, held = (list(column) for column in zip(*fit.history, strict=True))
        table.add_row(
            name, f"{fit.steps:,}", f"{trained[-1]:.2g}", f"{held[-1]:.2g}", f"{fit.holdout:.2g}", curve(held, width)
        )
    out.print(table)


def curve(values: Sequence[float], width: int = _WIDTH) -> str:
    """A line of bars, the largest value highest; of many values the means of as many stretches as there is room for."""
    some = np.array([part.mean() for part in np.array_split(np.asarray(values, float), min(len(values), width))])
    if (some > 0).all():
        some = np.log(some)
    spread: Any = np.ptp(some)
    heights = np.zeros(len(some)) if spread == 0 else (some - some.min()) / spread * (len(_BARS) - 1)
    return "".join(_BARS[round(height)] for height in heights.tolist())


def settings(
    method: Annotated[
        str,
        typer.Argument(metavar="METHOD", help=f"One of {', '.join(found())}.", autocompletion=lambda: list(found())),
    ] = "diffstitch",
    preset: Annotated[Literal["fast", "full", "paper"], typer.Option(help="Whose values to show.")] = "fast",
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """List every setting of a method, as --set of augment takes it."""
    with errors(verbose):
        from minari_stitch.config import describe
        from minari_stitch.transforms import registry

        rows = list(describe(registry.preset(method, preset)))
        if as_json:
            print(json.dumps([dataclasses.asdict(row) for row in rows]))
        else:
            view.print_settings(out, rows)


def demo_list() -> None:
    """List the demo/ datasets; each is rolled out in MuJoCo on first use."""
    with errors(False):
        from minari_stitch.data.ids import exists
        from minari_stitch.sim.recipes import RECIPES

        view.print_recipes(out, RECIPES.values(), exists)
