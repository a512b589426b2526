"""A diagnosis as a table and as a page of figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def rows(sections: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str, str, str]]:
    """Section, what, original, mix; a figure that is not of a run stands under the mix."""
    found = []
    for section, values in sections.items():
        for name, value in values.items():
            original, mix = value if isinstance(value, tuple) else ("", value)
            found.append((section, name, _text(original), _text(mix)))
    return found


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3g}"


def plot(sections: Mapping[str, Mapping[str, Any]], path: Path, title: str) -> None:
    """One page: a panel for each section that compares the two runs."""
    from matplotlib.figure import Figure

    panels = {
        name: {what: value for what, value in values.items() if isinstance(value, tuple)}
        for name, values in sections.items()
    }
    panels = {name: values for name, values in panels.items() if values}
    sizes = [len(values) for values in panels.values()]
    figure = Figure(figsize=(9, 1 + 0.75 * sum(sizes)), layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=sizes)[:, 0]
    for axis, (name, values) in zip(axes, panels.items(), strict=True):
        for row, pair in enumerate(values.values()):
            top = max(map(abs, pair)) or 1.0
            for k, value in enumerate(pair):
                y = row + 0.2 * (2 * k - 1)
                axis.barh(y, value / top, 0.36, color=f"C{k}")
                axis.text(max(value / top, 0) + 0.01, y, _text(value), va="center", fontsize="small")
        axis.set_yticks(range(len(values)), list(values), fontsize="small")
        axis.invert_yaxis()
        axis.set_xticks([])
        axis.set_xlim(right=1.15)
        axis.axvline(0, color="black", linewidth=0.6)
        axis.set_title(name, loc="left", fontsize="medium")
        axis.spines[["top", "right", "bottom"]].set_visible(False)
    labels = ("original", "mix")
    figure.legend(handles=[axes[0].patches[k] for k in range(2)], labels=labels, loc="outside lower center", ncols=2)
    figure.suptitle(title, x=0.01, ha="left", fontsize="medium")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
