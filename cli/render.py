"""`minari-stitch render`: look at a stitched episode, or at the returns of all."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from minari_stitch.progress import Bars

from .common import Verbose, err, errors, id_argument, out

EPILOG = "\n\n".join(
    (
        "[bold]Examples[/]",
        "minari-stitch render demo/hopper/medium-replay-stitched-v0",
        "minari-stitch render demo/hopper/medium-replay-stitched-v0 --episode 12 --context 100 --output pictures",
        "minari-stitch render demo/hopper/medium-replay-stitched-v0 --returns",
        "[dim]Robots need OpenGL, with a display or without one: set MUJOCO_GL to egl or osmesa to choose how.[/]",
    )
)


def render(
    dataset_id: Annotated[str, id_argument(help="A dataset that augment wrote.")],
    episode: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Which stitched episode \\[default: one with a long bridge]."),
    ] = None,
    output: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the pictures go.")] = Path("."),
    returns: Annotated[
        bool, typer.Option("--returns", help="Draw the returns of all bridges before and after stitching instead.")
    ] = False,
    frames: Annotated[int, typer.Option(min=3, max=30, metavar="N", help="Pictures of the filmstrip.")] = 10,
    context: Annotated[
        int, typer.Option(min=1, metavar="N", help="Real steps to show on each side of the bridge.")
    ] = 60,
    no_animation: Annotated[bool, typer.Option("--no-animation", help="Write no GIF.")] = False,
    every: Annotated[int, typer.Option(min=1, metavar="N", help="Steps from one picture of the GIF to the next.")] = 2,
    verbose: Verbose = False,
) -> None:
    """Draw a stitched episode: a filmstrip and an animation of a robot, or a path in the plane."""
    with errors(verbose):
        from minari_stitch.data import minari_io
        from minari_stitch.data.provenance import stitch_record
        from minari_stitch.draw.render import render_episode, render_returns
        from minari_stitch.errors import RenderError

        stitched = minari_io.read(dataset_id, download=False, keep_infos=True)
        if returns and episode is not None:
            raise RenderError(f"--episode {episode} has no part in --returns, which draws all: leave one of them out")
        if returns:
            files = render_returns(stitched, output)
        else:
            origin = stitch_record(stitched.dataset_id, stitched.metadata)["source"]
            source = minari_io.read(origin, download=False) if minari_io.exists(origin) else None
            with Bars(err) as bars:
                files = render_episode(
                    stitched,
                    source,
                    output,
                    episode=episode,
                    frames=frames,
                    context=context,
                    every=None if no_animation else every,
                    progress=lambda done, total: bars("draw", done, total),
                )
        for file in files:
            out.print(str(file), markup=False, highlight=False, soft_wrap=True)
