"""How fast the hot paths are, next to the same job written plainly and to the machine's own peak.

    python benchmarks/speed.py                          every section
    python benchmarks/speed.py --section writer --quick

All figures are ratios within one run: contenders take turns (A B A B ...), and a cell holds the median and the
range of the repeats. On a CPU everything runs on one thread.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import platform
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Optional

import _plain
import numpy as np
import torch
import typer
from _acceptance import fewstep, parametrisation
from _fits import flops, plain_dynamics, plain_unet, whole_fit, window_tables
from _gpu import gpu
from _timing import Contender, Section, Setup, Spread, rates
from _walk import SPACES, walk
from rich.console import Console
from torch import Tensor

from minari_stitch.diffstitch.config import ModelConfig
from minari_stitch.diffstitch.diffusion import Schedule, draw_windows
from minari_stitch.diffstitch.models import build


def sampler(setup: Setup) -> Section:
    """The sampler against the loop that people write."""
    section = Section(
        "sampler",
        "Sampling: denoised windows a second, ours against a plain loop",
        "All with the fast preset's U-Net, 100 ancestral steps. The batched loops run the same network on the same "
        "batch, so their ratio is what coefficients and bookkeeping cost.",
    )
    batch, rows, total = (8, 2, 5) if setup.quick else (64, 4, 100)
    config = ModelConfig()
    net = build("diffusion", 11, 3, config, torch.Generator().manual_seed(0)).to(setup.device).eval()
    schedule = Schedule.cosine(total, "v", setup.device)
    generator = torch.Generator(setup.device).manual_seed(0)
    horizon = config.diffusion.horizon
    given = torch.randn(batch, horizon, 11, device=setup.device, generator=generator)
    known = torch.zeros(batch, horizon, dtype=torch.bool, device=setup.device)
    known[:, 0] = known[:, -8:] = True
    bounds = torch.full((11,), -5.0, device=setup.device), torch.full((11,), 5.0, device=setup.device)

    def predict(x: Tensor, step: Tensor, part: slice = slice(None)) -> Tensor:
        mask = known[part].float()
        return net(x, given[part] * mask[..., None], mask, torch.ones_like(mask), step)

    def one_by_one() -> None:
        for row in range(rows):
            part = slice(row, row + 1)
            _plain.ddpm(lambda x, step, part=part: predict(x, step, part), given[part], known[part], total, *bounds)

    def ours() -> None:
        draw_windows(predict, given, known, schedule, steps=total, eta=1.0, generator=generator, bounds=bounds)

    contenders = {
        "ours": Contender(ours, batch * total),
        "plain, batched": Contender(lambda: _plain.ddpm(predict, given, known, total, *bounds), batch * total),
        "plain, row by row": Contender(one_by_one, rows * total),
    }
    with torch.no_grad():
        _compare(section, rates(contenders, setup.repeats, setup.device), "window-steps/s")
    return section


def training(setup: Setup) -> Section:
    """Training steps against plain loops, and against the peak of a matrix product."""
    section = Section(
        "training",
        "Training: steps a second, ours against a plain loop, and the share of the matrix-product peak",
        "Fast preset, Hopper's shapes. Ours: `train` with its loss, batch draw, clipping and weight average. "
        "Plain: the same job with one Adam and one loop for each network, windows cut in NumPy, and a loss read at "
        "every step.",
    )
    models = ModelConfig(members=2, judges=1) if setup.quick else ModelConfig()
    table, episodes = window_tables(models, setup, 2000 if setup.quick else 50_000)
    unet_steps, mlp_steps = (2, 3) if setup.quick else (8, 40)
    contenders, work = {}, {}
    for name, batch, steps in (
        ("diffusion", models.diffusion.fit.batch_size, unet_steps),
        ("dynamics", models.dynamics.batch_size, mlp_steps),
    ):
        ours, loss = whole_fit(name, models, table, batch, steps)
        plain = plain_unet(models, episodes, setup, batch, steps) if name == "diffusion" else None
        plain = plain or plain_dynamics(models, table, batch, steps)
        contenders |= {name: Contender(ours, steps), f"{name}, plain": Contender(plain, steps)}
        work[name] = flops(loss)
    size = 256 if setup.quick else 1536
    matrix = torch.randn(size, size, device=setup.device)
    contenders["peak"] = Contender(lambda: matrix @ matrix, 2 * size**3)
    measured = rates(contenders, setup.repeats, setup.device)
    for name, flop in work.items():
        what = "U-Net" if name == "diffusion" else f"dynamics, {models.members} networks"
        section.add(
            **{
                "job": what,
                "ours, steps/s": Spread.of(measured[name]),
                "plain, steps/s": Spread.of(measured[f"{name}, plain"]),
                "ratio": Spread.of(measured[name] / measured[f"{name}, plain"]),
                "GFLOP/step": flop / 1e9,
                "share of fp32 peak": Spread.of(measured[name] * flop / measured["peak"]),
                "plain's share": Spread.of(measured[f"{name}, plain"] * flop / measured["peak"]),
            }
        )
    section.note += f" Peak: {Spread.of(measured['peak'] / 1e9)} GFLOP/s, {size} x {size}."
    return section


def writer(setup: Setup) -> Section:
    """`minari_io.write` against Minari's own one-call writer."""
    import minari
    from minari.data_collector.episode_buffer import EpisodeBuffer

    from minari_stitch.data import minari_io

    section = Section(
        "writer",
        "Writing: MB a second, minari_io.write against minari.create_dataset_from_buffers",
        "The same arrays, HDF5. Ours also validates every episode, writes episode metadata where there are some, and "
        "publishes the dataset atomically. MB are bytes of the arrays.",
    )
    for length, with_infos in ((1000, False), (1000, True), (100, False)):
        episodes = 5 if setup.quick else 100_000 // length
        parts = list(walk(length * episodes, episodes))
        for part in parts if with_infos else ():
            part["infos"] = {name: np.zeros((length + 1, 1)) for name in ("a", "b", "c", "d", "e")}
            part["metadata"] = {f"value{i}": float(i) for i in range(13)}
        buffers = [
            EpisodeBuffer(id=i, **{key: value for key, value in part.items() if key != "metadata"})
            for i, part in enumerate(parts)
        ]
        size = sum(array.nbytes for part in parts for array in _arrays(part))

        def ours(parts: list[dict[str, Any]] = parts) -> None:
            with _datasets_folder():
                minari_io.write(parts, dataset_id="bench/ours-v0", **SPACES)

        def theirs(buffers: list[EpisodeBuffer] = buffers) -> None:
            with _datasets_folder(), warnings.catch_warnings(action="ignore"):
                about: dict[str, Any] = SPACES | dict.fromkeys(("author", "author_email", "code_permalink"), "a")
                minari.create_dataset_from_buffers("bench/theirs-v0", [copy.copy(b) for b in buffers], **about)

        contenders = {"ours": Contender(ours, size / 1e6), "Minari's": Contender(theirs, size / 1e6)}
        measured = rates(contenders, setup.repeats)
        section.add(
            **{
                "episodes": f"{episodes} x {length}" + (", 5 infos, 13 metadata" if with_infos else ""),
                "MB": size / 1e6,
                "ours, MB/s": Spread.of(measured["ours"]),
                "Minari's, MB/s": Spread.of(measured["Minari's"]),
                "ratio": Spread.of(measured["ours"] / measured["Minari's"]),
            }
        )
    return section


def main(
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    quick: Annotated[bool, typer.Option("--quick", help="A smoke test: tiny sizes, meaningless figures.")] = False,
    section: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer reads this at run time
        typer.Option(help="Only this one of sampler, training, writer, fewstep, parametrisation, gpu; repeatable."),
    ] = None,
    dataset: Annotated[str, typer.Option(help="For fewstep and parametrisation.")] = "demo/hopper/medium-replay-v0",
    demo_steps: Annotated[int, typer.Option(help="Steps of a demo/ dataset made on first use.")] = 100_000,
    run_dir: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Run directory whose models are used, or trained into it [default: temporary]."),
    ] = None,
    budget: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Share of the fast preset's training steps [default: 1, quick 0.002]."),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Training seeds of parametrisation.")] = 1,
    json_file: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--json", help="Also write the figures here."),
    ] = None,
) -> None:
    """Print one Markdown table for each section."""
    for name in section or ():
        if name not in SECTIONS:
            raise typer.BadParameter(f"there is no section {name!r}: choose from {', '.join(SECTIONS)}")
    torch.set_num_threads(1)
    console, done = Console(width=240), []
    with tempfile.TemporaryDirectory() as temporary:
        setup = Setup(
            device=device,
            quick=quick,
            dataset=dataset,
            demo_steps=demo_steps,
            budget=budget or (0.002 if quick else 1.0),
            seeds=seeds,
            directory=run_dir or Path(temporary),
        )
        where = torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else platform.processor()
        console.print(f"torch {torch.__version__}, {where or platform.machine()}", highlight=False)
        for name in section or SECTIONS:
            done.append(SECTIONS[name](setup))
            done[-1].show(console)
            if json_file is not None:
                json_file.write_text(json.dumps({part.name: part.to_dict() for part in done}, indent=1))


SECTIONS = {f.__name__: f for f in (sampler, training, writer, fewstep, parametrisation, gpu)}


def _compare(section: Section, measured: dict[str, np.ndarray], unit: str) -> None:
    """One row for each contender, with the first one's ratio to it."""
    first = next(iter(measured.values()))
    for name, values in measured.items():
        section.add(**{"": name, unit: Spread.of(values), "ours is": Spread.of(first / values)})


def _arrays(part: dict[str, Any]) -> Iterator[np.ndarray]:
    for value in part.values():
        if isinstance(value, np.ndarray):
            yield value
    yield from part.get("infos", {}).values()


@contextlib.contextmanager
def _datasets_folder() -> Iterator[None]:
    """A temporary folder for datasets."""
    before = os.environ.get("MINARI_DATASETS_PATH")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MINARI_DATASETS_PATH"] = folder
        try:
            yield
        finally:
            os.environ.pop("MINARI_DATASETS_PATH")
            if before is not None:
                os.environ["MINARI_DATASETS_PATH"] = before


if __name__ == "__main__":
    typer.run(main)
