"""Every test has a datasets folder of its own, one thread, and no network."""

import os
import shutil

os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")

import numpy as np
import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def datasets_path(tmp_path, monkeypatch):
    """Redirect Minari's datasets folder; return where it points (not made yet)."""
    path = tmp_path / "datasets"
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(path))
    monkeypatch.delenv("MINARI_REMOTE", raising=False)
    return path


@pytest.fixture
def on_ray(monkeypatch):
    """Ray, which is not running before the test and not after it."""
    ray = pytest.importorskip("ray", reason="Ray is an extra: pip install 'minari-stitch[ray]', or make ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    yield ray
    ray.shutdown()


@pytest.fixture
def make_episodes():
    """Return a function that builds small random Episodes."""
    from minari_stitch.data.episodes import Episodes

    def make(n_episodes=4, length=10, obs_dim=3, act_dim=2, seed=0, dtype=np.float32):
        """Random walks with actions in (-1, 1); odd episodes terminate, even ones are truncated."""
        rng = np.random.default_rng(seed)
        parts = []
        for episode in range(n_episodes):
            last = np.arange(length) == length - 1
            parts.append(
                {
                    "observations": rng.normal(size=(length + 1, obs_dim)).cumsum(0).astype(dtype),
                    "actions": rng.uniform(-1, 1, (length, act_dim)).astype(np.float32),
                    "rewards": rng.normal(episode, 1, length),
                    "terminations": last & (episode % 2 == 1),
                    "truncations": last & (episode % 2 == 0),
                }
            )
        return Episodes.from_list(parts)

    return make


@pytest.fixture
def write_dataset(make_episodes):
    """Return a function that writes Episodes (random ones by default) as a Minari dataset with Box spaces."""
    from gymnasium import spaces

    from minari_stitch.data import minari_io

    def write(dataset_id="test/walk-v0", episodes=None, **kwargs):
        """Write, and return the id; `kwargs` go to `minari_io.write`."""
        episodes = make_episodes() if episodes is None else episodes
        observations = episodes.observations
        box = spaces.Box(-np.inf, np.inf, observations.shape[1:], observations.dtype.type)
        actions = spaces.Box(-1, 1, episodes.actions.shape[1:], np.float32)
        minari_io.write(
            episodes, dataset_id=dataset_id, **{"observation_space": box, "action_space": actions, **kwargs}
        )
        return dataset_id

    return write


@pytest.fixture(scope="session")
def _stitched_once(tmp_path_factory):
    """A datasets folder with the toy dataset and what `augment` makes of it, and what it printed."""
    import toy

    path = tmp_path_factory.mktemp("stitched") / "datasets"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(path))
        toy.write()
        return path, toy.augment()


@pytest.fixture
def stitched(_stitched_once, datasets_path):
    """The toy dataset, its stitched version and their run directory, in this test's own folder; the result."""
    path, result = _stitched_once
    shutil.copytree(path, datasets_path, copy_function=shutil.copy2)
    return result | {"path": str(datasets_path / result["dataset_id"])}
