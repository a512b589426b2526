"""Verdicts on a dataset, section by section, and whether to train on it: each in a line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from minari_stitch.quality.check import Checked
from minari_stitch.quality.verify import Verified

Verdict = Literal["good", "fair", "bad", "unknown"]
_ADVICE: dict[tuple[str, Verdict], tuple[Verdict, str]] = {
    ("valid", "bad"): ("bad", "Do not use it: it is not a sound dataset."),
    ("true", "bad"): ("bad", "Do not train on it: what it says is not what the environment does."),
    ("true", "unknown"): ("fair", "Train on it with care: it is sound, but no simulator says whether it is true."),
    ("real", "unknown"): ("good", "Sound, and all of it real: nothing here is generated."),
    ("new", "bad"): ("bad", "Do not take it for new data: it repeats the old ones, or has little to do with them."),
    ("new", "fair"): ("fair", "Train on it with care: it is sound and true, but some of it lies far from the data."),
    ("new", "unknown"): ("fair", "It is sound and true, but nothing says how it relates to its source."),
    ("useful", "bad"): ("bad", "Do not expect it to help: it is sound, true and new, but nothing is gained."),
    ("useful", "fair"): ("fair", "Sound, true and new; some learners gained by it and some lost."),
    ("useful", "unknown"): (
        "good",
        "Worth training on: it is sound, true and new. Whether it helps is not known, so compare with the original.",
    ),
}
"""What to do, by the first section that is not good and its verdict."""


def advice(verdicts: Mapping[str, tuple[Verdict, str]], *, generated: bool) -> tuple[Verdict, str]:
    """Whether to train on it, in a line: the first verdict that is not good decides.

    Args:
        verdicts: Of each section.
        generated: Whether any step is; else there is nothing that could be new.
    """
    for section in ("valid", "true", "new", "useful"):
        if (verdict := verdicts[section][0]) != "good":
            return _ADVICE["real" if section == "new" and not generated else section, verdict]
    return "good", "Train on it: it is sound, true and new, and learners gained by it."


def verdicts(
    checked: Checked, verified: Verified | None, new: Mapping[str, Any], use: Mapping[str, Any]
) -> dict[str, tuple[Verdict, str]]:
    """Of each section, a verdict and why in a line.

    Args:
        checked: Of `check`.
        verified: Of `verify`; None where nothing could be said.
        new: Of `novelty`.
        use: Of `usefulness`, and results of learners.
    """
    errors = [finding for finding in checked.findings if finding.level == "error"]
    found: dict[str, tuple[Verdict, str]] = {
        "valid": ("bad", errors[0].what)
        if errors
        else ("good", f"{checked.n_steps:,} steps, every array as it should be")
    }
    if verified is None:
        found["true"] = "unknown", "nobody can say: no simulator, and no recorded errors"
    elif not verified.ok:
        found["true"] = "bad", next(finding.what for finding in verified.findings if finding.level == "error")
    elif not verified.bridges.get("n"):
        found["true"] = "good", f"real steps come out of {verified.judge} as recorded; none is generated"
    else:
        share = percent(verified.bridges["confirmed"])
        level: Verdict = "good" if verified.simulated else "unknown"
        found["true"] = level, f"{share} of bridges within delta {verified.delta:g} by {verified.judge}"
    if not new:
        found["new"] = "unknown", "no step says that it was generated"
    elif new["copies"] > 0.01:
        found["new"] = "bad", f"{percent(new['copies'])} of generated steps are copies of real ones"
    else:
        ratio = new["distance_median"] / max(new["distance_median_of_held_out"], 1e-12)
        what = f"generated states lie {ratio:.2g} times as far from real ones as held-out real states do"
        found["new"] = ("good" if ratio < 2 else "fair" if ratio < 4 else "bad"), what
    found["useful"] = _use(use)
    return found


def _use(use: Mapping[str, Any]) -> tuple[Verdict, str]:
    """Learners decide; what returns promise is not yet a use."""
    gains = []
    for row in use["learners"]:
        if row["data"] == "augmented":
            same = [
                other for other in use["learners"] if (other["algo"], other["budget"]) == (row["algo"], row["budget"])
            ]
            gains += [row["mean"] - other["mean"] for other in same if other["data"] == "original"]
    if gains:
        verdict: Verdict = "good" if min(gains) > 0 else "bad" if max(gains) <= 0 else "fair"
        return verdict, f"scores of learners change by {min(gains):+.3g} to {max(gains):+.3g}"
    share = f"{percent(use['synthetic_share'])} of all steps are generated"
    raised = use.get("return_raised_by")
    if raised is None:
        return "unknown", f"no learner was trained on it; {share}"
    if raised <= 0:
        return "bad", f"returns do not rise ({raised:,.3g} on average); {share}"
    return "unknown", f"no learner was trained on it; returns rise by {raised:,.3g} on average, {share}"


def number(value: Any) -> str:
    """Three digits, or all of a count."""
    if value is None or value != value:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.3g}" if abs(value) > 1e-9 else "0"


def percent(value: Any) -> str:
    """A share."""
    return "–" if value is None or value != value else f"{100 * value:.3g} %"
