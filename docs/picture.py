"""Draw the README's picture from the demo's dataset: a stitched episode in the simulator, and returns of all.

make demo picture
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from minari_stitch.data import minari_io
from minari_stitch.draw import figures, render
from minari_stitch.draw.figures import COLOURS, StitchedEpisode

CONTEXT = 60


def main() -> None:
    """Draw `docs/stitch.png`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset-id", default="demo/hopper/medium-replay-stitched-v0")
    parser.add_argument("--episode", type=int)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("stitch.png"))
    args = parser.parse_args()
    stitched = minari_io.read(args.dataset_id, download=False, keep_infos=True)
    source = minari_io.read(stitched.metadata["minari_stitch"]["source"])
    episode = StitchedEpisode.of(stitched, args.episode, source)
    figure = Figure(figsize=(12, 7.8), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[1.2, 1])
    states = episode.spread(10, CONTEXT)
    pictures = render.draw_states(
        stitched.env_spec.id, [(one, states) for one in (episode.observations, episode.source)]
    )
    above.suptitle(figures.headline(episode), fontsize=11)
    figures.filmstrip(above, episode, states, *pictures)
    left, right = below.subplots(1, 2, width_ratios=[1.9, 1])
    draw_height(left, episode)
    figures.returns(right, list(figures.stitched_metadata(stitched).values()))
    figure.savefig(args.output, dpi=130)
    print(args.output)


def draw_height(axes: Axes, episode: StitchedEpisode) -> None:
    """The height of the torso, the first observation of hopper and walker2d, along the three episodes."""
    assert episode.source is not None and episode.target is not None
    height, begin, end, entry = episode.observations[:, 0], episode.begin, episode.end, episode.about["target_step"]
    went_on, came = episode.source[begin:, 0], episode.target[: entry + 1, 0]
    axes.plot(begin + np.arange(len(went_on)), went_on, color=COLOURS["source"], ls=":", label="how the source went on")
    axes.plot(
        end - entry + np.arange(entry + 1), came, color=COLOURS["target"], ls=":", label="how the target came here"
    )
    time = np.arange(len(height))
    for part, rows, width, label in (
        ("source", slice(None, begin + 1), 2, "real: low-return source"),
        ("target", slice(end, None), 2, "real: high-return target"),
        ("bridge", slice(begin, end + 1), 3.5, "generated bridge"),
    ):
        axes.plot(time[rows], height[rows], color=COLOURS[part], lw=width, label=label)
    axes.set(
        xlim=(max(0, begin - CONTEXT - 15), end + CONTEXT + 60),
        xlabel="step",
        ylabel="height of the torso [m]",
        title="The same episode, one of its observations",
    )
    axes.legend(fontsize=8, loc="lower left")


if __name__ == "__main__":
    main()
