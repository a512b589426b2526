"""The card of a dataset: a README.md in its folder, in the form that Hugging Face shows, made of its metadata alone.

Minari's `upload` pushes the folder, and so the card.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minari_stitch.data.provenance import ORACLE_KEY, RECORD_KEY
from minari_stitch.data.storage import replacing
from minari_stitch.errors import ConfigError

CARD = "README.md"
FIGURES_KEY = "minari_stitch_figures"
"""Key, in a dataset's metadata, of what a `Tally` counted."""
LICENSE_KEY = "license"
"""Key, in a dataset's metadata, of its licence: Hugging Face's word for it (`cc-by-4.0`), or a list of several."""
_MARK = "<!-- minari-stitch wrote this card; `minari-stitch card` renews it, unless this line is gone -->"
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"), (10**7, "1M<n<10M"))


class Tally:
    """Counts what a card says about the episodes of a dataset, one after the other."""

    def __init__(self) -> None:
        self._returns: list[float] = []
        self._lengths: list[int] = []
        self._terminated = self._synthetic = 0

    def add(self, episode: Mapping[str, Any]) -> None:
        """Count an episode in the form in which it is stored."""
        self._returns.append(float(np.sum(episode["rewards"], dtype=np.float64)))
        self._lengths.append(len(episode["rewards"]))
        self._terminated += bool(np.any(episode["terminations"]))
        infos = episode["infos"] if isinstance(episode["infos"], Mapping) else {}
        self._synthetic += int(np.sum(infos.get("synthetic", 0)))

    def figures(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "returns": _spread(self._returns),
            "lengths": _spread(self._lengths),
            "terminated": self._terminated,
            "n_synthetic": self._synthetic,
        }


def card(metadata: Mapping[str, Any]) -> str:
    """The text of a card.

    Args:
        metadata: Of the dataset, as its `metadata.json` holds them.
    """
    record, dataset_id = metadata.get(RECORD_KEY) or {}, metadata["dataset_id"]
    parts = [_front(metadata, record), _MARK, f"# {dataset_id}", metadata.get("description") or "A Minari dataset."]
    parts += ["## What it is", _table(_what(metadata, record))]
    if record:
        parts += ["## How it was made", _table(_how(record)), *_commands(record, metadata)]
    if oracle := metadata.get(ORACLE_KEY):
        parts += ["## Is it true", _truth(oracle)]
    parts += ["## How to load it", _loading(dataset_id, record)]
    return "\n\n".join(parts) + "\n"


def checked_license(license: str) -> str:
    """A licence as Hugging Face writes it.

    Raises:
        ConfigError: It is written otherwise.
    """
    if not re.fullmatch(r"[a-z0-9]+([-.][a-z0-9]+)*", license):
        raise ConfigError(
            f"license={license!r} is not possible: use Hugging Face's word for it, such as cc-by-4.0, mit, apache-2.0, "
            "other or unknown"
        )
    return license


def with_license(metadata: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Metadata of a dataset, with the licence on the card in its folder where they say none."""
    path = folder / CARD
    if LICENSE_KEY in metadata or not path.is_file():
        return dict(metadata)
    front = re.match(r"---\n(.*?)\n---", path.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    found = re.search(r"^license:[ \t]*[\"']?([\w.-]+)", front[1], re.MULTILINE) if front else None
    known = {LICENSE_KEY: found[1]} if found and found[1] != "unknown" else {}
    return {**metadata, **known}


def write_card(folder: Path, *, renew: bool = False) -> Path | None:
    """Write the card of the dataset in a folder.

    Args:
        folder: Of the dataset, with `data/metadata.json`.
        renew: Only where there is one of ours.

    Returns:
        The file; None where it is somebody else's, or `renew` found none.

    Raises:
        StorageError: It cannot be written.
    """
    path = folder / CARD
    ours = path.is_file() and _MARK in path.read_text(encoding="utf-8", errors="replace")
    if (renew or path.exists()) and not ours:
        return None
    text = card(json.loads((folder / "data" / "metadata.json").read_text(encoding="utf-8")))
    with replacing(path, "set MINARI_DATASETS_PATH elsewhere") as aside:
        aside.write_text(text, encoding="utf-8")
    return path


def _front(metadata: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    steps = int(metadata["total_steps"])
    size = next((name for most, name in _SIZES if steps < most), "n>10M")
    tags = ["minari", "gymnasium", "offline-reinforcement-learning"]
    if env := _environment(metadata):
        tags.append(env)
    if record:
        tags += ["synthetic", str(record.get("method", "unknown")).lower().replace(" ", "-")]
    lines = [
        f"license: {json.dumps(_license(metadata) or 'unknown')}",
        f"pretty_name: {json.dumps(metadata['dataset_id'])}",
        "task_categories:\n- reinforcement-learning",
        f"size_categories:\n- {size}",
        "source_datasets:\n" + "\n".join(f"- {json.dumps(one)}" for one in _sources(metadata, record)),
        "tags:\n" + "\n".join(f"- {json.dumps(tag)}" for tag in tags),
    ]
    return "\n".join(["---", *lines, "---"])


def _license(metadata: Mapping[str, Any]) -> Any:
    return metadata.get(LICENSE_KEY) or ("mit" if "demo" in metadata else None)


def _sources(metadata: Mapping[str, Any], record: Mapping[str, Any]) -> list[str]:
    if "source" in record:
        return [record["source"]]
    mixed = metadata.get("minari_stitch_mix") or {}
    return [source["dataset_id"] for source in mixed.get("sources", [])] or ["original"]


def _what(metadata: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, str]:
    figures = metadata.get(FIGURES_KEY) or {}
    rows = {
        "environment": _environment(metadata) or "none is named",
        "episodes": f"{int(metadata['total_episodes']):,}",
        "steps": f"{int(metadata['total_steps']):,}",
    }
    if figures.get("n_synthetic") or record:
        made = figures.get("n_synthetic", record.get("n_synthetic", 0))
        rows["generated steps"] = f"{made:,} ({made / max(1, int(metadata['total_steps'])):.1%})"
    for name, title in (("returns", "return of an episode"), ("lengths", "steps of an episode")):
        if spread := figures.get(name):
            rows[title] = "{min:,.6g} to {max:,.6g}, median {median:,.6g}, mean {mean:,.6g}".format(**spread)
    if "terminated" in figures:
        rows["episodes that terminate"] = f"{figures['terminated']:,}"
    low, high = metadata.get("ref_min_score"), metadata.get("ref_max_score")
    rows["reference scores"] = "none" if low is None or high is None else f"{low:,.6g} to {high:,.6g}"
    known = _license(metadata)
    names = ", ".join([known] if isinstance(known, str) else known or [])
    rows["licence"] = names or (
        "not known: ask whoever made the source, and set it with `minari-stitch card` before you publish"
    )
    return rows


def _how(record: Mapping[str, Any]) -> dict[str, str]:
    """A row for whatever a record says; those of other versions say less."""
    rows = {"method": record.get("method"), "source": record.get("source")}
    if rows["source"] and "source_fingerprint" in record:
        rows["source"] = f"`{rows['source']}`, fingerprint {record['source_fingerprint']}"
    if delta := (record.get("config") or {}).get("qualify", {}).get("delta"):
        rows["delta"] = f"{delta:g} (squared distance in standardised state space)"
    report = record.get("report") or {}
    if report.get("proposed"):
        rows["accepted"] = f"{report['accepted']:,} of {report['proposed']:,} proposed bridges"
    if verified := record.get("verified"):
        rows["kept"] = (
            f"what {verified['simulator']} confirms: {verified['confirmed']:,} of {verified['of']:,} episodes"
        )
    rows |= {"seed": record.get("seed"), "minari-stitch": record.get("version")}
    return {name: str(value) for name, value in rows.items() if value is not None}


def _commands(record: Mapping[str, Any], metadata: Mapping[str, Any]) -> list[str]:
    lines = record.get("command") or (metadata.get(FIGURES_KEY) or {}).get("command") or []
    return ["Made again by:", "```console\n" + "\n".join(lines) + "\n```"] if lines else []


def _truth(oracle: Mapping[str, Any]) -> str:
    bridges, judge = oracle.get("bridges") or {}, oracle.get("judge", "the simulator")
    if not bridges.get("n"):
        return (
            f"Its real steps were put to {judge}: {'they come out as recorded' if oracle.get('ok') else 'see verify'}."
        )
    said = (
        f"By {judge}, {bridges['confirmed']:.1%} of {bridges['n']:,} bridges are within delta {oracle['delta']:g}; the "
        f"largest error of a bridge is {bridges['median']:.3g} in the median."
    )
    found = [finding["what"] for finding in oracle.get("findings", []) if finding["level"] == "error"]
    return said + "".join(f"\n\n**Not as it should be:** {what}" for what in found)


def _loading(dataset_id: str, record: Mapping[str, Any]) -> str:
    lines = [
        "import minari",
        "",
        f'dataset = minari.load_dataset("{dataset_id}", download=True)',
        "episode = dataset[0]",
    ]
    if record:
        lines.append('generated = episode.infos["synthetic"][:-1, 0]  # which steps a model made')
    said = "```python\n" + "\n".join(lines) + "\n```"
    return (
        said
        if not record
        else f"{said}\n\nEvery step says in its infos whether it was generated, and where it is from."
    )


def _environment(metadata: Mapping[str, Any]) -> str | None:
    spec = metadata.get("env_spec")
    spec = json.loads(spec) if isinstance(spec, str) else spec
    return spec.get("id") if isinstance(spec, Mapping) else None


def _table(rows: Mapping[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])


def _spread(values: list[Any]) -> dict[str, float]:
    found = np.asarray(values, np.float64)
    return {name: float(getattr(np, name)(found)) for name in ("min", "median", "mean", "max")}
