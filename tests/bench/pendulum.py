"""A dataset of a real, light environment, and a stitched version of it, made by hand in milliseconds."""

import dataclasses

import gymnasium as gym
import numpy as np
import toy

from minari_stitch.data import minari_io
from minari_stitch.data.episodes import Episodes
from minari_stitch.data.provenance import RECORD_KEY
from minari_stitch.sim.behaviour import play_episode, uniform

ID = "test/pendulum-v0"
STITCHED = "test/pendulum-stitched-v0"
SPEC = dataclasses.replace(gym.spec("Pendulum-v1"), max_episode_steps=30)


def write(stitched=STITCHED, synthetic=(5, 12), began=0, **metadata):
    """Write both datasets: five random episodes, and three of them as if steps [5, 12) had been generated.

    What is written of those three begins at time `began`, as they say.
    """
    rng = np.random.default_rng(0)
    env = gym.make(SPEC)
    episodes = Episodes.from_list(play_episode(env, uniform(env.action_space, rng), seed=i) for i in range(5))
    common = {"observation_space": env.observation_space, "action_space": env.action_space, "env_spec": SPEC}
    env.close()
    minari_io.write(episodes, dataset_id=ID, metadata=metadata, **common)
    source = minari_io.read(ID)
    parts = []
    for e in (0, 2, 4):
        time = np.arange(31)
        flags = (synthetic[0] <= time) & (time < synthetic[1])
        about = {"augmented": True, "bridge_start": synthetic[0], "source_episode": e}
        about["source_step"] = began + synthetic[0]
        parts.append({**source.episodes.episode(e), "infos": {"synthetic": flags[:, None]}, "metadata": about})
    record = toy.record(ID, source_fingerprint=source.fingerprint)
    if stitched:
        minari_io.write(parts, dataset_id=stitched, metadata={RECORD_KEY: record}, **common)
    return ID
