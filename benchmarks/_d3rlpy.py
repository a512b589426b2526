"""Train a learner of d3rlpy and print what came of it as JSON. `peers.py` runs this in an environment of its own."""

# pyright: reportMissingImports=false
from __future__ import annotations

import argparse
import json
import time

import d3rlpy
import gymnasium as gym
import minari
import numpy as np
import torch
from d3rlpy.preprocessing import MinMaxActionScaler, MultiplyRewardScaler, StandardObservationScaler


def learner(name: str, settings: dict, episode_length: int) -> d3rlpy.base.LearnableConfig:
    """d3rlpy's learner with the settings of ours."""
    common = {
        "batch_size": settings["batch_size"],
        "observation_scaler": StandardObservationScaler(),
        "action_scaler": MinMaxActionScaler(),
    }
    match name:
        case "td3_bc":
            rate = settings["learning_rate"]
            return d3rlpy.algos.TD3PlusBCConfig(
                actor_learning_rate=rate,
                critic_learning_rate=rate,
                gamma=settings["discount"],
                tau=settings["target_rate"],
                alpha=settings["alpha"],
                update_actor_interval=settings["policy_period"],
                target_smoothing_sigma=settings["policy_noise"],
                target_smoothing_clip=settings["noise_clip"],
                **common,
            )
        case "iql":
            return d3rlpy.algos.IQLConfig(
                actor_learning_rate=settings["actor_rate"],
                critic_learning_rate=settings["critic_rate"],
                gamma=settings["discount"],
                tau=settings["target_rate"],
                expectile=settings["expectile"],
                weight_temp=settings["beta"],
                **common,
            )
        case "dt":
            return d3rlpy.algos.DecisionTransformerConfig(
                learning_rate=settings["learning_rate"],
                context_size=20,
                num_heads=settings["heads"],
                num_layers=settings["layers"],
                activation_type="gelu",
                optim_factory=d3rlpy.optimizers.AdamWFactory(
                    weight_decay=settings["weight_decay"],
                    clip_grad_norm=settings["clip"],
                    lr_scheduler_factory=d3rlpy.optimizers.WarmupSchedulerFactory(
                        warmup_steps=max(1, min(settings["warmup"], settings["steps"] // 10))
                    ),
                ),
                max_timestep=episode_length + 1,
                encoder_factory=d3rlpy.models.VectorEncoderFactory([settings["width"]], exclude_last_activation=True),
                reward_scaler=MultiplyRewardScaler(settings["reward_scale"]),
                **common,
            )
    raise SystemExit(f"d3rlpy has no counterpart of {name!r}")


def read(dataset_id: str) -> tuple[d3rlpy.dataset.MDPDataset, gym.Env]:
    """A Minari dataset as d3rlpy's, and its environment.

    Not by `d3rlpy.datasets.get_minari`: in d3rlpy 2.8.1 it lays the T + 1 observations of each episode beside its T
    actions, so that states and actions drift apart by one step with each episode.
    """
    source = minari.load_dataset(dataset_id)
    episodes = list(source.iterate_episodes())
    dataset = d3rlpy.dataset.MDPDataset(
        observations=np.concatenate([episode.observations[:-1] for episode in episodes]),
        actions=np.concatenate([episode.actions for episode in episodes]),
        rewards=np.concatenate([episode.rewards for episode in episodes]),
        terminals=np.concatenate([episode.terminations for episode in episodes]),
        timeouts=np.concatenate([episode.truncations for episode in episodes]),
    )
    return dataset, source.recover_environment()


def play(policy, env: gym.Env, seed: int) -> float:
    """Undiscounted return of one episode; `policy(observation, reward)`."""
    observation, _ = env.reset(seed=seed)
    total, reward, ended = 0.0, 0.0, False
    while not ended:
        observation, reward, terminated, truncated, _ = env.step(policy(observation, reward))
        total, ended = total + float(reward), terminated or truncated
    return total


def main() -> None:
    """Read the request from the command line."""
    parser = argparse.ArgumentParser()
    for name in ("--algo", "--dataset", "--settings", "--starts"):
        parser.add_argument(name, required=True)
    parser.add_argument("--seed", type=int, required=True)
    request = parser.parse_args()
    settings = json.loads(request.settings)
    torch.set_num_threads(1)
    d3rlpy.seed(request.seed)
    dataset, env = read(request.dataset)
    length = env.spec.max_episode_steps if env.spec and env.spec.max_episode_steps else 1000
    algo = learner(request.algo, settings, length).create(device="cpu")
    begin = time.perf_counter()
    algo.fit(
        dataset,
        n_steps=settings["steps"],
        n_steps_per_epoch=settings["steps"],
        logger_adapter=d3rlpy.logging.NoopAdapterFactory(),
        show_progress=False,
    )
    seconds = time.perf_counter() - begin
    returns = []
    for start in json.loads(request.starts):
        if request.algo == "dt":
            actor = algo.as_stateful_wrapper(target_return=settings["target_return"])
            returns.append(play(actor.predict, env, start))
        else:
            returns.append(play(lambda observation, _: algo.predict(observation[None])[0], env, start))
    print(json.dumps({"returns": returns, "steps_per_second": settings["steps"] / seconds}))


if __name__ == "__main__":
    main()
