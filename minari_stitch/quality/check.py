"""Is a dataset sound? Every array of any Minari dataset, read once and never held in memory.

An error is what no dataset may have; a warning is what its user should know. Quality is another matter (`verify`).
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import gymnasium as gym
import numpy as np

from minari_stitch.data import minari_io
from minari_stitch.data.minari_io import MinariDataset
from minari_stitch.data.provenance import RECORD_KEY
from minari_stitch.data.spaces import FlatSpace
from minari_stitch.data.validation import find_stored_problems, flatten_episode
from minari_stitch.errors import InvalidDataError, UnsupportedSpaceError
from minari_stitch.quality.goals import goal_findings
from minari_stitch.quality.rows import digests
from minari_stitch.sim.behaviour import make_env

Level = Literal["error", "warning"]

_SHOWN = 3
_KINDS = (  # what a problem of an episode says -> its kind
    ("outside [", "actions"),
    (" such values in all", "not finite"),
    ("before the last", "early end"),
    ("does not end", "open end"),
    ("have dtype", "dtype"),
)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is not as it should be.

    Attributes:
        kind: In a word or two.
        level: Whether it makes the dataset unsound.
        what: What it is, with values.
        where: The first places.
        count: Episodes, columns or steps concerned.
    """

    kind: str
    level: Level
    what: str
    where: Sequence[str] = ()
    count: int = 1


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What `check` found.

    Attributes:
        dataset_id: The dataset.
        n_episodes: Episodes read.
        n_steps: Steps read.
        findings: Errors first.
    """

    dataset_id: str
    n_episodes: int
    n_steps: int
    findings: Sequence[Finding]

    @property
    def ok(self) -> bool:
        """Whether no finding is an error."""
        return not any(finding.level == "error" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"ok": self.ok}


def check(source: MinariDataset, progress: Callable[[int, int], None] | None = None) -> Checked:
    """Look at everything in a dataset once.

    Args:
        source: The dataset, of which the episodes in view count.
        progress: Called with (episodes read, episodes in all).

    Raises:
        StorageError: It cannot be read.
        UnsupportedSpaceError: Its spaces are none that this package knows.
    """
    spaces = {
        "observation_space": FlatSpace(source.observation_space, "observation"),
        "action_space": FlatSpace(source.action_space, "action"),
    }
    metadata = minari_io.metadata(source)
    seen = _Seen(spaces, source.env_spec.max_episode_steps if source.env_spec else None, _own_steps(metadata))
    total = len(source.episode_indices)
    for number, raw in enumerate(minari_io.stored_episodes(source), start=1):
        seen.take(raw)
        if progress and (number % 100 == 0 or number == total):
            progress(number, total)
    env, about_env = _environment(source)
    findings = [*seen.findings(), *_totals(source, seen), *about_env, *_scores(metadata)]
    goals = goal_findings(source, env, seen.sample)
    findings += [Finding(kind="goals", level=level, what=what) for level, what in goals]
    findings.sort(key=lambda finding: finding.level != "error")
    return Checked(dataset_id=source.id, n_episodes=seen.episodes, n_steps=seen.steps, findings=findings)


class _Seen:
    """What has been seen of the episodes so far."""

    def __init__(self, spaces: Mapping[str, FlatSpace], limit: int | None, own: np.ndarray | None) -> None:
        self._spaces, self._limit, self._own = spaces, limit, own
        self.episodes = self.steps = 0
        self.sample: list[dict[str, Any]] = []
        self._problems: dict[str, list[tuple[int, str]]] = defaultdict(list)
        self._digests: dict[bytes, list[tuple[int, Any]]] = defaultdict(list)
        self._still = self._cut = self._outside = self._copied = self._synthetic = 0
        self._frozen: list[int] = []
        self._extremes: dict[str, np.ndarray] = {}

    def take(self, raw: Mapping[str, Any]) -> None:
        number, length = int(raw["id"]), len(raw["rewards"])
        self.episodes, self.steps = self.episodes + 1, self.steps + length
        bad = False
        for problem in find_stored_problems(raw, **self._spaces):
            kind = next((kind for text, kind in _KINDS if text in problem.what), "shape")
            # An open end is a matter of marks, and what stands in the episode can be looked at all the same.
            bad = bad or kind in ("shape", "not finite")
            self._problems[kind].append((number, str(problem)))
        if bad:
            return
        part = flatten_episode(raw, **self._spaces)
        observations, actions = part["observations"], part["actions"]
        for name, table in part.items():
            if name in ("observations", "actions", "rewards"):
                self._widen(name, table.reshape(len(table), -1))
        space = self._spaces["observation_space"]
        self._outside += int(((observations < space.low) | (observations > space.high)).any(1).sum())
        still = int((observations[1:] == observations[:-1]).all(1).sum())
        self._still += still
        if length > 1 and still == length:
            self._frozen.append(number)
        ended = bool(part["terminations"][-1])
        self._cut += bool(not ended and self._limit is not None and length < self._limit)
        rows = digests(observations[:-1], actions)
        whole = hashlib.blake2b(rows.tobytes() + part["rewards"].tobytes(), digest_size=8).digest()
        self._digests[whole].append((number, (raw["metadata"] or {}).get("source_episode", number)))
        self._compare(raw, rows)
        if len(self.sample) < 20:
            self.sample.append(part)

    def _widen(self, name: str, table: np.ndarray) -> None:
        low, high = table.min(0), table.max(0)
        known = self._extremes.get(name)
        both = (low, high) if known is None else (np.minimum(known[0], low), np.maximum(known[1], high))
        self._extremes[name] = np.stack(both)

    def _compare(self, raw: Mapping[str, Any], rows: np.ndarray) -> None:
        """Steps that say they were generated, with those of the source."""
        flags = (raw["infos"] or {}).get("synthetic") if isinstance(raw["infos"], Mapping) else None
        if flags is None or len(flags) != len(rows) + 1:
            return
        made = rows[np.asarray(flags, bool).reshape(len(flags), -1)[:-1, 0]]
        self._synthetic += len(made)
        if self._own is not None and len(made):
            at = np.minimum(np.searchsorted(self._own, made), len(self._own) - 1)
            self._copied += int((self._own[at] == made).sum())

    def findings(self) -> Iterator[Finding]:
        for kind, problems in self._problems.items():
            count = len({number for number, _ in problems})
            what = f"{count:,} of {self.episodes:,} episodes: {_EXPLAINED[kind]}"
            where = [text for _, text in problems[:_SHOWN]]
            yield Finding(kind=kind, level="error", what=what, where=where, count=count)
        yield from self._duplicates()
        if self._copied:
            yield Finding(
                kind="copied steps",
                level="error",
                what=f"{self._copied:,} of {self._synthetic:,} steps that are marked synthetic are steps of the source",
                count=self._copied,
            )
        for name, (low, high) in self._extremes.items():
            if len(columns := np.flatnonzero(low == high)) and self.steps > 1:
                what = f"{len(columns)} of {len(low)} columns of {name} never change"
                where = [f"{name}[{column}] is always {low[column]:g}" for column in columns[:_SHOWN].tolist()]
                yield Finding(kind="constant", level="warning", what=what, where=where, count=len(columns))
        if self._still:
            what = f"{self._still:,} of {self.steps:,} steps lead to the very same observation"
            where = [f"nothing ever moves in episode {number}" for number in self._frozen[:_SHOWN]]
            yield Finding(kind="standing still", level="warning", what=what, where=where, count=self._still)
        if self._cut:
            what = f"{self._cut:,} of {self.episodes:,} episodes end neither by termination nor at the time limit"
            yield Finding(
                kind="cut short", level="warning", what=f"{what} of {self._limit} steps, but are truncated before",
                count=self._cut,
            )  # fmt: skip
        if self._outside:
            what = f"{self._outside:,} observations lie outside the bounds of their space"
            yield Finding(kind="bounds", level="warning", what=what, count=self._outside)

    def _duplicates(self) -> Iterator[Finding]:
        groups = [group for group in self._digests.values() if len(group) > 1]
        # Episodes that say that they are the same one of their source were drawn more than once, on purpose.
        known = [group for group in groups if len({origin for _, origin in group}) == 1]
        for level, found in (("error", [g for g in groups if g not in known]), ("warning", known)):
            if found:
                count = sum(len(group) - 1 for group in found)
                says = ", and says so: it was drawn more than once" if level == "warning" else ""
                yield Finding(
                    kind="duplicates",
                    level="error" if level == "error" else "warning",
                    what=f"{count:,} of {self.episodes:,} episodes repeat another one step by step{says}",
                    where=["episodes " + ", ".join(str(n) for n, _ in group[:5]) for group in found[:_SHOWN]],
                    count=count,
                )


_EXPLAINED = {
    "actions": "actions lie outside their space",
    "not finite": "values are NaN or infinite",
    "early end": "a termination or truncation stands before the last step",
    "open end": "the last step neither terminates nor truncates the episode",
    "dtype": "arrays have another dtype than their space",
    "shape": "arrays do not have the shape or length that spaces and rewards want",
}


def _totals(source: MinariDataset, seen: _Seen) -> Iterator[Finding]:
    if len(source.episode_indices) != source.storage.total_episodes:
        return  # a view
    told = int(source.storage.total_episodes), int(source.storage.total_steps)
    if (seen.episodes, seen.steps) != told:
        what = f"it holds {seen.episodes:,} episodes of {seen.steps:,} steps; metadata say {told[0]:,} of {told[1]:,}"
        yield Finding(kind="totals", level="error", what=what)


def _environment(source: MinariDataset) -> tuple[gym.Env | None, list[Finding]]:
    """The environment of a dataset, and what keeps it from being one."""
    spec = source.env_spec
    if spec is None:
        what = "no environment is named: a learner can train, but nothing can be played or verified"
        return None, [Finding(kind="environment", level="warning", what=what)]
    try:
        env = make_env(spec)
    except Exception as error:  # each environment fails in its own way
        reason = str(error).strip().partition("\n")[0]
        what = f"{spec.id} cannot be made here ({type(error).__name__}: {reason})"
        return None, [Finding(kind="environment", level="warning", what=what)]
    findings = []
    for name in ("observation_space", "action_space"):
        if (ours := getattr(source, name)) != (theirs := getattr(env, name)):
            what = f"the dataset's {name.replace('_', ' ')} is {ours}, that of {spec.id} {theirs}"
            findings.append(Finding(kind="environment", level="warning", what=what))
    return env, findings


def _scores(metadata: Mapping[str, Any]) -> Iterator[Finding]:
    low, high = metadata.get("ref_min_score"), metadata.get("ref_max_score")
    if low is None or high is None:
        missing = " and ".join(n for n, v in (("ref_min_score", low), ("ref_max_score", high)) if v is None)
        what = f"{missing} missing: returns cannot be normalised (`scores` sets them)"
        yield Finding(kind="reference scores", level="warning", what=what)
    elif not low < high:
        what = f"ref_min_score {low:g} is not below ref_max_score {high:g}"
        yield Finding(kind="reference scores", level="error", what=what)


def _own_steps(metadata: Mapping[str, Any]) -> np.ndarray | None:
    """Sorted digests of the steps of the dataset that this one was made from, where that is local."""
    record = metadata.get(RECORD_KEY)
    origin = record.get("source") if isinstance(record, Mapping) else None
    if not isinstance(origin, str) or not minari_io.exists(origin):
        return None
    source = minari_io.load(origin)
    try:
        spaces = {
            "observation_space": FlatSpace(source.observation_space, "observation"),
            "action_space": FlatSpace(source.action_space, "action"),
        }
        rows = []
        for raw in minari_io.stored_episodes(source, extras=False):
            part = flatten_episode(raw, **spaces)
            if len(part["observations"]) == len(part["actions"]) + 1:
                rows.append(digests(part["observations"][:-1], part["actions"]))
    except (InvalidDataError, UnsupportedSpaceError):
        return None
    return np.sort(np.concatenate(rows)) if rows else None
