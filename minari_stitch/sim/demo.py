"""Demo datasets: recipes, not files.

An id under `demo/` is rolled out on first use, in real MuJoCo, from actors shipped in `minari_stitch.policies` (soft
actor-critic; linear ones for Adroit's pen), and kept as an ordinary local Minari dataset.

The work is cut into numbered chunks, each with its own seed, so the same recipe, steps and seed give the same
bytes for any number of workers, and more steps extend each actor's share instead of changing it.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib import resources
from typing import Any

import gymnasium as gym
import numpy as np

from minari_stitch.data import minari_io
from minari_stitch.data.episodes import Episodes
from minari_stitch.errors import ConfigError, DatasetIdError, StitchError
from minari_stitch.pool import Pool
from minari_stitch.sim.behaviour import Policy, load_actor, make_env, play_episode, uniform

DEFAULT_STEPS = 200_000
_CHUNK_STEPS = 10_000

Progress = Callable[[int, int], None]

_PACKED = resources.files("minari_stitch.policies")
_LADDERS = {  # the actors of a replay buffer, the last of which is medium; then the expert
    "hopper": ((20_000, 100_000, 140_000, 200_000, 480_000), 360_000),
    "walker2d": ((40_000, 100_000, 160_000, 300_000, 380_000), 680_000),
    "halfcheetah": ((20_000, 40_000, 60_000, 80_000), 560_000),
    "pen": ((144_000, 288_000, 432_000), 1_296_000),
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a demo dataset is made: equal shares of steps from each actor, in this order.

    Attributes:
        dataset_id: Id under `demo/`.
        env: Key into the packed policies (`hopper`).
        actors: Environment steps each actor was trained for; 0 acts uniformly at random.
    """

    dataset_id: str
    env: str
    actors: tuple[int, ...]

    @property
    def env_id(self) -> str:
        """Gymnasium id (`Hopper-v5`)."""
        return policy_table()[self.env]["env_id"]

    @property
    def actor_returns(self) -> tuple[float, ...]:
        """Measured mean return of each actor; those of the dataset lie between the least and the greatest."""
        return tuple(_measured(self.env, actor) for actor in self.actors)

    @property
    def description(self) -> str:
        """The mix in words."""
        if self.actors == (0,):
            return "uniform random actions"
        trained = ", ".join(f"{actor // 1000}k" for actor in self.actors)
        kind = policy_table()[self.env]["algorithm"]
        what = f"a {kind} actor" if len(self.actors) == 1 else f"{len(self.actors)} {kind} actors in equal shares"
        return f"{what} ({trained} steps of training)"


RECIPES = {
    recipe.dataset_id: recipe
    for env, (ladder, expert) in _LADDERS.items()
    for name, actors in {
        "random": (0,),
        "medium-replay": ladder,
        "medium": ladder[-1:],
        "medium-expert": (ladder[-1], expert),
        "expert": (expert,),
    }.items()
    for recipe in [Recipe(dataset_id=f"demo/{env}/{name}-v0", env=env, actors=actors)]
}


@cache
def policy_table() -> dict[str, Any]:
    """The packed `policies.json`: for each environment its actors and their measured returns."""
    return json.loads((_PACKED / "policies.json").read_text())


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
    episodes = rollout(recipe, n_steps=made["steps"], seed=made["seed"], workers=workers, progress=progress)
    env = make_env(recipe.env_id)
    spec = gym.spec(recipe.env_id)
    minari_io.write(
        episodes,
        dataset_id=dataset_id,
        observation_space=env.observation_space,
        action_space=env.action_space,
        env_spec=spec,
        metadata={
            "description": (
                f"{recipe.env_id}, {recipe.description} (mean returns over 100 episodes: "
                f"{', '.join(f'{value:.0f}' for value in recipe.actor_returns)}); stochastic actions, "
                f"{made['steps']:,} steps, seed {made['seed']}. Made on this machine by minari-stitch."
            ),
            "author": {"minari-stitch"},
            "algorithm_name": "random" if recipe.actors == (0,) else policy_table()[recipe.env]["algorithm"],
            "requirements": ["gymnasium-robotics" if recipe.env == "pen" else "gymnasium[mujoco]"],
            "eval_env_spec": spec.to_json(),
            "ref_min_score": _measured(recipe.env, 0),
            "ref_max_score": _measured(recipe.env, _LADDERS[recipe.env][1]),
            "demo": {"recipe": dataset_id, "actors": recipe.actors, **made},
        },
    )
    env.close()


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


def _measured(env: str, actor: int) -> float:
    """Mean return over the episodes that `policies.json` states, with stochastic actions."""
    rows = {row["env_steps"]: row for row in policy_table()[env]["policies"]}
    return rows[actor]["stochastic"]["mean"]


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
    make_env(recipe.env_id).close()  # without MuJoCo, fail here and not in a worker
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
        arrays = (key for key, value in last.items() if isinstance(value, np.ndarray))
        parts[-1] = last | {key: last[key][:-excess].copy() for key in arrays}
        parts[-1]["truncations"][-1] = True
    return Episodes.from_list(parts)


def _roll_chunk(chunk: _Chunk, progress: object = None) -> Episodes:
    """Roll out whole episodes until the chunk has its steps."""
    recipe = chunk.recipe
    entropy = [chunk.seed, zlib.crc32(recipe.dataset_id.encode()), chunk.actor, chunk.number]
    env_seed, action_seed = np.random.SeedSequence(entropy).generate_state(2)
    rng = np.random.default_rng(action_seed)
    env = make_env(recipe.env_id)
    policy = _policy(recipe, recipe.actors[chunk.actor], env, rng)
    parts = [play_episode(env, policy, seed=int(env_seed))]
    steps = len(parts[0]["rewards"])
    while steps < chunk.steps:
        parts.append(play_episode(env, policy))
        steps += len(parts[-1]["rewards"])
    env.close()
    return Episodes.from_list(parts)


def _policy(recipe: Recipe, actor: int, env: gym.Env, rng: np.random.Generator) -> Policy:
    """The packed actor of a recipe that was trained for so many steps, with its noise; 0 is uniform."""
    if not actor:
        return uniform(env.action_space, rng)
    with resources.as_file(_PACKED / f"{recipe.env}-{actor:07d}.npz") as path:
        return partial(load_actor(path), rng=rng)
