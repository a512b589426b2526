"""Picture files of a stitched dataset: a filmstrip and an animation of an episode, its path, returns of all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from minari_stitch.data.dataset import Dataset
from minari_stitch.data.spaces import FlatSpace
from minari_stitch.data.storage import replacing
from minari_stitch.draw import figures
from minari_stitch.draw.camera import backend, camera
from minari_stitch.draw.figures import COLOURS, INKS, Part, StitchedEpisode
from minari_stitch.errors import RenderError, StorageError
from minari_stitch.sim.maze import maze_of
from minari_stitch.sim.poses import poser

Progress = Callable[[int, int], None]
Job = tuple[np.ndarray, Sequence[int]] | tuple[np.ndarray, Sequence[int], np.ndarray]

_GIF_MS = 40  # a picture; browsers slow down what is much faster
_BORDER, _CAPTION, _TIME = 5, 26, 12  # pixels
_GHOST = 0.3  # of the source, behind the stitched robot
_DPI = 130
_SAYS: dict[Part, str] = {"source": "real: source", "bridge": "GENERATED", "target": "real: target"}


def render_returns(stitched: Dataset, folder: Path) -> list[Path]:
    """Draw what stitching did to the returns of all bridges' starts, see `figures.returns`.

    Args:
        stitched: A stitched dataset, read with its infos.
        folder: Made if missing.

    Returns:
        The file.

    Raises:
        RenderError: No episode is stitched, or the folder cannot be written.
    """
    figure = Figure(figsize=(5.6, 5.8), layout="constrained")
    figure.suptitle(stitched.dataset_id, fontsize=11)
    figures.returns(figure.subplots(), list(figures.stitched_metadata(stitched).values()))
    return [_save(figure, folder / f"{_stem(stitched.dataset_id)}-returns.png")]


def render_episode(
    stitched: Dataset,
    source: Dataset | None,
    folder: Path,
    *,
    episode: int | None = None,
    frames: int = 10,
    context: int = 60,
    every: int | None = 2,
    progress: Progress | None = None,
) -> list[Path]:
    """Draw a stitched episode: a path where states have a place in the plane, else the robot itself.

    Args:
        stitched: A stitched dataset, read with its infos.
        source: The dataset it was made from, to show beside it what was recorded.
        folder: Made if missing.
        episode: Number of the episode; by default one with a long bridge.
        frames: Pictures of the filmstrip, at least 3.
        context: Real steps shown on each side of the bridge.
        every: Steps from one picture of the animation to the next; None for no animation.
        progress: Called with (pictures drawn, pictures in all).

    Returns:
        The files: a PNG, and of a robot also a GIF.

    Raises:
        RenderError: There is no such episode, no OpenGL, or the folder cannot be written.
        StitchError: The environment is not one of those that can be drawn.
    """
    joined = StitchedEpisode.of(stitched, episode, source)
    path = folder / f"{_stem(stitched.dataset_id)}-episode-{joined.number}.png"
    columns = FlatSpace(stitched.observation_space).plane
    if columns is not None:
        figure = Figure(figsize=(8, 5), layout="compressed")
        axes = figure.subplots()
        axes.set_title(figures.headline(joined), fontsize=9, loc="left")
        if maze := maze_of(stitched.env_spec):
            figures.walls(axes, maze)
        figures.paths(axes, joined, columns, None if source is None else source.episodes.observations)
        return [_save(figure, path)]
    if stitched.env_spec is None:
        raise RenderError(
            f"{stitched.dataset_id} does not say its environment, so nothing of it but its returns can be drawn"
        )
    strip = joined.spread(frames, context)
    first, last = max(0, joined.begin - context), min(len(joined.observations) - 1, joined.end + context)
    moving = list(range(first, last + 1, every)) if every else []
    episodes = [joined.observations] if joined.source is None else [joined.observations, joined.source]
    jobs: list[Job] = [(one, states) for states in (strip, moving) for one in episodes]
    if moving and joined.source is not None:  # the ghost stands in the world of the stitched one
        jobs[-1] = (joined.source, moving, joined.observations)
    rows = draw_states(stitched.env_spec.id, jobs, progress)
    stills, films = rows[: len(episodes)], rows[len(episodes) :]
    figure = Figure(figsize=(1.3 * len(strip), 1.6 + 1.65 * len(episodes)), layout="constrained")
    figure.suptitle(figures.headline(joined), fontsize=11)
    figures.filmstrip(figure, joined, strip, *stills)
    files = [_save(figure, path)]
    if moving:
        ghosts = films[1] if len(films) > 1 else []
        shots = [
            _shot(joined, moving, state, picture, ghost)
            for state, picture, ghost in zip_longest(moving, films[0], ghosts)
        ]
        files.append(_save_animation(shots, path.with_suffix(".gif")))
    return files


def draw_states(env_id: str, jobs: Sequence[Job], progress: Progress | None = None) -> list[list[np.ndarray]]:
    """Draw states of several episodes in the simulator, where the robot has travelled to.

    Args:
        env_id: Gymnasium id.
        jobs: Observations `(T + 1, S)` of an episode, which states of it, and where the camera does not follow it, the
            observations of the one that it follows.
        progress: Called with (pictures drawn, pictures in all).

    Returns:
        For each job, pictures `(H, W, 3)` of those of its states that lie within its episode.

    Raises:
        RenderError: There is no OpenGL here.
        StitchError: The environment is not one of those that can be drawn.
    """
    gl = backend()  # first, since a wrong MUJOCO_GL stops even the import of MuJoCo
    body = poser(env_id)
    total = sum(len(job[1]) for job in jobs)
    rows: list[list[np.ndarray]] = []
    done = 0
    with camera(body, gl) as draw:
        for observations, states, *followed in jobs:
            x = body.travelled(observations)
            at = body.travelled(followed[0]) if followed else x
            rows.append([])
            for state in states:
                if state < len(observations):
                    rows[-1].append(draw(observations[state], float(x[state]), float(at[state])))
                done += 1
                if progress:
                    progress(done, total)
    return rows


def _shot(
    episode: StitchedEpisode, states: Sequence[int], state: int, picture: np.ndarray, ghost: np.ndarray | None
) -> Image.Image:
    """A picture of the animation: the robot, behind it the source as recorded, and below where in time this is.

    Args:
        episode: The episode.
        states: All states of the animation.
        state: The one that is shown.
        picture: `(H, W, 3)`.
        ghost: The source at the same time, from the same camera; None where it has ended.
    """
    part = episode.part(state)
    (height, width), middle = picture.shape[:2], int(round(0.5 * _CAPTION))
    shot = Image.new("RGB", (width + 2 * _BORDER, height + 2 * _BORDER + _CAPTION + _TIME), COLOURS[part])
    shown = picture if ghost is None else (picture * (1 - _GHOST) + ghost * _GHOST).astype(np.uint8)
    shot.paste(Image.fromarray(shown), (_BORDER, _BORDER))
    draw, font = ImageDraw.Draw(shot), ImageFont.load_default(15)
    at = (shot.width // 2, height + _BORDER + middle)
    said = f"step {state}, {_SAYS[part]}"
    if state > episode.begin and episode.source is not None:
        said += ", source ended" if ghost is None else ", source as a ghost"
    draw.text(at, said, fill=INKS[part], anchor="mm", font=font)
    top, scale = shot.height - _TIME, shot.width / max(1, states[-1] - states[0])
    bounds = [states[0], max(states[0], episode.begin), min(states[-1], episode.end), states[-1]]
    edges = [round((bound - states[0]) * scale) for bound in bounds]
    for kind, left, right in zip(COLOURS, edges[:-1], edges[1:], strict=True):
        draw.rectangle((left, top, right, shot.height), fill=COLOURS[kind])
    draw.line((0, top, shot.width, top), fill="white")
    here = round((state - states[0]) * scale)
    draw.rectangle((here - 2, top, here + 2, shot.height), fill="black")
    return shot


def _save_animation(shots: Sequence[Image.Image], path: Path) -> Path:
    """Write a GIF that runs forever."""
    # One palette for all pictures, or the floor flickers; taken where there is something of each kind.
    some = [np.asarray(shots[index]) for index in np.linspace(0, len(shots) - 1, 5).astype(int)]
    palette = Image.fromarray(np.concatenate(some)).quantize(255)
    first, *rest = (shot.quantize(palette=palette, dither=Image.Dither.NONE) for shot in shots)
    with _writing(path) as aside:
        first.save(aside, save_all=True, append_images=rest, duration=_GIF_MS, loop=0)
    return path


def _save(figure: Figure, path: Path) -> Path:
    with _writing(path) as aside:
        figure.savefig(aside, dpi=_DPI)
    return path


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[Path]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, "choose another folder") as aside:
            yield aside
    except StorageError as error:
        raise RenderError(str(error)) from error
    except OSError as error:
        raise RenderError(f"Cannot write {path} ({error}); choose another folder") from error


def _stem(dataset_id: str) -> str:
    return dataset_id.replace("/", "-")
