"""A toy dataset that tiny models learn in seconds, and the command line on it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np

ID = "toy/walk-v0"
STITCHED = "toy/walk-stitched-v0"
LIMIT = 40
DELTA = 8.0

FITS = ("diffusion.fit", "dynamics", "inverse", "reward", "termination", "behaviour")
_FIT = {"steps": 40, "batch_size": 32, "warmup": 5, "learning_rate": 0.01, "ema": 0.9, "evaluate_every": 40}
_SETTINGS = {
    **{f"models.{fit}.{name}": value for fit in FITS for name, value in _FIT.items()},
    "stitch.fixed_steps": None,
    "stitch.min_bridge": 2,
    "stitch.max_bridge": 8,
    "stitch.sampler_steps": 4,
    "models.diffusion.horizon": 16,
    "models.diffusion.diffusion_steps": 20,
    "models.diffusion.width": 8,
    "models.diffusion.multipliers": "(1,)",
    "models.diffusion.kernel": 5,
    "models.hidden": 32,
    "models.judges": 1,
    "models.members": 2,
    "stitch.draws": 2,
    "stitch.pool": 64,
    "stitch.chunk": 16,
    "stitch.repair_steps": 2,
    "stitch.eta": 0.0,
    "qualify.drift": None,
    "qualify.support": None,
}


def _words(settings):
    return [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]


TINY = _words(_SETTINGS)
"""Options of `augment` that shrink every preset to seconds."""

_JUDGES = {"judges.hidden": 16, "judges.members": 2}
_OTHERS = {  # method -> its fits, and its other settings
    "synther": (
        ("train", "judges.dynamics"),
        {"hidden": 16, "blocks": 1, "sampler_steps": 4, "chunk": 64, **_JUDGES},
    ),
    "tatu": (
        ("ensemble", "policy", "judges.dynamics", "judges.termination"),
        {"hidden": 16, "members": 3, "elites": 2, "horizon": 4, "strictness": 0.3, "chunk": 64, **_JUDGES},
    ),
    "resample": ((), {}),
    "real": ((), {}),
}
DEMO = "demo/hopper/medium-replay-v0"


def walks(episodes=12, length=30, dtype=np.float32, seed=0, terminate=3):
    """Noisy walks that are pulled to the middle; each episode pushes to a side of its own, and the right one pays.

    Every `terminate`-th episode ends with a termination, the others are cut.
    """
    rng = np.random.default_rng(seed)
    parts = []
    for episode in range(episodes):
        push = np.linspace(-0.6, 0.6, episodes)[episode] if episodes > 1 else 0.0
        actions = np.clip(push + rng.normal(0, 0.4, (length, 2)), -1, 1).astype(np.float32)
        states = np.zeros((length + 1, 3))
        states[0] = rng.normal(0, 0.5, 3)
        for t, (across, along) in enumerate(actions):
            x, y, speed = states[t]
            states[t + 1] = 0.9 * x + 0.3 * across, 0.9 * y + 0.3 * along, 0.7 * speed + 0.3 * across
        last = np.arange(length) == length - 1
        ends = terminate and episode % terminate == terminate - 1
        parts.append(
            {
                "observations": states.astype(dtype),
                "actions": actions,
                "rewards": states[1:, 0] + 1.0,
                "terminations": last & bool(ends),
                "truncations": last & (not ends),
            }
        )
    return parts


def write(parts=None, dataset_id=ID, observation_space=None, action_space=None, limit=LIMIT, **kwargs):
    """Write episodes (`walks()` by default) as a dataset with a time limit, and return its id."""
    from gymnasium import spaces
    from gymnasium.envs.registration import EnvSpec

    from minari_stitch.data import minari_io

    parts = walks() if parts is None else parts
    observations = parts[0]["observations"]
    spec = EnvSpec("Toy-v0", entry_point="toy:Toy", max_episode_steps=limit)
    minari_io.write(
        parts,
        dataset_id=dataset_id,
        observation_space=observation_space
        or spaces.Box(-np.inf, np.inf, observations.shape[1:], observations.dtype.type),
        action_space=action_space or spaces.Box(-1, 1, parts[0]["actions"].shape[1:], np.float32),
        env_spec=spec if limit else None,
        metadata={"author": {"A. Tester"}, "algorithm_name": "push", "ref_min_score": 0.0, **kwargs},
    )
    return dataset_id


def tiny(*words, workers=1):
    """Words of an `augment` command with tiny models."""
    return ["augment", "--force", *TINY, "--workers", str(workers), "--threads", "1", *map(str, words)]


def other(method, *words, workers=1):
    """Words of an `augment` command with a tiny method other than DiffStitch; `real` needs a demo dataset."""
    fits, settings = _OTHERS[method]
    settings = {f"{fit}.{name}": value for fit in fits for name, value in (_FIT | {"steps": 20}).items()} | settings
    source = [DEMO, "--demo-steps", 500] if method == "real" else [ID]
    own = ["--force", "--method", method, *_words(settings), "--workers", workers, "--threads", 1]
    return ["augment", *map(str, [*source, *own, *words])]


def invoke(*words):
    """Run the command line in this process."""
    from typer.testing import CliRunner

    from minari_stitch.cli.app import app

    return CliRunner().invoke(app, [str(word) for word in words])


def ok(*words):
    """Run the command line in this process; it must succeed."""
    result = invoke(*words)
    assert result.exit_code == 0, f"{shlex.join(map(str, words))}\n{result.output}\n{result.exception!r}"
    return result


def augment(*words, delta=DELTA, source=ID):
    """`augment --json` on the toy dataset, in this process; the result it prints."""
    return json.loads(ok(*tiny(source, "--delta", delta, "--json", *words)).stdout)


def record(source, **more):
    """Of a dataset put together by hand: what says how it was made."""
    none = {"seed": 0, "config": {}, "report": {}, "n_episodes": 0, "n_steps": 0, "include_original": False}
    return {"method": "by hand", "source": source, **none, **more}


def spoil(dataset_id, *where, **named):
    """Overwrite one stored value, as no writer of ours would let it pass, and say that this is meant."""
    spoil_unnoticed(dataset_id, *where, **named)
    accept(dataset_id)


def spoil_unnoticed(dataset_id, episode=0, name="rewards", row=3, value=float("nan")):
    """Overwrite one stored value."""
    import h5py

    path = Path(os.environ["MINARI_DATASETS_PATH"]) / dataset_id / "data" / "main_data.hdf5"
    with h5py.File(path, "r+") as file:
        file[f"episode_{episode}"][name][row] = value


def accept(dataset_id, **values):
    """Take a dataset that was changed by hand as it is now, with other metadata."""
    from minari_stitch.data.digests import seal

    seal(Path(os.environ["MINARI_DATASETS_PATH"]) / dataset_id, values, data=True)


def run(*command, **kwargs):
    """Run a program of this environment to its end, in a process of its own."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [str(word) for word in command]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PATH": path}, **kwargs)
