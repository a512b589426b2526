"""Demo datasets: recipes, not files.

An id under `demo/` is rolled out on first use, in real MuJoCo, from actors shipped in `minari_stitch.policies` or by a
controller that follows waypoints, and kept as an ordinary local Minari dataset.

The work is cut into numbered chunks, each with its own seed, so the same recipe, steps and seed give the same
bytes for any number of workers, and more steps extend each actor's share instead of changing it.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from minari_stitch.data import minari_io, room
from minari_stitch.data.card import LICENSE_KEY
from minari_stitch.data.dataset import Dataset
from minari_stitch.data.episodes import Episodes
from minari_stitch.data.ids import datasets_path
from minari_stitch.data.validation import ValidationReport
from minari_stitch.errors import ConfigError, DatasetIdError, StitchError
from minari_stitch.pool import Pool
from minari_stitch.sim.behaviour import make_env
from minari_stitch.sim.recipes import RECIPES, Recipe

DEFAULT_STEPS = 200_000
SECONDS = 2e-4
"""Of a step, about, in one process."""
_CHUNK_STEPS = 10_000
_ROW = 120  # bytes of a step, at least
_GLIMPSE = 300  # steps of each actor

Progress = Callable[[int, int], None]


def is_demo_id(dataset_id: str) -> bool:
    """Whether an id under `demo/` is for `ensure` to make; others there are local datasets made from demo ones."""
    return dataset_id.startswith("demo/") and (dataset_id in RECIPES or not minari_io.exists(dataset_id))


def ensure(
    dataset_id: str,
    *,
    n_steps: int | None = None,
    seed: int | None = None,
    workers: int = 2,
    progress: Progress | None = None,
) -> None:
    """Make a demo dataset, unless it is already local.

    Args:
        dataset_id: One of `RECIPES`.
        n_steps: Steps in all; by default those of the local dataset, or 200,000.
        seed: By default that of the local dataset, or 0.
        workers: Processes that roll out, see `rollout`.
        progress: Called with (steps done, steps in all).

    Raises:
        DatasetIdError: There is no such recipe.
        ConfigError: `n_steps` or `workers` is too small.
        StitchError: The local dataset has other steps or another seed, or MuJoCo is not installed.
        StorageError: The datasets path cannot be written, or is full.
    """
    if dataset_id not in RECIPES:
        raise DatasetIdError(f"There is no demo dataset {dataset_id!r}. Choose one of {', '.join(RECIPES)}.")
    if minari_io.exists(dataset_id):
        _check_same(dataset_id, {"steps": n_steps, "seed": seed})
        return
    recipe = RECIPES[dataset_id]
    made = {"steps": DEFAULT_STEPS if n_steps is None else n_steps, "seed": seed or 0}
    require_room(made["steps"])
    episodes = rollout(recipe, n_steps=made["steps"], seed=made["seed"], workers=workers, progress=progress)
    spec = recipe.spec
    env = make_env(spec)
    minari_io.write(
        episodes,
        dataset_id=dataset_id,
        observation_space=env.observation_space,
        action_space=env.action_space,
        env_spec=spec,
        metadata={
            "description": (
                f"{recipe.env_id}, {recipe.description} {recipe.about}, {made['steps']:,} steps, seed {made['seed']}. "
                "Made on this machine by minari-stitch."
            ),
            "author": {"minari-stitch"},
            LICENSE_KEY: "mit",
            "eval_env_spec": spec.to_json(),
            "demo": {"recipe": dataset_id, "actors": list(recipe.actors), **made},
            **recipe.metadata,
        },
    )
    env.close()


def require_room(n_steps: int) -> None:
    """Refuse more steps than disk or memory hold.

    Raises:
        StorageError: The disk is too small.
        OutOfMemoryError: The memory is.
    """
    size, what = float(_ROW * n_steps), f"demo_steps={n_steps}"
    room.require_room(what, disk=size, memory=2 * size, folder=datasets_path(), remedy="ask for fewer steps")


def glimpse(dataset_id: str) -> tuple[Dataset, float]:
    """A little of a demo dataset, in memory only, and the seconds that a step took.

    Raises:
        DatasetIdError: There is no such recipe.
        StitchError: MuJoCo is not installed.
    """
    if dataset_id not in RECIPES:
        raise DatasetIdError(f"There is no demo dataset {dataset_id!r}. Choose one of {', '.join(RECIPES)}.")
    recipe = RECIPES[dataset_id]
    env, n_steps = make_env(recipe.spec), _GLIMPSE * len(recipe.actors)
    begin = time.perf_counter()
    episodes = rollout(recipe, n_steps=n_steps, workers=1)
    seconds = (time.perf_counter() - begin) / n_steps
    dataset = Dataset(
        dataset_id=dataset_id,
        episodes=episodes,
        observation_space=env.observation_space,
        action_space=env.action_space,
        env_spec=recipe.spec,
        metadata={"demo": {"actors": list(recipe.actors), "steps": n_steps, "seed": 0}},
        episode_ids=np.arange(len(episodes)),
        skipped=ValidationReport(len(episodes), []),
    )
    env.close()
    return dataset, seconds


def _check_same(dataset_id: str, asked: dict[str, int | None]) -> None:
    """Refuse a local dataset that was not made as explicitly asked."""
    explicit = {key: value for key, value in asked.items() if value is not None}
    if not explicit:
        return
    made = minari_io.read(dataset_id).metadata.get("demo", {})
    for key, value in explicit.items():
        if made.get(key) != value:
            raise StitchError(
                f"{dataset_id} is already there, made with {key} {made.get(key, 'unknown')} and not {value}. "
                f"Delete it with `minari delete {dataset_id}` to make it anew, or leave {key} unset to use it."
            )


@dataclass(frozen=True, kw_only=True)
class _Chunk:
    """A numbered piece of one actor's share, the unit of parallel work."""

    recipe: Recipe
    actor: int
    number: int
    steps: int
    seed: int


def rollout(
    recipe: Recipe,
    *,
    n_steps: int,
    seed: int = 0,
    first_chunk: int = 0,
    workers: int = 2,
    progress: Progress | None = None,
) -> Episodes:
    """Roll out a recipe in the simulator.

    Args:
        recipe: One of `RECIPES`.
        n_steps: Steps in all, at least one for each actor.
        seed: The same seed gives the same bytes, for any number of workers.
        first_chunk: Number of the first chunk of each actor; a number beyond those of another call gives data
            independent of that call's.
        workers: Processes; 1 stays in this process, more need the `__main__` guard in a script.
        progress: Called with (steps done, steps in all) after each chunk.

    Returns:
        Episodes in actor order, observations `(N + E, S)` float64 and actions `(N, A)` float32. Where an
        actor's share of the steps ends inside an episode, that episode ends with a truncation.

    Raises:
        ConfigError: `n_steps` or `workers` is too small.
        StitchError: MuJoCo is not installed.
    """
    if n_steps < len(recipe.actors):
        raise ConfigError(f"n_steps={n_steps} is not possible: {recipe.dataset_id} needs {len(recipe.actors)} or more")
    pool = Pool(workers=workers)
    bounds = np.linspace(0, n_steps, len(recipe.actors) + 1).astype(int)
    shares = np.diff(bounds).tolist()
    chunks = [
        _Chunk(
            recipe=recipe,
            actor=actor,
            number=first_chunk + start // _CHUNK_STEPS,
            steps=min(_CHUNK_STEPS, share - start),
            seed=seed,
        )
        for actor, share in enumerate(shares)
        for start in range(0, share, _CHUNK_STEPS)
    ]
    make_env(recipe.spec).close()  # without MuJoCo, fail here and not in a worker
    pool = replace(pool, workers=min(workers, len(chunks)))
    parts: list[list[Episodes]] = [[] for _ in recipe.actors]
    done = 0
    for chunk, episodes in zip(chunks, pool.map(_roll_chunk, [(chunk,) for chunk in chunks]), strict=True):
        parts[chunk.actor].append(episodes)
        done += chunk.steps
        if progress:
            progress(done, n_steps)
    return Episodes.concatenate(
        [_head(Episodes.concatenate(part), share) for part, share in zip(parts, shares, strict=True)]
    )


def _head(episodes: Episodes, n_steps: int) -> Episodes:
    """The first `n_steps` steps; an episode cut by this ends with a truncation."""
    index = int(np.searchsorted(episodes.offsets, n_steps, side="left"))
    parts = [episodes.episode(e) for e in range(index)]
    excess = int(episodes.offsets[index]) - n_steps
    if excess:
        last = parts[-1]
        last |= {key: value[:-excess].copy() for key, value in last.items() if isinstance(value, np.ndarray)}
        last["infos"] = {key: value[:-excess].copy() for key, value in last["infos"].items()}
        last["truncations"][-1] = True
    return Episodes.from_list(parts)


def _roll_chunk(chunk: _Chunk, progress: object = None) -> Episodes:
    """Roll out whole episodes until the chunk has its steps."""
    recipe = chunk.recipe
    entropy = [chunk.seed, zlib.crc32(recipe.dataset_id.encode()), chunk.actor, chunk.number]
    env_seed, action_seed = np.random.SeedSequence(entropy).generate_state(2)
    rng = np.random.default_rng(action_seed)
    env = make_env(recipe.spec)
    parts, steps = [], 0
    for part in recipe.episodes(chunk.actor, env, int(env_seed), rng):
        parts.append(part)
        steps += len(part["rewards"])
        if steps >= chunk.steps:
            break
    env.close()
    return Episodes.from_list(parts)
