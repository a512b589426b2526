"""`minari-stitch`: augment, filter, settings, show and demo."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

from minari_stitch.transforms.registry import found

from . import datasets, edit, exchange, look, trust, view
from .begin import begin_with, chosen
from .common import Force, Json, OutputId, Verbose, err, errors, id_argument, out, processes
from .render import EPILOG as _RENDER_EXAMPLES
from .render import render
from .runs import runs_app

app = typer.Typer(
    name="minari-stitch",
    help="Stitch low-return trajectories of a Minari dataset to high-return ones with a diffusion model.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=(
        "[bold]Examples[/]\n\n  minari-stitch demo list\n\n"
        "  minari-stitch augment demo/hopper/medium-replay-v0 --delta 2\n\n"
        "  minari-stitch show demo/hopper/medium-replay-stitched-v0"
    ),
)
if TYPE_CHECKING:
    Method = str
else:
    Method = Literal[tuple(found())]
    """Every transform that is installed."""
_DEMO_EXAMPLE = "[bold]Example[/]\n\n  minari-stitch demo list"
demo_app = typer.Typer(help="Datasets that need no download.", no_args_is_help=True, epilog=_DEMO_EXAMPLE)
app.add_typer(demo_app, name="demo", rich_help_panel="Keep")
app.add_typer(runs_app, name="runs", rich_help_panel="Keep")


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"minari-stitch {version('minari-stitch')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    pass


_HOW, _WHERE, _SOURCE = "How", "Where, and with what seed", "The source"
"""Panels of the options of `augment`."""
_MAKE, _DATA, _JUDGE, _LOOK = "Make", "Bring in, cut, join, hand on", "Judge", "Look"
"""Panels of commands."""
_AUGMENT_EXAMPLES = (
    "[bold]Examples[/]",
    "minari-stitch augment demo/hopper/medium-replay-v0 --delta 2",
    "minari-stitch augment mujoco/hopper/medium-v0 --preset full --device cuda",
    "minari-stitch augment demo/hopper/medium-replay-v0 --method synther --steps 50000",
    "minari-stitch augment demo/halfcheetah/medium-v0 --form bridge --pairs reference --set stitch.pool=512",
    "minari-stitch augment my/data-v0 --steps 50000 --set stitch.pairs=paper --set models.diffusion.horizon=64",
    "minari-stitch augment --config ~/.minari/datasets/my/data-stitched-v0   [dim]# the same again[/]",
    "minari-stitch augment mujoco/hopper/medium-v0 --preset full --dry-run",
    "[dim]The run directory keeps trained models and proposals: the same command goes on after a kill, and another "
    "--delta or --steps reuses them.[/]",
)


@app.command(epilog="\n\n".join(_AUGMENT_EXAMPLES), rich_help_panel=_MAKE)
def augment(
    dataset_id: Annotated[
        Optional[str],  # noqa: UP045
        id_argument(help="Minari dataset id, or a demo/ id."),
    ] = None,
    method: Annotated[
        Optional[Method],  # noqa: UP045
        typer.Option(
            metavar="METHOD",
            help=f"One of {', '.join(found())} \\[default: diffstitch].",
            rich_help_panel=_HOW,
        ),
    ] = None,
    delta: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            help="Largest squared error of a bridge, in standardised state space; 0.5 is strict \\[default: 2].",
            rich_help_panel=_HOW,
        ),
    ] = None,
    support: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            help="Largest distance of a bridge from real states (9 in 10 are within 1) \\[default: 5].",
            rich_help_panel=_HOW,
        ),
    ] = None,
    preset: Annotated[
        Optional[Literal["fast", "full", "paper"]],  # noqa: UP045
        typer.Option(
            metavar="SIZE",
            help="fast (minutes on a CPU), full (GPU) or paper \\[default: by device].",
            rich_help_panel=_HOW,
        ),
    ] = None,
    steps: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Steps to make, of bridges synthetic ones \\[default: as many as the source has]."),
    ] = None,
    form: Annotated[
        Optional[Literal["full", "onward", "bridge", "transitions"]],  # noqa: UP045
        typer.Option(
            metavar="FORM",
            help="full (whole stitched episodes), onward (bridges and what follows them), bridge (with a little "
            "context) or transitions (their steps one by one) \\[default: full].",
            rich_help_panel=_HOW,
        ),
    ] = None,
    include_original: Annotated[
        bool,
        typer.Option("--include-original", help="Write the source's episodes too (D and D_aug).", rich_help_panel=_HOW),
    ] = False,
    pairs: Annotated[
        Optional[Literal["reach", "paper", "reference", "connect"]],  # noqa: UP045
        typer.Option(
            metavar="RULE",
            help="How targets are chosen: reach, paper, reference or connect \\[default: the preset's].",
            rich_help_panel=_HOW,
        ),
    ] = None,
    hops: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            help="Bridges that an episode crosses at most, with --pairs connect \\[default: 1].", rich_help_panel=_HOW
        ),
    ] = None,
    settings: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Change any setting (minari-stitch settings); repeatable.",
            rich_help_panel=_HOW,
        ),
    ] = None,
    config: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            metavar="FILE",
            help="Make again what a dataset's metadata.json, or its folder, says; other options change that.",
            rich_help_panel=_HOW,
        ),
    ] = None,
    output_id: OutputId = None,
    license: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="NAME", help="Of the new dataset (cc-by-4.0, mit, other) \\[default: the source's]."),
    ] = None,
    run_dir: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            help="Where models and proposals are kept \\[default: beside the datasets].", rich_help_panel=_WHERE
        ),
    ] = None,
    device: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="auto, cpu, cuda, cuda:1 or mps \\[default: auto].", rich_help_panel=_WHERE),
    ] = None,
    precision: Annotated[
        Optional[Literal["fp32", "bf16"]],  # noqa: UP045
        typer.Option(help="Of the diffusion network \\[default: bf16 on CUDA, else fp32].", rich_help_panel=_WHERE),
    ] = None,
    seed: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Seed of everything \\[default: 0].", rich_help_panel=_WHERE),
    ] = None,
    workers: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            help="Processes; the result does not depend on it \\[default: one a core, or one if the work is small].",
            rich_help_panel=_WHERE,
        ),
    ] = None,
    threads: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Threads of each training process \\[default: half the cores].", rich_help_panel=_WHERE),
    ] = None,
    executor: Annotated[
        Literal["local", "ray"],
        typer.Option(
            help="Processes of this machine, or ray: the cluster at RAY_ADDRESS, whose nodes share the run directory.",
            rich_help_panel=_WHERE,
        ),
    ] = "local",
    skip_invalid: Annotated[
        bool,
        typer.Option(
            "--skip-invalid",
            help="Leave invalid episodes out instead of refusing the dataset.",
            rich_help_panel=_SOURCE,
        ),
    ] = False,
    no_download: Annotated[
        bool, typer.Option("--no-download", help="Fetch no dataset that is not local.", rich_help_panel=_SOURCE)
    ] = False,
    demo_steps: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Steps of a demo/ dataset made on first use \\[default: 200000].", rich_help_panel=_SOURCE),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would take, and write nothing.")] = False,
    force: Force = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Write a new dataset of stitched (or otherwise synthetic) episodes made from dataset [bold]ID[/]."""
    with errors(verbose):
        from minari_stitch.api import ahead
        from minari_stitch.api import datasets as api
        from minari_stitch.config import adjust, parse, to_dict
        from minari_stitch.data.provenance import synthetic_sources
        from minari_stitch.progress import Bars

        begun = begin_with(config, dataset_id, method, preset, device, include_original)
        amounts = begun.amounts | chosen(
            n_steps=steps, seed=seed, device=device, precision=precision, threads=threads, license=license
        )
        amounts |= {"output_id": output_id, "workers": processes(workers)}
        spared = workers is None and executor == "local"  # processes that are not worth their start
        shortcuts = {"delta": delta, "support": support, "form": form, "pairs": pairs, "hops": hops}
        transform, run = api.plan(begun.transform, shortcuts, **amounts, dry=dry_run)
        transform = adjust(transform, dict(map(parse, settings or [])))
        amounts |= {"include_original": begun.include_original, "run_dir": run_dir}
        if dry_run:
            limits = {"skip_invalid": skip_invalid, "demo_steps": demo_steps}
            found = ahead.estimate(begun.source, transform, **amounts, **limits)
            view.print_estimate(out, found.worthwhile() if spared else found, as_json)
            return
        begin = time.monotonic()
        with Bars(err) as progress:
            source = api.read(
                begun.source,
                skip_invalid=skip_invalid,
                download=not no_download,
                demo_steps=demo_steps,
                workers=run.workers,
                progress=progress,
            )
            if source.skipped.problems:
                err.print("[yellow]Left out invalid episodes.[/]", end=" ")
                err.print(str(source.skipped), markup=False, highlight=False, soft_wrap=True)
            if synthetic_sources(source.metadata):
                err.print(f"[yellow]{begun.source} holds synthetic steps itself[/], learned from like real ones.")
            if verbose:
                err.print_json(json.dumps(to_dict(transform)))
            expected = ahead.estimate(source, transform, **amounts)
            if spared and (few := expected.worthwhile()).processes < expected.processes:
                expected, amounts["workers"] = few, few.processes
            if not as_json:
                view.announce(err, expected)
            result = api.augment(source, transform, **amounts, executor=executor, force=force, progress=progress)
        if as_json:
            print(json.dumps(view.result_json(result, time.monotonic() - begin)))
        elif result.existing:
            view.print_existing(out, result)
        else:
            view.print_result(out, source, result, time.monotonic() - begin, getattr(transform, "form", None))


app.command(epilog="\n\n".join(look.SETTINGS_EXAMPLES), rich_help_panel=_MAKE)(look.settings)
app.command(epilog="\n\n".join(look.EXAMPLES), rich_help_panel=_LOOK)(look.show)
app.command(epilog=_RENDER_EXAMPLES, rich_help_panel=_LOOK)(render)
app.command(epilog="\n\n".join(datasets.IMPORT_EXAMPLES), rich_help_panel=_DATA)(datasets.import_d4rl)
app.command(epilog="\n\n".join(exchange.IMPORT_EXAMPLES), rich_help_panel=_DATA)(exchange.import_ogbench)
app.command(epilog="\n\n".join(exchange.EXPORT_EXAMPLES), rich_help_panel=_DATA)(exchange.export_ogbench)
app.command(epilog="\n\n".join(datasets.MIX_EXAMPLES), rich_help_panel=_DATA)(datasets.mix)
app.command(epilog="\n\n".join(edit.FILTER_EXAMPLES), rich_help_panel=_DATA)(edit.filter)
app.command(epilog="\n\n".join(edit.TRIM_EXAMPLES), rich_help_panel=_DATA)(edit.trim)
app.command(epilog="\n\n".join(edit.SELECT_EXAMPLES), rich_help_panel=_DATA)(edit.select)
app.command(epilog="\n\n".join(edit.SCORES_EXAMPLES), rich_help_panel=_DATA)(edit.scores)
app.command(epilog="\n\n".join(trust.CHECK_EXAMPLES), rich_help_panel=_JUDGE)(trust.check)
app.command(epilog="\n\n".join(trust.VERIFY_EXAMPLES), rich_help_panel=_JUDGE)(trust.verify)
app.command(epilog="\n\n".join(trust.REPORT_EXAMPLES), rich_help_panel=_LOOK)(trust.report)
app.command(epilog="\n\n".join(trust.CARD_EXAMPLES), rich_help_panel=_LOOK)(trust.card)
demo_app.command("list", epilog=_DEMO_EXAMPLE)(look.demo_list)
