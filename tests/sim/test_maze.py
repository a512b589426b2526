"""The geometry of mazes, against gymnasium-robotics' own and against plain loops."""

from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minari_stitch.sim.behaviour import make_env
from minari_stitch.sim.maze import Maze, maze_of

U_MAZE = ["11111", "10001", "11101", "10001", "11111"]


def maze(rows=U_MAZE, scale=1.0):
    return Maze([[int(cell) if cell.isdigit() else cell for cell in row] for row in rows], scale)


@pytest.mark.parametrize("env_id", ["PointMaze_Medium-v3", "AntMaze_UMaze-v5"])
def test_cells_and_places_are_those_of_the_environment(env_id):
    env = make_env(env_id)
    theirs = env.unwrapped.maze
    ours = maze_of(env.spec)
    assert ours.scale == theirs.maze_size_scaling
    rng = np.random.default_rng(0)
    for cell in ours.cells:
        np.testing.assert_allclose(ours.centre(cell), theirs.cell_rowcol_to_xy(np.array(cell)))
        place = ours.centre(cell) + rng.uniform(-0.49, 0.49, 2) * ours.scale
        assert tuple(ours.cell(place)) == tuple(theirs.cell_xy_to_rowcol(place)) == cell
        assert not ours.blocked(place)
    assert {tuple(ours.centre(cell)) for cell in ours.cells} == {tuple(xy) for xy in theirs.unique_reset_locations}
    env.close()


def test_what_lies_beyond_the_map_is_a_wall():
    assert maze().blocked(np.array([[9.0, 0.0], [0.0, -9.0], [1.0, 0.0]])).tolist() == [True, True, False]


layouts = st.lists(st.lists(st.sampled_from([0, 0, 1]), min_size=4, max_size=4), min_size=3, max_size=5)


@settings(max_examples=40, deadline=None)
@given(layouts, st.integers(0, 2**32 - 1))
def test_distances_and_routes_match_a_search_cell_by_cell(inner, seed):
    layout = [[1] * 6, *([1, *row, 1] for row in inner), [1] * 6]
    layout[1][1] = 0
    made, rng = Maze(layout), np.random.default_rng(seed)
    goal = made.cells[rng.integers(len(made.cells))]
    expected, queue = {goal: 0}, deque([goal])
    while queue:
        row, column = queue.popleft()
        for other in ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):
            if layout[other[0]][other[1]] == 0 and other not in expected:
                expected[other] = expected[row, column] + 1
                queue.append(other)
    distance = made.distances(goal)
    for cell in made.cells:
        assert distance[cell] == expected.get(cell, np.inf)
        if cell in expected:
            way = made.route(cell, goal, rng)
            assert way[0] == cell and way[-1] == goal and len(way) == expected[cell] + 1
            assert all(abs(a - c) + abs(b - d) == 1 for (a, b), (c, d) in zip(way, way[1:], strict=False))
            # The middles of cells are as deep as the search says.
            assert made.depth(made.centre([cell]), distance)[0] == expected[cell]


def test_depth_grows_along_the_corridor_and_jumps_nowhere():
    made = maze()
    start, goal = made.farthest()
    assert {start, goal} == {(1, 1), (3, 1)}
    middles = made.centre(made.route(start, goal))
    way = np.concatenate([np.linspace(a, b, 50) for a, b in zip(middles, middles[1:], strict=False)])
    depth = made.depth(way, made.distances(goal))
    assert depth[0] == 6 and depth[-1] == 0 and (np.diff(depth) < 1e-9).all()
    steps = np.random.default_rng(0).uniform(-0.01, 0.01, (20_000, 2))
    places = made.centre(np.array(made.cells)[np.arange(20_000) % len(made.cells)]) + steps * 49
    free = ~made.blocked(places + steps)
    change = made.depth(places + steps, made.distances(goal)) - made.depth(places, made.distances(goal))
    assert free.sum() > 10_000 and np.abs(change[free]).max() <= 0.02 + 1e-9


def test_ways_through_walls_are_seen():
    made = maze()
    through = np.array([[-1.0, 1.0], [-1.0, 1.0], [1.0, 1.0]]), np.array([[-1.0, -1.0], [1.0, 1.0], [1.0, -1.0]])
    assert made.crosses_wall(*through).tolist() == [True, False, False]
    larger = maze(scale=4.0)
    assert larger.crosses_wall(*(4 * place for place in through)).tolist() == [True, False, False]


def test_the_longest_stretch_is_the_most_central():
    made = Maze([[int(cell) for cell in row] for row in ("111111", "100001", "111101", "100001", "101111", "111111")])
    ends = made.stretch(*made.farthest())
    assert [tuple(end) for end in zip(*ends, strict=True)] in ([(3, 4), (3, 1)], [(1, 1), (1, 4)])
    straight = Maze([[1, 1, 1, 1, 1], [1, 0, 0, 0, 1], [1, 1, 1, 1, 1]])
    assert straight.stretch((1, 1), (1, 3)) == ([1, 1], [1, 3])
