"""Re-qualify what was written: keep what holds at a smaller delta, or what a simulator confirms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minari_stitch.data import minari_io
from minari_stitch.data.dataset import Dataset
from minari_stitch.data.ids import id_of
from minari_stitch.data.provenance import stitch_record
from minari_stitch.errors import ConfigError, InvalidDataError, LowAcceptanceError
from minari_stitch.pipeline import Augmented, existing, write
from minari_stitch.transforms.again import filtering

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
    record = stitch_record(dataset.dataset_id, dataset.metadata)
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
    if automatic and not force and (made_before := existing(output_id, record)):
        return made_before
    path = write(dataset, episodes, output_id, record, None, automatic)
    return Augmented(dataset_id=id_of(path), path=path, report=record["report"], **made)
