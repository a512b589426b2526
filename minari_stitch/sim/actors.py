"""Behaviour policies that were trained, and the demo datasets that are rolled out from them.

Soft actor-critic for locomotion, linear actors for Adroit's pen; their weights are packed in `minari_stitch.policies`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from importlib import resources
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec

from minari_stitch.sim.behaviour import Policy, load_actor, play_episode, register_robotics, uniform

_PACKED = resources.files("minari_stitch.policies")
_LADDERS = {  # the actors of a replay buffer, the last of which is medium; then the expert
    "hopper": ((20_000, 100_000, 140_000, 200_000, 480_000), 360_000),
    "walker2d": ((40_000, 100_000, 160_000, 300_000, 380_000), 680_000),
    "halfcheetah": ((20_000, 40_000, 60_000, 80_000), 560_000),
    "pen": ((144_000, 288_000, 432_000), 1_296_000),
}


@dataclass(frozen=True, kw_only=True)
class ActorRecipe:
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

    @property
    def about(self) -> str:
        """What else there is to say of the data."""
        returns = ", ".join(f"{value:.0f}" for value in self.actor_returns)
        return f"(mean returns over 100 episodes: {returns}); stochastic actions"

    @property
    def spec(self) -> EnvSpec:
        """The environment."""
        register_robotics(self.env_id)
        return gym.spec(self.env_id)

    @property
    def metadata(self) -> dict[str, Any]:
        """What a dataset says beside its description."""
        return {
            "algorithm_name": "random" if self.actors == (0,) else policy_table()[self.env]["algorithm"],
            "requirements": ["gymnasium-robotics" if self.env == "pen" else "gymnasium[mujoco]"],
            "ref_min_score": _measured(self.env, 0),
            "ref_max_score": _measured(self.env, _LADDERS[self.env][1]),
        }

    def episodes(self, actor: int, env: gym.Env, seed: int, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
        """Play episode after episode, without end.

        Args:
            actor: Index into `actors`.
            env: Of `spec`.
            seed: Of the environment.
            rng: Of the actor.

        Yields:
            Mappings in the form that `Episodes.from_list` takes.
        """
        policy = _policy(self, self.actors[actor], env, rng)
        yield play_episode(env, policy, seed=seed)
        while True:
            yield play_episode(env, policy)


ACTOR_RECIPES = {
    recipe.dataset_id: recipe
    for env, (ladder, expert) in _LADDERS.items()
    for name, actors in {
        "random": (0,),
        "medium-replay": ladder,
        "medium": ladder[-1:],
        "medium-expert": (ladder[-1], expert),
        "expert": (expert,),
    }.items()
    for recipe in [ActorRecipe(dataset_id=f"demo/{env}/{name}-v0", env=env, actors=actors)]
}


@cache
def policy_table() -> dict[str, Any]:
    """The packed `policies.json`: for each environment its actors and their measured returns."""
    return json.loads((_PACKED / "policies.json").read_text())


def _measured(env: str, actor: int) -> float:
    """Mean return over the episodes that `policies.json` states, with stochastic actions."""
    rows = {row["env_steps"]: row for row in policy_table()[env]["policies"]}
    return rows[actor]["stochastic"]["mean"]


def _policy(recipe: ActorRecipe, actor: int, env: gym.Env, rng: np.random.Generator) -> Policy:
    """The packed actor of a recipe that was trained for so many steps, with its noise; 0 is uniform."""
    if not actor:
        return uniform(env.action_space, rng)
    with resources.as_file(_PACKED / f"{recipe.env}-{actor:07d}.npz") as path:
        return partial(load_actor(path), rng=rng)
