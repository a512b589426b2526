"""Figures of a report as SVG that follows the page: its colours are the page's, in light and in dark."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, MUTED, REAL, MADE, BAD = "#1a1a1c", "#7a7a7d", "#2f6db4", "#d9881b", "#c23b32"
_VARIABLES = {INK: "ink", MUTED: "muted", REAL: "real", MADE: "made", BAD: "bad", "#000000": "ink"}
_STYLE: Any = {
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    **dict.fromkeys(("text.color", "axes.labelcolor"), INK),
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), MUTED),
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "legend.facecolor"), "none"),
    "legend.frameon": False,
}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure of the page.

    Attributes:
        title: What it shows.
        good: In one line, what good looks like.
        svg: The drawing.
    """

    title: str
    good: str
    svg: str


def svg(draw: Callable[[Figure], None], name: str, size: tuple[float, float] = (4.2, 2.9)) -> str:
    """An SVG element whose ids are its own, and whose colours are variables of the page.

    Args:
        draw: Draws on a figure.
        name: Unique on the page.
        size: In inches.
    """
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    return re.sub(
        r'<svg([^>]*?) width="[^"]*"', r'<svg\1 width="100%"', re.sub(r' height="[^"]*pt"', "", text, count=1)
    )


def plotted(name: str, title: str, good: str, draw: Callable[[Axes], None], **kwargs: Any) -> Picture:
    """A picture with one pair of axes."""
    return Picture(title=title, good=good, svg=svg(lambda figure: draw(figure.subplots()), name, **kwargs))


def rising(axes: Axes, curves: Mapping[str, tuple[np.ndarray, str]], label: str, line: float | None = None) -> None:
    """Share of values below x, on a logarithmic axis: name -> values and colour; a dashed line at a threshold."""
    for name, (values, colour) in curves.items():
        values = np.sort(values[~np.isnan(values)])
        if len(values):
            axes.plot(np.maximum(values, 1e-6), np.arange(1, len(values) + 1) / len(values), color=colour, label=name)
    if line is not None:
        axes.axvline(line, color=MUTED, ls="--", lw=1, label=f"delta {line:g}")
    axes.set(xscale="log", xlabel=label, ylabel="share below", ylim=(0, 1.02))
    axes.legend(loc="best")


def diagonal(axes: Axes, x: np.ndarray, y: np.ndarray, labels: tuple[str, str], colour: str = MADE) -> None:
    """Points and the line on which x is y."""
    shown = np.random.default_rng(0).permutation(len(x))[:800]
    span = [float(min(x.min(), y.min())), float(max(x.max(), y.max()))]
    axes.plot(span, span, color=MUTED, lw=1, ls="--")
    axes.scatter(x[shown], y[shown], s=7, color=colour, alpha=0.5, linewidths=0, rasterized=False)
    axes.set(xlabel=labels[0], ylabel=labels[1])


def counted(axes: Axes, tables: Mapping[str, tuple[np.ndarray, str]], label: str, bins: int = 30) -> None:
    """Histograms side by side, each as shares: name -> values and colour."""
    everything = np.concatenate([values for values, _ in tables.values()])
    edges = np.histogram_bin_edges(everything, bins)
    if everything.dtype.kind in "iu" and np.ptp(everything) < 2 * bins:
        edges = np.arange(everything.min(), everything.max() + 2) - 0.5
    for name, (values, colour) in tables.items():
        weights = np.full(len(values), 1 / max(1, len(values)))
        axes.hist(values, edges.tolist(), weights=weights, histtype="stepfilled", color=colour, alpha=0.55, label=name)
    axes.set(xlabel=label, ylabel="share")
    if len(tables) > 1:
        axes.legend(loc="best")


def bars(axes: Axes, names: Sequence[str], values: Sequence[float], label: str) -> None:
    """Horizontal bars from 0 to 1, the first on top."""
    axes.barh(range(len(names)), values, color=MADE, height=0.7)
    axes.set(yticks=range(len(names)), yticklabels=names, xlim=(0, 1), xlabel=label)
    axes.tick_params(axis="y", labelsize=8)
    axes.invert_yaxis()


def lines(axes: Axes, x: Sequence[float], curves: Mapping[str, tuple[Sequence[float], str]], label: str) -> None:
    """Shares over a logarithmic axis."""
    for name, (values, colour) in curves.items():
        axes.plot(x, values, "o-", ms=3.5, color=colour, label=name)
    axes.set(xscale="log", xlabel=label, ylabel="share", ylim=(0, 1.05))
    axes.set_xticks(x, labels=[f"{value:g}" for value in x], fontsize=8)
    axes.minorticks_off()
    axes.legend(loc="best")


def trace(axes: Axes, states: np.ndarray, begin: int, end: int, first: int) -> None:
    """The columns of states `(T, S)`, already chosen and standardised, that move most; generated ones in amber."""
    time = first + np.arange(len(states))
    for column in states.T:
        axes.plot(time[: begin + 1], column[: begin + 1], color=BAD, lw=1.4)
        axes.plot(time[begin : end + 1], column[begin : end + 1], color=MADE, lw=2)
        axes.plot(time[end:], column[end:], color=REAL, lw=1.4)
    axes.axvspan(time[begin], time[min(end, len(time) - 1)], color=MADE, alpha=0.12, lw=0)
    axes.set(xlabel="step", ylabel="state, standardised")
