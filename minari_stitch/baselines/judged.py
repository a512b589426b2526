"""What transforms that write short generated episodes share: judges, and sampling chunk after chunk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from minari_stitch.baselines.rollouts import Rollouts
from minari_stitch.data.minari_io import Dataset
from minari_stitch.errors import LowAcceptanceError
from minari_stitch.job import Job
from minari_stitch.learn.judging import SALTS, JudgeConfig, build_judge, judge_loss
from minari_stitch.learn.loop import FitConfig
from minari_stitch.learn.nets import MLP
from minari_stitch.learn.seeds import seeded
from minari_stitch.learn.tables import Tables, load_weights, train_rows
from minari_stitch.progress import Progress
from minari_stitch.run import Run
from minari_stitch.transforms.base import LOWEST_ACCEPTANCE, PATIENCE, Sample
from minari_stitch.transforms.work import Expected, Work, repeated, size, training, tried


class JudgedJob(Job):
    """A job whose transform has `judges`: a `JudgeConfig`."""

    def train_judge(self, name: str, progress: Progress | None) -> None:
        """Train the dynamics networks or the classifier of terminations."""
        config: JudgeConfig = self.transform.judges
        entropy, tables = [self.seed, SALTS[name]], Tables(self.episodes, self.scales, self.seed)
        net = self._judge(name, seeded([*entropy, 2], "cpu")).to(self.device)
        train_rows(
            net,
            judge_loss(name, tables),
            (tables.train, tables.held),
            getattr(config, name),
            members=config.members if name == "dynamics" else 1,
            entropy=entropy,
            path=self.network(name),
            progress=progress,
        )

    def judge(self, name: str = "dynamics") -> MLP:
        """A trained one, on the job's device."""
        return load_weights(self._judge(name, torch.Generator()), self.network(name), self.device)

    def expected(
        self,
        nets: Mapping[str, tuple[nn.Module, tuple[Tensor, ...], FitConfig]],
        judges: Iterable[str],
        n_steps: int,
        episode: float,
        run: Run,
        *,
        passes: int,
    ) -> Expected:
        """What a transform is about to do.

        Args:
            nets: Name -> a network, its inputs for one row, and how it is trained.
            judges: Names of the judging networks.
            n_steps: Steps to make.
            episode: Mean steps of a rollout.
            run: Where.
            passes: Of all networks, for each row of a chunk.
        """
        config, (states, actions) = self.transform, self.widths
        none = torch.Generator()
        inputs = {"dynamics": torch.zeros(1, states + actions), "termination": torch.zeros(1, states)}
        everything = dict(nets) | {
            name: (self._judge(name, none), (inputs[name],), getattr(config.judges, name)) for name in judges
        }
        work = [
            training(name, net, rows, fit, run)
            for name, (net, rows, fit) in everything.items()
            if not self.network(name).exists()
        ]
        chunks, row = self.missing_chunks(n_steps / episode / config.chunk), 4.0 * (3 * states + 2 * actions + 12)

        def each() -> float:
            @torch.no_grad()
            def once(rows: int) -> None:
                for net, inputs, _ in nets.values():
                    net.to(run.device)(*repeated(inputs, rows, run.device))

            return passes * tried(once, config.chunk, device=run.device, threads=1)

        work.append(Work(stage="sample", count=chunks, unit="chunks", each=each, shared=True))
        weights = size(*(net for net, _, _ in everything.values()))
        kept = 4.0 * weights + n_steps * row
        return Expected(work=work, episode=episode, kept=kept, parameters=weights, held=n_steps * row)

    def _judge(self, name: str, generator: torch.Generator) -> MLP:
        config = self.transform.judges
        sizes = {"hidden": config.hidden, "layers": config.layers, "members": config.members}
        return build_judge(name, *self.widths, **sizes, generator=generator)


@dataclass(frozen=True, kw_only=True)
class FittedRollouts:
    """A trained transform whose chunks are `Rollouts`.

    Attributes:
        dataset: The source.
        run: Where and how to work.
        job: Makes the chunks.
    """

    dataset: Dataset
    run: Run
    job: JudgedJob

    def sample(self, n_steps: int) -> Sample:
        """Sample chunk after chunk until the episodes hold `n_steps` steps.

        Raises:
            LowAcceptanceError: Fewer than one rollout in a hundred has a step that the models trust.
        """
        parts, steps = [], 0
        for path in self.job.made(self.run):
            part = Rollouts.load(path).head(n_steps - steps)
            parts.append(part)
            steps += int(part.length.sum())
            if self.run.progress is not None:
                self.run.progress("sample", min(steps, n_steps), n_steps)
            if steps >= n_steps:
                break
            self._require_acceptance(parts, steps, n_steps)
        everything = Rollouts.concatenate(parts)
        return Sample(
            report=everything.report(),
            n_steps=steps,
            n_episodes=int((everything.length > 0).sum()),
            parts=lambda: everything.episodes(
                self.dataset.episodes, self.dataset.episode_ids.tolist(), self.job.transform.gamma
            ),
        )

    def _require_acceptance(self, parts: list[Rollouts], steps: int, n_steps: int) -> None:
        made, kept = sum(map(len, parts)), sum(int((part.length > 0).sum()) for part in parts)
        if made >= PATIENCE and kept < LOWEST_ACCEPTANCE * made:
            raise LowAcceptanceError(
                f"only {kept} of {made} rollouts of {self.job.transform.name} have a step that the models trust, which "
                f"gave {steps:,} of {n_steps:,} steps: lower strictness, or train longer with preset full"
            )
