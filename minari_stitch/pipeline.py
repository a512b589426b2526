"""The main job: fit a transform to a dataset, sample, and write a new version; and re-qualify what was written."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from minari_stitch.asked import asked_for, twin
from minari_stitch.cost import Estimate, room, written
from minari_stitch.data import minari_io
from minari_stitch.data.card import LICENSE_KEY
from minari_stitch.data.ids import datasets_path, id_of
from minari_stitch.data.kept import runs_path
from minari_stitch.data.minari_io import Dataset
from minari_stitch.data.provenance import ORACLE_KEY, RECORD_KEY, original, synthetic_sources
from minari_stitch.data.written import Written
from minari_stitch.errors import ConfigError, InvalidDataError, LowAcceptanceError
from minari_stitch.run import Run
from minari_stitch.sim.tasks import goals_of
from minari_stitch.transforms.again import again, filtering
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
    if automatic and not force and (made := _existing(output_id, asked)):
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
    path = _write(dataset, parts, output_id, record, _counting(run, total), automatic)
    return Augmented(
        dataset_id=id_of(path),
        path=path,
        n_steps=sample.n_steps,
        n_episodes=sample.n_episodes,
        n_synthetic=record["n_synthetic"],
        report=sample.report,
    )


def _existing(output_id: str, asked: Mapping[str, Any]) -> Augmented | None:
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


_DOUBTS = {
    "calibrated": ("error_bound",),
    "judges": ("dynamics_error", "disagreement"),
    "error": ("dynamics_error",),
}
"""What delta is compared with, by `QualifyConfig.doubt`; methods without a rule compare as `judges`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Confirmed:
    """What a simulator says about the episodes of a dataset.

    Attributes:
        episodes: `(E,)` bool.
        simulator: Id of the environment.
        delta: Threshold: the largest error of a generated step, squared distance in standardised state space.
    """

    episodes: np.ndarray
    simulator: str
    delta: float


def refilter(
    dataset: Dataset,
    delta: float | None,
    *,
    output_id: str | None = None,
    confirmed: Confirmed | None = None,
    force: bool = False,
) -> Augmented:
    """Keep the augmented episodes of a dataset that qualify at a smaller delta, and its original ones.

    Args:
        dataset: One that `augment` wrote, read with its infos.
        delta: The smaller threshold, squared distance in standardised state space; None keeps that of the dataset.
        output_id: Id of the new dataset; by default the next free version of the same name.
        confirmed: What the simulator confirms, where it was asked; the others go.
        force: Write it once more, in the next free version, where it is there already.

    Raises:
        ConfigError: delta is not positive and smaller than the one the dataset was made with.
        InvalidDataError: The dataset was not written by `augment`.
        LowAcceptanceError: No augmented episode is left.
    """
    dataset_id = dataset.dataset_id
    record = stitch_record(dataset)
    if not all("augmented" in about for about in dataset.episodes.metadata):
        raise InvalidDataError(f"{dataset_id!r} was read without its infos: give its id, or read it with keep_infos")
    qualify = record["config"].get("qualify", {"delta": np.inf})
    augmented = np.array([metadata["augmented"] for metadata in dataset.episodes.metadata])
    metadata = [about for about in dataset.episodes.metadata if about["augmented"]]
    if not all("dynamics_error" in about for about in metadata):
        raise InvalidDataError(f"{dataset_id!r} was made by {record['method']}: it holds real steps, all consistent")
    asked, threshold = delta is not None, float(qualify["delta"] if delta is None else delta)
    if not threshold > 0:
        raise ConfigError(f"delta={threshold:g} is not possible: use a positive squared distance, such as 0.5")
    if threshold > qualify["delta"]:
        raise ConfigError(
            f"delta={threshold:g} is not possible: {dataset_id} holds what qualified at {qualify['delta']:g}; use a "
            "smaller one, or augment again, which reuses its models"
        )
    errors = np.zeros(len(augmented))
    doubts = _DOUBTS[qualify.get("doubt", "judges")]
    errors[augmented] = [max(about[doubt] for doubt in doubts) for about in metadata]
    near = errors < threshold if asked else np.ones(len(errors), bool)
    kept = np.flatnonzero(near if confirmed is None else near & (confirmed.episodes | ~augmented))
    if not augmented[kept].any():
        if confirmed is not None and near[augmented].any():
            raise LowAcceptanceError(
                f"the simulator confirms none of {int(near[augmented].sum()):,} augmented episodes of {dataset_id} "
                f"at delta {confirmed.delta:g}: augment again with other settings"
            )
        smallest = errors[augmented].min()
        raise LowAcceptanceError(
            f"no augmented episode of {dataset_id} qualifies at delta {threshold:g}: the smallest error is "
            f"{smallest:.3g}; use a larger delta"
        )
    episodes = dataset.episodes.select(kept)
    made: dict[str, Any] = {
        "n_steps": int(episodes.lengths[augmented[kept]].sum()),
        "n_episodes": int(augmented[kept].sum()),
        "n_synthetic": int(episodes.infos["synthetic"][episodes.step_state].sum()),
    }
    record |= {"filtered_from": dataset_id, **made}
    record["command"] = [*record.get("command", []), *filtering(dataset_id, delta, confirmed is not None)]
    if asked:
        record["config"] = record["config"] | {"qualify": qualify | {"delta": delta}}
    if confirmed is not None:
        counts = {"confirmed": made["n_episodes"], "of": int((augmented & near).sum())}
        record["verified"] = {"simulator": confirmed.simulator, "delta": confirmed.delta, **counts}
    name, _, _ = dataset_id.rpartition("-v")
    automatic, output_id = not output_id, output_id or minari_io.next_id(f"{name}-v0", suffix="")
    if automatic and not force and (made_before := _existing(output_id, record)):
        return made_before
    path = _write(dataset, episodes, output_id, record, None, automatic)
    return Augmented(dataset_id=id_of(path), path=path, report=record["report"], **made)


_RECORD = {"method": str, "source": str, "seed": int, "config": Mapping, "report": Mapping, "n_episodes": int}
_RECORD |= {"n_steps": int, "include_original": bool}
"""What a record holds at least."""


def stitch_record(dataset: Dataset) -> dict[str, Any]:
    """Our own record in a dataset's metadata.

    Raises:
        InvalidDataError: There is none.
    """
    record = dataset.metadata.get(RECORD_KEY)
    if record is None and (parts := synthetic_sources(dataset.metadata)):
        raise InvalidDataError(
            f"{dataset.dataset_id!r} is a mix: give the augmented dataset that went into it, {' or '.join(parts)}, and "
            "mix again"
        )
    if record is None:
        raise InvalidDataError(
            f"{dataset.dataset_id!r} was not written by minari-stitch: give the id of an augmented dataset, or make "
            f"one with `minari-stitch augment {dataset.dataset_id}`"
        )
    sound = isinstance(record, Mapping) and all(isinstance(record.get(name), kind) for name, kind in _RECORD.items())
    if not sound:
        raise InvalidDataError(
            f"{dataset.dataset_id!r} has a damaged record of how it was made ({RECORD_KEY} in its metadata): delete it "
            f"with `minari delete {dataset.dataset_id}` and augment again"
        )
    return dict(record)


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


def _write(
    dataset: Dataset, parts: Any, output_id: str, record: dict[str, Any], progress: Any, automatic: bool
) -> Path:
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
