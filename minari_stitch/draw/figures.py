"""Figures of stitched data: a filmstrip of states, paths in the plane, returns before and after.

Each function draws on a figure that it is given, so that others can put several together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import ConnectionPatch

from minari_stitch.data.dataset import Dataset
from minari_stitch.errors import RenderError
from minari_stitch.sim.maze import Maze

Part = Literal["source", "bridge", "target"]
COLOURS: Mapping[Part, str] = {"source": "#d1495b", "bridge": "#edae49", "target": "#30638e"}
INKS: Mapping[Part, str] = {"source": "white", "bridge": "black", "target": "white"}
GREY = "#9a9a9a"


@dataclass(frozen=True, kw_only=True)
class StitchedEpisode:
    """A stitched episode, and the two it joins where their dataset is at hand.

    Attributes:
        dataset_id: The stitched dataset.
        number: The episode's number there.
        about: Its metadata, as `assemble` writes them.
        observations: `(T + 1, S)`.
        source: `(T' + 1, S)` observations of the source episode as recorded, so that row t is at the same time as
            row t of `observations`; or None.
        target: `(T' + 1, S)` observations of the target episode as recorded, or None.
        further: Of a chain's later bridges, the last real state before each and the first after it.
    """

    dataset_id: str
    number: int
    about: Mapping[str, Any]
    observations: np.ndarray
    source: np.ndarray | None = None
    target: np.ndarray | None = None
    further: Sequence[tuple[int, int]] = ()

    @classmethod
    def of(cls, stitched: Dataset, episode: int | None = None, source: Dataset | None = None) -> StitchedEpisode:
        """Take an episode of a stitched dataset that was read with its infos.

        Args:
            stitched: The dataset.
            episode: Number of the episode; by default one with a long bridge between long real parts.
            source: The dataset it was made from.

        Raises:
            RenderError: There is no such episode, or it is not a stitched one.
        """
        ids: list[int] = stitched.episode_ids.tolist()
        metadata = stitched_metadata(stitched)
        row = max(metadata, key=lambda row: _interest(metadata[row], int(stitched.episodes.lengths[row])))
        if episode is not None and episode not in ids:
            raise RenderError(f"{stitched.dataset_id} has no episode {episode}: choose one of {ids[0]} to {ids[-1]}")
        row = row if episode is None else ids.index(episode)
        if row not in metadata:
            some = ", ".join(str(ids[other]) for other in list(metadata)[:5])
            raise RenderError(
                f"episode {episode} of {stitched.dataset_id} is an original one, with no bridge; choose "
                f"a stitched one, such as {some}"
            )
        about = metadata[row]
        former = {}
        if source is not None:
            known = source.episode_ids.tolist()
            shown = {"source": about["source_step"] - about["bridge_start"], "target": 0}
            former = {
                name: source.episodes.episode(known.index(about[f"{name}_episode"]))["observations"][first:]
                for name, first in shown.items()
            }
        part = stitched.episodes.episode(row)
        marks = part["infos"].get("synthetic", np.zeros((1, 1)))[:, 0]
        edges = np.flatnonzero(np.diff(marks.astype(int), prepend=0)).reshape(-1, 2)
        return cls(
            dataset_id=stitched.dataset_id,
            number=ids[row],
            about=about,
            observations=part["observations"],
            further=[(int(begin), int(end)) for begin, end in edges[1:]],
            **former,
        )

    @property
    def begin(self) -> int:
        """The last real state before the bridge."""
        return self.about["bridge_start"]

    @property
    def end(self) -> int:
        """The first real state after the bridge."""
        return self.begin + self.about["bridge_states"] + 1

    def part(self, state: int) -> Part:
        """What a state is: real of the source, generated, or real of the target."""
        return "source" if state <= self.begin else "bridge" if state < self.end else "target"

    def spread(self, count: int, context: int) -> list[int]:
        """States for `count` pictures: 3 in 10 before the bridge, 4 in it and 3 after, as far as there are any.

        Args:
            count: Number of pictures.
            context: Real states looked at on each side.
        """
        side = max(1, round(0.3 * count))
        inside = min(max(1, count - 2 * side), self.end - self.begin - 1)
        first, last = max(0, self.begin - context), min(len(self.observations) - 1, self.end + context)
        within = np.linspace(self.begin, self.end, inside + 2)[1:-1]
        states = np.concatenate([np.linspace(self.begin, first, side), within, np.linspace(self.end, last, side)])
        return sorted({int(state) for state in states.round()})


def stitched_metadata(stitched: Dataset) -> dict[int, Mapping[str, Any]]:
    """Metadata of the stitched episodes of a dataset, by row.

    Raises:
        RenderError: There are none.
    """
    rows = {row: about for row, about in enumerate(stitched.episodes.metadata) if "bridge_states" in about}
    if not rows:
        raise RenderError(f"{stitched.dataset_id} has no stitched episode: give the id that augment printed")
    return rows


def _interest(about: Mapping[str, Any], length: int) -> tuple[bool, int, float]:
    """Enough real states around the bridge first, then a long bridge, then one that gains much."""
    after = length - about["bridge_start"] - about["bridge_states"]
    gain = about["return_after"] - about["return_before"]
    return 50 <= about["bridge_start"] <= 500 and after >= 100, about["bridge_states"], gain


def headline(episode: StitchedEpisode) -> str:
    """What is stitched, in one line."""
    about = episode.about
    if about["return_before"] == about["return_after"] == 0:
        steps, bridges = len(episode.observations) - 1, 1 + len(episode.further)
        return f"{episode.dataset_id}, episode {episode.number}: {steps} steps, {bridges} generated bridges"
    return (
        f"{episode.dataset_id}, episode {episode.number}: discounted return from step {episode.begin} on: "
        f"{about['return_before']:,.0f} before stitching, {about['return_after']:,.0f} after"
    )


def filmstrip(
    figure: Figure | SubFigure,
    episode: StitchedEpisode,
    states: Sequence[int],
    pictures: Sequence[np.ndarray],
    recorded: Sequence[np.ndarray] = (),
) -> None:
    """Draw the states around and in a bridge, generated ones framed in another colour.

    Args:
        figure: Where to draw.
        episode: The episode.
        states: Which states.
        pictures: `(H, W, 3)` of each state.
        recorded: Below each, the source as recorded at the same time; fewer where it ended.
    """
    rows = 1 + bool(recorded)
    heights = [0.16, *[1.0] * rows, 0.45 / rows]
    grid = figure.add_gridspec(rows + 2, len(states), height_ratios=heights)
    parts: list[Part] = [episode.part(state) for state in states]
    labels: dict[Part, str] = {
        "source": f"real: source episode {episode.about['source_episode']}",
        "bridge": f"generated bridge: {episode.about['bridge_states']} states",
        "target": f"real: target episode {episode.about['target_episode']} from step {episode.about['target_step']} on",
    }
    for part, label in labels.items():
        first = parts.index(part)
        header = figure.add_subplot(grid[0, first : first + parts.count(part)])
        header.set(xticks=[], yticks=[], facecolor=COLOURS[part])
        style = {"ha": "center", "va": "center", "fontsize": 9, "weight": "bold"}
        header.text(0.5, 0.45, label, color=INKS[part], in_layout=False, **style)
        header.spines[:].set_visible(False)
    lowest = []
    for column, (part, state, picture) in enumerate(zip(parts, states, pictures, strict=True)):
        axes = figure.add_subplot(grid[1, column])
        _picture(axes, picture, COLOURS[part])
        axes.set_title(f"step {state}", fontsize=9, pad=4)
        axes.set_ylabel("" if column else "stitched", fontsize=9)
        if column < len(recorded):
            axes = figure.add_subplot(grid[2, column])
            _picture(axes, recorded[column], GREY)
            axes.set_ylabel("" if column else "source as recorded", fontsize=9)
        lowest.append(axes)
    if recorded and len(recorded) < len(states):
        ended = figure.add_subplot(grid[2, len(recorded) :])
        ended.axis("off")
        last = "" if episode.source is None else f" at step {len(episode.source) - 1}"
        ended.text(0.03, 0.95, f"ended{last}", ha="left", va="top", color=GREY)
    timeline(figure.add_subplot(grid[rows + 1, :]), episode, states, lowest)


def timeline(axes: Axes, episode: StitchedEpisode, states: Sequence[int], frames: Sequence[Axes]) -> None:
    """Draw a bar of time, on which each picture has its place: they are nearer to each other in a bridge.

    Args:
        axes: Where to draw.
        episode: The episode.
        states: Of the pictures.
        frames: Of the pictures, from which lines lead to their times.
    """
    first, last = states[0], states[-1]
    bounds: dict[Part, tuple[int, int]] = {
        "source": (first, episode.begin),
        "bridge": (episode.begin, episode.end),
        "target": (episode.end, last),
    }
    for part, (start, stop) in bounds.items():
        axes.barh(0, stop - start, left=start, height=1, color=COLOURS[part], linewidth=0)
    axes.vlines(states, -0.5, 0.5, color="white", linewidth=1)
    for frame, state in zip(frames, states, strict=True):
        line = ConnectionPatch((0.5, 0), (state, 0.5), frame.transAxes, axes.transData, color=GREY, linewidth=0.6)
        axes.figure.add_artist(line)
    axes.set(xlim=(first, last), ylim=(-0.5, 1.6), yticks=[])
    axes.set_xlabel("time step of each picture", fontsize=9, labelpad=1)
    axes.tick_params(labelsize=8)
    axes.spines[:].set_visible(False)


def _picture(axes: Axes, picture: np.ndarray, colour: str) -> None:
    axes.imshow(picture)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(color=colour, linewidth=3)


def returns(axes: Axes, metadata: Sequence[Mapping[str, Any]]) -> None:
    """Draw the discounted return of each bridge's start before and after stitching (figure 4 of the paper).

    Both axes have the same scale; darker is denser; histograms beside them show each return alone. None lies below the
    line, since a bridge that does not raise the return is not written. Rewards on a bridge are predicted, those after
    it are real.

    Args:
        axes: Where to draw; the histograms stand outside.
        metadata: Of the stitched episodes.
    """
    before, after = (np.array([about[key] for about in metadata]) for key in ("return_before", "return_after"))
    low, high = min(before.min(), after.min()), max(before.max(), after.max())
    margin = 0.04 * (high - low or 1.0)
    span = (low - margin, high + margin)
    axes.plot(span, span, color=GREY, lw=1, zorder=0)
    few = len(before) < _FEW  # each a dot of its own
    colour: dict[str, Any] = (
        {"color": COLOURS["bridge"]} if few else {"c": _density(before, after, span), "cmap": _DENSE}
    )
    axes.scatter(before, after, s=40 if few else 10, linewidths=0, **colour)
    axes.set(xlim=span, ylim=span, box_aspect=1, xlabel="discounted return before stitching", ylabel="after stitching")
    label = {"ha": "right", "va": "bottom", "rotation": 45, "rotation_mode": "anchor", "transform": axes.transAxes}
    axes.text(0.95, 0.96, "unchanged", color=GREY, fontsize=8, **label)
    bins = np.linspace(*span, 40)
    above, beside = axes.inset_axes((0, 1.01, 1, 0.16), sharex=axes), axes.inset_axes((1.01, 0, 0.16, 1), sharey=axes)
    above.hist(before, bins, color=COLOURS["source"])
    beside.hist(after, bins, color=COLOURS["target"], orientation="horizontal")
    above.set_title(f"{len(before):,} bridge starts, {(after - before).mean():+,.0f} on average", fontsize=10)
    for side in (above, beside):
        side.axis("off")


_FEW = 50
_DENSE = LinearSegmentedColormap.from_list("dense", ["#f2cf8e", COLOURS["bridge"], "#7a4b00"])


def _density(x: np.ndarray, y: np.ndarray, span: tuple[float, float]) -> np.ndarray:
    """`(N,)` how many of the points lie near each, on a logarithmic scale."""
    counts, across, up = np.histogram2d(x, y, bins=40, range=[span, span])
    rows, columns = (np.clip(np.digitize(v, edges) - 1, 0, 39) for v, edges in ((x, across), (y, up)))
    return np.log1p(counts[rows, columns])


def walls(axes: Axes, maze: Maze) -> None:
    """Draw the walls of a maze."""
    axes.imshow(maze.walls, extent=maze.extent, cmap="Greys", vmin=0, vmax=2, zorder=-1)


def paths(axes: Axes, episode: StitchedEpisode, columns: slice, visited: np.ndarray | None = None) -> None:
    """Draw a stitched path in the plane, and the two it was made from.

    Args:
        axes: Where to draw.
        episode: The episode.
        columns: The two columns of x and y, see `FlatSpace.plane`.
        visited: `(N, S)` states of the source dataset, drawn faintly: they show where one can be.
    """
    if visited is not None:
        axes.scatter(*visited[:, columns].T, s=4, color="#d4d4d4", lw=0, zorder=0, label="states of the source dataset")
    begin, end, entry = episode.begin, episode.end, episode.about["target_step"]
    path = episode.observations[:, columns]
    if episode.source is not None:
        label = "how the source went on"
        axes.plot(*episode.source[begin:, columns].T, color=COLOURS["source"], lw=1.2, ls=":", label=label)
    if episode.target is not None:
        label = "how the target came here"
        axes.plot(*episode.target[: entry + 1, columns].T, color=COLOURS["target"], lw=1.2, ls=":", label=label)
    axes.plot(*path[: begin + 1].T, color=COLOURS["source"], lw=2, label="real: source")
    axes.plot(*path[end:].T, color=COLOURS["target"], lw=2, label="real: target")
    label = f"generated bridge: {episode.about['bridge_states']} states"
    if episode.further:
        label = f"{1 + len(episode.further)} generated bridges"
    for first, last in [(begin, end), *episode.further]:
        axes.plot(*path[first : last + 1].T, color=COLOURS["bridge"], lw=3.5, label=label)
        label = None
    axes.plot(*path[0], "o", color=COLOURS["source"], ms=6, label="start")
    axes.plot(*path[-1], "*", color=COLOURS["target"], ms=12, label="end")
    goal = episode.observations[-1, columns.stop : columns.stop + 2]  # in alphabetical order, after what is achieved
    if len(goal):
        axes.plot(*goal, "x", color="black", ms=9, mew=2, label="goal")
    axes.set(xlabel="x [m]", ylabel="y [m]", aspect="equal")
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
