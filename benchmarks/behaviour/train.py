"""Train behaviour policies for the demo datasets, and measure what they earn.

SBX's soft actor-critic trains; its actor is saved every so often in the layout of
`minari_stitch.sim.behaviour.Actor`; returns are measured with that NumPy actor, the one that is shipped.
"""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from minari_stitch.sim.behaviour import Policy, load_actor, make_env, play_episode, uniform

app = typer.Typer(no_args_is_help=True, add_completion=False)

SETTINGS: dict[str, Any] = {
    "policy_kwargs": {"net_arch": {"pi": [128, 128], "qf": [128, 128]}},
    "batch_size": 128,
    "learning_rate": 3e-4,
    "gamma": 0.99,
    "tau": 0.005,
    "ent_coef": "auto",
    "buffer_size": 1_000_000,
    "learning_starts": 10_000,
    "train_freq": 32,
    "gradient_steps": 32,
}


@app.command()
def train(
    env_id: Annotated[str, typer.Argument(help="Gymnasium id, such as Hopper-v5.")],
    out: Annotated[Path, typer.Argument(help="Folder for the actors and policies.json.")],
    steps: Annotated[int, typer.Option(help="Environment steps.")] = 700_000,
    save_every: Annotated[int, typer.Option(help="Environment steps between saved actors.")] = 20_000,
    episodes: Annotated[int, typer.Option(help="Episodes each saved actor is measured over.")] = 10,
    seed: int = 0,
) -> None:
    """Train an actor; keep and measure it every `save_every` steps."""
    from sbx import SAC  # pyright: ignore[reportMissingImports], of the optional group `behaviour`

    out.mkdir(parents=True, exist_ok=True)
    env = make_env(env_id)
    model = SAC("MlpPolicy", env, seed=seed, **SETTINGS)
    table: dict[str, Any] = {"env_id": env_id, "algorithm": "SAC", "policies": []}
    for trained in range(save_every, steps + 1, save_every):
        model.learn(trained - model.num_timesteps, reset_num_timesteps=False)
        # SBX learns whole rollouts of `train_freq` steps, so it may be a little beyond what was asked for.
        file = f"sac-{model.num_timesteps:07d}.npz"
        np.savez_compressed(out / file, allow_pickle=False, **actor_weights(model.policy.actor_state.params))
        row = {
            "file": file,
            "env_steps": model.num_timesteps,
            "stochastic": play_stochastic(env_id, out / file, episodes),
            "deterministic": play(env_id, load_actor(out / file), max(episodes // 2, 1)),
        }
        table["policies"].append(row)
        (out / "policies.json").write_text(json.dumps(table, indent=1))
        typer.echo(f"{file}: return {row['stochastic']['mean']:.0f} +- {row['stochastic']['std']:.0f}")


@app.command()
def measure(
    table: Annotated[Path, typer.Argument(help="The packed policies.json, brought up to date in place.")],
    episodes: Annotated[int, typer.Option(help="Episodes for each policy.")] = 100,
    workers: int = 2,
) -> None:
    """Measure every packed policy, the random one included, with stochastic actions."""
    entries = json.loads(table.read_text())
    rows = [(entry, row) for entry in entries.values() for row in entry["policies"]]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        files = [table.parent / row["file"] if row["file"] else None for _, row in rows]
        env_ids = [entry["env_id"] for entry, _ in rows]
        measured = pool.map(play_stochastic, env_ids, files, [episodes] * len(rows))
        for (entry, row), result in zip(rows, measured, strict=True):
            row["stochastic"] = result
            typer.echo(f"{entry['env_id']} {row['env_steps']}: {result}")
    table.write_text(json.dumps(entries, indent=1) + "\n")


def play_stochastic(env_id: str, file: Path | None, episodes: int, seed: int = 0) -> dict[str, Any]:
    """What an actor (or uniform actions, without `file`) earns with its noise."""
    rng = np.random.default_rng(seed)
    policy = partial(load_actor(file), rng=rng) if file else uniform(make_env(env_id).action_space, rng)
    return play(env_id, policy, episodes)


def play(env_id: str, policy: Policy, episodes: int, first_seed: int = 100) -> dict[str, Any]:
    """Mean and deviation of the returns, and mean length, over episodes with consecutive seeds."""
    env = make_env(env_id)
    rewards = [play_episode(env, policy, seed=first_seed + episode)["rewards"] for episode in range(episodes)]
    returns = [float(each.sum()) for each in rewards]
    return {
        "mean": round(float(np.mean(returns)), 1),
        "std": round(float(np.std(returns)), 1),
        "length": round(float(np.mean([len(each) for each in rewards])), 1),
        "episodes": episodes,
    }


def actor_weights(params: Any) -> dict[str, np.ndarray]:
    """Rename the parameters of SBX's actor: layer i of `params` becomes `wi`, `bi`."""
    layers = params["params"]
    names = {"w": "kernel", "b": "bias"}
    return {
        f"{short}{i}": np.asarray(layers[f"Dense_{i}"][long], np.float32)
        for i in range(4)
        for short, long in names.items()
    }


if __name__ == "__main__":
    app()
