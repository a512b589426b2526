"""The wheel holds what the tree holds."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built offline from a copy of the tree; name -> content."""
    folder = tmp_path_factory.mktemp("build")
    tree = folder / "tree"
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("minari_stitch", "cli"):
        shutil.copytree(ROOT / name, tree / name, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, tree)
        else:  # both are written last, and neither decides which modules are packed
            (tree / name).write_text(name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-q"]
    made = subprocess.run([*command, "-w", folder, tree], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_every_source_file_is_packed_as_it_is(wheel):
    tree = {f"minari_stitch/{path.relative_to(ROOT / 'minari_stitch')}": path for path in sources("minari_stitch")}
    tree |= {f"minari_stitch/cli/{path.relative_to(ROOT / 'cli')}": path for path in sources("cli")}
    packed = {name for name in wheel if ".dist-info/" not in name}
    assert packed == set(tree)
    assert all(wheel[name] == path.read_bytes() for name, path in tree.items())


def sources(folder):
    return [path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]


def test_policies_types_and_the_command_are_packed(wheel):
    assert "minari_stitch/py.typed" in wheel and "minari_stitch/cli/app.py" in wheel
    policies = [name for name in wheel if name.startswith("minari_stitch/policies/")]
    assert "minari_stitch/policies/policies.json" in policies and sum(name.endswith(".npz") for name in policies) == 21
    (entry_points,) = (content for name, content in wheel.items() if name.endswith("entry_points.txt"))
    assert b"minari-stitch = minari_stitch.cli:main" in entry_points


def test_nothing_else_is_put_on_the_path(wheel):
    assert {name.split("/")[0] for name in wheel} == {
        "minari_stitch",
        f"minari_stitch-{version('minari-stitch')}.dist-info",
    }


def test_the_wheel_is_small(wheel):
    assert sum(map(len, wheel.values())) < 2_200_000


def test_the_version_is_that_of_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == version("minari-stitch")


def test_what_is_imported_is_declared():
    """Third-party imports of the package are its dependencies (torch and NumPy come by these names)."""
    import ast

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {requirement.split(">")[0].split("[")[0].replace("-", "_") for requirement in project["dependencies"]}
    used = set()
    for path in [path for folder in ("minari_stitch", "cli") for path in sources(folder) if path.suffix == ".py"]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                used |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                used.add(node.module.split(".")[0])
    extra = {"minari_stitch", "mujoco", "PIL", "ray"}  # gymnasium[mujoco], pillow, and what is imported when asked for
    assert used - sys.stdlib_module_names - extra <= declared


def test_a_script_runs_from_the_wheel_alone(wheel, tmp_path, datasets_path):
    """Without the checkout, with the transforms and the command that its metadata name."""
    import toy

    for name, content in wheel.items():
        path = tmp_path / "site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    toy.write()
    script = tmp_path / "script.py"
    script.write_text(
        "import minari_stitch as ms\n"
        "made = ms.augment('toy/walk-v0', ms.Resample(), n_steps=50)\n"
        "print(ms.__file__, made.dataset_id)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(tmp_path / "site/minari_stitch/__init__.py"), "toy/walk-resampled-v0"]
    listed = [sys.executable, "-m", "minari_stitch", "settings", "synther"]
    done = subprocess.run(listed, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0 and "noise.smallest" in done.stdout, done.stderr
