"""Why does it help a learner, or not? One page on what a mix changed, where its bridges are.

    python benchmarks/diagnose.py --algo iql --dataset demo/halfcheetah/medium-v0 --ratio 1:1 --plot diagnosis.png

Trains the learner twice from the same seed, on the original data and on the mix, and looks at both runs: what they
value, how far their actions are from the data's, where their policies go, and how true what they sampled is.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Optional

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from scipy.spatial import KDTree
from torch import Tensor

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import data, experiment, prepare, trainer
from benchmarks.algos import bc, history, iql, td3_bc
from benchmarks.batches import parse_ratio
from benchmarks.budgets import BUDGETS, Budget
from benchmarks.data import AugmentedKind, LearnerData
from benchmarks.diagnosis import plot, rows
from benchmarks.evaluate import Reference
from benchmarks.suites import DEFAULT_DATASET, Experiment, choose
from benchmarks.trainer import TrainingRun
from minari_stitch.data import minari_io
from minari_stitch.data.minari_io import Dataset
from minari_stitch.errors import StitchError
from minari_stitch.sim.oracle import MujocoLocomotion

ROWS = 4096
"""Steps of each kind that are looked at, at most."""
VALUES: dict[str, Callable[[Any, Tensor, Tensor], Tensor]] = {
    "td3_bc": lambda state, states, actions: td3_bc.values(state["critic"], states, actions).amin(1),
    "iql": lambda state, states, actions: iql.action_values(
        state["critic"], {"states": states, "actions": actions}
    ).amin(1),
}
"""Action values `(K, B)` of states and actions `(K, B, ...)`, of the learners that have any."""


@dataclass(frozen=True, kw_only=True)
class Looked:
    """The data of a mix, and where its bridges are.

    Attributes:
        table: The data as the learner reads them.
        synthetic: Steps that were generated and that batches may hold.
        first: `(bridges,)` first step of each bridge; none where its steps were written one by one.
        junction: `(bridges,)` the original step that it leaves from the same state.
    """

    table: LearnerData
    synthetic: np.ndarray
    first: np.ndarray
    junction: np.ndarray

    @classmethod
    def of(cls, source: Dataset, made: Dataset, kind: AugmentedKind) -> Looked:
        """Find the bridges."""
        table = LearnerData(source, made, augmented=kind)
        synthetic = table.synthetic.numpy()
        first = np.flatnonzero(synthetic & ~np.concatenate([[False], synthetic[:-1]]))
        about = [metadata for metadata in made.episodes.metadata if "bridge_start" in metadata]
        if not about and synthetic.any() and (table.episodes.lengths[table.original_episodes :] == 1).all():
            first = first[:0]
        place = {number: index for index, number in enumerate(source.episode_ids.tolist())}
        junction = [source.episodes.offsets[place[m["source_episode"]]] + m["source_step"] for m in about]
        if len(junction) != len(first):
            raise StitchError(f"{made.dataset_id!r} holds no bridges: diagnose what method diffstitch made")
        return cls(table=table, synthetic=np.flatnonzero(synthetic), first=first, junction=np.array(junction, int))


def measure(
    algo: str,
    dataset_id: str,
    augmented_id: str,
    *,
    kind: AugmentedKind = "bridges",
    ratio: str = "4:1",
    budget: str = "knee",
    steps: int | None = None,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Train, look, and say: section -> name -> value, or (original, mix).

    Raises:
        StitchError: One of its kinds.
    """
    plan = choose("budget", budget, BUDGETS)
    if steps is not None:
        plan = dataclasses.replace(plan, steps={**plan.steps, algo: steps})
    module = experiment.algorithm(algo)
    source, made = minari_io.read(dataset_id), minari_io.read(augmented_id, keep_infos=True)
    looked = Looked.of(source, made, kind)
    table, mix = looked.table, parse_ratio(ratio)
    runs = [TrainingRun(seed=seed), TrainingRun(seed=seed, ratio=mix)]
    config = experiment.with_target(experiment.settings(algo, dataset_id, plan), table)
    state = trainer.train(module, config, table, runs).state
    rng = np.random.default_rng(seed)
    sections = {"learner": _play(module, config, state, source, looked, plan.episodes, seed, rng)}
    if not history(config):
        sections["actions"] = _actions(lambda states: module.act(config, state, states), looked, rng) | _oddity(
            dataset_id, looked, plan, seed, rng
        )
    if algo in VALUES:
        q = VALUES[algo]
        sections["values"] = _values(lambda s, a: q(state, s, a), lambda s: module.act(config, state, s), looked, rng)
    share = mix[1] / sum(mix)
    drawn = float(table.synthetic[table.rows[1]].float().mean())
    sections["batch"] = {
        "synthetic steps of a batch": share * drawn,
        "synthetic steps": len(looked.synthetic),
        **({"bridges": len(looked.first)} if len(looked.first) else {}),
        "times each synthetic step is drawn": config.steps * config.batch_size * share * drawn / len(looked.synthetic),
    }
    truth = _truth(source, looked, rng)
    return sections | ({"truth": truth} if truth else {})


def _play(
    module: Any, config: Any, state: Any, source: Dataset, looked: Looked, episodes: int, seed: int, rng: Any
) -> dict[str, Any]:
    """Scores, and where the policies go."""
    table = looked.table
    visited: list[np.ndarray] = []

    def policy(observations: Any) -> Tensor:
        states = observations["states"][:, :, -1] if isinstance(observations, Mapping) else observations
        visited.append(states.numpy())
        return module.act(config, state, observations)

    returns = experiment.evaluator_of(module, config, table)(policy, [seed, seed], episodes)
    states = [np.concatenate([step[k] for step in visited]) for k in range(2)]
    # As many real states as synthetic ones, so that a state from nowhere has even chances.
    count = min(len(looked.synthetic), ROWS, table.original_steps // 2)
    real = rng.permutation(table.original_steps)
    synthetic = rng.permutation(looked.synthetic)[:count]
    rest = real[count : count + ROWS]
    scores = Reference.of(source).score(returns)
    return {
        "score": tuple(scores.mean(1).tolist()),
        "worst episode, score": tuple(scores.min(1).tolist()),
        "share of visited states nearer to a synthetic than to a real one": tuple(
            _nearer(table.states.numpy(), synthetic, real[:count], _some(visited, rng)) for visited in states
        ),
        "the same of other real states": _nearer(
            table.states.numpy(), synthetic, real[:count], table.states[rest].numpy()
        ),
    }


def _some(states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return states[rng.permutation(len(states))[:ROWS]]


def _nearer(states: np.ndarray, ours: np.ndarray, theirs: np.ndarray, asked: np.ndarray) -> float:
    """Share of the states `asked` whose nearest neighbour among `ours` is closer than that among `theirs`."""
    return float(np.mean(KDTree(states[ours]).query(asked)[0] < KDTree(states[theirs]).query(asked)[0]))


def _actions(act: Callable[[Tensor], Tensor], looked: Looked, rng: np.random.Generator) -> dict[str, Any]:
    """Distance of both policies' actions to those of the data, at bridges and anywhere."""
    table = looked.table
    pick = rng.permutation(len(looked.first))[:ROWS]
    junction, first = (torch.from_numpy(rows[pick]) for rows in (looked.junction, looked.first))
    anywhere = torch.from_numpy(rng.permutation(table.original_steps)[:ROWS])
    inside = torch.from_numpy(rng.permutation(looked.synthetic)[:ROWS])

    def away(states: Tensor, actions: Tensor) -> tuple[float, ...]:
        return tuple((act(states.expand(2, -1, -1)) - actions).norm(dim=-1).mean(1).tolist())

    states, actions = table.states, table.actions
    found: dict[str, Any] = {
        "policy to the data, anywhere": away(states[anywhere], actions[anywhere]),
        "policy to the bridge, inside bridges": away(states[inside], actions[inside]),
    }
    if len(first):
        found |= {
            "bridge's first action to the data's": float((actions[first] - actions[junction]).norm(dim=-1).mean()),
            "policy to the data, where bridges leave": away(states[junction], actions[junction]),
            "policy to the bridge, where bridges leave": away(states[junction], actions[first]),
        }
    return found


def _oddity(dataset_id: str, looked: Looked, budget: Budget, seed: int, rng: np.random.Generator) -> dict[str, float]:
    """Distance of a clone of the data to them, and to bridges: where it is larger, imitating them misleads."""
    table, config = looked.table, experiment.settings("bc", dataset_id, budget)
    state = trainer.train(bc, config, table, [TrainingRun(seed=seed)]).state

    def away(chosen: np.ndarray) -> float:
        rows = torch.from_numpy(rng.permutation(chosen)[:ROWS])
        return float((bc.act(config, state, table.states[rows][None]) - table.actions[rows]).norm(dim=-1).mean())

    return {
        "clone to the data, anywhere": away(np.arange(table.original_steps)),
        "clone to the bridge, inside bridges": away(looked.synthetic),
    }


def _values(
    q: Callable[[Tensor, Tensor], Tensor], act: Callable[[Tensor], Tensor], looked: Looked, rng: np.random.Generator
) -> dict[str, Any]:
    """Values of the policies' actions, and what both critics think of bridges."""
    table = looked.table
    pick = rng.permutation(len(looked.first))[:ROWS]
    junction, first = (torch.from_numpy(rows[pick]) for rows in (looked.junction, looked.first))
    anywhere = torch.from_numpy(rng.permutation(table.original_steps)[:ROWS])
    states, actions = table.states, table.actions

    def value(rows: Tensor, chosen: Tensor | None = None) -> Tensor:
        s = states[rows].expand(2, -1, -1)
        return q(s, act(s) if chosen is None else actions[chosen].expand(2, -1, -1))

    def both(x: Tensor) -> tuple[float, ...]:
        return tuple(x.mean(1).tolist())

    if not len(first):
        return {"of the policy, anywhere": both(value(anywhere))}
    return {
        "of the policy, anywhere": both(value(anywhere)),
        "of the policy, where bridges leave": both(value(junction)),
        "advantage of the bridge's first action over the data's": both(
            value(junction, first) - value(junction, junction)
        ),
        "share of bridges whose first action is preferred to the data's": both(
            (value(junction, first) > value(junction, junction)).float()
        ),
    }


def _truth(source: Dataset, looked: Looked, rng: np.random.Generator) -> dict[str, Any]:
    """How far synthetic steps are from the simulator; nothing where there is none to ask."""
    try:
        simulator = MujocoLocomotion(source.env_spec.id) if source.env_spec else None
    except StitchError:
        simulator = None
    if simulator is None:
        return {}
    table = looked.table
    chosen = np.sort(rng.permutation(looked.synthetic)[:ROWS])
    at = table.episodes.step_state[chosen]
    observations, actions = table.episodes.observations, table.episodes.actions[chosen]
    following, rewards = simulator.outcome(observations[at].astype(np.float64), actions.astype(np.float64))
    scale = source.episodes.observations.std(0, dtype=np.float64)
    error = (((following - observations[at + 1]) / np.where(scale > 0, scale, 1.0)) ** 2).sum(1)
    off = table.episodes.rewards[chosen] - rewards
    judged = ~np.isnan(error)
    if not judged.any():
        return {}
    return {
        "error of a synthetic step, median": float(np.median(error[judged])),
        "error of a synthetic step, 90 %": float(np.quantile(error[judged], 0.9)),
        "reward, mean of the simulator": float(rewards[judged].mean()),
        "reward, ours minus the simulator's": float(off[judged].mean()),
        "reward, root mean squared difference": float(np.sqrt((off[judged] ** 2).mean())),
    }


def main(
    algo: Annotated[str, typer.Option(help="iql, td3_bc, bc or dt.")] = "td3_bc",
    dataset: Annotated[str, typer.Option(metavar="ID", help="Original dataset.")] = DEFAULT_DATASET,
    augmented_dataset: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="ID", help="Augmented dataset \\[default: the newest stitched version of the original]."),
    ] = None,
    augmented: Annotated[str, typer.Option(help="Augmented side: bridges, or whole episodes.")] = "bridges",
    ratio: Annotated[str, typer.Option(help="Original : augmented in every batch.")] = "4:1",
    budget: Annotated[str, typer.Option(help=f"{', '.join(BUDGETS)}.")] = "knee",
    steps: Annotated[Optional[int], typer.Option(help="Gradient steps \\[default: the budget's].")] = None,  # noqa: UP045
    seed: Annotated[int, typer.Option(help="Of both runs.")] = 0,
    plot_to: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--plot", metavar="FILE", help="Draw the page \\[default: a table only]."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a mix changed in a learner, where its bridges are."""
    err = Console(stderr=True)
    try:
        if steps is not None and steps < 1:
            raise StitchError(f"--steps {steps} is not possible: give at least 1")
        item = Experiment(algo=algo, dataset=dataset, augmented=augmented_dataset)
        experiment.algorithm(algo)
        kind: Any = augmented
        data.check_kind(kind)
        parse_ratio(ratio)
        made = prepare.find(item, lambda text: err.print(text, markup=False))
        sections = measure(algo, dataset, made, kind=kind, ratio=ratio, budget=budget, steps=steps, seed=seed)
    except StitchError as error:
        err.print(f"{type(error).__name__}: {error}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from None
    title = f"{algo} on {dataset} with {made} ({augmented} {ratio}), seed {seed}"
    if plot_to is not None:
        plot(sections, plot_to, title)
    if as_json:
        print(json.dumps(sections))
        return
    table = Table("", "", "original", "mix", title=title, title_justify="left")
    for row in rows(sections):
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 120).print(table)


if __name__ == "__main__":
    typer.run(main)
