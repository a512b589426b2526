"""Results of learners, as the benchmarks keep them: of which data they are, and what they say about a dataset."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from minari_stitch.data.ids import datasets_path
from minari_stitch.errors import StorageError

_IDENTITY = ("ref_min_score", "ref_max_score", "dataset_id", "total_episodes", "total_steps", "demo", "minari_stitch")


def learners(dataset_id: str, folder: Path) -> list[dict[str, Any]]:
    """What learners got out of a dataset as it is now, and out of its source; nothing where there are no results.

    Args:
        dataset_id: A local augmented dataset.
        folder: Of the results.

    Returns:
        For each learner and ratio: `algo`, `budget`, `ratio`, `data`, `n` seeds, `mean` and `spread` of scores.
    """
    rows = [row for row in _rows(folder) if isinstance(row.get("score"), int | float)]
    made = identity(dataset_id) if rows else ""
    used = [row for row in rows if row["cell"].get("made") == made]
    sources = {row["cell"].get("source") for row in used}
    plain = [row for row in rows if not row["cell"].get("augmented") and row["cell"].get("source") in sources]
    scores: dict[tuple[str, str, str, str], list[float]] = {}
    for data, found in (("augmented", used), ("original", plain)):
        for row in found:
            cell = row["cell"]
            key = cell["algo"], cell.get("budget", ""), data, cell["ratio"]
            scores.setdefault(key, []).append(float(row["score"]))
    trained = {key[:2] for key in scores if key[2] == "augmented"}
    return [
        {
            "algo": algo, "budget": budget, "data": data, "ratio": ratio, "n": len(found),
            "mean": float(np.mean(found)), "spread": float(np.std(found, ddof=1)) if len(found) > 1 else None,
        }
        for (algo, budget, data, ratio), found in sorted(scores.items()) if (algo, budget) in trained
    ]  # fmt: skip


def _rows(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:  # a line that a killed run did not finish
                continue
            if isinstance(row, dict) and isinstance(row.get("cell"), dict):
                yield row


def digest(value: Any) -> str:
    """Short hash of plain values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def identity(dataset_id: str) -> str:
    """Digest of what the metadata of a local dataset say about its content: totals, and how it was made.

    Raises:
        StorageError: Metadata cannot be read.
    """
    path = datasets_path() / dataset_id / "data" / "metadata.json"
    try:
        metadata = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise StorageError(
            f"metadata of {dataset_id!r} cannot be read from {path} ({error}): download or make the dataset again"
        ) from error
    known = {name: metadata.get(name) for name in _IDENTITY}
    return digest(known | ({"ogbench": metadata["ogbench"]} if "ogbench" in metadata else {}))
