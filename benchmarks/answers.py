"""Time and peak memory of what the command line answers at once.

    python benchmarks/answers.py
    git worktree add ../before 829a643 && python benchmarks/answers.py --before ../before

Each command runs in a process of its own, in turn with the others and with a bare `import torch`, so that a slower
moment of the machine hits all alike: compare figures within one run. CPU seconds count every thread of the process.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Optional

import numpy as np
import typer
from rich.console import Console

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks._timing import Section, Spread
from benchmarks._walk import SPACES, walk
from minari_stitch.data import minari_io

ROOT = Path(__file__).resolve().parents[1]
DATASET_ID = "bench/walk-v0"
TORCH = "import torch"
_COMMAND = "import sys; sys.argv[0] = 'minari-stitch'; from minari_stitch.cli import main; main()"
_COMPLETION = {
    "_MINARI_STITCH_COMPLETE": "complete_bash",
    "COMP_WORDS": "minari-stitch show ben",
    "COMP_CWORD": "2",
    "_TYPER_COMPLETE_ARGS": "minari-stitch show ben",
}
ANSWERS = {
    "--help": (["--help"], {}),
    "augment --help": (["augment", "--help"], {}),
    "completion of an id": ([], _COMPLETION),
    "a malformed id": (["show", "malformed id"], {}),
    "demo list": (["demo", "list"], {}),
    "runs list": (["runs", "list"], {}),
    "show, 1,000 steps": (["show", "bench/walk-resampled-v0"], {}),
}
"""Name -> the words of a command, and its environment."""
_PEAK = "import atexit; atexit.register(lambda: open({!r}, 'w').write(open('/proc/self/status').read()))\n"
"""What wait4 says of memory counts that of the process that started it."""


@dataclass(frozen=True)
class Cost:
    """Of one process.

    Attributes:
        seconds: CPU time of all its threads.
        mib: Peak resident memory.
    """

    seconds: float
    mib: float


def cost(code: str, words: list[str], environment: Mapping[str, str]) -> Cost:
    """Run Python code in a process of its own to its end; whether it succeeds is not asked."""
    with tempfile.NamedTemporaryFile("r") as status:
        process = subprocess.Popen(
            [sys.executable, "-c", _PEAK.format(status.name) + code, *words],
            cwd=tempfile.gettempdir(),  # a module of the working directory would come first
            env={**os.environ, **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _, _, usage = os.wait4(process.pid, 0)
        process.returncode = 0  # it has been waited for
        peak = next(line.split()[1] for line in status if line.startswith("VmHWM"))
    return Cost(usage.ru_utime + usage.ru_stime, int(peak) / 1024)


def measure(roots: Mapping[str, Path], repeats: int) -> dict[tuple[str, str], list[Cost]]:
    """Take turns: (what, version) -> its costs, of versions of this package by their folders."""
    found: dict[tuple[str, str], list[Cost]] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MINARI_DATASETS_PATH"] = folder
        minari_io.write(walk(1000, 10), dataset_id=DATASET_ID, **SPACES)
        words = ["augment", DATASET_ID, "--method", "resample", "--json"]
        cost(_COMMAND, words, {"PYTHONPATH": str(ROOT)})
        for _ in range(repeats):
            found.setdefault((TORCH, ""), []).append(cost(TORCH, [], {}))
            for name, (words, environment) in ANSWERS.items():
                for version, root in roots.items():
                    spent = cost(_COMMAND, words, environment | {"PYTHONPATH": str(root)})
                    found.setdefault((name, version), []).append(spent)
    return found


def main(
    before: Annotated[
        Optional[Path],  # noqa: UP045 - typer reads this at run time
        typer.Option(help="Checkout of another version, to compare with."),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds.")] = 5,
) -> None:
    """Report what fast answers cost (Linux: it reads /proc)."""
    roots = {"now": ROOT} | ({"before": before.resolve()} if before else {})
    section = Section("answers", "What is answered at once: CPU seconds and peak memory", f"{repeats} rounds, in turn.")
    spent = measure(roots, repeats)
    torch = np.median([one.seconds for one in spent[TORCH, ""]])
    for (name, version), costs in spent.items():
        seconds = np.array([one.seconds for one in costs])
        section.add(
            what=name,
            version=version,
            **{"CPU s": Spread.of(seconds), "of import torch": float(np.median(seconds) / torch)},
            MiB=round(max(one.mib for one in costs)),
        )
    section.show(Console(width=200))


if __name__ == "__main__":
    typer.run(main)
