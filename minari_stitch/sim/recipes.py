"""All demo datasets by name: what each is made of, without what it takes to make one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec

from minari_stitch.sim.actors import ACTOR_RECIPES
from minari_stitch.sim.waypoints import MAZE_RECIPES


class Recipe(Protocol):
    """How a demo dataset is made: equal shares of steps from each actor, in this order."""

    @property
    def dataset_id(self) -> str: ...  # noqa: D102
    @property
    def env_id(self) -> str: ...  # noqa: D102
    @property
    def actors(self) -> Sequence[Any]: ...  # noqa: D102
    @property
    def actor_returns(self) -> Sequence[float]: ...  # noqa: D102
    @property
    def description(self) -> str: ...  # noqa: D102
    @property
    def about(self) -> str: ...  # noqa: D102
    @property
    def spec(self) -> EnvSpec: ...  # noqa: D102
    @property
    def metadata(self) -> Mapping[str, Any]: ...  # noqa: D102

    def episodes(self, actor: int, env: gym.Env, seed: int, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
        """Play episode after episode of `actors[actor]`, without end."""
        ...


RECIPES: dict[str, Recipe] = {**ACTOR_RECIPES, **MAZE_RECIPES}
