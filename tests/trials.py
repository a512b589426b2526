"""What trials of robustness share: a folder with a dataset of each kind, commands that use them, and what is left."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import toy

from minari_stitch.data import minari_io
from minari_stitch.data.digests import changed

MAZE = "test/maze-v0"
D4RL, OGBENCH = "hopper-tiny-v2.hdf5", "pointmaze-medium-stitch-v0.npz"
SMALL = "--workers 1 --threads 1"


def prepare(folder: Path) -> Path:
    """Make the toy dataset, its stitched version, a maze and files of others in `folder/datasets` and `folder`."""
    import h5py
    import mazes

    datasets = folder / "datasets"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(datasets))
        toy.write()
        toy.augment("--steps", 200, "--form", "full")
        mazes.written(MAZE, count=6)
        shutil.rmtree(datasets / ".stitch-runs")
    rng, rows = np.random.default_rng(0), 300
    last = np.arange(rows) % 30 == 29
    with h5py.File(folder / D4RL, "w") as file:
        file["observations"] = rng.normal(size=(rows, 11)).astype(np.float32)
        file["actions"] = rng.uniform(-1, 1, (rows, 3)).astype(np.float32)
        file["rewards"], file["terminals"], file["timeouts"] = rng.normal(size=rows), last & False, last
    walk = np.clip(20 + rng.normal(0, 0.5, (rows, 2)).cumsum(0), 0, 20).astype(np.float32)
    tables = {"observations": walk, "qpos": walk, "qvel": rng.normal(size=(rows, 2)).astype(np.float32)}
    tables |= {"actions": rng.uniform(-1, 1, (rows, 2)).astype(np.float32), "terminals": last}
    np.savez_compressed(folder / OGBENCH, **tables)
    return folder


def commands() -> dict[str, list[str]]:
    """Name -> words of a command that makes something from what `prepare` made; files go to `out/`."""
    tiny = ["--delta", "8", "--steps", "400", "--set", "stitch.chunk=4"]
    maze = ["augment", MAZE, "--method", "relabel", "--steps", "2000", "--set", "clusters=8", *SMALL.split()]
    rolled = ["augment", toy.DEMO, "--threads", "1", "--method"]
    made = {
        "diffstitch": toy.tiny(toy.ID, *tiny),
        "diffstitch, 2 workers": toy.tiny(toy.ID, *tiny, workers=2),
        "bridges": toy.tiny(toy.ID, *tiny, "--form", "bridge", "--include-original"),
        "synther": toy.other("synther", "--steps", 1000),
        "synther, 2 workers": toy.other("synther", "--steps", 1000, workers=2),
        "tatu": toy.other("tatu", "--steps", 1000),
        "tatu, 2 workers": toy.other("tatu", "--steps", 1000, workers=2),
        "resample": toy.other("resample", "--steps", 2000),
        "relabel": maze,
        "roll out": [*rolled, "resample", "--demo-steps", "4000", "--steps", "4000", "--workers", "1"],
        "roll out, 2 workers": [*rolled, "resample", "--demo-steps", "4000", "--steps", "4000", "--workers", "2"],
        "real, 2 workers": [*rolled, "real", "--demo-steps", "2000", "--steps", "4000", "--workers", "2"],
        "filter": ["filter", toy.STITCHED, "--delta", "7.9"],
        "mix": ["mix", toy.ID, toy.STITCHED, "--dataset-id", "toy/both-v0"],
        "trim": ["trim", toy.ID, "--at", "still"],
        "select": ["select", toy.ID, "--top", "0.5"],
        "scores": ["scores", toy.ID, "--low", "0", "--high", "9"],
        "card": ["card", toy.STITCHED, "--force"],
        "check": ["check", toy.STITCHED],
        "verify": ["verify", toy.STITCHED, "--workers", "1"],
        "report": ["report", toy.STITCHED, "--workers", "1", "--output", "out/page.html"],
        "import-d4rl": ["import-d4rl", D4RL, "--env", "hopper"],
        "import-ogbench": ["import-ogbench", OGBENCH],
        "export-ogbench": ["export-ogbench", MAZE, "out/exported.npz"],
        "render returns": ["render", toy.STITCHED, "--returns", "--output", "out"],
    }
    return {name: list(map(str, words)) for name, words in made.items()}


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def whole(datasets: Path) -> None:
    """Every dataset that Minari would list is complete, and says so of itself."""
    before = os.environ.get("MINARI_DATASETS_PATH")
    assert before == str(datasets)
    for dataset_id in minari_io.local_ids():
        assert changed(datasets / dataset_id) == [], dataset_id
        minari_io.check(dataset_id)
