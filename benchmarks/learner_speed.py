"""How fast the learners train, next to the loop that people write and to the machine's own peak.

    python benchmarks/learner_speed.py                  one core
    python benchmarks/learner_speed.py --device cuda    and the runs of a GPU

All figures come from one run: contenders take turns (A B A B ...), and a cell holds the median and the range of the
repeats. On a CPU everything runs on one thread, and rates are per second of that thread's own time. Shapes are those of
hopper: 11 states, 3 actions, batch 256, two hidden layers of 256.
"""

from __future__ import annotations

import copy
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
import typer
from gymnasium import spaces
from rich.console import Console
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks._timing import Section, Spread
from benchmarks.algos import bc, iql, td3_bc
from benchmarks.data import LearnerData
from benchmarks.trainer import Precision, Program, TrainingRun
from minari_stitch.data.episodes import Episodes
from minari_stitch.data.minari_io import Dataset
from minari_stitch.data.validation import ValidationReport

STATES, ACTIONS, BATCH, RATE = 11, 3, 256, 3e-4
LEARNERS = {"td3_bc": td3_bc, "iql": iql, "bc": bc}


@dataclass(frozen=True)
class Sizes:
    """How much is timed.

    Attributes:
        steps: Data steps.
        updates: Updates in a repeat.
        repeats: Timed rounds.
        runs: Numbers of runs on a GPU.
    """

    steps: int
    updates: int
    repeats: int
    runs: tuple[int, ...]


def made_up(steps: int, device: str) -> LearnerData:
    """Random data of hopper's shapes: what they hold does not change the speed."""
    rng = np.random.default_rng(0)
    last = np.arange(steps) % 100 == 99
    episodes = Episodes(
        observations=rng.normal(size=(steps + steps // 100, STATES)),
        actions=rng.uniform(-1, 1, (steps, ACTIONS)).astype(np.float32),
        rewards=rng.normal(size=steps),
        terminations=last,
        truncations=~last & last,
        offsets=np.arange(0, steps + 1, 100),
    )
    dataset = Dataset(
        dataset_id="made-up-v0",
        episodes=episodes,
        observation_space=spaces.Box(-np.inf, np.inf, (STATES,)),
        action_space=spaces.Box(-1, 1, (ACTIONS,)),
        env_spec=None,
        episode_ids=np.arange(len(episodes)),
        skipped=ValidationReport(0, []),
    )
    return LearnerData(dataset, device=device)


class PlainBuffer:
    """Tensors of transitions, indexed by NumPy."""

    def __init__(self, data: LearnerData) -> None:
        """Take the same transitions."""
        self.columns = [c.contiguous() for c in data.table.split([STATES, ACTIONS, 1, STATES, 1], 1)]

    def sample(self) -> list[Tensor]:
        """A batch."""
        rows = np.random.randint(0, len(self.columns[0]), size=BATCH)
        return [column[rows] for column in self.columns]


def perceptron(inputs: int, outputs: int, *end: nn.Module) -> nn.Sequential:
    """Two hidden layers."""
    return nn.Sequential(
        nn.Linear(inputs, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, outputs), *end
    )


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> float:
    """The usual four lines."""
    value = loss.item()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return value


def track(target: nn.Module, net: nn.Module, rate: float) -> None:
    """Move a target network, parameter by parameter."""
    for old, new in zip(target.parameters(), net.parameters(), strict=True):
        old.data.copy_((1 - rate) * old.data + rate * new.data)


class PlainTD3BC:
    """TD3+BC, eager."""

    def __init__(self, buffer: PlainBuffer) -> None:
        """Three networks, each with its optimiser and target."""
        self.buffer, self.count = buffer, 0
        self.actor = perceptron(STATES, ACTIONS, nn.Tanh())
        self.critics = [perceptron(STATES + ACTIONS, 1) for _ in range(2)]
        self.actor_target, self.critic_targets = copy.deepcopy(self.actor), copy.deepcopy(self.critics)
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), lr=RATE)
        self.optimizers = [torch.optim.Adam(critic.parameters(), lr=RATE) for critic in self.critics]

    def step(self) -> dict[str, float]:
        """One update."""
        self.count += 1
        states, actions, rewards, following, continues = self.buffer.sample()
        with torch.no_grad():
            blur = (torch.randn_like(actions) * 0.2).clamp(-0.5, 0.5)
            after = torch.cat([following, (self.actor_target(following) + blur).clamp(-1, 1)], 1)
            value = torch.min(self.critic_targets[0](after), self.critic_targets[1](after))
            target = rewards + continues * 0.99 * value
        pair = torch.cat([states, actions], 1)
        loss = F.mse_loss(self.critics[0](pair), target) + F.mse_loss(self.critics[1](pair), target)
        log = {"critic_loss": loss.item()}
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()
        if self.count % 2 == 0:
            chosen = self.actor(states)
            value = self.critics[0](torch.cat([states, chosen], 1))
            loss = -2.5 / value.abs().mean().detach() * value.mean() + F.mse_loss(chosen, actions)
            log["actor_loss"] = descend(self.actor_optimizer, loss)
            for old, new in zip(self.critic_targets, self.critics, strict=True):
                track(old, new, 0.005)
            track(self.actor_target, self.actor, 0.005)
        return log


class PlainIQL:
    """IQL, eager."""

    def __init__(self, buffer: PlainBuffer) -> None:
        """Four networks, three optimisers and a schedule."""
        self.buffer = buffer
        self.actor, self.log_std = perceptron(STATES, ACTIONS, nn.Tanh()), nn.Parameter(torch.zeros(ACTIONS))
        self.value = perceptron(STATES, 1)
        self.critics = nn.ModuleList([perceptron(STATES + ACTIONS, 1) for _ in range(2)])
        self.targets = copy.deepcopy(self.critics)
        self.actor_optimizer = torch.optim.Adam([*self.actor.parameters(), self.log_std], lr=RATE)
        self.value_optimizer = torch.optim.Adam(self.value.parameters(), lr=RATE)
        self.critic_optimizer = torch.optim.Adam(self.critics.parameters(), lr=RATE)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.actor_optimizer, 1_000_000)

    def step(self) -> dict[str, float]:
        """One update."""
        states, actions, rewards, following, continues = self.buffer.sample()
        pair = torch.cat([states, actions], 1)
        with torch.no_grad():
            after = self.value(following)
            best = torch.min(self.targets[0](pair), self.targets[1](pair))
        advantage = best - self.value(states)
        loss = (torch.abs(0.7 - (advantage < 0).float()) * advantage**2).mean()
        log = {"value_loss": descend(self.value_optimizer, loss)}
        target = rewards + continues * 0.99 * after
        loss = (F.mse_loss(self.critics[0](pair), target) + F.mse_loss(self.critics[1](pair), target)) / 2
        log["critic_loss"] = descend(self.critic_optimizer, loss)
        track(self.targets, self.critics, 0.005)
        weight = torch.exp(3 * advantage.detach()).clamp(max=100)
        policy = torch.distributions.Normal(self.actor(states), self.log_std.clamp(-20, 2).exp())
        loss = (weight * -policy.log_prob(actions).sum(-1, keepdim=True)).mean()
        log["actor_loss"] = descend(self.actor_optimizer, loss)
        self.schedule.step()
        return log


class PlainBC:
    """Behavioural cloning, eager."""

    def __init__(self, buffer: PlainBuffer) -> None:
        """One network."""
        self.buffer = buffer
        self.actor = perceptron(STATES, ACTIONS, nn.Tanh())
        self.optimizer = torch.optim.Adam(self.actor.parameters(), lr=RATE)

    def step(self) -> dict[str, float]:
        """One update."""
        states, actions, *_ = self.buffer.sample()
        return {"actor_loss": descend(self.optimizer, F.mse_loss(self.actor(states), actions))}


PLAIN = {"td3_bc": PlainTD3BC, "iql": PlainIQL, "bc": PlainBC}


def cpu(sizes: Sizes) -> Section:
    """One core against a plain loop, and against the peak of a large matrix product."""
    section = Section(
        "learners",
        "Learners: updates a second on one core",
        "`plain` is an eager loop with one optimiser for each network and losses read at every step; `peak` is the "
        "share of the rate of a 1024 x 1024 matrix product that was measured in between.",
    )
    data = made_up(sizes.steps, "cpu")
    buffer = PlainBuffer(data)
    large = torch.randn(1024, 1024)
    for name, learner in LEARNERS.items():
        flop = flops(name, data)
        contenders: dict[str, Callable[[], Any]] = {"plain": repeated(PLAIN[name](buffer).step, sizes.updates)}
        settings: dict[str, tuple[bool, Precision]] = {
            "eager": (False, "fp32"),
            "compiled": (True, "fp32"),
            "compiled, bf16": (True, "bf16"),
        }
        for label, (compiled, precision) in settings.items():
            program = Program(learner, learner.Config(), data, [TrainingRun(0)], compile=compiled, precision=precision)
            # Compile both kinds of update now, before another program resets the compiler.
            program.run(learner.policy_frequency(learner.Config()))
            contenders[label] = repeated(program.run, 1, sizes.updates)
        contenders["product"] = repeated(lambda: large @ large, sizes.updates // 8 + 1)
        taken = turns(contenders, sizes.repeats)
        peak = (sizes.updates // 8 + 1) * 2 * 1024**3 / taken.pop("product")
        for label, seconds in taken.items():
            section.add(
                learner=name,
                variant=label,
                updates=Spread.of(sizes.updates / seconds),
                ratio=Spread.of(taken["plain"] / seconds),
                peak=Spread.of(flop * sizes.updates / seconds / peak),
                mflop=flop / 1e6,
            )
    return section


def gpu(sizes: Sizes, device: str) -> Section:
    """Runs in one program on a GPU."""
    section = Section("runs", "Learners: updates a second of all runs together on a GPU")
    if torch.device(device).type != "cuda":
        section.note = "Skipped: it needs --device cuda."
        return section
    data = made_up(sizes.steps, device)
    precisions: tuple[Precision, ...] = ("fp32", "tf32")
    for name, learner in LEARNERS.items():
        flop = flops(name, data)
        for precision in precisions:
            for runs in sizes.runs:
                program = Program(
                    learner, learner.Config(), data, [TrainingRun(seed) for seed in range(runs)], precision=precision
                )
                seconds = turns({"all": repeated(program.run, 1, sizes.updates)}, sizes.repeats, device)["all"]
                section.add(
                    learner=name,
                    precision=precision,
                    runs=runs,
                    updates=Spread.of(sizes.updates * runs / seconds),
                    each=Spread.of(sizes.updates / seconds),
                    tflops=Spread.of(flop * runs * sizes.updates / seconds / 1e12),
                )
    return section


def flops(name: str, data: LearnerData) -> float:
    """Operations of the matrix products of one update, on average where some leave the policy alone."""
    learner = LEARNERS[name]
    config = learner.Config()
    updates = learner.policy_frequency(config)
    program = Program(learner, config, data, [TrainingRun(0)], compile=False)
    with FlopCounterMode(display=False) as counter:
        program.run(updates)
    return counter.get_total_flops() / updates


def repeated(work: Callable[..., Any], times: int, *arguments: Any) -> Callable[[], None]:
    """A function that does it so many times."""

    def loop() -> None:
        for _ in range(times):
            work(*arguments)

    return loop


def turns(contenders: Mapping[str, Callable[[], Any]], repeats: int, device: str = "cpu") -> dict[str, np.ndarray]:
    """Seconds of each contender, `(repeats,)`, in turn after one round to warm up; of its own thread on a CPU."""
    cuda = torch.device(device).type == "cuda"
    clock = time.perf_counter if cuda else time.thread_time
    taken = {name: np.zeros(repeats) for name in contenders}
    for repeat in range(-1, repeats):
        for name, work in contenders.items():
            begin = clock()
            work()
            if cuda:
                torch.cuda.synchronize(device)
            if repeat >= 0:
                taken[name][repeat] = clock() - begin
    return taken


def main(
    device: Annotated[str, typer.Option(help="cpu, or cuda for the runs of a GPU.")] = "cpu",
    quick: Annotated[bool, typer.Option(help="Tiny sizes; the figures mean nothing.")] = False,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the figures there.")] = None,
) -> None:
    """Print the tables."""
    torch.set_num_threads(1)
    sizes = Sizes(steps=200_000, updates=200, repeats=7, runs=(1, 10, 60))
    if quick:
        sizes = Sizes(steps=2000, updates=4, repeats=2, runs=(1, 2))
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(f"torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} cores", highlight=False)
    sections = [cpu(sizes), gpu(replace(sizes, updates=sizes.updates * 5), device)]
    for section in sections:
        section.show(console)
    if json_path:
        json_path.write_text(json.dumps({section.name: section.to_dict() for section in sections}, indent=1))


if __name__ == "__main__":
    typer.run(main)
