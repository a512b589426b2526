import numpy as np
import pytest
from gymnasium import spaces

from minari_stitch.data.spaces import FlatSpace
from minari_stitch.data.validation import Problem, ValidationReport, closed, find_problems, validate_episode
from minari_stitch.errors import InvalidDataError

SPACES = {
    "observation_space": FlatSpace(spaces.Box(-np.inf, np.inf, (3,))),
    "action_space": FlatSpace(
        spaces.Box(np.array([-1, -np.inf], np.float32), np.array([1, 2e6], np.float32)), "action"
    ),
}


@pytest.fixture
def part(make_episodes):
    """A writable episode of 10 steps."""
    episode = make_episodes(1).episode(0)
    return {
        **{name: np.array(value) for name, value in episode.items() if isinstance(value, np.ndarray)},
        "infos": {},
    }


def problems(part):
    return [(problem.step, problem.what) for problem in find_problems(part, episode=7, **SPACES)]


def test_a_valid_episode_has_no_problems(part):
    assert problems(part) == []
    validate_episode(part, episode=7, **SPACES)


def test_rounding_of_actions_is_allowed(part):
    part["actions"][2] = [1.0000001, 2000000.6]
    assert problems(part) == []


def test_a_last_step_without_flags_is_no_problem_and_counts_as_cut(part):
    part["truncations"][:] = False
    assert problems(part) == []
    assert closed(part["terminations"], part["truncations"]).tolist() == [False] * 9 + [True]
    assert not part["truncations"].any()
    ended = np.array([False, True])
    assert closed(ended, ~ended & False).tolist() == [False, False]


@pytest.mark.parametrize(
    ("name", "index", "value", "expected"),
    [
        ("observations", (10, 1), np.nan, (10, "observations[1] is nan (1 such values in all)")),
        ("actions", 3, np.inf, (3, "actions[0] is inf (2 such values in all)")),
        ("rewards", slice(4, None), -np.inf, (4, "rewards is -inf (6 such values in all)")),
        ("actions", (5, 0), -1.5, (5, "actions[0] is -1.5, outside [-1, 1] (1 such values in all)")),
        (
            "actions",
            (6, 1),
            3e6,
            (6, "actions[1] is 3000000.0, outside [-inf, 2e+06] (1 such values in all)"),
        ),
        ("terminations", 2, True, (2, "terminations is True before the last of its 10 steps")),
        ("truncations", 0, True, (0, "truncations is True before the last of its 10 steps")),
    ],
)
def test_a_bad_value_is_named_with_its_step(part, name, index, value, expected):
    part[name][index] = value
    assert expected in problems(part)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("observations", np.zeros((10, 3)), "observations have shape (10, 3) where 10 rewards want (11, 3)"),
        ("actions", np.zeros((11, 2)), "actions have shape (11, 2) where 10 rewards want (10, 2)"),
        ("terminations", np.zeros(9, bool), "terminations have shape (9,) where 10 rewards want (10,)"),
        ("rewards", np.zeros((10, 1)), "rewards have shape (10, 1) where 10 rewards want (10,)"),
        ("rewards", np.zeros(0), "it has no steps"),
        ("infos", {"success": np.zeros((10, 1))}, "infos['success'] has 10 rows where 10 rewards want 11"),
    ],
)
def test_a_wrong_length_or_shape_is_named(part, name, array, message):
    assert problems({**part, name: array}) == [(None, message)]


def test_validate_episode_raises_with_the_episode(part):
    part["rewards"][1] = np.nan
    with pytest.raises(InvalidDataError, match="episode 7, step 1: rewards is nan"):
        validate_episode(part, episode=7, **SPACES)


def test_the_report_shows_the_first_problems_and_the_counts():
    report = ValidationReport(20, [Problem(step // 2, step, "bad") for step in range(24)])
    text = str(report)
    assert report.invalid_episodes == list(range(12))
    assert text.startswith("12 of 20 episodes are invalid:\n  episode 0, step 0: bad\n")
    assert text.endswith("... and 14 more problems") and len(text.splitlines()) == 12
    assert str(ValidationReport(3)) == "0 of 3 episodes are invalid"
