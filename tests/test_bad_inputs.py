"""At least two hundred bad inputs over every command and the whole of the API.

Each ends soon, in a message that has the value and a remedy, without a traceback, and changes nothing. The count is
printed. `test_bad_input` says of some of them what exactly they should say.
"""

# ruff: noqa: E501 - long lists
import faulthandler
import itertools
import re
import shlex
import shutil
import sys
import time

import numpy as np
import pytest
import toy
import trials

import minari_stitch as ms
from minari_stitch.errors import StitchError

SECONDS = 120
pytestmark = [pytest.mark.slow, pytest.mark.timeout(0)]
S, M = toy.STITCHED, trials.MAZE
REMEDY = re.compile(
    r"\b(use|choose|give|ask|lower|raise|set|free|delete|remove|write|name|fetch|get|run|check|leave|install|open|mix"
    r"|another|supported|did you mean|is not one of|is not in the range|missing|take|make|needs?|such as|augment|has"
    r"|is not a valid|point|try|should be|instead|wants|requires)\b",
    re.IGNORECASE,
)
READERS = (
    "augment {} --method resample",
    "augment {} --method resample --dry-run",
    "show {}",
    "filter {} --delta 1",
    "check {}",
    "verify {}",
    "report {} --output out.html",
    "card {}",
    "render {} --returns",
    "trim {}",
    "select {} --top 0.5",
    "scores {} --low 0 --high 1",
    "export-ogbench {} out.npz",
    "mix {} --fraction 0.5",
)
IDS = ("toy/none-v0", "toy/walk", "''", "'a b-v0'", "../x-v0", f"toy/{'a' * 300}-v0", "toy/damaged-v0")
AUGMENT = (
    "--delta 0", "--delta -2", "--delta nan", "--delta inf", "--delta two", "--support -1", "--support nan", "--steps 0",
    "--steps -5", "--steps 1.5", "--steps 10000000000000000", "--seed -1", "--seed 1180591620717411303424",
    "--workers 0", "--workers 1000000", "--threads 0", "--threads 1000000000", "--device gpu", "--device cuda:99",
    "--device ''", "--precision fp16", "--form half", "--pairs none", "--preset huge", "--method none",
    "--demo-steps 1000", "--demo-steps 0", "--set stitch.draws", "--set stitch.draws=many", "--set stitch.paris=paper",
    "--set stitch.draws.more=1", "--set models=3", "--set =3", "--set stitch.pool=0", "--set models.judges=9",
    "--set models.diffusion.horizon=7", "--set models.diffusion.width=3", "--set models.diffusion.width=10000000",
    "--set models.hidden=10000000", "--set models.dynamics.steps=0", "--set models.dynamics.learning_rate=nan",
    "--set stitch.max_bridge=1", "--set stitch.sampler_steps=101", "--set qualify.delta=nan", "--set qualify.drift=-1",
    "--set stitch.discount=2", "--set seed=3", "--method resample --delta 1", "--method real", "--method relabel",
    "--method tatu --set elites=99", "--method synther --set sampler_steps=1", "--dataset-id nice",
    f"--dataset-id {S}", "--dataset-id demo/hopper/medium-v0", f"--dataset-id {toy.ID}/in-v0", "--run-dir file.txt",
    "--run-dir /proc/none", "--config none.json", "--config file.txt", "--config datasets", "--config .",
)  # fmt: skip
COMMANDS = (
    "augment demo/hopper/none-v0", "augment demo/hopper/medium-v0 --demo-steps 2 --workers 0",
    "augment demo/hopper/medium-replay-v0 --demo-steps 2", "augment demo/hopper/medium-v0 --demo-steps 10000000000000",
    f"augment {S} {S}", "augment --config", "augmen x", "augment", "show", "demo lists", "settings none",
    "settings diffstitch --preset huge", f"filter {S}", f"filter {S} --delta nan", f"filter {S} --delta -1",
    f"filter {S} --delta 0", f"filter {S} --delta 1e9", f"filter {S} --delta inf", f"filter {S} --delta 1e-12",
    f"filter {S} --verified", f"filter {S} --verified --workers 0", f"filter {toy.ID} --delta 1",
    f"filter {S} --delta 7 --dataset-id {S}", f"mix {toy.ID} {S}", f"mix {toy.ID} --fraction 0",
    f"mix {toy.ID} --fraction 2", f"mix {toy.ID} --fraction nan", f"mix {toy.ID} --fraction 0.5 --seed -1",
    f"mix {toy.ID} {M} --dataset-id toy/both-v0", f"mix {toy.ID} --dataset-id {S}", "mix",
    f"mix {toy.ID} {S} --dataset-id toy/both-v0 --scores-of toy/none-v0", f"mix {toy.ID} --dataset-id nice",
    f"mix {toy.ID} toy/none-v0 --dataset-id toy/both-v0", f"trim {toy.ID}", f"trim {M} --within nan",
    f"trim {M} --within -1", f"trim {toy.ID} --at still --tolerance nan", f"trim {toy.ID} --at still --tolerance -1",
    f"trim {toy.ID} --at still --extra -1", f"trim {toy.ID} --at noon", f"select {toy.ID}", f"select {toy.ID} --top 0",
    f"select {toy.ID} --top 2", f"select {toy.ID} --top nan", f"select {toy.ID} --min-return 1e9",
    f"select {toy.ID} --min-length 50 --max-length 40", f"select {toy.ID} --success", f"select {toy.ID} --min-return nan",
    f"select {toy.ID} --top 0.5 --dataset-id {S}", f"scores {toy.ID}", f"scores {toy.ID} --low 2 --high 1",
    f"scores {toy.ID} --low nan --high 1", f"scores {toy.ID} --d4rl ant", f"scores {toy.ID} --like toy/none-v0",
    f"scores {toy.ID} --random 0", f"scores {toy.ID} --random 2 --high 9", f"scores {toy.ID} --low 1",
    "import-d4rl none.hdf5 --env hopper", "import-d4rl . --env hopper", "import-d4rl file.txt --env hopper",
    f"import-d4rl {trials.D4RL}", f"import-d4rl {trials.D4RL} --env ant", f"import-d4rl {trials.D4RL} --env None-v0",
    f"import-d4rl {trials.D4RL} --env pen", f"import-d4rl {trials.D4RL} --env hopper --dataset-id nice",
    f"import-d4rl {trials.D4RL} --env CartPole-v1", "import-d4rl wild.hdf5 --env hopper",
    "import-d4rl nan.hdf5 --env hopper", "import-d4rl uneven.hdf5 --env hopper", f"import-d4rl {trials.OGBENCH} --env pen",
    "import-ogbench none.npz", "import-ogbench .", "import-ogbench file.txt", f"import-ogbench {trials.D4RL}",
    f"import-ogbench {trials.OGBENCH} --task 9", f"import-ogbench {trials.OGBENCH} --task 0",
    f"import-ogbench {trials.OGBENCH} --val none.npz", f"import-ogbench {trials.OGBENCH} --dataset-id nice",
    "import-ogbench pickled.npz", f"export-ogbench {M} file.txt", f"export-ogbench {M} .", f"export-ogbench {M}",
    f"export-ogbench {M} file.txt/out.npz", f"export-ogbench {M} out.npz --val toy/none-v0",
    f"render {toy.ID} --returns", f"render {toy.ID}", f"render {S}", f"render {S} --episode 99999",
    f"render {S} --episode -1", f"render {S} --frames 2", f"render {S} --frames 31", f"render {S} --context 0",
    f"render {S} --every 0", f"render {S} --returns --output file.txt/in", f"render {S} --returns --output /proc/none",
    f"render {S} --returns --episode 1", f"verify {S} --delta nan", f"verify {S} --delta 0", f"verify {S} --delta -1",
    f"verify {S} --steps 0", f"verify {S} --pairs -1", f"verify {S} --workers 0", f"verify {S} --workers 1000000",
    f"verify {S} --seed -1", f"verify {toy.ID}", f"report {S} toy/none-v0 --output out.html",
    f"report {S} --output file.txt/out.html", f"report {S} --output .", f"report {S} --steps 0", "runs clean --older-than -1",
    "runs clean --older-than nan", "runs lists", f"show {S} --episode 99999", f"show {S} --episode -1",
    f"show {toy.ID}", f"show {S} --losses",
)  # fmt: skip
API = {
    "augment(3)": lambda: ms.augment(3),
    "augment(None)": lambda: ms.augment(None),
    "augment([])": lambda: ms.augment([toy.ID]),
    "transform=3": lambda: ms.augment(toy.ID, 3),
    "transform=class": lambda: ms.augment(toy.ID, ms.Resample),
    "delta='x'": lambda: ms.augment(toy.ID, delta="x"),
    "delta=nan": lambda: ms.augment(toy.ID, delta=float("nan")),
    "n_steps='x'": lambda: ms.augment(toy.ID, n_steps="x"),
    "n_steps=1.5": lambda: ms.augment(toy.ID, n_steps=1.5),
    "n_steps=0": lambda: ms.augment(toy.ID, n_steps=0),
    "n_steps=10**17": lambda: ms.augment(toy.ID, n_steps=10**17),
    "seed=1.5": lambda: ms.augment(toy.ID, seed=1.5),
    "seed=2**70": lambda: ms.augment(toy.ID, seed=2**70),
    "workers=0": lambda: ms.augment(toy.ID, workers=0),
    "workers=True": lambda: ms.augment(toy.ID, workers="all"),
    "threads=0": lambda: ms.augment(toy.ID, threads=0),
    "device='tpu'": lambda: ms.augment(toy.ID, device="tpu"),
    "device=3": lambda: ms.augment(toy.ID, device=[3]),
    "precision='fp8'": lambda: ms.augment(toy.ID, precision="fp8"),
    "progress=3": lambda: ms.augment(toy.ID, ms.Resample(), progress=3),
    "output_id=3": lambda: ms.augment(toy.ID, output_id=3),
    "output_id=''": lambda: ms.augment(toy.ID, ms.Resample(), output_id="nice"),
    "run_dir=3": lambda: ms.augment(toy.ID, run_dir=3),
    "demo_steps": lambda: ms.augment(toy.ID, demo_steps=3),
    "form='half'": lambda: ms.augment(toy.ID, form="half"),
    "form of resample": lambda: ms.augment(toy.ID, ms.Resample(), form="bridge"),
    "unknown keyword": lambda: ms.augment(toy.ID, detla=2),
    "estimate(3)": lambda: ms.estimate(3),
    "estimate(none)": lambda: ms.estimate("toy/none-v0"),
    "estimate(huge)": lambda: ms.estimate(toy.ID, ms.Resample(), n_steps=10**17),
    "mix(str)": lambda: ms.mix(toy.ID, "toy/both-v0"),
    "mix([])": lambda: ms.mix([], "toy/both-v0"),
    "mix([3])": lambda: ms.mix([3], "toy/both-v0"),
    "mix fraction": lambda: ms.mix([toy.ID], fraction=0.0),
    "mix one id": lambda: ms.mix([toy.ID]),
    "filter(none)": lambda: ms.filter("toy/none-v0", delta=1),
    "filter delta": lambda: ms.filter(S, delta=-1.0),
    "filter nothing": lambda: ms.filter(S),
    "filter real": lambda: ms.filter(toy.ID, delta=1),
    "trim": lambda: ms.trim(toy.ID, at="noon"),
    "trim extra": lambda: ms.trim(toy.ID, at="still", extra=-1),
    "select": lambda: ms.select(toy.ID),
    "select top": lambda: ms.select(toy.ID, top=5),
    "select nothing": lambda: ms.select(toy.ID, min_length=10**6),
    "scores": lambda: ms.scores(toy.ID),
    "scores order": lambda: ms.scores(toy.ID, low=3, high=1),
    "read(3)": lambda: ms.read(3),
    "read('')": lambda: ms.read(""),
    "read(none)": lambda: ms.read("toy/none-v0", download=False),
    "check(3)": lambda: ms.check(3),
    "verify(none)": lambda: ms.verify("toy/none-v0"),
    "verify delta": lambda: ms.verify(S, delta=-1.0),
    "verify workers": lambda: ms.verify(S, workers=0),
    "verify pairs": lambda: ms.verify(S, pairs=-1),
    "verify steps": lambda: ms.verify(S, n_steps=0),
    "report": lambda: ms.report("toy/none-v0"),
    "card": lambda: ms.card("toy/none-v0"),
    "import_d4rl": lambda: ms.import_d4rl("none.hdf5", env="hopper"),
    "import_d4rl env": lambda: ms.import_d4rl(trials.D4RL, env="ant"),
    "import_ogbench": lambda: ms.import_ogbench("none.npz"),
    "export_ogbench": lambda: ms.export_ogbench("toy/none-v0", "out.npz"),
    "preset": lambda: ms.DiffStitch.preset("huge"),
    "DiffStitch(models=3)": lambda: ms.DiffStitch(models=3),
    "StitchConfig(pool=0)": lambda: ms.StitchConfig(pool=0),
    "StitchConfig(pol=1)": lambda: ms.StitchConfig(pol=1),
    "FitConfig()": lambda: ms.FitConfig(),
    "Resample(temperature=0)": lambda: ms.Resample(temperature=0),
    "TATU(elites=99)": lambda: ms.TATU(elites=99),
}


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    import h5py

    folder = trials.prepare(tmp_path_factory.mktemp("bad") / "template")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(folder / "datasets"))
        toy.write(dataset_id="toy/damaged-v0")
        toy.spoil_unnoticed("toy/damaged-v0", value=3.5)
    (folder / "file.txt").write_text("text")
    for name, table, values in (
        ("wild", "actions", lambda actions: 50 * actions),
        ("nan", "observations", lambda observations: np.where(observations > 2, np.nan, observations)),
        ("uneven", "rewards", lambda rewards: rewards[:-7]),
    ):
        shutil.copy(folder / trials.D4RL, folder / f"{name}.hdf5")
        with h5py.File(folder / f"{name}.hdf5", "r+") as file:
            changed = values(file[table][()])
            del file[table]
            file[table] = changed
    np.savez(folder / "pickled.npz", observations=np.array([{}, 3], dtype=object))
    return folder


@pytest.fixture
def here(template, tmp_path, monkeypatch):
    folder = tmp_path / "here"
    shutil.copytree(template, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder / "datasets"))
    return folder


def typed():
    for form, bad in itertools.product(READERS, IDS):
        if "damaged" not in bad or form.partition(" ")[0] not in ("scores", "card"):  # which look at metadata alone
            yield form.format(bad)
    tiny = shlex.join(toy.tiny(toy.ID))
    for options in AUGMENT:
        plain = re.search("--(method|preset|config|form|precision|demo|dataset|run)", options)
        yield f"augment {toy.ID} {options}" if plain and "dataset-id" not in options else f"{tiny} {options}"
    yield from COMMANDS


def refused_command(line):
    """What is wrong with how a line of words is refused; None if nothing."""
    result = toy.invoke(*shlex.split(line))
    said = " ".join(result.output.replace("│", " ").split())
    if result.exit_code == 0:
        return f"accepted: {said[:300]}"
    if not isinstance(result.exception, SystemExit) or "Traceback" in said:
        return f"traceback: {result.exception!r} {said[-300:]}"
    if not REMEDY.search(said):
        return f"no remedy: {said}"
    return None if len(said) > 20 else f"says nothing: {said}"


def refused_call(call):
    """The same of a call."""
    try:
        call()
    except StitchError as error:
        return None if REMEDY.search(str(error)) else f"no remedy: {error}"
    except BaseException as error:
        return f"no error of ours: {error!r}"
    return "accepted"


def test_every_bad_input_is_refused_with_a_remedy_and_leaves_nothing(here, capsys):
    lines, wrong = list(typed()), []
    before = trials.tree(here)
    cases = [(line, lambda line=line: refused_command(line)) for line in lines]
    longest = (0.0, "")
    cases += [(f"ms: {name}", lambda call=call: refused_call(call)) for name, call in API.items()]
    for name, refused in cases:
        name = name.replace(shlex.join(toy.tiny(toy.ID)), f"augment {toy.ID} ...")
        begin = time.monotonic()
        faulthandler.dump_traceback_later(SECONDS, exit=True, file=sys.__stderr__)  # what never ends says where it is
        if problem := refused():
            wrong.append(f"{name}: {problem}")
        faulthandler.cancel_dump_traceback_later()
        longest = max(longest, (time.monotonic() - begin, name))
        if (after := trials.tree(here)) != before:
            left = [file for file in after.keys() | before.keys() if after.get(file) != before.get(file)]
            wrong.append(f"{name}: leaves {left[:5]}")
            before = after
    with capsys.disabled():
        print(
            f"\n{len(lines)} bad commands and {len(API)} bad calls, {len(wrong)} wrong; the longest took {longest[0]:.1f} s: {longest[1]}"
        )
        print("\n".join(wrong))
    assert len(cases) >= 200 and not wrong
