"""The main job: fit a transform to a dataset, sample, and write a new version."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from minari_stitch.asked import asked_for, twin
from minari_stitch.cost import Estimate, room, written
from minari_stitch.data import minari_io
from minari_stitch.data.card import LICENSE_KEY
from minari_stitch.data.ids import datasets_path, id_of
from minari_stitch.data.kept import runs_path
from minari_stitch.data.minari_io import Dataset
from minari_stitch.data.provenance import ORACLE_KEY, RECORD_KEY, original
from minari_stitch.data.written import Written
from minari_stitch.errors import ConfigError, InvalidDataError
from minari_stitch.run import Run
from minari_stitch.sim.tasks import goals_of
from minari_stitch.transforms.again import again
from minari_stitch.transforms.base import Sample, Transform
from minari_stitch.transforms.work import Work


@dataclass(frozen=True, kw_only=True)
class Augmented(Written):
    """What a run wrote; `n_steps` and `n_episodes` count what was made, without originals.

    Attributes:
        n_synthetic: Steps that a model made.
        report: The transform's report.
        existing: Whether it was there already, so that nothing was written.

    Example:
        >>> import minari_stitch as ms
        >>> made = ms.augment("toy/walk-v0", ms.Resample(), n_steps=60)
        >>> made.load().total_steps == made.n_steps
        True
    """

    n_synthetic: int
    report: Mapping[str, Any]
    existing: bool = False


def default_run_directory(dataset: Dataset) -> Path:
    """Beside the datasets, hidden, one for each content."""
    return runs_path() / f"{dataset.dataset_id.replace('/', '-')}-{dataset.fingerprint}"


def augment(
    dataset: Dataset,
    transform: Transform,
    run: Run,
    *,
    n_steps: int | None = None,
    output_id: str | None = None,
    include_original: bool = False,
    license: str | None = None,
    force: bool = False,
) -> Augmented:
    """Write a new dataset of synthetic episodes made from `dataset`.

    Args:
        dataset: The source, see `minari_io.read`.
        transform: The method with its settings.
        run: Where and how to work.
        n_steps: Steps to make, with `form="bridge"` synthetic ones; by default as many as the source has.
        output_id: Id of the new dataset; by default the source's name with a suffix, in the next free version.
        include_original: Write the source's own episodes first (the paper's D* = D u D_aug).
        license: Of the new dataset; by default the source's, as far as it is known.
        force: Write it once more, in the next free version, where it is there already.

    Returns:
        What was written, or with `existing` what was there.

    Raises:
        StitchError: One of its kinds, each with a remedy; nothing is left behind.
    """
    check_amount(n_steps)
    automatic, output_id = not output_id, output_id or minari_io.next_id(dataset.dataset_id, transform.output_suffix)
    minari_io.check_output_id(output_id)
    asked = asked_for(dataset, transform, run, n_steps=n_steps, include_original=include_original, license=license)
    if automatic and not force and (made := existing(output_id, asked)):
        return made
    ahead(dataset, transform, run, asked).require_room()
    sample = transform.fit(dataset, run).sample(asked["asked_steps"])
    record = asked | {
        "report": dict(sample.report),
        "n_steps": sample.n_steps,
        "n_episodes": sample.n_episodes,
        "n_synthetic": sample.n_steps if sample.n_synthetic is None else sample.n_synthetic,
    }
    record["command"] = again(record)
    parts = _counted(sample, transform.name)
    total = sample.n_episodes
    if include_original:
        own = original(dataset.episodes, dataset.episode_ids.tolist(), transform.gamma)
        parts, total = itertools.chain(own, parts), total + len(dataset.episodes)
    if goals := goals_of(dataset):  # what depends on the goal is said of every step, real or not
        parts = ({**part, "infos": part["infos"] | goals.infos(part["observations"])} for part in parts)
    path = write(dataset, parts, output_id, record, _counting(run, total), automatic)
    return Augmented(
        dataset_id=id_of(path),
        path=path,
        n_steps=sample.n_steps,
        n_episodes=sample.n_episodes,
        n_synthetic=record["n_synthetic"],
        report=sample.report,
    )


def existing(output_id: str, asked: Mapping[str, Any]) -> Augmented | None:
    """What was made as asked before."""
    if (found := twin(output_id, asked)) is None:
        return None
    dataset_id, counts = found
    return Augmented(dataset_id=dataset_id, path=datasets_path() / dataset_id, existing=True, **counts)


def ahead(
    dataset: Dataset, transform: Transform, run: Run, asked: Mapping[str, Any], *, before: Sequence[Work] = ()
) -> Estimate:
    """What `augment` is about to take; nothing is written.

    Args:
        dataset: The source, or a sample of it.
        transform: The method with its settings.
        run: Where and how to work.
        asked: See `asked_for`.
        before: What is done to have the source.
    """
    output_id = minari_io.next_id(dataset.dataset_id, transform.output_suffix)
    made, steps = twin(output_id, asked), asked["asked_steps"]
    expected = transform.expected(dataset, replace(run, dry=True), steps)
    own = asked["include_original"]
    on_cpu = run.device.startswith("cpu")
    return Estimate(
        dataset_id=made[0] if made else output_id,
        source=dataset.dataset_id,
        method=transform.name,
        n_steps=steps,
        existing=made is not None,
        work=[*before, *expected.work, written(dataset, expected, steps, include_original=own)],
        processes=run.workers if on_cpu else 1,
        threads=run.threads,
        device=run.device,
        directory=run.directory,
        **room(dataset, expected, steps, run, include_original=own),
    )


def check_amount(n_steps: int | None) -> None:
    """Refuse to write nothing.

    Raises:
        ConfigError: The amount is below 1.
    """
    if n_steps is not None and n_steps < 1:
        raise ConfigError(f"n_steps={n_steps} is not possible: ask for at least 1")


def _counted(sample: Sample, name: str) -> Iterator[dict[str, Any]]:
    """The episodes of a sample, which must be as many as it says.

    Raises:
        InvalidDataError: They are not.
    """
    steps = episodes = 0
    for part in sample.parts():
        steps, episodes = steps + len(part["rewards"]), episodes + 1
        yield part
    if (steps, episodes) != (sample.n_steps, sample.n_episodes):
        raise InvalidDataError(
            f"method {name} says that it made {sample.n_episodes} episodes of {sample.n_steps} steps, but yields "
            f"{episodes} of {steps}: mend its Sample"
        )


def write(dataset: Dataset, parts: Any, output_id: str, record: dict[str, Any], progress: Any, automatic: bool) -> Path:
    """Write episodes made from a dataset, with the record of how.

    Args:
        dataset: Whose spaces, environment and metadata it keeps.
        parts: Episodes, see `minari_io.write`.
        output_id: Its id.
        record: See `data.provenance.stitch_record`.
        progress: Called with the episodes written.
        automatic: The id may be the next free one.
    """
    delta = record["config"].get("qualify", {}).get("delta")
    threshold = f", accepted at delta {delta:g} (squared distance in standardised state space)" if delta else ""
    if "verified" in record:
        threshold += f", and confirmed by the simulator {record['verified']['simulator']}"
    description = (
        f"{record['n_episodes']:,} episodes made from {record['source']} by {record['method']}{threshold}; "
        f"seed {record['seed']}, minari-stitch {record['version']}. Every step says in infos whether it is synthetic."
    )
    kept = {key: value for key, value in dataset.metadata.items() if key != ORACLE_KEY}  # it spoke of the other one
    metadata = kept | {
        "description": description,
        "algorithm_name": record["method"],
        RECORD_KEY: record,
    }
    metadata |= {LICENSE_KEY: license} if (license := record.get("license")) else {}
    return minari_io.write(
        parts,
        dataset_id=output_id,
        observation_space=dataset.observation_space,
        action_space=dataset.action_space,
        env_spec=dataset.env_spec,
        metadata=metadata,
        progress=progress,
        automatic=automatic,
    )


def _counting(run: Run, total: int) -> Callable[[int], None] | None:
    progress = run.progress
    return None if progress is None else lambda done: progress("write", done, total)
