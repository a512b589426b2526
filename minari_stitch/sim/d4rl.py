"""D4RL's HDF5 files as Minari datasets: environment, reference scores, id and metadata.

D4RL recorded locomotion in gym's -v2 environments. Their physics and rewards are those of Gymnasium's -v4, so these are
named as the environment of such a dataset: -v5 does not reward the step on which hopper or walker2d falls for being
healthy, and gives walker2d's right foot twice the friction.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec

from minari_stitch.data import minari_io
from minari_stitch.data.card import LICENSE_KEY
from minari_stitch.data.d4rl_rows import ROUNDING, Cut, episodes, read_rows
from minari_stitch.data.spaces import FlatSpace
from minari_stitch.data.written import Written
from minari_stitch.errors import ConfigError, DatasetIdError, DatasetNotFoundError, InvalidDataError, StitchError
from minari_stitch.sim.behaviour import make_env, register_robotics

D4RL_KEY = "d4rl"
"""Key, in the dataset's metadata, of what became of the file's rows."""

_KINDS = {"mixed": "medium-replay", "demos": "human", "demos-bc-combined": "cloned"}  # what v0 files call them
_NAMES = re.compile(
    r"d4rl/((hopper|halfcheetah|walker2d)/(random|expert|full-replay|medium(-replay|-expert)?)|pen/(human|cloned|expert))-v[012]"
)
_LICENSE = "cc-by-4.0"  # "unless otherwise noted, all datasets", says D4RL


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What D4RL says about an environment.

    Attributes:
        env_id: Gymnasium id of the version closest to what the data were recorded in.
        recorded_in: Id of the environment they were recorded in, where `env_id` has its physics and rewards.
        requirement: What to install for it.
        scores: D4RL's reference returns: of random actions, and of an expert.
    """

    env_id: str
    recorded_in: str | None = None
    requirement: str
    scores: tuple[float, float]


def _locomotion(name: str, *scores: float) -> Benchmark:
    low, high = scores
    return Benchmark(env_id=f"{name}-v4", recorded_in=f"{name}-v2", requirement="gymnasium[mujoco]", scores=(low, high))


BENCHMARKS = {
    "hopper": _locomotion("Hopper", -20.272305, 3234.3),
    "halfcheetah": _locomotion("HalfCheetah", -280.178953, 12135.0),
    "walker2d": _locomotion("Walker2d", 1.629008, 4592.3),
    "pen": Benchmark(
        env_id="AdroitHandPen-v1", requirement="gymnasium-robotics", scores=(96.262799, 3076.8331017826877)
    ),
}


@dataclass(frozen=True, kw_only=True)
class Imported(Written):
    """What an import wrote.

    Attributes:
        env_id: Gymnasium id of its environment.
        record: What became of the file's rows, as kept in the metadata.
    """

    env_id: str
    record: Mapping[str, Any]


def import_d4rl(
    path: Path,
    *,
    env: str,
    dataset_id: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Imported:
    """Write a D4RL file (v0, v1 or v2) as a new Minari dataset.

    `infos/` and `metadata/` of the file are left behind. Actions outside the action space are clipped to it.

    Args:
        path: The HDF5 file.
        env: A key of `BENCHMARKS`, or the Gymnasium id of an environment with Box observations.
        dataset_id: Id of the new dataset; by default what `default_id` makes of the file's name.
        progress: Called with (episodes written, episodes in all).

    Returns:
        What was written.

    Raises:
        DatasetNotFoundError: There is no such file.
        ConfigError: There is no such environment.
        StitchError: The environment cannot be built.
        DatasetIdError: The id is malformed or taken, or the file's name does not give one.
        InvalidDataError: The file is not HDF5 or not D4RL, does not fit the environment, or holds invalid data.
        StorageError: The datasets path cannot be written, or is full.
    """
    if not path.is_file():
        raise DatasetNotFoundError(f"There is no file {path}. Check the path.")
    spec, observation_space, action_space = _environment(env)
    dataset_id = dataset_id or default_id(path, spec.id)
    minari_io.check_output_id(dataset_id)
    rows = read_rows(path)
    actions = FlatSpace(action_space, "action")
    for name, width in (("observations", FlatSpace(observation_space).size), ("actions", actions.size)):
        if (shape := getattr(rows, name).shape)[1] != width:
            raise InvalidDataError(
                f"{path}: {name} have shape {shape}, but {spec.id} wants (N, {width}). Name the environment of the "
                f"file: {_choices()}."
            )
    inside = np.clip(rows.actions, actions.low, actions.high).astype(rows.actions.dtype)
    cut = Cut.of(rows, spec.max_episode_steps)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    record = {
        "file": path.name,
        "sha256": digest,
        "layout": rows.layout,
        "rows": len(rows.rewards),
        "ends": cut.counts,
        "dropped_steps": int(cut.drops.sum()),
        "repeated_observations": int(cut.repeats.sum()),
        "clipped_actions": int((np.abs(rows.actions - inside) > ROUNDING).any(1).sum()),
    }
    n_episodes, n_steps = int((cut.lengths > 0).sum()), int(cut.lengths.sum())
    written = minari_io.write(
        episodes(replace(rows, actions=inside), cut),
        dataset_id=dataset_id,
        observation_space=observation_space,
        action_space=action_space,
        env_spec=spec,
        metadata={
            "description": _description(spec.id, n_episodes, n_steps, record),
            "author": {"D4RL"},
            "eval_env_spec": spec.to_json(),
            D4RL_KEY: record,
            **_benchmark_metadata(spec.id),
            **({LICENSE_KEY: _LICENSE} if _is_d4rls(path, spec.id) else {}),
        },
        progress=progress and (lambda done: progress(done, n_episodes)),
    )
    return Imported(
        dataset_id=dataset_id, path=written, env_id=spec.id, n_episodes=n_episodes, n_steps=n_steps, record=record
    )


def default_id(path: Path, env_id: str) -> str:
    """Id of the dataset by the file's name.

    `hopper_medium_replay-v2.hdf5` is `d4rl/hopper/medium-replay-v2`, and the names of D4RL's v0 files are known:
    `hopper_mixed.hdf5` is `d4rl/hopper/medium-replay-v0`, `pen-v0_demos_clipped.hdf5` is `d4rl/pen/human-v0`.

    Raises:
        DatasetIdError: The name does not have that form, or names another environment.
    """
    remedy = "Choose a dataset id, for example d4rl/hopper/medium-v2."
    stem = path.stem.lower().replace("_", "-").removesuffix("-clipped")
    version = re.search(r"-v(\d+)(?=-|$)", stem)
    name = stem.replace(version[0], "", 1) if version else stem
    found, _, kind = name.partition("-")
    found = {"walker": "walker2d"}.get(found, found)
    wanted = _key(env_id)
    if found in BENCHMARKS and found != wanted:  # some differ in nothing else: halfcheetah and walker2d
        raise DatasetIdError(
            f"The file name {path.name!r} says {found}, but the environment named is {env_id}. Correct it. {remedy}"
        )
    if (wanted or found) != found or not re.fullmatch(r"[a-z0-9]{2,}", found) or not re.fullmatch(r"[-\w]+", kind):
        raise DatasetIdError(f"The file name {path.name!r} does not say which data of {env_id} it holds. {remedy}")
    return f"d4rl/{found}/{_KINDS.get(kind, kind)}-v{version[1] if version else 0}"


def _is_d4rls(path: Path, env_id: str) -> bool:
    """Whether a file bears the name of one that D4RL has published."""
    with contextlib.suppress(DatasetIdError):
        return bool(_NAMES.fullmatch(default_id(path, env_id)))
    return False


def _choices() -> str:
    return f"{', '.join(BENCHMARKS)}, or a Gymnasium id such as Hopper-v4"


def _key(env_id: str) -> str | None:
    """Of an environment in `BENCHMARKS`, whatever its version."""
    names = {benchmark.env_id.partition("-v")[0]: key for key, benchmark in BENCHMARKS.items()}
    return names.get(env_id.partition("-v")[0])


def _benchmark_metadata(env_id: str) -> dict[str, Any]:
    key = _key(env_id)
    if key is None:
        return {}
    low, high = BENCHMARKS[key].scores
    return {"requirements": [BENCHMARKS[key].requirement], "ref_min_score": low, "ref_max_score": high}


def _environment(env: str) -> tuple[EnvSpec, gym.Space, gym.Space]:
    """Specification, observation space and action space."""
    env_id = BENCHMARKS[env].env_id if env in BENCHMARKS else env
    try:
        with contextlib.suppress(ImportError):
            register_robotics(env_id)
        spec = gym.spec(env_id)
    except gym.error.Error as error:
        raise ConfigError(f"There is no environment {env!r} ({error}) Choose {_choices()}.") from error
    try:
        made = make_env(spec)
    except StitchError:
        raise
    except Exception as error:  # each environment has its own
        raise StitchError(
            f"Environment {spec.id} cannot be built ({type(error).__name__}: {error}). Install what it needs, such as "
            'pip install "gymnasium[mujoco]" gymnasium-robotics.'
        ) from error
    made.close()
    if not isinstance(made.observation_space, gym.spaces.Box):
        raise ConfigError(f"{spec.id} has no Box observations, and D4RL's are vectors. Choose {_choices()}.")
    return spec, made.observation_space, made.action_space


def _description(env_id: str, n_episodes: int, n_steps: int, record: Mapping[str, Any]) -> str:
    dropped, repeated, clipped = (
        record[name] for name in ("dropped_steps", "repeated_observations", "clipped_actions")
    )
    recorded_in = next((known.recorded_in for known in BENCHMARKS.values() if known.env_id == env_id), None)
    text = [
        f"D4RL's {record['file']}: {n_episodes:,} episodes ({record['ends']['terminal']:,} terminated), {n_steps:,} "
        "steps.",
        f"They were recorded in {recorded_in}, whose physics and rewards {env_id} has."
        if recorded_in
        else f"They were recorded in D4RL's own version of the environment, and {env_id} may differ from it.",
        f"Dropped last steps of truncated episodes, whose next state is not in the file: {dropped:,}." * bool(dropped),
        f"Terminated episodes whose final observation is not in the file and repeats the one before: {repeated:,}."
        * bool(repeated),
        f"Actions clipped to the action space: {clipped:,}." * bool(clipped),
    ]
    return " ".join(filter(None, text))
