"""How true are synthetic transitions? All methods on one source, in one table.

    python benchmarks/fidelity.py demo/hopper/medium-replay-v0

Takes the newest local dataset that each method made of the source (`minari-stitch augment ID --method ...`), and of it
the synthetic transitions alone.

- *Marginals*: one minus the Kolmogorov-Smirnov distance to held-out real transitions, mean over the columns of
  (s, a, r, s' - s). *Correlations*: one minus half the distance of their correlation coefficients, mean over all pairs
  of columns. Both as SynthER measures them; 1 is best. Held out are further episodes of a demo recipe.
- *Oracle*: squared distance of s' from what the simulator makes of (s, a), in standardised state space.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.prepare import newest
from benchmarks.suites import Variant
from minari_stitch.data import minari_io
from minari_stitch.data.episodes import Episodes
from minari_stitch.data.minari_io import Dataset
from minari_stitch.data.provenance import stitch_record
from minari_stitch.errors import InvalidDataError, StitchError
from minari_stitch.quality.measures import correlations, marginals
from minari_stitch.sim import demo
from minari_stitch.sim.oracle import MujocoLocomotion, Simulator
from minari_stitch.sim.paths import oracle_errors
from minari_stitch.transforms.registry import found as methods

_LENGTHS = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class Transitions:
    """`B` transitions in the units of the environment.

    Attributes:
        states: `(B, S)`.
        actions: `(B, A)`.
        rewards: `(B,)`.
        next_states: `(B, S)`.
        depth: `(B,)` how many generated steps in a row end with this one.
    """

    states: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    next_states: np.ndarray
    depth: np.ndarray

    @classmethod
    def of(cls, episodes: Episodes, chosen: np.ndarray) -> Transitions:
        """The `chosen` steps, `(N,)` bool."""
        order = np.arange(episodes.n_steps)
        before = np.maximum.accumulate(np.where(chosen, -1, order))  # the last step that is not chosen, up to each
        begin = np.maximum(before + 1, episodes.offsets[:-1][episodes.step_episode])
        state = episodes.step_state[chosen]
        return cls(
            states=episodes.observations[state],
            actions=episodes.actions[chosen],
            rewards=episodes.rewards[chosen],
            next_states=episodes.observations[state + 1],
            depth=(order - begin)[chosen] + 1,
        )

    def take(self, count: int, rng: np.random.Generator) -> Transitions:
        """At most `count` of them, at random."""
        rows = rng.permutation(len(self.rewards))[:count]
        return Transitions(**{name: array[rows] for name, array in vars(self).items()})

    @property
    def columns(self) -> np.ndarray:
        """`(B, 2 S + A + 1)` states, actions, rewards, changes of state."""
        change = self.next_states - self.states
        return np.concatenate([self.states, self.actions, self.rewards[:, None], change], 1).astype(np.float64)


def held_out(source: Dataset, count: int) -> Transitions:
    """Real transitions that no model has seen.

    Raises:
        InvalidDataError: The source is not a demo dataset, so there are none.
    """
    made = source.metadata.get("demo")
    if made is None:
        raise InvalidDataError(f"{source.dataset_id!r} cannot be rolled out further: give a demo dataset")
    recipe = demo.RECIPES[made["recipe"]]
    episodes = demo.rollout(recipe, n_steps=count, seed=made["seed"] + 1, first_chunk=made["steps"])
    return Transitions.of(episodes, np.ones(episodes.n_steps, bool))


def judge(ours: Transitions, real: Transitions, simulator: Simulator, scale: np.ndarray) -> dict[str, Any]:
    """A row of the table: fidelity, oracle errors, and their median by depth."""
    zeros = np.zeros(len(ours.rewards), int)
    states = np.stack([ours.states, ours.next_states], 1)
    errors = oracle_errors(simulator, states, ours.actions[:, None], zeros, scale)[:, 0]
    by_depth = {}
    for depth in range(1, _LENGTHS + 1):
        chosen = errors[(ours.depth == depth) & ~np.isnan(errors)]
        if len(chosen):
            by_depth[str(depth)] = float(np.median(chosen))
    return {
        "n": len(ours.rewards),
        "marginals": marginals(ours.columns, real.columns),
        "correlations": correlations(ours.columns, real.columns),
        "oracle_median": float(np.nanmedian(errors)),
        "oracle_q90": float(np.nanquantile(errors, 0.9)),
        "judged": float(1 - np.isnan(errors).mean()),
        "by_depth": by_depth,
    }


def measure(dataset_id: str, count: int, seed: int) -> dict[str, dict[str, Any]]:
    """Rows by name of the data: held-out real ones, the source's own, and those of each method.

    Raises:
        StitchError: A dataset is missing or changed, or its environment has no oracle.
    """
    source = minari_io.read(dataset_id)
    if source.env_spec is None:
        raise InvalidDataError(f"{dataset_id!r} names no environment, so there is no simulator to ask")
    simulator = MujocoLocomotion(source.env_spec.id)
    scale = source.episodes.observations.std(0, dtype=np.float64)
    scale = np.where(scale > 0, scale, 1.0)
    real = held_out(source, count)
    rng = np.random.default_rng(seed)
    own = Transitions.of(source.episodes, np.ones(source.episodes.n_steps, bool)).take(count, rng)
    rows = {"the source itself": judge(own, real, simulator, scale)}
    for method in methods():
        variant = Variant(method=method)
        found = newest(dataset_id, variant)
        if found is None or method in ("resample", "relabel", "real"):
            continue
        made = minari_io.read(found, keep_infos=True)
        record = stitch_record(made.dataset_id, made.metadata)
        if record["source_fingerprint"] != source.fingerprint:
            raise InvalidDataError(f"{found!r} was made from another {dataset_id!r}: make it again")
        synthetic = made.episodes.infos["synthetic"][made.episodes.step_state].reshape(-1).astype(bool)
        taken = Transitions.of(made.episodes, synthetic).take(count, rng)
        rows[variant.title] = judge(taken, real, simulator, scale) | {
            "dataset_id": found,
            "lengths": record["report"].get("lengths"),
        }
    return rows


def main(
    dataset_id: Annotated[str, typer.Argument(metavar="ID", help="A demo dataset that was augmented.")],
    count: Annotated[int, typer.Option(help="Transitions of each kind, at most.")] = 20_000,
    seed: Annotated[int, typer.Option(help="Chooses them.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare the synthetic transitions of all methods with real ones."""
    try:
        rows = measure(dataset_id, count, seed)
    except StitchError as error:
        Console(stderr=True).print(f"{type(error).__name__}: {error}", style="red", markup=False)
        raise typer.Exit(1) from None
    if as_json:
        print(json.dumps(rows))
        return
    table = Table("Data", "n", "Marginals", "Correlations", "Oracle: median", "90 %", "judged", title=dataset_id)
    for name, row in rows.items():
        shares = (f"{row[key]:.4f}" for key in ("marginals", "correlations"))
        errors = (f"{row[key]:.3g}" for key in ("oracle_median", "oracle_q90"))
        table.add_row(name, f"{row['n']:,}", *shares, *errors, f"{row['judged']:.1%}")
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    synthetic = {name: row for name, row in rows.items() if "dataset_id" in row}
    depths = sorted({int(depth) for row in synthetic.values() for depth in row["by_depth"]})
    table = Table("Oracle median by depth", *map(str, depths))
    for name, row in synthetic.items():
        table.add_row(name, *(f"{row['by_depth'][str(d)]:.3g}" if str(d) in row["by_depth"] else "" for d in depths))
    console.print(table)
    for name, row in synthetic.items():
        if row["lengths"]:
            console.print(f"{name}, rollouts by length: {row['lengths']}", highlight=False)


if __name__ == "__main__":
    typer.run(main)
