"""What changed in a learner: figures on data where the answer is known."""

import json

import gymnasium as gym
import numpy as np
import pendulum
import pytest
import toy
import typer

from benchmarks import diagnose
from benchmarks.budgets import BUDGETS
from minari_stitch.data import minari_io
from minari_stitch.data.provenance import RECORD_KEY
from minari_stitch.sim import demo

STEPS = BUDGETS["smoke"].steps


def words(**changed):
    return {"dataset": pendulum.ID, "augmented_dataset": pendulum.STITCHED, "budget": "smoke", **changed}


@pytest.mark.parametrize("algo", ["iql", "td3_bc", "bc", "dt"])
def test_bridges_that_are_copies_change_nothing_where_they_leave(algo):
    pendulum.write()
    found = diagnose.measure(algo, pendulum.ID, pendulum.STITCHED, ratio="1:1", budget="smoke")
    assert ("actions" in found, "values" in found) == (algo != "dt", algo in ("iql", "td3_bc"))
    assert "truth" not in found  # nothing can set a pendulum to an observation
    batch = found["batch"]
    assert (batch["synthetic steps of a batch"], batch["synthetic steps"], batch["bridges"]) == (0.5, 3 * 7, 3)
    size = BUDGETS["smoke"].settings["dt"]["batch_size"] if algo == "dt" else 256
    assert batch["times each synthetic step is drawn"] == STEPS[algo] * size * 0.5 / 21
    assert len(found["learner"]["score"]) == 2
    if algo != "dt":
        assert found["actions"]["bridge's first action to the data's"] == 0
        at = found["actions"]
        assert at["policy to the bridge, where bridges leave"] == at["policy to the data, where bridges leave"]
    if "values" in found:
        assert found["values"]["advantage of the bridge's first action over the data's"] == (0, 0)
        assert found["values"]["share of bridges whose first action is preferred to the data's"] == (0, 0)


@pytest.mark.parametrize("odd", [False, True])
def test_steps_that_were_written_one_by_one(odd):
    """There is no bridge to look at, and actions that are turned round are far from what a clone would do."""
    pendulum.write(stitched=None)
    source = minari_io.read(pendulum.ID)
    parts = []
    for episode in source.episodes:
        step = {name: episode[name][:1] for name in ("actions", "rewards", "terminations")}
        step |= {"observations": episode["observations"][:2], "truncations": np.ones(1, bool)}
        step["actions"] = -2 * np.sign(step["actions"]) if odd else step["actions"]
        parts.append({**step, "infos": {"synthetic": np.ones((2, 1), bool)}, "metadata": {"augmented": True}})
    common = {"observation_space": source.observation_space, "action_space": source.action_space}
    record = toy.record(pendulum.ID, source_fingerprint=source.fingerprint)
    minari_io.write(
        parts, dataset_id=pendulum.STITCHED, env_spec=source.env_spec, metadata={RECORD_KEY: record}, **common
    )
    found = diagnose.measure("td3_bc", pendulum.ID, pendulum.STITCHED, ratio="1:1", budget="smoke")
    assert "bridges" not in found["batch"] and found["batch"]["synthetic steps"] == 5
    assert not any("leave" in name for section in ("actions", "values") for name in found[section])
    data, bridge = (found["actions"][f"clone to the {what}"] for what in ("data, anywhere", "bridge, inside bridges"))
    assert (bridge > 1.5 * data) == odd


def test_nearer_counts_neighbours():
    states = np.array([[0.0], [10.0]])
    asked = np.array([[1.0], [2.0], [9.0], [20.0]])
    assert diagnose._nearer(states, np.array([0]), np.array([1]), asked) == 0.5
    assert diagnose._nearer(states, np.array([0, 1]), np.array([1]), asked) == 0.5  # equally near is not nearer


def test_real_steps_are_true_and_false_ones_are_not():
    """A halfcheetah's own steps as bridges; then with rewards raised by 1 and actions turned round."""
    recipe = demo.RECIPES["demo/halfcheetah/medium-v0"]
    episodes = demo.rollout(recipe, n_steps=200, workers=1)
    env = gym.make(recipe.env_id)
    common = {"observation_space": env.observation_space, "action_space": env.action_space, "env_spec": env.spec}
    env.close()
    minari_io.write(episodes, dataset_id="test/cheetah-v0", **common)
    source = minari_io.read("test/cheetah-v0")
    record = {RECORD_KEY: toy.record("test/cheetah-v0", source_fingerprint=source.fingerprint)}
    parts = []
    for e in range(len(source.episodes)):
        part = source.episodes.episode(e)
        flags = np.ones((len(part["rewards"]) + 1, 1), bool)
        flags[0] = False
        about = {"augmented": True, "bridge_start": 1, "source_episode": e, "source_step": 1}
        parts.append({**part, "infos": {"synthetic": flags}, "metadata": about})
    found = {}
    for name, change in (("true", {}), ("false", {"rewards": 1, "actions": -2})):
        changed = [part | {key: part[key] + by * (part[key] if key == "actions" else 1) for key, by in change.items()}
                   for part in parts]  # fmt: skip
        minari_io.write(changed, dataset_id=f"test/cheetah-{name}-v0", metadata=record, **common)
        made = minari_io.read(f"test/cheetah-{name}-v0", keep_infos=True)
        looked = diagnose.Looked.of(source, made, "bridges")
        found[name] = diagnose._truth(source, looked, np.random.default_rng(0))
    assert found["true"]["error of a synthetic step, 90 %"] < 1e-9
    assert abs(found["true"]["reward, ours minus the simulator's"]) < 1e-4
    assert found["false"]["error of a synthetic step, median"] > 0.1
    assert found["false"]["reward, root mean squared difference"] > 0.5


def test_command(tmp_path, capsys):
    pendulum.write()
    diagnose.main(**words(algo="td3_bc"), plot_to=tmp_path / "plots" / "page.png", as_json=True)
    assert json.loads(capsys.readouterr().out)["batch"]["bridges"] == 3
    assert (tmp_path / "plots" / "page.png").stat().st_size > 10_000
    diagnose.main(**words(algo="bc", ratio="0:1"))
    assert "policy to the data, anywhere" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"algo": "ppo"}, "there is no algorithm 'ppo'"),
        ({"augmented": "steps"}, "augmented='steps' is not possible"),
        ({"ratio": "4"}, "ratio='4' is not possible"),
        ({"steps": 0}, "--steps 0 is not possible"),
        ({"budget": "huge"}, "there is no budget 'huge'"),
        ({"augmented_dataset": "test/none-v0"}, "'test/none-v0' is not local"),
        ({"augmented_dataset": pendulum.ID}, "was not written by minari-stitch"),
    ],
)
def test_bad_input(changed, message, capsys):
    pendulum.write()
    with pytest.raises(typer.Exit):
        diagnose.main(**words(**changed))
    assert message in " ".join(capsys.readouterr().err.split())
