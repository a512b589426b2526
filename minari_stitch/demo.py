"""Demo datasets: recipes, not files.

An id under `demo/` is rolled out on first use, in real MuJoCo, from soft actor-critic actors shipped in
`minari_stitch.policies`, and kept as an ordinary local Minari dataset.

The work is cut into numbered chunks, each with its own seed, so the same recipe, steps and seed give the same
bytes for any number of workers, and more steps extend each actor's share instead of changing it.
"""

from __future__ import annotations

import json
import multiprocessing
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import gymnasium as gym
import numpy as np

from minari_stitch.episodes import Episodes
from minari_stitch.errors import StitchError

DEFAULT_STEPS = 200_000
CHUNK_STEPS = 10_000

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a demo dataset is made: equal shares of steps from each actor, in this order.

    Attributes:
        dataset_id: Id under `demo/`.
        env: Key into the packed policies (`hopper`).
        env_id: Gymnasium id (`Hopper-v5`).
        actors: Environment steps each actor was trained for; 0 acts uniformly at random.
    """

    dataset_id: str
    env: str
    env_id: str
    actors: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class _Chunk:
    """A numbered piece of one actor's share, the unit of parallel work."""

    recipe: Recipe
    actor: int
    number: int
    steps: int
    seed: int


@cache
def policy_table() -> dict[str, Any]:
    """The packed `policies.json`: for each environment its actors and their measured returns."""
    return json.loads((resources.files("minari_stitch.policies") / "policies.json").read_text())


def _recipes() -> Iterator[Recipe]:
    ladders = {  # the actors of a replay buffer that ends at medium, then the expert
        "hopper": ((20_000, 100_000, 140_000, 200_000, 480_000), 360_000),
        "walker2d": ((40_000, 100_000, 160_000, 300_000, 380_000), 680_000),
        "halfcheetah": ((20_000, 40_000, 60_000, 80_000), 560_000),
    }
    for env, (ladder, expert) in ladders.items():
        env_id = policy_table()[env]["env_id"]
        mixes = {
            "random": (0,),
            "medium-replay": ladder,
            "medium": ladder[-1:],
            "medium-expert": (ladder[-1], expert),
            "expert": (expert,),
        }
        for name, actors in mixes.items():
            yield Recipe(dataset_id=f"demo/{env}/{name}-v0", env=env, env_id=env_id, actors=actors)


RECIPES = {recipe.dataset_id: recipe for recipe in _recipes()}


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
        workers: Processes; 1 stays in this process.
        progress: Called with (steps done, steps in all) after each chunk.

    Returns:
        Episodes in actor order, observations `(N + E, S)` float64 and actions `(N, A)` float32. Where an
        actor's share of the steps ends inside an episode, that episode ends with a truncation.

    Raises:
        StitchError: If MuJoCo is not installed.
    """
    try:
        import mujoco  # noqa: F401
    except ImportError as error:
        raise StitchError(
            f"{recipe.dataset_id} is rolled out in MuJoCo, which cannot be imported ({error}); "
            'run pip install "gymnasium[mujoco]"'
        ) from error
    bounds = np.linspace(0, n_steps, len(recipe.actors) + 1).astype(int)
    shares = np.diff(bounds).tolist()
    chunks = [
        _Chunk(
            recipe=recipe,
            actor=actor,
            number=first_chunk + start // CHUNK_STEPS,
            steps=min(CHUNK_STEPS, share - start),
            seed=seed,
        )
        for actor, share in enumerate(shares)
        for start in range(0, share, CHUNK_STEPS)
    ]
    parts: list[list[Episodes]] = [[] for _ in recipe.actors]
    done = 0
    for chunk, episodes in zip(chunks, _map(chunks, workers), strict=True):
        parts[chunk.actor].append(episodes)
        done += chunk.steps
        if progress:
            progress(done, n_steps)
    return Episodes.concatenate(
        [_head(Episodes.concatenate(part), share) for part, share in zip(parts, shares, strict=True)]
    )


def _map(chunks: list[_Chunk], workers: int) -> Iterator[Episodes]:
    """Roll out the chunks, in order."""
    if workers == 1:
        yield from map(_roll_chunk, chunks)
        return
    with ProcessPoolExecutor(
        min(workers, len(chunks)), mp_context=multiprocessing.get_context("spawn")
    ) as pool:
        yield from pool.map(_roll_chunk, chunks)


def _head(episodes: Episodes, n_steps: int) -> Episodes:
    """The first `n_steps` steps; an episode cut by this ends with a truncation."""
    index = int(np.searchsorted(episodes.offsets, n_steps, side="left"))
    parts = [episodes.episode(e) for e in range(index)]
    excess = int(episodes.offsets[index]) - n_steps
    if excess:
        last = parts[-1]
        parts[-1] = {**last, **{key: last[key][:-excess].copy() for key in last if key not in ("infos", "metadata")}}
        parts[-1]["truncations"][-1] = True
    return Episodes.from_list(parts)


def _roll_chunk(chunk: _Chunk) -> Episodes:
    """Roll out whole episodes until the chunk has its steps."""
    recipe = chunk.recipe
    entropy = [chunk.seed, zlib.crc32(recipe.dataset_id.encode()), chunk.actor, chunk.number]
    reset_seed, action_seed = np.random.SeedSequence(entropy).generate_state(2)
    env = gym.make(recipe.env_id, disable_env_checker=True)
    act = _actor(recipe, recipe.actors[chunk.actor], env.action_space, np.random.default_rng(action_seed))
    parts: list[dict[str, Any]] = []
    steps = 0
    seed: int | None = int(reset_seed)
    while steps < chunk.steps:
        observation, _ = env.reset(seed=seed)
        seed = None  # later episodes go on with the environment's own generator
        observations, actions, rewards = [observation], [], []
        terminated = truncated = False
        while not (terminated or truncated):
            action = act(observation)
            observation, reward, terminated, truncated, _ = env.step(action)
            observations.append(observation)
            actions.append(action)
            rewards.append(reward)
        ends = np.zeros((2, len(rewards)), dtype=bool)
        ends[:, -1] = terminated, truncated
        parts.append(
            {
                "observations": np.array(observations),
                "actions": np.array(actions),
                "rewards": np.array(rewards, dtype=np.float64),
                "terminations": ends[0],
                "truncations": ends[1],
            }
        )
        steps += len(rewards)
    env.close()
    return Episodes.from_list(parts)


def _actor(
    recipe: Recipe, trained: int, space: gym.Space, rng: np.random.Generator
) -> Callable[[np.ndarray], np.ndarray]:
    """The stochastic policy: observation `(S,)` -> action `(A,)` float32."""
    assert isinstance(space, gym.spaces.Box)
    if not trained:
        return lambda observation: rng.uniform(space.low, space.high).astype(np.float32)
    with (resources.files("minari_stitch.policies") / f"{recipe.env}-{trained:07d}.npz").open("rb") as file:
        weights = dict(np.load(file))

    def layer(x: np.ndarray, index: int) -> np.ndarray:
        # einsum, not BLAS: for one row about as fast, and its sums do not depend on the number of threads.
        return np.einsum("i,ij->j", x, weights[f"w{index}"]) + weights[f"b{index}"]

    def act(observation: np.ndarray) -> np.ndarray:
        x = np.maximum(layer(observation.astype(np.float32), 0), 0)
        x = np.maximum(layer(x, 1), 0)
        std = np.exp(np.clip(layer(x, 3), -20, 2))
        return np.tanh(layer(x, 2) + std * rng.standard_normal(len(std), dtype=np.float32))

    return act
