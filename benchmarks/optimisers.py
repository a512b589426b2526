"""How true are dynamics networks after the same time, by SOAP and by Adam?

    python benchmarks/optimisers.py demo/halfcheetah/medium-replay-v0 --seconds 60

Trains the networks that `augment` trains, each optimiser for as many steps as it takes in the same CPU seconds of one
thread, and prints the squared error of the next state on held-out steps (standardised, summed over dimensions, of the
mean of the networks). The last line is JSON.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.prepare import ensure
from minari_stitch.data import minari_io
from minari_stitch.data.minari_io import Dataset
from minari_stitch.data.spaces import FlatSpace
from minari_stitch.diffstitch.config import ModelConfig
from minari_stitch.diffstitch.models import build
from minari_stitch.diffstitch.training import train_network
from minari_stitch.errors import StitchError
from minari_stitch.learn.loop import FitConfig, classifier, perceptron
from minari_stitch.learn.scales import Scales
from minari_stitch.learn.tables import Tables, load_weights

_TRIED = 100
"""Steps that tell how long one takes."""
_ROWS = 8192
_FITS = {"adam": classifier, "soap": perceptron}
"""Rates and batches at which each is at its best for perceptrons of this size (docs/EXPERIMENTS.md, 8 and 37)."""


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What an optimiser reached.

    Attributes:
        steps: It took, fewer than there was time for where the held-out loss no longer fell.
        seconds: Of CPU, from the tenth step to the last.
        median: Of the held-out error.
        mean: Of the held-out error.
    """

    steps: int
    seconds: float
    median: float
    mean: float


def fitted(dataset: Dataset, fit: FitConfig, members: int) -> Fitted:
    """Train the dynamics networks."""
    actions = FlatSpace(dataset.action_space, "action")
    scales = Scales.of(dataset.episodes, actions.low, actions.high)
    config = dataclasses.replace(ModelConfig(), dynamics=fit, members=members, judges=1)
    times: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        result = train_network(
            "dynamics",
            dataset.episodes,
            scales,
            config,
            seed=0,
            discount=0.99,
            directory=Path(folder),
            progress=lambda *_: times.append(time.process_time()),
        )
        assert result is not None  # the folder is new
        tables = Tables(dataset.episodes, scales, 0)
        net = build("dynamics", tables.z.shape[1], tables.u.shape[1], config, torch.Generator())
        net = load_weights(net, Path(folder) / "dynamics.pt", "cpu")
    rows = tables.held[torch.randperm(len(tables.held), generator=torch.Generator().manual_seed(0))[:_ROWS]]
    with torch.no_grad():
        off = (net(tables.inputs(rows)).mean(0) - tables.change(rows)) * scales.change
    error = off.square().sum(-1)
    return Fitted(
        steps=result.steps, seconds=times[-1] - times[0], median=error.median().item(), mean=error.mean().item()
    )


def main(
    dataset: Annotated[str, typer.Argument(metavar="ID", help="Whose dynamics are learned.")],
    seconds: Annotated[float, typer.Option(min=0.1, help="Of CPU, for each optimiser.")] = 60.0,
    members: Annotated[int, typer.Option(min=1, help="Networks that learn together.")] = 4,
) -> None:
    """Train dynamics networks by SOAP and by Adam for the same time, and compare their held-out errors."""
    console = Console()
    torch.set_num_threads(1)
    try:
        ensure(dataset, lambda text: console.print(text, highlight=False))
        source = minari_io.read(dataset)
    except StitchError as error:
        console.print(f"Error: {error}", style="red", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
    found = {}
    for name, recipe in _FITS.items():
        each = fitted(source, recipe(_TRIED), members).seconds / (_TRIED - 10)
        found[name] = fitted(source, recipe(10 + round(seconds / each)), members)
    table = Table(title=f"{dataset}: held-out error of {members} dynamics networks, {seconds:g} CPU s each")
    for column in ("Optimiser", "Steps", "CPU s", "Median", "Mean"):
        table.add_column(column, justify="left" if column == "Optimiser" else "right")
    for name, one in found.items():
        table.add_row(name, f"{one.steps:,}", f"{one.seconds:.0f}", f"{one.median:.3g}", f"{one.mean:.3g}")
    console.print(table)
    print(json.dumps({name: dataclasses.asdict(one) for name, one in found.items()}))


if __name__ == "__main__":
    typer.run(main)
