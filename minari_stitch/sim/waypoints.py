"""Demo datasets of point mazes: a controller that follows waypoints, and no training.

A way through the maze is found by breadth-first search, and a noisy proportional-derivative controller follows the
middles of its cells, as in D4RL, or random places in them. An episode has one goal and is truncated some steps after
reaching it.

`play`: from anywhere to anywhere. `stitch`: goals four cells away, 200 steps (after OGBench's sets of that name).
`split`: one goal, and a gap across the maze that no trajectory enters: half of the steps wander about where the task
starts, half lead to the goal from places beyond the gap.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec

from minari_stitch.data.spaces import FlatSpace
from minari_stitch.sim.behaviour import register_robotics
from minari_stitch.sim.maze import Cell, Maze

NOISE = 0.5
"""Standard deviation of the noise on each action, as in D4RL and OGBench; actions lie in [-1, 1]."""
STAY = 30
"""Steps that an episode goes on once its goal is reached."""
_GAIN, _DAMPING = 10.0, 1.0
_NEAR = 0.15  # m from a waypoint at which the next one is headed for
_MARGIN = 0.2  # m from walls within which no destination is drawn
_RIM = 0.4  # cells from the gap
_STITCH_CELLS, _STITCH_STEPS = 4, 200
_NAMES = {"umaze": "UMaze", "medium": "Medium", "large": "Large", "zigzag": "UMaze"}
_ZIGZAG = ["111111", "100001", "111101", "111101", "100001", "101111", "101111", "100001", "111111"]
_GAPS = {"split": 0.6, "split-near": 0.3, "split-meet": -1.0}
_WIDE = 1.4  # gap of the maze whose walls are thicker: clones and clusters span the others
_ASIDE = 0.3  # cells from the middles of those that its trajectories pass through: they fill its corridors


@dataclass(frozen=True, kw_only=True)
class MazeRecipe:
    """How a demo dataset of a point maze is made.

    Attributes:
        dataset_id: Id under `demo/`.
        env: Name of the maze (`umaze`).
        kind: See the module.
        gap: Of `split`: width in cells of what no trajectory enters; where it is negative, trajectories overlap so far.
        aside: Cells from the middle of a cell, up to which a way leads through it.
    """

    dataset_id: str
    env: str
    kind: Literal["play", "stitch", "split"]
    gap: float = 0.0
    aside: float = 0.0

    algorithm = "waypoints"

    @property
    def env_id(self) -> str:
        """Gymnasium id (`PointMaze_UMaze-v3`)."""
        return f"PointMaze_{_NAMES[self.env]}-v3"

    @property
    def actors(self) -> tuple[str, ...]:
        """Who shares the steps."""
        return ("start", "goal") if self.kind == "split" else (self.kind,)

    @property
    def description(self) -> str:
        """In words."""
        crossing = f"a gap of {self.gap:g} cells that nothing enters" if self.gap > 0 else "halves that overlap"
        what = {"play": "from anywhere to anywhere", "stitch": f"goals {_STITCH_CELLS} cells away", "split": crossing}
        return f"waypoints, {what[self.kind]}"

    @property
    def about(self) -> str:
        """What else there is to say of the data."""
        return f"(noise of {NOISE:g} on each action)"

    @property
    def actor_returns(self) -> tuple[float, ...]:
        """Nothing was measured beforehand."""
        return ()

    @property
    def spec(self) -> EnvSpec:
        """The environment; of `split` with one start and one goal, the cells farthest apart."""
        register_robotics(self.env_id)
        spec = gym.spec(self.env_id)
        if self.env == "zigzag":
            layout = [[int(cell) for cell in row] for row in _ZIGZAG]
            spec = dataclasses.replace(spec, kwargs=spec.kwargs | {"maze_map": layout}, max_episode_steps=800)
        if self.kind != "split":
            return spec
        layout = [list(row) for row in spec.kwargs["maze_map"]]
        for (row, column), mark in zip(self.ends, "rg", strict=True):
            layout[row][column] = mark
        return dataclasses.replace(spec, kwargs=spec.kwargs | {"maze_map": layout})

    @property
    def ends(self) -> tuple[Cell, Cell]:
        """Start and goal of `split`."""
        return self._maze.farthest()

    @property
    def metadata(self) -> dict[str, Any]:
        """What a dataset says beside its description."""
        about: dict[str, Any] = {"kind": self.kind, "noise": NOISE}
        about |= {"gap": self.gap} if self.kind == "split" else {}
        about |= {"aside": self.aside} if self.aside else {}
        # Evaluated, an episode ends at its goal: its return is 1 or 0, and a score is the share that succeeds.
        evaluated = dataclasses.replace(self.spec, kwargs=self.spec.kwargs | {"continuing_task": False})
        return {
            "algorithm_name": self.algorithm,
            "requirements": ["gymnasium-robotics"],
            "eval_env_spec": evaluated.to_json(),
            "ref_min_score": 0.0,
            "ref_max_score": 1.0,
            "waypoints": about,
        }

    @cached_property
    def _maze(self) -> Maze:
        return Maze(dataclasses.replace(self, kind="play").spec.kwargs["maze_map"])

    def episodes(self, actor: int, env: gym.Env, seed: int, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
        """Play episode after episode, without end.

        Args:
            actor: Index into `actors`.
            env: Of `spec`.
            seed: Of the environment.
            rng: Of ways, destinations and noise.

        Yields:
            Mappings in the form that `Episodes.from_list` takes, with infos `qpos`, `qvel` and `success`.
        """
        env.reset(seed=seed)
        travel = _Split(self, self._maze) if self.kind == "split" else _Free(self, self._maze)
        while True:
            part = travel.episode(self.actors[actor], env, rng)
            if part is not None:
                yield part


class _Free:
    """`play` and `stitch`: a start and a goal, and the way between them."""

    def __init__(self, recipe: MazeRecipe, maze: Maze) -> None:
        self._maze, self._kind = maze, recipe.kind

    def episode(self, actor: str, env: gym.Env, rng: np.random.Generator) -> dict[str, Any]:
        start = self._maze.cells[rng.integers(len(self._maze.cells))]
        distance = self._maze.distances(start)
        wanted = min(_STITCH_CELLS, distance[np.isfinite(distance)].max())
        goals = [cell for cell in self._maze.cells if np.isfinite(distance[cell]) and cell != start]
        if self._kind == "stitch":
            goals = [cell for cell in goals if distance[cell] == wanted]
        goal = goals[rng.integers(len(goals))]
        options = {"reset_cell": np.array(start), "goal_cell": np.array(goal)}
        whole = self._kind == "stitch"
        limit = _STITCH_STEPS if whole else None
        return _walk(env, self._maze, options, [], rng, limit=limit, stay=None if whole else STAY)


class _Split:
    """`split`: the maze is cut in the middle of the longest straight stretch of the way from start to goal."""

    def __init__(self, recipe: MazeRecipe, maze: Maze) -> None:
        self._maze, self._aside = maze, recipe.aside
        self._start, self._goal = recipe.ends
        self._distance = maze.distances(self._goal)
        middle, half = self._distance[maze.stretch(self._start, self._goal)].mean(), recipe.gap / 2
        self._bounds = {"start": middle + half, "goal": middle - half}
        # Of the cells on the side of the start, those that can be reached from there without crossing the gap.
        self._cells = {"goal": maze.cells, "start": self._reachable("start")}

    def episode(self, actor: str, env: gym.Env, rng: np.random.Generator) -> dict[str, Any] | None:
        """None where the controller's noise carried it into the gap."""
        if actor == "start":
            options = {"reset_cell": np.array(self._start), "goal_cell": np.array(self._goal)}
            places = [self._place(actor, rng) for _ in range(4)]
            part = _walk(env, self._maze, options, places, rng, aside=self._aside, towards_goal=False)
        else:
            first, via = self._place(actor, rng), self._place(actor, rng)
            options = {"reset_cell": self._maze.cell(first), "goal_cell": np.array(self._goal)}
            part = _walk(env, self._maze, options, [via], rng, aside=self._aside, stay=STAY)
        return part if self._outside(actor, part["infos"]["qpos"]).all() else None

    def _outside(self, actor: str, places: np.ndarray, within: float = np.inf) -> np.ndarray:
        """`(B,)` whether places are on one side of the gap, and no further than so many cells from it."""
        depth = self._maze.depth(places, self._distance)
        beyond = depth - self._bounds[actor] if actor == "start" else self._bounds[actor] - depth
        return (beyond > 0) & (beyond < within)

    def _place(self, actor: str, rng: np.random.Generator) -> np.ndarray:
        """A random place on one side, half of the time right at the gap: what leads there is what can be joined."""
        within = _RIM if rng.random() < 0.5 else np.inf
        while True:
            cell = self._cells[actor][rng.integers(len(self._cells[actor]))]
            places = self._maze.centre(cell) + rng.uniform(-0.5, 0.5, (8, 2))
            allowed = self._outside(actor, places, within) & ~self._maze.blocked(places, _MARGIN)
            for place in places[allowed][:1]:
                return place

    def _reachable(self, actor: str) -> list[Cell]:
        inside = {cell for cell in self._maze.cells if self._outside(actor, self._maze.centre([cell])).all()}
        found, queue = {self._start}, deque([self._start])
        while queue:
            here = queue.popleft()
            for other in self._maze.neighbours(here):
                if other not in found:
                    found.add(other)
                    queue.extend([other] if other in inside else [])  # on its rim, a part of a cell may be outside
        return sorted(found)


def _walk(
    env: gym.Env,
    maze: Maze,
    options: dict[str, np.ndarray],
    places: Sequence[np.ndarray],
    rng: np.random.Generator,
    *,
    aside: float = 0.0,
    limit: int | None = None,
    stay: int | None = None,
    towards_goal: bool = True,
) -> dict[str, Any]:
    """Visit `places`, then the goal.

    Args:
        env: Reset here, with its own generator.
        maze: Its maze.
        options: Cells of start and goal.
        places: Visited first.
        rng: Of ways and noise.
        aside: Cells from the middles of cells, up to which waypoints lie.
        limit: Steps after which the episode is truncated; None: as the environment has it.
        stay: Steps after which it is truncated once the goal is reached; None: never for that.
        towards_goal: Whether to go to the goal in the end; else the episode ends at the last of `places`.
    """
    observation, info = env.reset(options=options)
    rows, infos, actions, rewards = [observation], [_info(observation, info)], [], []
    ahead: deque[np.ndarray] = deque(places)
    if towards_goal:
        ahead.append(observation["desired_goal"].copy())
    waypoints: deque[np.ndarray] = deque()
    reached, terminated, truncated = 0, False, False
    while not (terminated or truncated):
        place, velocity = np.split(observation["observation"], 2)
        leads_on = len(waypoints) > 1 or ahead or not towards_goal
        if actions and waypoints and leads_on and np.abs(place - waypoints[0]).max() < _NEAR:
            waypoints.popleft()
        if not waypoints and ahead:
            way = maze.route(tuple(maze.cell(place).tolist()), tuple(maze.cell(ahead[0]).tolist()), rng)
            middles = [maze.centre(cell) for cell in way[1:-1]]
            if aside:
                middles = [middle + maze.scale * rng.uniform(-aside, aside, 2) for middle in middles]
            waypoints.extend([*middles, ahead.popleft()])
        if not waypoints:
            break
        wanted = _GAIN * (waypoints[0] - place) - _DAMPING * velocity
        action = np.clip(wanted + NOISE * rng.standard_normal(2), -1, 1).astype(np.float32)
        observation, reward, terminated, truncated, info = env.step(action)
        rows.append(observation)
        infos.append(_info(observation, info))
        actions.append(action)
        rewards.append(reward)
        reached += bool(reached or info["success"])
        truncated |= (limit is not None and len(actions) >= limit) or (stay is not None and reached > stay)
    ends = np.zeros((2, len(actions)), bool)
    ends[:, -1] = terminated, not terminated
    flat = FlatSpace(env.observation_space)
    return {
        "observations": flat.flatten({key: np.array([row[key] for row in rows]) for key in rows[0]}),
        "actions": np.array(actions),
        "rewards": np.array(rewards, np.float64),
        "terminations": ends[0],
        "truncations": ends[1],
        "infos": {key: np.array([info[key] for info in infos]) for key in infos[0]},
    }


def _info(observation: dict[str, np.ndarray], info: dict[str, Any]) -> dict[str, Any]:
    position, velocity = np.split(observation["observation"], 2)
    return {"qpos": position, "qvel": velocity, "success": np.array([info["success"]])}


MAZE_RECIPES: dict[str, MazeRecipe] = {}
for _env in _NAMES:
    for _name in ("play", *_GAPS, "stitch"):
        _id, _kind = f"demo/pointmaze/{_env}-{_name}-v0", _name.partition("-")[0]
        _gap = _WIDE if (_env, _name) == ("zigzag", "split") else _GAPS.get(_name, 0.0)
        _aside = _ASIDE if _env == "zigzag" else 0.0
        MAZE_RECIPES[_id] = MazeRecipe(dataset_id=_id, env=_env, kind=_kind, gap=_gap, aside=_aside)  # type: ignore[arg-type]
