"""Bridges to look at: the best, a median one and the worst that were accepted, and one that was rejected."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from minari_stitch.data.dataset import Dataset
from minari_stitch.data.spaces import FlatSpace
from minari_stitch.diffstitch.stitch import Outcome, qualify
from minari_stitch.diffstitch.transform import FittedDiffStitch
from minari_stitch.diffstitch.ways import arriving, ways_of
from minari_stitch.draw import figures
from minari_stitch.draw.figures import StitchedEpisode
from minari_stitch.draw.render import draw_states
from minari_stitch.errors import RenderError, StitchError
from minari_stitch.progress import Progress
from minari_stitch.quality import plots
from minari_stitch.quality.bridges import Bridges
from minari_stitch.quality.origin import spread
from minari_stitch.quality.proposals import some_proposals
from minari_stitch.quality.verify import Verified
from minari_stitch.sim.maze import maze_of

_CONTEXT, _FRAMES, _SMALL = 40, 8, (150, 180)


@dataclass(frozen=True, kw_only=True)
class Strip:
    """A bridge as pictures, or as a drawing.

    Attributes:
        title: Which one it is.
        note: Its error, and who measured it.
        frames: Pictures as data URLs, each with a caption and the part it shows (source, bridge, target).
        svg: A drawing instead.
    """

    title: str
    note: str
    frames: Sequence[tuple[str, str, str]] = ()
    svg: str = ""


def strips(
    dataset: Dataset,
    source: Dataset | None,
    verified: Verified | None,
    run: FittedDiffStitch | None,
    name: str,
    progress: Progress | None = None,
) -> tuple[list[Strip], str]:
    """Draw four bridges.

    Args:
        dataset: Read with its infos.
        source: What it was made from, to show where one can be in a plane.
        verified: Whose errors choose; without it those of the learned judges do.
        run: Where rejected proposals are; without it none is shown.
        name: Unique on the page.
        progress: Hears of the stage `draw`.

    Returns:
        The strips, and what is to be said about them: why there are none, or why they are no pictures.
    """
    chosen = list(_chosen(dataset, verified))
    if not chosen:
        return [], "There is no bridge to show: this dataset has no stitched episode."
    if rejected := None if run is None else _rejected(run):
        chosen.append(rejected)
    columns = FlatSpace(dataset.observation_space).plane
    if columns is not None:
        visited = None
        if source is not None:  # some 2,000 points show where one can be
            visited = source.episodes.observations[:: 1 + len(source.episodes.observations) // 2000]
        maze, drawn = maze_of(dataset.env_spec), []
        for number, (title, note, episode) in enumerate(chosen):

            def path(figure: Figure, episode: StitchedEpisode = episode, columns: slice = columns) -> None:
                axes = figure.subplots()
                if maze is not None:
                    figures.walls(axes, maze)
                figures.paths(axes, episode, columns, visited)

            drawn.append(Strip(title=title, note=note, svg=plots.svg(path, f"{name}-path{number}", (6.4, 3.6))))
        return drawn, ""
    shown = [(episode, episode.spread(_FRAMES, _CONTEXT)) for _, _, episode in chosen]
    try:
        if dataset.env_spec is None:
            raise RenderError("the dataset names no environment")
        jobs = [(episode.observations, states) for episode, states in shown]
        pictures = draw_states(dataset.env_spec.id, jobs, progress and partial(progress, "draw"))
    except StitchError as error:
        return _traces(dataset, chosen, name), f"States as curves, since they cannot be drawn: {error}."
    return [
        Strip(
            title=title,
            note=note,
            frames=[
                (_url(picture), f"step {state}", episode.part(state))
                for picture, state in zip(row, states, strict=False)
            ],
        )
        for (title, note, _), (episode, states), row in zip(chosen, shown, pictures, strict=True)
    ], ""


def _chosen(dataset: Dataset, verified: Verified | None) -> Iterator[tuple[str, str, StitchedEpisode]]:
    rows = [
        row
        for row, about in enumerate(dataset.episodes.metadata)
        if "bridge_states" in about and "bridge_step" not in about  # of the form `transitions`
    ]
    if not rows:
        return
    errors, judge = _errors(dataset, rows, verified)
    order = np.argsort(np.where(np.isnan(errors), np.inf, errors), kind="stable")[: int((~np.isnan(errors)).sum())]
    if not len(order):
        return
    picks = {"The best accepted bridge": 0, "A median one": len(order) // 2, "The worst accepted one": len(order) - 1}
    for title, place in picks.items():
        at = order[place]
        episode = StitchedEpisode.of(dataset, int(dataset.episode_ids[rows[at]]))
        yield title, f"episode {episode.number}, largest error {errors[at]:.3g} by {judge}", episode


def _errors(dataset: Dataset, rows: Sequence[int], verified: Verified | None) -> tuple[np.ndarray, str]:
    """Of stitched episodes: the largest error, by the simulator where it was asked."""
    if verified is not None and len(verified.arrays.get("bridge", ())):
        bridges = Bridges.of(dataset.episodes)
        at = dataset.episodes.step_episode[bridges.first[verified.arrays["bridge"]]]
        known = dict(zip(at.tolist(), verified.arrays["worst"].tolist(), strict=True))
        return np.array([known.get(row, np.nan) for row in rows]), verified.judge
    return np.array([dataset.episodes.metadata[row]["dynamics_error"] for row in rows]), "learned networks"


def _rejected(run: FittedDiffStitch) -> tuple[str, str, StitchedEpisode] | None:
    """A median one of the bridges that were turned down, with real states around it."""
    proposals = some_proposals(run, 1)
    outcomes = qualify(proposals, run.transform.qualify)
    refused = np.flatnonzero((outcomes != Outcome.ACCEPTED) & (proposals.steps > 0))
    if not len(refused):
        return None
    row = refused[np.argsort(proposals.error[refused], kind="stable")[len(refused) // 2]]
    episodes, goals = run.dataset.episodes, run.goals
    (way,) = ways_of(episodes, proposals, np.array([row]), form="full", max_episode_steps=None)
    (link,) = way.links
    first = max(0, link.junction - _CONTEXT)
    before = arriving(episodes, dataclasses.replace(way, first=first), goals)
    after = episodes.episode(link.tail)["observations"][link.entry + 1 : link.entry + _CONTEXT]
    if goals is not None:
        after = goals.pursue(goals.states(after), goals.goal(before[-1]))
    observations = np.concatenate([before, after])
    about: Mapping[str, Any] = {
        "bridge_start": link.junction - first,
        "bridge_states": link.steps,
        "target_step": link.entry,
    }
    episode = StitchedEpisode(
        dataset_id=run.dataset.dataset_id, number=-1, about=about, observations=observations.astype(np.float64)
    )
    reason = Outcome(outcomes[row]).name.lower().replace("_", " ")
    return "A rejected one", f"turned down: {reason}; largest error {proposals.error[row]:.3g} by its judges", episode


def _traces(dataset: Dataset, chosen: Sequence[tuple[str, str, StitchedEpisode]], name: str) -> list[Strip]:
    """The three dimensions that move most, around each bridge."""
    scale = spread(dataset.episodes.observations)
    drawn = []
    for number, (title, note, episode) in enumerate(chosen):
        first = max(0, episode.begin - _CONTEXT)
        states = episode.observations[first : episode.end + _CONTEXT] / scale
        states = states[:, np.argsort(-np.ptp(states, axis=0), kind="stable")[:3]]
        span = states, episode.begin - first, episode.end - first, first
        svg = plots.svg(lambda figure, s=span: plots.trace(figure.subplots(), *s), f"{name}-trace{number}", (6.4, 2.4))
        drawn.append(Strip(title=title, note=note, svg=svg))
    return drawn


def _url(picture: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).resize(_SMALL, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
