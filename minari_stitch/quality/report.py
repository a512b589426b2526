"""One page about a dataset: is it valid, true, new and useful, what it looks like, and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from minari_stitch.data.dataset import Dataset
from minari_stitch.data.mix import MIX_KEY
from minari_stitch.data.provenance import RECORD_KEY
from minari_stitch.data.storage import replacing, storage_errors
from minari_stitch.errors import StorageError
from minari_stitch.quality import plots
from minari_stitch.quality.check import Checked
from minari_stitch.quality.learners import learners
from minari_stitch.quality.measures import Measured, novelty, usefulness
from minari_stitch.quality.plots import BAD, MADE, MUTED, REAL, Picture
from minari_stitch.quality.rows import plain_numbers
from minari_stitch.quality.seen import Strip
from minari_stitch.quality.verdicts import Verdict, advice, number, percent, verdicts
from minari_stitch.quality.verify import Verified
from minari_stitch.transforms.again import again


@dataclass(frozen=True, kw_only=True)
class Report:
    """What is known about a dataset.

    Attributes:
        dataset_id: The dataset.
        values: By section, plain values.
        verdicts: Section -> verdict, and why in a line.
        pictures: By section.
        strips: Bridges to look at.
        remark: About the strips.
    """

    dataset_id: str
    values: Mapping[str, Any]
    verdicts: Mapping[str, tuple[Verdict, str]]
    pictures: Mapping[str, Sequence[Picture]]
    strips: Sequence[Strip] = ()
    remark: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, without pictures."""
        verdict, what = self.advice
        verdicts = {section: {"verdict": verdict, "why": why} for section, (verdict, why) in self.verdicts.items()}
        about = {"dataset_id": self.dataset_id, "advice": {"verdict": verdict, "what": what}, "verdicts": verdicts}
        return plain_numbers({**about, **self.values})

    @property
    def advice(self) -> tuple[Verdict, str]:
        """Whether to train on it, in a line."""
        return advice(self.verdicts, generated=bool(self.values["useful"]["synthetic_steps"]))


@dataclass(frozen=True, kw_only=True)
class Page:
    """Reports as one HTML page that needs nothing but itself.

    Attributes:
        reports: One, or several side by side.
    """

    reports: Sequence[Report]

    @property
    def html(self) -> str:
        """The page."""
        return page(self.reports)

    def to_dict(self) -> dict[str, Any]:
        """Plain values: of one report its own, of several by dataset id."""
        found = {report.dataset_id: report.to_dict() for report in self.reports}
        return next(iter(found.values())) if len(found) == 1 else found

    def save(self, path: str | Path) -> Path:
        """Write the page.

        Raises:
            StorageError: It cannot be written.
        """
        path = check_output(Path(path))
        with storage_errors(path.parent), replacing(path, "name another file") as aside:
            aside.write_text(self.html, encoding="utf-8")
        return path


def check_output(path: Path) -> Path:
    """Make sure, before long work, that a page can be written there.

    Raises:
        StorageError: It cannot.
    """
    if path.is_dir():
        raise StorageError(f"{path} is a folder: name a file, such as {path / 'report.html'}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot write {path} ({error.strerror}): name another file") from error
    return path


def gather(
    dataset: Dataset,
    source: Dataset | None,
    checked: Checked,
    verified: Verified | None,
    scale: np.ndarray,
    *,
    results: Path | None,
    name: str,
    seen: tuple[Sequence[Strip], str],
) -> Report:
    """Put together what is known.

    Args:
        dataset: Read with its infos.
        source: What it was made from, if that is still there.
        checked: Of `check`.
        verified: Of `verify`; None where nothing could be said.
        scale: `(S,)` a unit of each dimension.
        results: Folder of the benchmarks' results.
        name: Unique on the page.
        seen: Strips, and a remark about them.
    """
    new, use = novelty(dataset, source, scale), usefulness(dataset, source)
    learned = []
    if results is not None and results.is_dir() and RECORD_KEY in dataset.metadata:
        learned = learners(dataset.dataset_id, results)
    values = {
        "valid": checked.to_dict(),
        "true": None if verified is None else verified.to_dict(),
        "new": new.values,
        "useful": {**use.values, "learners": learned},
        "provenance": _provenance(dataset),
    }
    return Report(
        dataset_id=dataset.dataset_id,
        values=values,
        verdicts=verdicts(checked, verified, new.values, values["useful"]),
        pictures={
            "true": _of_truth(verified, name),
            "new": _of_novelty(new, name),
            "useful": _of_use(use, name),
        },
        strips=seen[0],
        remark=seen[1],
    )


def page(reports: Sequence[Report]) -> str:
    """One or more reports as a self-contained HTML page, side by side."""
    text = resources.files("minari_stitch.quality").joinpath("page.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"number": number, "percent": percent}
    return environment.from_string(text).render(reports=reports)


def _of_truth(verified: Verified | None, name: str) -> list[Picture]:
    if verified is None:
        return []
    arrays, drawn = verified.arrays, []
    if len(arrays.get("worst", ())):
        curves = {"bridges": (arrays["worst"], MADE)}
        if len(real := arrays.get("real", np.zeros(0))) and np.nanmax(real, initial=0) > 1e-5:
            curves["real steps"] = real, REAL
        title = f"Largest error of each bridge, by {verified.judge}"
        good = "Good: the curve reaches the top left of the dashed line."
        draw = partial(plots.rising, curves=curves, label="squared error, standardised", line=verified.delta)
        drawn.append(plots.plotted(f"{name}-error", title, good, draw))
    if "reward" in arrays and (known := ~np.isnan(arrays["reward_simulated"])).any():
        x, y = arrays["reward_simulated"][known], arrays["reward"][known]
        draw = partial(plots.diagonal, x=x, y=y, labels=("reward of the simulator", "reward in the dataset"))
        good = "Good: all points lie on the diagonal; a shift is a reward offset."
        drawn.append(plots.plotted(f"{name}-reward", "Rewards of generated steps", good, draw))
    rows = verified.proposals.get("agreement") or [
        {"delta": float(delta), **row}
        for delta, row in sorted(verified.agreement.items(), key=lambda row: float(row[0]))
    ]
    if len(rows) > 1:
        kinds = (("precision", MADE), ("recall", REAL), ("accepted", MUTED))
        curves = {kind: ([row[kind] for row in rows], colour) for kind, colour in kinds}
        draw = partial(plots.lines, x=[row["delta"] for row in rows], curves=curves, label="delta")
        of = "all proposals" if verified.proposals else "the bridges that were written"
        good = "Good: precision above 0.9 at the delta in use."
        drawn.append(plots.plotted(f"{name}-delta", f"What delta is worth, of {of}", good, draw))
    return drawn


def _of_novelty(new: Measured, name: str) -> list[Picture]:
    if not new.values:
        return []
    arrays = new.arrays
    curves = {"generated": (arrays["generated"], MADE), "held-out real": (arrays["held_out"], REAL)}
    worst = new.values["worst_columns"]

    def four(figure: Any) -> None:
        for k, (axes, column) in enumerate(zip(figure.subplots(2, 2).ravel(), worst, strict=False)):
            tables = {"generated": (arrays["ours"][:, k], MADE), "real": (arrays["real"][:, k], REAL)}
            clipped = np.quantile(arrays["real"][:, k], [0.005, 0.995])
            plots.counted(axes, {n: (np.clip(v, *clipped), c) for n, (v, c) in tables.items()}, column)
            axes.set(ylabel="", yticks=[])
            if k:
                axes.get_legend().remove()

    return [
        plots.plotted(
            f"{name}-near",
            "Distance to the nearest real state",
            "Good: amber near blue. Far right is invented; far left is copied.",
            partial(plots.rising, curves=curves, label="distance, standardised"),
        ),
        plots.plotted(
            f"{name}-columns",
            "How alike each column is: the ten least",
            "Good: above 0.8; bridges are where returns are low, so 1 is not the aim.",
            partial(plots.bars, names=list(worst), values=list(worst.values()), label="1 is alike"),
        ),
        Picture(
            title="The four columns that differ most",
            good="Good: amber within blue; a shift of the whole is a fault.",
            svg=plots.svg(four, f"{name}-marginals"),
        ),
    ]


def _of_use(use: Measured, name: str) -> list[Picture]:
    arrays, drawn = use.arrays, []
    if "before" in arrays:
        draw = partial(plots.diagonal, x=arrays["before"], y=arrays["after"], labels=("return before", "return after"))
        good = "Good: points far above the diagonal."
        drawn.append(plots.plotted(f"{name}-raised", "Discounted return from each bridge on", good, draw))
    if "source_returns" in arrays:
        tables = {"source": (arrays["source_returns"], REAL), "made": (arrays["returns"], MADE)}
        draw = partial(plots.counted, tables=tables, label="return of an episode")
        good = "Good: amber further right than blue (whole episodes only)."
        drawn.append(plots.plotted(f"{name}-returns", "Returns of episodes", good, draw))
    if "lengths" in arrays:
        draw = partial(plots.counted, tables={"": (arrays["lengths"], MADE)}, label="generated steps in a row")
        drawn.append(plots.plotted(f"{name}-lengths", "Length of bridges", "Good: no pile at either end.", draw))
    if "from" in arrays and len(arrays["from"]):
        labels = ("return of the source episode", "return of the target episode")
        draw = partial(plots.diagonal, x=arrays["from"], y=arrays["to"], labels=labels, colour=BAD)
        good = "Good: a wide cloud above the diagonal; columns or rows mean few sources or targets."
        drawn.append(plots.plotted(f"{name}-joined", "Who was joined to whom", good, draw))
    if len(arrays["share"]) and arrays["share"].max() > 0:
        draw = partial(plots.counted, tables={"": (arrays["share"], MADE)}, label="generated share of an episode")
        good = "Good: a share that your learner will see; bridges alone have a large one."
        drawn.append(plots.plotted(f"{name}-share", "Generated steps of each episode", good, draw))
    return drawn


def _provenance(dataset: Dataset) -> dict[str, Any]:
    metadata = dataset.metadata
    record = metadata.get(RECORD_KEY)
    found: dict[str, Any] = {"description": metadata.get("description"), "fingerprint": dataset.fingerprint}
    found["environment"] = dataset.env_spec.id if dataset.env_spec else None
    if record:
        names = ("method", "source", "source_fingerprint", "seed", "version", "device", "precision", "threads")
        found |= {name: record.get(name) for name in (*names, "filtered_from", "verified") if name in record}
        found |= {
            "command": record.get("command") or ([] if "filtered_from" in record else again(record)),
            "config": record["config"],
            "outcomes": record["report"],
        }
    elif MIX_KEY in metadata:
        found["sources"] = [row["dataset_id"] for row in metadata[MIX_KEY]["sources"]]
    return found
