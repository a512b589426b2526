"""The site's pages work as they are written: Python runs, commands exist, links lead somewhere.

Blocks of a page run in order in one datasets folder, with tiny models; see `test_readme`.
"""

import re
import shlex

import pytest
import toy
from test_readme import _FENCE, ROOT, commands, datasets, here, options, small  # noqa: F401 - fixtures

PAGES = {path.relative_to(ROOT / "docs").as_posix(): path.read_text() for path in (ROOT / "docs").rglob("*.md")}
SITE = {name: text for name, text in PAGES.items() if name.islower() and name != "reference.md"}
PYTHON = [name for name, text in SITE.items() if "```python" in text]


def blocks(text, language):
    """What is not run here is run by `make clients`, see `test_clients`."""
    return [match["code"] for match in _FENCE.finditer(text) if match["language"] == language and not match["reason"]]


@pytest.mark.parametrize("name", PYTHON)
def test_python_runs(name, here, small, capsys):  # noqa: F811
    for number, code in enumerate(blocks(SITE[name], "python")):
        exec(compile(code, f"{name}, block {number}", "exec"), {"__name__": "docs"})
        assert capsys.readouterr().out.strip(), f"block {number} of {name} prints nothing"
    if name == "tutorial.md":
        assert len(blocks(SITE[name], "python")) >= 6


@pytest.mark.parametrize("name", SITE)
def test_commands_and_options_exist(name):
    typed = [line for code in blocks(SITE[name], "console") for line in commands(code)]
    typed += [code for code in re.findall(r"`(minari-stitch [^`\n]+)`", _FENCE.sub("", SITE[name]))]
    for line in typed:
        program, *words = shlex.split(line)
        if program != "minari-stitch" or words[0] in ("demo", "--help"):
            continue
        known = options(words[0])
        for word in words[1:]:
            assert not word.startswith("--") or word == "--help" or word in known, line


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    here = (ROOT / "docs" / name).parent  # noqa: F811
    for link in re.findall(r"\]\(([^)\s#]+)[^)]*\)", _FENCE.sub("", PAGES[name])):
        assert link.startswith("http") or (here / link).exists(), link


def test_every_page_is_in_the_navigation_and_every_public_function_in_the_reference():
    config = (ROOT / "mkdocs.yml").read_text()
    assert set(re.findall(r": ([\w/-]+\.md)$", config, re.MULTILINE)) == set(PAGES)
    import minari_stitch as ms

    functions = {name for name in ms.__all__ if name.islower() and name != "settings"}
    shown = {line.rpartition(".")[2] for line in re.findall(r"^::: ([\w.]+)", PAGES["reference.md"], re.MULTILINE)}
    assert functions <= shown, functions - shown
    assert toy.invoke("--help").exit_code == 0
