"""The paper's own numbers, for the eye: scores on D4RL's datasets, which are other data than ours."""
# ruff: noqa: E501

from __future__ import annotations

ORIGINAL = "original"
Row = tuple[str, str, str, str]
"""Learner, `env/quality`, `original` or the suffix of an augmented dataset, ratio."""

_TABLE1 = """
halfcheetah/medium-expert 92.7±2.5 88.9±2.1 94.4±0.6 94.4±1.4 94.3±0.9 86.5±8.8 89.3±3.9 96±0.5 90.8±1.4 92.6±0.1
hopper/medium-expert 98.7±10 110.4±1.6 93.4±17.8 110.9±2.9 94.8±13 104±10.8 99±14.9 107.1±7 109.9±1.9 109.4±1.9
walker2d/medium-expert 112.4±0.8 111.7±1.1 110.7±0.6 111.6±0.1 109.9±0.8 110.5±0.3 110.7±0.7 110.2±0.3 108.1±0.3 108.6±0.4
halfcheetah/medium 48.5±0.3 49.3±0.1 48.2±0.1 49.4±0.14 48.4±0.1 48.4±0.4 48.1±0.2 50.4±0.5 40.4±2.2 44.2±0.3
hopper/medium 65.9±5.7 66.6±2.4 60.3±3.6 71±4.2 58±2.8 56.4±1.3 58.3±4.8 60.3±4.9 61.5±2.2 60.5±4.3
walker2d/medium 81.1±1.8 85.9±1.6 76.6±10.7 83.2±2.2 81.4±2.3 84.9±0.3 75.8±3.5 83.4±1.7 70.5±1.6 72±4.9
halfcheetah/medium-replay 44.1±0.5 46.6±0.1 44.2±0.1 44.7±0.1 44.5±0.2 45.2±0.1 44.5±0.3 44.7±0.3 39.8±1.6 41±0.4
hopper/medium-replay 91.4±8.1 102.4±0.5 79.6±7.6 102.1±0.4 64.8±19.2 56.8±9.9 64.1±10.5 79.6±13.5 83.6±3.9 96.1±2
walker2d/medium-replay 80.7±7 85.7±3.6 75±12.1 86.6±2.8 82.4±5 89.1±0.5 62.1±10.4 89.7±4.2 53.3±11.2 60.2±1.8
pen/human 79.1±28.5 88.9±22.6 96.8±8.6 87.4±8.6 -3.3±0.4 -2.8±1.5 7.3±14.1 29.8±6.9 62.8±2.1 70±6.8
pen/cloned 45.8±29.9 52.5±27.9 45.3±23.4 64±29.6 -3.1±0.4 -2.8±0.1 -3±0.3 11.3±6.2 57.7±3.3 59.7±9.6
"""
_TABLE2 = """
0:1 0.1±0.9 -0.5±1.0 1.2±0.3
1:2 91.7±2.3 91.5±3.7 92.6±0.1
1:1 94.1±1.2 91.7±3.7 92.5±0.6
2:1 93.2±2.8 93.9±1.0 91.5±1.0
4:1 96±0.5 94.4±1.4 92.4±0.5
1:0 94.3±0.9 92.7±2.5 90.8±1.4
"""
_TABLE3 = """
1 93.8±2.0 92±1.7 93.1±0.2
2 96±0.5 94.4±1.4 92.6±0.1
3 91.7±3.2 95±0.5 92.7±0.6
4 94.4±0.8 91.1±2.7 92.6±1
"""
_TABLE4 = """
iql halfcheetah/medium-expert 89.3±4.3 62.5±2.5 91.5±2.6 91.5±1.5
iql hopper/medium-replay 51±3.9 13±1.1 49.6±13.2 67.8±13.5
td3_bc halfcheetah/medium-expert 81.2±8.9 65.1±7.5 80.2±6.3 91.6±3.4
td3_bc hopper/medium-replay 52±10.1 13.5±1.3 6.7±3.7 64±25
dt halfcheetah/medium-expert 88.7±2.4 - - 92.6±0.16
dt hopper/medium-replay 49.3±8.3 - - 75.1±11.6
"""
_METHODS = (ORIGINAL, "ser", "tatu", "stitched")
_COLUMNS = [(algo, made) for algo in ("iql", "td3_bc") for made in _METHODS] + [("dt", ORIGINAL), ("dt", "stitched")]


def scores(suite: str) -> dict[Row, str]:
    """What the paper prints in a table, `mean±deviation`; nothing for other suites and for figure 5, which has bars."""
    rows = {"table1": _TABLE1, "table2": _TABLE2, "table3": _TABLE3, "table4": _TABLE4}.get(suite, "")
    found: dict[Row, str] = {}
    for first, *cells in (line.split() for line in rows.strip().splitlines()):
        which = "halfcheetah/medium-expert"
        match suite:
            case "table1":
                found |= {(a, first, m, _ratio(m)): cell for (a, m), cell in zip(_COLUMNS, cells, strict=True)}
            case "table2":
                made = ORIGINAL if first == "1:0" else "stitched"
                found |= {(a, which, made, first): c for a, c in zip(("td3_bc", "iql", "dt"), cells, strict=True)}
            case "table3":
                made = f"stitched-delta-{first}"
                found |= {(a, which, made, "4:1"): c for a, c in zip(("td3_bc", "iql", "dt"), cells, strict=True)}
            case "table4":
                found |= {
                    (first, cells[0], m, _ratio(m)): c for m, c in zip(_METHODS, cells[1:], strict=True) if c != "-"
                }
    return found


def _ratio(made: str) -> str:
    return "1:0" if made == ORIGINAL else "4:1"
