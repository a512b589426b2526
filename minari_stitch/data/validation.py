"""What makes an episode valid, a report of what does not, and the form in which a valid one is stored.

Bounds of observations are not checked: real environments leave them (they are advice for networks, not a
promise), while an action outside its space cannot have been taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minari_stitch.data.spaces import FlatSpace
from minari_stitch.data.storage import plain_attributes
from minari_stitch.errors import InvalidDataError

_SHOWN = 10
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Problem:
    """One violation.

    Attributes:
        episode: Id of the episode in its dataset.
        step: The first step concerned, or None when it is the whole episode.
        what: What is wrong, with the value.
    """

    episode: int
    step: int | None
    what: str

    def __str__(self) -> str:
        """One line."""
        return f"episode {self.episode}{'' if self.step is None else f', step {self.step}'}: {self.what}"


@dataclass(frozen=True)
class ValidationReport:
    """All violations of a dataset.

    Attributes:
        n_episodes: Episodes looked at, valid or not.
        problems: In the order of the episodes.
    """

    n_episodes: int
    problems: Sequence[Problem] = ()

    @property
    def invalid_episodes(self) -> list[int]:
        """Ids of the episodes with at least one problem."""
        return sorted({problem.episode for problem in self.problems})

    def __str__(self) -> str:
        """The first problems and the counts."""
        shown = [str(problem) for problem in self.problems[:_SHOWN]]
        if len(self.problems) > _SHOWN:
            shown.append(f"... and {len(self.problems) - _SHOWN} more problems")
        counts = f"{len(self.invalid_episodes)} of {self.n_episodes} episodes are invalid"
        return "\n  ".join([f"{counts}:", *shown]) if shown else counts


def flatten_episode(
    raw: Mapping[str, Any], *, observation_space: FlatSpace, action_space: FlatSpace
) -> dict[str, np.ndarray]:
    """Flatten one stored episode; its infos are left behind.

    Args:
        raw: Mapping with `observations` and `actions` structured as their spaces, `rewards`, `terminations`
            and `truncations`, of any lengths.
        observation_space: Flattens the observations.
        action_space: Flattens the actions.

    Returns:
        The mapping that `find_problems` takes.

    Raises:
        InvalidDataError: Observations or actions do not have the structure of their space.
    """
    part = {}
    for name, space in (("observations", observation_space), ("actions", action_space)):
        try:
            part[name] = space.flatten(raw[name])
        except InvalidDataError as error:
            raise InvalidDataError(f"{name}: {error}") from None
    rewards = np.asarray(raw["rewards"])
    part["rewards"] = rewards if rewards.dtype.kind == "f" else rewards.astype(np.float64)
    return part | {name: np.asarray(raw[name], dtype=bool) for name in ("terminations", "truncations")}


def find_problems(
    part: Mapping[str, Any], *, episode: int, observation_space: FlatSpace, action_space: FlatSpace
) -> list[Problem]:
    """Check one flat episode.

    Args:
        part: Mapping with `observations (T + 1, S)`, `actions (T, A)`, `rewards`, `terminations` and
            `truncations (T,)`, and optionally `infos` (each `(T + 1, ...)`).
        episode: The id that the problems carry.
        observation_space: Gives S.
        action_space: Gives A and the bounds.

    Returns:
        The problems, empty for a valid episode. That a last step is neither terminated nor truncated is no
        problem, see `closed`.
    """
    return [Problem(episode, step, what) for step, what in _problems(part, observation_space, action_space)]


def validate_episode(
    part: Mapping[str, Any], *, episode: int, observation_space: FlatSpace, action_space: FlatSpace
) -> None:
    """Like `find_problems`, but raise.

    Raises:
        InvalidDataError: The episode has problems.
    """
    if problems := find_problems(part, episode=episode, observation_space=observation_space, action_space=action_space):
        raise InvalidDataError("; ".join(map(str, problems[:_SHOWN])))


def stored_form(
    part: Mapping[str, Any], *, episode: int, observation_space: FlatSpace, action_space: FlatSpace
) -> dict[str, Any]:
    """Check one flat episode and give it the form in which it is stored.

    Args:
        part: As `find_problems` takes it, with `metadata` as well where there are any.
        episode: Its id in the new dataset.
        observation_space: To store the observations in.
        action_space: To store the actions in.

    Returns:
        The mapping that `hdf5.append` takes.

    Raises:
        InvalidDataError: The episode has problems, or its metadata cannot be stored.
    """
    validate_episode(part, episode=episode, observation_space=observation_space, action_space=action_space)
    rounded = np.clip(part["actions"], action_space.low, action_space.high)  # they are valid up to rounding
    return {
        "id": episode,
        "observations": observation_space.unflatten(part["observations"]),
        "actions": action_space.unflatten(rounded),
        "rewards": part["rewards"],
        "terminations": part["terminations"],
        "truncations": closed(part["terminations"], part["truncations"]),
        # Columns, since one of Minari's formats cannot read one-dimensional infos back.
        "infos": {name: info[:, None] if info.ndim == 1 else info for name, info in part.get("infos", {}).items()},
        "metadata": plain_attributes(part.get("metadata", {})),
    }


def find_stored_problems(
    raw: Mapping[str, Any], *, observation_space: FlatSpace, action_space: FlatSpace
) -> Iterator[Problem]:
    """Check one episode as it is stored, more strictly: dtypes, infos and the end of the episode as well.

    Args:
        raw: As `flatten_episode` takes it, with `id` and `infos`.
        observation_space: Of the stored observations.
        action_space: Of the stored actions.

    Yields:
        The problems.
    """
    try:
        part = flatten_episode(raw, observation_space=observation_space, action_space=action_space)
    except InvalidDataError as error:
        yield Problem(raw["id"], None, str(error))
        return
    for step, what in _problems({**part, "infos": raw["infos"] or {}}, observation_space, action_space):
        yield Problem(raw["id"], step, what)
    for name, space in (("observations", observation_space), ("actions", action_space)):
        if (found := _dtypes(raw[name])) != (wanted := _dtypes(space.unflatten(part[name]))):
            yield Problem(raw["id"], None, f"{name} have dtype {found} where their space has {wanted}")
    if not (part["terminations"][-1:] | part["truncations"][-1:]).all():
        yield Problem(raw["id"], len(part["rewards"]) - 1, "the last step does not end the episode")


def closed(terminations: np.ndarray, truncations: np.ndarray) -> np.ndarray:
    """Mark a cut episode as Minari's convention wants it.

    Args:
        terminations: `(T,)` bool, T > 0.
        truncations: `(T,)` bool.

    Returns:
        `(T,)` truncations, the last one set where the episode would otherwise not end.
    """
    if terminations[-1] or truncations[-1]:
        return truncations
    truncations = truncations.copy()
    truncations[-1] = True
    return truncations


def usable_infos(raw: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The infos of a stored episode that can be carried along.

    Args:
        raw: Mapping with `rewards (T,)`, and `infos`, a mapping of anything or None.

    Returns:
        Those that are numbers and have T + 1 rows: real datasets hold others too.
    """
    infos, rows = raw["infos"] or {}, len(raw["rewards"]) + 1
    arrays = {name: info for name, info in infos.items() if isinstance(info, np.ndarray) and info.dtype.kind in "biuf"}
    return {name: info for name, info in arrays.items() if len(info) == rows}


def _dtypes(data: Any) -> Any:
    return {key: _dtypes(part) for key, part in data.items()} if isinstance(data, Mapping) else str(data.dtype)


def _problems(
    part: Mapping[str, Any], observation_space: FlatSpace, action_space: FlatSpace
) -> Iterator[tuple[int | None, str]]:
    steps = len(part["rewards"])
    if not steps:
        yield None, "it has no steps"
        return
    shapes = {
        "observations": (steps + 1, observation_space.size),
        "actions": (steps, action_space.size),
        **dict.fromkeys(("rewards", "terminations", "truncations"), (steps,)),
    }
    sound = {}
    for name, shape in shapes.items():
        array = np.asarray(part[name])
        if array.shape == shape:
            sound[name] = array
        else:
            yield None, f"{name} have shape {array.shape} where {steps} rewards want {shape}"
    for name, info in part.get("infos", {}).items():
        if len(info) != steps + 1:
            yield None, f"infos[{name!r}] has {len(info)} rows where {steps} rewards want {steps + 1}"

    for name in ("observations", "actions", "rewards"):
        if name in sound and not (finite := np.isfinite(sound[name])).all():
            step, *column = (int(index) for index in np.argwhere(~finite)[0])
            value = sound[name][(step, *column)]
            yield step, f"{name}{column or ''} is {value} ({int((~finite).sum())} such values in all)"
    if "actions" in sound:
        yield from _out_of_bounds(sound["actions"], action_space)
    for name in ("terminations", "truncations"):
        if name in sound and len(early := np.flatnonzero(sound[name][:-1])):
            yield int(early[0]), f"{name} is True before the last of its {steps} steps"


def _out_of_bounds(actions: np.ndarray, space: FlatSpace) -> Iterator[tuple[int, str]]:
    """Bounds, with room for the rounding of float32."""
    low = space.low - _TOLERANCE * np.maximum(1, np.abs(space.low))
    high = space.high + _TOLERANCE * np.maximum(1, np.abs(space.high))
    outside = (actions < low) | (actions > high)
    if outside.any():
        step, column = (int(index) for index in np.argwhere(outside)[0])
        bounds = f"[{space.low[column]:g}, {space.high[column]:g}]"
        what = f"actions[{column}] is {actions[step, column]}, outside {bounds}"
        yield step, f"{what} ({int(outside.sum())} such values in all)"
