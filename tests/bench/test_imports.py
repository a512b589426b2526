"""Modules of the benchmarks do not import each other in a circle, not even for the sake of types."""

import ast
import graphlib
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in (ROOT / "benchmarks").rglob("*.py")
}


def imports(name):
    """Modules of the benchmarks that a module imports anywhere, also inside functions."""
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module in MODULES:
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            yield from inner or {node.module}


def test_there_is_no_circle():
    graph = {name: set(imports(name)) for name in MODULES}
    assert {"benchmarks.data", "benchmarks.batches"} <= graph["benchmarks.algos"]
    assert "benchmarks.tables" in graph["benchmarks.report"]
    graphlib.TopologicalSorter(graph).prepare()  # raises a CycleError that names the circle
