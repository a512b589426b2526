"""Fifty flipped bits over all files of a run directory, of a source and of a written dataset.

Each is found by the next command that reads the file, or is harmless: what comes out is the same, byte for byte.
`MINARI_STITCH_FLIPS` says how many (50); the counts are printed.
"""

import collections
import json
import os
import random
import shutil

import pytest
import toy
import trials

FLIPS = int(os.environ.get("MINARI_STITCH_FLIPS", "50"))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(0)]
MAKE = [word for word in toy.tiny(toy.ID, "--delta", toy.DELTA, "--steps", 400, "--json") if word != "--force"]
FILTER = ["filter", toy.STITCHED, "--delta", "7.9", "--json"]
AUGMENT = [*MAKE, "--force", "--dataset-id", "toy/again-v0"]
USES = (AUGMENT, FILTER, ["show", toy.STITCHED, "--json"], ["check", toy.STITCHED, "--json"])


def outcome(folder, monkeypatch):
    """What each use of the folder prints and writes; None for one that refuses with a named error."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder))
    found = []
    for words in USES:
        result = toy.invoke(*words)
        if result.exit_code == 0:
            said = json.loads(result.stdout)
            written = said.get("dataset_id") if words in (AUGMENT, FILTER) else None
            data = (folder / written / "data" / "main_data.hdf5").read_bytes() if written else None
            found.append((json.dumps({k: v for k, v in said.items() if k not in ("seconds", "path")}), data))
        else:
            refused = isinstance(result.exception, SystemExit) and "Traceback" not in result.stderr
            assert refused and "Error: " in result.stderr, (words, result.exception, result.stderr)
            found.append(None)
    return found


def test_flipped_bits_are_found_or_harmless(tmp_path, monkeypatch, capsys):
    template = tmp_path / "template"
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(template))
    toy.write()
    toy.ok(*MAKE)
    for chunk in list(template.glob(".stitch-runs/*/chunks-*/*"))[1::2]:  # so that networks are read, too
        chunk.unlink()
    shutil.copytree(template, tmp_path / "whole", copy_function=shutil.copy2)
    wanted = outcome(tmp_path / "whole", monkeypatch)
    assert None not in wanted
    rng, counts, silent = random.Random(0), collections.Counter(), []
    names = sorted(name for name in trials.tree(template) if "namespace_metadata" not in name)
    for number in range(FLIPS):
        name, folder = names[number % len(names)], tmp_path / "flipped"
        shutil.copytree(template, folder, copy_function=shutil.copy2)
        content = bytearray((folder / name).read_bytes())
        bit = rng.randrange(8 * len(content))
        content[bit // 8] ^= 1 << bit % 8
        (folder / name).write_bytes(content)
        found = outcome(folder, monkeypatch)
        differ = [words[0] for words, one, other in zip(USES, found, wanted, strict=True) if one not in (other, None)]
        counts["found" if None in found else "harmless"] += 1
        if differ:
            silent.append(f"bit {bit} of {name}: {', '.join(differ)}")
        shutil.rmtree(folder)
    with capsys.disabled():
        print(f"\n{FLIPS} bits over {len(names)} files: {dict(counts)}, {len(silent)} silent")
        print("\n".join(silent))
    assert not silent
