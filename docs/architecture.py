"""Keep the tables of ARCHITECTURE.md true: packages and what each imports, and every module's own first line.

make architecture
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "docs" / "ARCHITECTURE.md"
_FOLDERS = {"minari_stitch": "minari_stitch", "minari_stitch.cli": "cli", "benchmarks": "benchmarks"}
PACKAGES = {name: ROOT / folder for name, folder in _FOLDERS.items()}


def modules() -> dict[str, Path]:
    """Dotted name -> file of every module with code of its own."""
    found = {}
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            name = ".".join([package, *parts]).removesuffix(".__init__")
            if "results" not in parts and len(path.read_text().splitlines()) > 3:
                found[name] = path
    return found


def imported(name: str, path: Path) -> Iterator[str]:
    """Dotted names that a module imports anywhere, also inside functions and for types."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            yield from (".".join(filter(None, [*base, node.module, alias.name])) for alias in node.names)


def place(name: str) -> str:
    """The package that a module stands in; a module at the top stands for itself."""
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] == "minari_stitch" and len(parts) > 1 else parts[0]


def graph() -> dict[str, set[str]]:
    """Package or top module -> those it imports."""
    files = modules()
    arrows: dict[str, set[str]] = {place(name): set() for name in files}
    for name, path in files.items():
        for target in imported(name, path):
            while target and target not in files:
                target = target.rpartition(".")[0]
            if target and place(target) != place(name):
                arrows[place(name)].add(place(target))
    return arrows


def floors(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Packages from the bottom up: each imports only from lower floors.

    Raises:
        ValueError: There is a circle.
    """
    remaining, result = dict(arrows), []
    while remaining:
        free = sorted(name for name, below in remaining.items() if not below & remaining.keys())
        if not free:
            raise ValueError(f"a circle of imports among {', '.join(sorted(remaining))}")
        result.append(free)
        remaining = {name: below for name, below in remaining.items() if name not in free}
    return result


def packages_table() -> str:
    """Floors of packages, what each holds and imports."""
    files, arrows = modules(), graph()
    rows = ["| floor | package | modules | lines | imports |", "|---|---|---|---|---|"]
    for number, floor in enumerate(floors(arrows)):
        for name in floor:
            own = [path for module, path in files.items() if place(module) == name]
            lines = sum(len(path.read_text().splitlines()) for path in own)
            below = ", ".join(f"`{_short(other)}`" for other in sorted(arrows[name]))
            rows.append(f"| {number} | `{_short(name)}` | {len(own)} | {round(lines, -2) or lines} | {below} |")
    return "\n".join(rows)


def modules_table() -> str:
    """The first line of every module of the library."""
    rows = ["| module | its one idea |", "|---|---|"]
    for name, path in modules().items():
        first = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]
        rows.append(f"| `{_short(name)}` | {first.replace('|', chr(92) + '|')} |")
    return "\n".join(rows)


def written(text: str) -> str:
    """The document with its tables made anew."""
    for marker, table in {"packages": packages_table(), "modules": modules_table()}.items():
        begin, end = f"<!-- {marker} -->\n", "<!-- end -->"
        before, rest = text.split(begin)
        text = before + begin + table + "\n" + end + rest.partition(end)[2]
    return text


def _short(name: str) -> str:
    return name.removeprefix("minari_stitch.")


if __name__ == "__main__":
    FILE.write_text(written(FILE.read_text(encoding="utf-8")), encoding="utf-8")
