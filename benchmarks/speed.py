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
from _timing import Contender, Section, Setup, Spread, rates
from _walk import SPACES, walk
from rich.console import Console
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from minari_stitch.data.episodes import Episodes
from minari_stitch.diffstitch.config import ModelConfig, StitchConfig
from minari_stitch.diffstitch.diffusion import Schedule, draw_windows, masked_loss, training_masks
from minari_stitch.diffstitch.models import NETWORKS, Models, build
from minari_stitch.diffstitch.proposals import propose
from minari_stitch.diffstitch.source import Source
from minari_stitch.diffstitch.training import WindowTables, perceptron_loss
from minari_stitch.diffstitch.transform import DiffStitch
from minari_stitch.learn.loop import FitConfig, train
from minari_stitch.learn.scales import Scales


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
    tables, episodes = _tables(models, setup, 2000 if setup.quick else 50_000)
    unet_steps, mlp_steps = (2, 3) if setup.quick else (8, 40)
    contenders, flops = {}, {}
    for name, batch, steps in (
        ("diffusion", models.diffusion.fit.batch_size, unet_steps),
        ("dynamics", models.dynamics.batch_size, mlp_steps),
    ):
        ours, loss = _ours(name, models, tables, batch, steps)
        plain = _plain_unet(models, episodes, setup, batch, steps) if name == "diffusion" else None
        plain = plain or _plain_dynamics(models, tables, batch, steps)
        contenders |= {name: Contender(ours, steps), f"{name}, plain": Contender(plain, steps)}
        flops[name] = _flops(loss)
    size = 256 if setup.quick else 1536
    matrix = torch.randn(size, size, device=setup.device)
    contenders["peak"] = Contender(lambda: matrix @ matrix, 2 * size**3)
    measured = rates(contenders, setup.repeats, setup.device)
    for name, flop in flops.items():
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


def gpu(setup: Setup) -> Section:
    """The paper's U-Net on a GPU: training against a plain loop, and stitched pairs a second."""
    section = Section("gpu", "Paper preset on a GPU: d128 U-Net (1, 4, 8), H = 100, bf16")
    if torch.device(setup.device).type != "cuda":
        section.note = f"Skipped: it needs --device cuda, and this run is on {setup.device}."
        return section
    return large(setup, section, DiffStitch.preset("paper").models, batch=64, pairs=1024, steps=20)


def large(setup: Setup, section: Section, models: ModelConfig, *, batch: int, pairs: int, steps: int) -> Section:
    """Fill the `gpu` section; with a small configuration it runs anywhere."""
    tables, episodes = _tables(models, setup, 2000 if setup.quick else 50_000)
    ours, loss = _ours("diffusion", models, tables, batch, steps, torch.bfloat16)
    size = 256 if setup.quick else 8192
    matrix = torch.randn(size, size, device=setup.device, dtype=torch.bfloat16)
    contenders = {
        "ours": Contender(ours, steps),
        "plain": Contender(_plain_unet(models, episodes, setup, batch, steps, torch.bfloat16), steps),
        "peak": Contender(lambda: matrix @ matrix, 2 * size**3),
    }
    measured = rates(contenders, setup.repeats, setup.device)
    flop = _flops(loss)
    for name in ("ours", "plain"):
        section.add(
            job=f"training, {batch} windows: {name}",
            rate=Spread.of(measured[name]),
            unit="steps/s",
            ratio=Spread.of(measured[name] / measured["plain"]),
            **{"share of bf16 peak": Spread.of(measured[name] * flop / measured["peak"])},
        )
    host = torch.Generator().manual_seed(0)
    nets: dict[str, Any] = {
        name: build(name, 11, 3, models, host).to(setup.device).eval().requires_grad_(False) for name in NETWORKS
    }
    schedule = Schedule.cosine(models.diffusion.diffusion_steps, models.diffusion.parametrisation, setup.device)
    bundle = Models(
        config=models,
        scales=tables.scales,
        schedule=schedule,
        diffusion=nets.pop("diffusion"),
        **{f"{name}_net": net for name, net in nets.items()},
    )
    source = Source(episodes, tables.scales, 0.99, models.diffusion.context, None)
    longest = models.diffusion.horizon - models.diffusion.context - 1
    config = StitchConfig(max_bridge=longest, sampler_steps=10, draws=1, repair_steps=0, chunk=pairs)

    stitched = Contender(lambda: propose(bundle, source, config, 0, 0), pairs)
    speed = rates({"pairs": stitched}, setup.repeats, setup.device)["pairs"]
    cells = {"rate": Spread.of(speed), "unit": "pairs/s", "ratio": "", "share of bf16 peak": ""}
    section.add(job=f"stitching, {pairs} pairs, 10 steps, fp32, no repair", **cells)
    section.note = f"Peak: {Spread.of(measured['peak'] / 1e12)} TFLOP/s, {size} x {size}. {flop / 1e9:.3g} GFLOP/step."
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


def _tables(models: ModelConfig, setup: Setup, n_steps: int) -> tuple[WindowTables, Episodes]:
    episodes = Episodes.from_list(walk(n_steps, n_steps // 500))
    limit = np.ones(3, np.float32)
    scales = Scales.of(episodes, -limit, limit, models.diffusion.normalizer).to(setup.device)
    return WindowTables(episodes, scales, models.diffusion, 0.99, 0), episodes


def _ours(
    name: str, models: ModelConfig, tables: WindowTables, batch: int, steps: int, autocast: torch.dtype | None = None
) -> tuple[Any, Any]:
    """`train` of a network as `train_network` calls it, and its training loss alone."""
    device = tables.scales.low.device
    net = build(name, 11, 3, models, torch.Generator().manual_seed(0)).to(device)
    generator = torch.Generator(device).manual_seed(0)
    schedule = Schedule.cosine(models.diffusion.diffusion_steps, models.diffusion.parametrisation, device)
    rows, perceptron = tables.train, None if name == "diffusion" else perceptron_loss(name, tables)

    def loss(net: nn.Module, generator: torch.Generator) -> Tensor:
        if perceptron is not None:
            return perceptron(net, _draw(rows, (models.members, batch), generator), generator)
        with torch.autocast(device.type, autocast, enabled=autocast is not None):
            return tables.loss(net, _draw(rows, (batch,), generator), schedule, generator)

    config = FitConfig(steps=steps, batch_size=batch, learning_rate=1e-3, evaluate_every=steps)
    zero = torch.zeros(())

    def run() -> None:
        net.train().requires_grad_(True)
        train(net, loss, lambda _: zero, config, generator)

    return run, lambda: loss(net.train().requires_grad_(True), generator).backward()


def _draw(rows: Tensor, size: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return rows[torch.randint(len(rows), size, device=rows.device, generator=generator)]


def _plain_unet(
    models: ModelConfig, episodes: Episodes, setup: Setup, batch: int, steps: int, autocast: torch.dtype | None = None
) -> Any:
    diffusion = models.diffusion
    net = build("diffusion", 11, 3, models, torch.Generator().manual_seed(0)).to(setup.device)
    schedule = Schedule.cosine(diffusion.diffusion_steps, diffusion.parametrisation, setup.device)
    generator = torch.Generator(setup.device).manual_seed(0)
    parts = [part["observations"] for part in episodes]

    def loss(net: nn.Module, x0: Tensor, valid: Tensor) -> Tensor:
        known = training_masks(valid, diffusion.mask, diffusion.context, generator)
        k = torch.randint(len(schedule.signal), (len(x0),), device=x0.device)
        noise = torch.randn_like(x0)
        noised = torch.where(known[..., None], x0, schedule.add_noise(x0, noise, k))
        predicted = net(noised, x0 * known[..., None], known.float(), valid.float(), k)
        return masked_loss(predicted.float(), schedule.target(x0, noise, k), known, valid)

    sizes = {"steps": steps, "batch": batch, "horizon": diffusion.horizon}
    return lambda: _plain.train_unet(net, parts, loss, **sizes, autocast=autocast)


def _plain_dynamics(models: ModelConfig, tables: WindowTables, batch: int, steps: int) -> Any:
    state = tables.state
    steps_of = torch.arange(len(state), device=state.device)
    inputs, change = tables.inputs(steps_of), tables.change(steps_of)
    nets = [_plain.mlp(14, 11, models.hidden, 4).to(inputs.device) for _ in range(models.members)]
    return lambda: _plain.train_ensemble(nets, inputs, change, steps=steps, batch=batch)


def _flops(work: Any) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


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
