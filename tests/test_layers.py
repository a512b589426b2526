"""Imports inside the package point downwards only, and only `minari_io` and `publish` know Minari."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "minari_stitch"
CLI = ROOT / "cli"

# From the bottom up; modules of one line do not import each other.
LAYERS = [
    {
        "errors",
        "policies",
        "progress",
        "api",
        "baselines",
        "data",
        "diffstitch",
        "draw",
        "learn",
        "quality",
        "sim",
        "transforms",
    },
    {"config", "data.ids", "data.locks", "pool"},
    {"data.room", "data.storage"},
    {"cluster"},
    {"executor"},
    {"data.episodes", "data.hdf5", "data.kept", "data.spaces"},
    {"data.gather", "data.validation", "data.provenance"},
    {"data.card", "data.digests"},
    {"data.dataset", "data.publish"},
    {"data.goals", "data.minari_io", "data.segments"},
    {"data.written"},
    {"data.d4rl_rows", "data.mix", "data.parts", "data.ogbench_rows"},
    {"sim.behaviour", "sim.maze", "sim.ogbench_tasks", "sim.outcomes"},
    {"sim.actors", "sim.tasks", "sim.waypoints"},
    {"sim.recipes"},
    {"sim.d4rl", "sim.demo", "sim.ogbench", "sim.poses"},
    {"sim.carried"},
    {"sim.ogbench_point"},
    {"sim.oracle"},
    {"sim.paths"},
    {"quality.bridges", "quality.goals", "quality.rows"},
    {"quality.origin"},
    {"quality.check"},
    {"draw.figures"},
    {"draw.camera"},
    {"draw.render"},
    {"learn.clusters", "learn.collocation", "learn.nets", "learn.normalize", "learn.seeds", "learn.soap"},
    {"learn.steps"},
    {"learn.loop"},
    {"learn.scales"},
    {"learn.tables"},
    {"learn.judging"},
    {"learn.calibration", "learn.support"},
    {"run"},
    {"transforms.work"},
    {"job", "transforms.base"},
    {"transforms.registry"},
    {"transforms.again"},
    {"asked", "cost"},
    {
        "diffstitch.diffusion",
        "diffstitch.unet",
        "baselines.denoiser",
        "baselines.edm",
        "baselines.rollouts",
        "diffstitch.regions",
    },
    {"diffstitch.config", "diffstitch.regions", "baselines.judged"},
    {"diffstitch.models", "diffstitch.presets"},
    {"diffstitch.repair", "diffstitch.source", "diffstitch.training"},
    {"diffstitch.chains", "diffstitch.dream"},
    {"diffstitch.stitch"},
    {"diffstitch.proposals"},
    {"diffstitch.ahead", "diffstitch.job", "diffstitch.ways"},
    {"diffstitch.assemble"},
    {"baselines.controls", "baselines.relabel", "baselines.synther", "baselines.tatu", "diffstitch.transform"},
    {"pipeline"},
    {"refilter"},
    {"api.datasets", "quality.measures", "quality.plots", "quality.proposals", "quality.learners", "quality.simulate"},
    {"quality.verify"},
    {"quality.seen"},
    {"quality.verdicts"},
    {"quality.report"},
    {"api.ahead", "api.edit", "api.exchange", "api.training", "api.trust"},
    {"__init__"},
    {"cli.begin", "cli.clients", "cli.common"},
    {"cli.view"},
    {"cli.datasets", "cli.edit", "cli.exchange", "cli.look", "cli.render", "cli.runs", "cli.trust"},
    {"cli.app"},
    {"cli"},
    {"__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
LONGEST = 350


def modules():
    """Dotted name below the package -> file."""
    found = {}
    for folder, prefix in ((PACKAGE, ""), (CLI, "cli.")):
        for path in folder.rglob("*.py"):
            name = prefix + ".".join(path.relative_to(folder).with_suffix("").parts)
            found[name.removesuffix(".__init__") or "__init__"] = path
    return found


MODULES = modules()


def imports(name):
    """Absolute dotted names that a module imports anywhere, also inside functions."""
    path = MODULES[name]
    package = "minari_stitch" if name == "__init__" else f"minari_stitch.{name}"
    if path.name != "__init__.py":
        package = package.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            yield from (f"{module}.{alias.name}" for alias in node.names)


def inner(name):
    """Modules of this package that a module imports."""
    for imported in imports(name):
        if imported.split(".")[0] != "minari_stitch":
            continue
        below = imported.split(".")[1:]
        while below and ".".join(below) not in MODULES:
            below.pop()  # a name inside a module
        yield ".".join(below) or "__init__"


def test_every_module_has_a_layer_and_every_layer_its_modules():
    assert MODULES.keys() == LEVEL.keys()


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_downwards(name):
    upward = {other for other in inner(name) if LEVEL[other] >= LEVEL[name]}
    assert not upward, f"{name} imports {upward}, which stand above or beside it"


def test_the_graph_is_read_right():
    assert {"data.minari_io", "run", "transforms.base", "data.provenance"} <= set(inner("pipeline"))
    assert {"cli.view", "progress", "api.datasets"} <= set(inner("cli.app"))
    assert set(inner("transforms.base")) == {"data.minari_io", "errors", "run", "transforms.work"}


def test_the_paper_stands_alone():
    """Baselines know nothing of it, and what it uses knows neither."""
    for name in MODULES:
        folder = name.partition(".")[0]
        used = {other.partition(".")[0] for other in inner(name) if "." in other}
        if folder == "baselines":
            assert "diffstitch" not in used, name
        if folder in ("data", "learn", "draw"):
            assert not used & {"diffstitch", "baselines"}, name


def test_there_is_no_cycle():
    remaining = {name: set(inner(name)) - {name} for name in MODULES}
    while free := [name for name, below in remaining.items() if not below & remaining.keys()]:
        for name in free:
            del remaining[name]
    assert not remaining


def test_only_two_modules_import_minari():
    users = {name for name in MODULES if any(imported.split(".")[0] == "minari" for imported in imports(name))}
    assert users == {"data.minari_io", "data.publish"}


def test_the_library_prints_nothing_and_knows_no_terminal():
    for name in MODULES:
        if not name.startswith("cli") and name != "progress":
            used = {imported.split(".")[0] for imported in imports(name)}
            assert not used & {"typer", "rich", "click"}, name
            calls = (node for node in ast.walk(ast.parse(MODULES[name].read_text())) if isinstance(node, ast.Call))
            assert not any(isinstance(call.func, ast.Name) and call.func.id == "print" for call in calls), name


def test_no_message_of_the_library_names_a_flag():
    """Python users have none; the command line says what stands for what."""
    for name, path in MODULES.items():
        if not name.startswith("cli") and name != "transforms.again":  # which writes command lines
            texts = (node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant))
            assert not [
                text
                for text in texts
                if isinstance(text, str) and re.search(r"(^|\s)--[a-z]", text) and "minari download" not in text
            ], name


def test_no_module_is_long():
    long = {name: n for name, path in MODULES.items() if (n := len(path.read_text().splitlines())) > LONGEST}
    assert not long
