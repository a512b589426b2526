"""From accepted bridges to episodes: prefix of the source + bridge + suffix of the target, with provenance."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from minari_stitch.data.episodes import Episodes
from minari_stitch.data.goals import Goals
from minari_stitch.data.provenance import provenance
from minari_stitch.diffstitch.ways import Way, arriving


def stitched(
    source: Episodes,
    ids: Sequence[int],
    ways: Iterable[Way],
    *,
    discount: float,
    goals: Goals | None = None,
    apart: bool = False,
) -> Iterator[dict[str, Any]]:
    """Yield the stitched episodes (tau_gen, section 4.1.4) of `ways`, as `Episodes.from_list` takes them.

    Small errors of a repaired bridge all lead to its target, and a critic comes to rely on them. Written `apart`, its
    steps lead where the judges say, who err in no such direction (docs/EXPERIMENTS.md, 11).

    A bridge written alone keeps the return-to-go that it has in the whole stitched episode: `return_to_go` counts what
    follows, and `return_beyond` in the metadata is the undiscounted return after the last step that is written.

    Args:
        source: The source dataset.
        ids: Id of each source episode in its dataset.
        ways: What each is joined from.
        discount: Gamma of `return_to_go`.
        goals: Of the source, where it has any: what leads to the last target is made to pursue that one's.
        apart: Yield each step alone; for ways of the form `transitions`.
    """
    for way in ways:
        part = joined(source, ids, way, discount=discount, goals=goals)
        if apart:
            yield from _steps(part, way.links[0].of("predicted"), goals)
        else:
            yield part


def _steps(bridge: dict[str, Any], predicted: np.ndarray, goals: Goals | None) -> Iterator[dict[str, Any]]:
    """Each step of a bridge as an episode that ends in the predicted state; its metadata speak of the whole bridge."""
    observations, length = bridge["observations"], len(bridge["rewards"])
    following = predicted[:length].astype(observations.dtype)
    if goals is not None:
        following = goals.pursue(following, goals.goal(observations[0]))
    for step in range(length):
        pair = np.stack([observations[step], following[step]])
        ends = np.zeros(1, bool) if goals is None else goals.terminations(pair)
        infos = {name: values[step : step + 2].copy() for name, values in bridge["infos"].items()}
        for name, generated in (("synthetic", False), ("source_episode", -1), ("source_step", -1)):
            infos[name][1] = generated
        yield {
            "observations": pair,
            "actions": bridge["actions"][step : step + 1],
            "rewards": bridge["rewards"][step : step + 1] if goals is None else goals.rewards(pair),
            "terminations": ends,
            "truncations": ~ends,
            "infos": infos,
            "metadata": bridge["metadata"] | {"bridge_states": 0, "bridge_step": step},
        }


def joined(
    source: Episodes, ids: Sequence[int], way: Way, *, discount: float, goals: Goals | None = None
) -> dict[str, Any]:
    """The episode of a way, with provenance; see `stitched`."""
    tail, entry = way.links[-1].tail, way.links[-1].entry
    after = source.episode(tail)
    real = [source.episode(link.head) for link in way.links]
    begins = way.begins

    def join(name: str, generated: Sequence[np.ndarray]) -> np.ndarray:
        """Real and generated values of steps, in turn."""
        pieces = []
        for part, at, link, values in zip(real, way.leaves, way.links, generated, strict=True):
            pieces += [part[name][at : link.junction], values.astype(part[name].dtype)]
        return np.concatenate([*pieces, after[name][entry : way.stop]])

    def marked(generated: Sequence[np.ndarray]) -> np.ndarray:
        """Values of generated steps `(T + 1,)`, 0 elsewhere."""
        values = np.zeros(way.length + 1, generated[0].dtype)
        for begin, part in zip(begins, generated, strict=True):
            values[begin : begin + len(part)] = part
        return values

    def traced(real: Sequence[np.ndarray], last: np.ndarray) -> np.ndarray:
        """Values of real states `(T + 1,)`, -1 elsewhere."""
        pairs = zip(real, way.links, strict=True)
        return np.concatenate([*(x for part, link in pairs for x in (part, np.full(link.steps, -1))), last])

    rewards = join("rewards", [link.of("rewards") for link in way.links])
    led, suffix = arriving(source, way, goals), after["observations"][entry : way.stop + 1]
    if goals is not None:
        rewards[: len(led) - 1] = goals.rewards(led)
    no_end = [np.zeros(link.steps + 1, bool) for link in way.links]
    terminations, truncations = join("terminations", no_end), join("truncations", no_end)
    truncations[-1] = truncations[-1] or not terminations[-1]
    stretches = [np.arange(at, link.junction + 1) for at, link in zip(way.leaves, way.links, strict=True)]
    suffixed = np.arange(entry, way.stop + 1)
    rest = after["rewards"][way.stop : way.end].astype(np.float64)
    infos = provenance(
        marked([np.ones(link.steps + 1, bool) for link in way.links]),
        traced(
            [np.full(len(part), ids[link.head]) for part, link in zip(stretches, way.links, strict=True)],
            np.full(len(suffixed), ids[tail]),
        ),
        traced(stretches, suffixed),
        marked([link.of("errors") for link in way.links]),
        rewards,
        discount,
        float((rest * discount ** np.arange(len(rest))).sum()),
        marked([link.of("support") for link in way.links]),
    )
    return {
        "observations": np.concatenate([led, suffix[1:]]),
        "actions": join("actions", [link.of("actions") for link in way.links]),
        "rewards": rewards,
        "terminations": terminations,
        "truncations": truncations,
        "infos": infos,
        "metadata": _about(ids, way, infos, goals) | {"return_beyond": float(rest.sum())},
    }


def _about(ids: Sequence[int], way: Way, infos: dict[str, np.ndarray], goals: Goals | None) -> dict[str, Any]:
    """The pair of the first bridge, and the worst that was measured of any: a chain is worth its weakest bridge."""
    first, begin = way.links[0], way.begins[0]
    before, after = first.value("before"), first.value("after")
    if goals is not None or len(way.links) > 1:
        after = float(infos["return_to_go"][begin, 0])

    def worst(name: str) -> float:
        return max(link.value(name) for link in way.links)

    return {
        "augmented": True,
        "source_episode": int(ids[first.head]),
        "source_step": first.junction,
        "target_episode": int(ids[first.tail]),
        "target_step": first.entry,
        "bridge_start": begin,
        "bridge_states": first.steps,
        **({"bridges": len(way.links)} if len(way.links) > 1 else {}),
        "similarity": min(link.value("similarity") for link in way.links),
        "dynamics_error": worst("errors"),
        "disagreement": worst("disagreement"),
        "error_bound": worst("bound"),
        "drift": worst("drift"),
        "support": worst("support"),
        "termination": worst("termination"),
        "return_before": before,
        "return_after": after,
    }
