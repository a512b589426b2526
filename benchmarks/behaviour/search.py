"""Search linear behaviour policies for Adroit's pen: augmented random search (Mania et al., 2018, V1-t).

Directions are tried in pairs, the best of them averaged. The policy sees where the pen points, where it should
point, and how far it has moved; it is clipped, affine, and saved in the layout of `behaviour.LinearActor`.
"""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from train import play_stochastic

from minari_stitch.sim.behaviour import make_env

ENV_ID = "AdroitHandPen-v1"
HORIZON = 100
COLUMNS = [*range(33, 39), *range(24, 27)]  # of the observation: axis of the pen, axis of the goal, place of the pen
CENTRE = np.array([0, 0, 0, 0, 0, 0, 0, -0.2, 0.25])
SCALE = np.array([1, 1, 1, 1, 1, 1, 10, 10, 10])
DIRECTIONS, BEST, GOALS = 12, 6, 4
STEP, RADIUS = 0.04, 0.08
NOISE = 0.05  # of the actor that is kept
STEPS_PER_ITERATION = 2 * DIRECTIONS * GOALS * HORIZON


def search(
    out: Annotated[Path, typer.Argument(help="Folder for the actors and policies.json.")],
    iterations: Annotated[int, typer.Option(help=f"Of {STEPS_PER_ITERATION:,} environment steps.")] = 135,
    save_every: Annotated[int, typer.Option(help="Iterations between saved actors.")] = 15,
    episodes: Annotated[int, typer.Option(help="Episodes each saved actor is measured over.")] = 10,
    workers: int = 2,
    seed: int = 0,
) -> None:
    """Search; keep and measure an actor every `save_every` iterations."""
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    weights = np.zeros((24, 1 + len(COLUMNS)))
    table: dict[str, Any] = {"env_id": ENV_ID, "algorithm": "linear ARS", "policies": []}
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for iteration in range(1, iterations + 1):
            directions = rng.normal(size=(DIRECTIONS, *weights.shape))
            goals = rng.integers(0, 10**6, size=GOALS)
            tried = [weights + sign * RADIUS * one for one in directions for sign in (1, -1)]
            scores = np.array(list(pool.map(score, tried, [goals] * len(tried)))).reshape(DIRECTIONS, 2)
            best = np.argsort(-scores.max(1))[:BEST]
            slope = np.tensordot(scores[best, 0] - scores[best, 1], directions[best], 1)
            weights = weights + STEP / (scores[best].std() + 1e-8) / BEST * slope
            if iteration % save_every:
                continue
            file = f"pen-{iteration * STEPS_PER_ITERATION:07d}.npz"
            np.savez_compressed(out / file, allow_pickle=False, **affine(weights))
            measured = play_stochastic(ENV_ID, out / file, episodes)
            row = {"file": file, "env_steps": iteration * STEPS_PER_ITERATION, "stochastic": measured}
            table["policies"].append(row)
            (out / "policies.json").write_text(json.dumps(table, indent=1))
            typer.echo(f"{file}: return {measured['mean']:.0f} +- {measured['std']:.0f}")


@cache
def _env() -> Any:
    return make_env(ENV_ID).unwrapped


def score(weights: np.ndarray, goals: np.ndarray) -> float:
    """Mean over steps of the reward, with its bonuses (10 and 60) cut to 2 and 4 so that no goal outweighs all."""
    env, total = _env(), 0.0
    for goal in goals:
        observation, _ = env.reset(seed=int(goal))
        for _ in range(HORIZON):
            seen = (observation[COLUMNS] - CENTRE) * SCALE
            observation, reward, *_ = env.step(np.clip(weights[:, 0] + weights[:, 1:] @ seen, -1, 1))
            plain = float(observation[33:36] @ observation[36:39]) - float(np.linalg.norm(observation[39:42]))
            bonus = reward - plain
            total += plain + (4 if bonus > 40 else 2 if bonus > 5 else 0) - (3 if observation[26] < 0.075 else 0)
    return total / len(goals) / HORIZON


def affine(weights: np.ndarray) -> dict[str, np.ndarray]:
    """The same policy in terms of the whole observation."""
    matrix = np.zeros((_env().observation_space.shape[0], len(weights)))
    matrix[COLUMNS] = (weights[:, 1:] * SCALE).T
    bias = weights[:, 0] - CENTRE @ matrix[COLUMNS]
    return {"w": matrix.astype(np.float32), "b": bias.astype(np.float32), "std": np.array(NOISE, np.float32)}


if __name__ == "__main__":
    typer.run(search)
