"""Draw the README's picture from the demo's dataset: one stitched episode, and returns before and after.

make demo picture
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from minari_stitch import minari_io

SOURCE, TARGET, BRIDGE, GREY = "#d1495b", "#30638e", "#edae49", "#9a9a9a"


def main() -> None:
    """Draw `docs/stitch.png`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset-id", default="demo/hopper/medium-replay-stitched-v0")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("stitch.png"))
    args = parser.parse_args()
    stitched = minari_io.read(args.dataset_id, download=False, keep_infos=True)
    source = minari_io.read(stitched.metadata["minari_stitch"]["source"])
    index = _typical(stitched.episodes.metadata)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.6), width_ratios=[2, 1], layout="constrained")
    _draw_episode(left, source, stitched, index)
    _draw_returns(right, stitched.episodes.metadata)
    figure.savefig(args.output, dpi=130)
    print(args.output)


def _typical(metadata) -> int:
    """An episode with a bridge of some length and a fair part of real steps on both sides."""
    return max(
        range(len(metadata)),
        key=lambda i: metadata[i]["bridge_states"] * (60 < metadata[i]["bridge_start"] < 120),
    )


def _draw_episode(axes, source, stitched, index: int) -> None:
    episode = stitched.episodes.episode(index)
    about = episode["metadata"]
    begin, end = about["bridge_start"], about["bridge_start"] + about["bridge_states"] + 1
    height = episode["observations"][:, 0]
    ids = source.episode_ids.tolist()
    former = source.episodes.episode(ids.index(about["source_episode"]))["observations"][:, 0]
    donor = source.episodes.episode(ids.index(about["target_episode"]))["observations"][:, 0]
    time = np.arange(len(height))
    before = np.arange(about["target_step"] + 1) + end - about["target_step"]
    axes.plot(
        np.arange(len(former))[begin:], former[begin:], color=SOURCE, lw=1, ls=":", label="how the source went on"
    )
    axes.plot(before, donor[: about["target_step"] + 1], color=TARGET, lw=1, ls=":", label="how the target came here")
    axes.plot(time[: begin + 1], height[: begin + 1], color=SOURCE, lw=2, label="prefix: low-return source")
    axes.plot(time[end:], height[end:], color=TARGET, lw=2, label="suffix: high-return target")
    axes.plot(time[begin : end + 1], height[begin : end + 1], color=BRIDGE, lw=3.5, label="generated bridge")
    axes.set(
        xlim=(max(0, begin - 80), end + 120),
        xlabel="step",
        ylabel="height of the torso [m]",
        title=f"One stitched episode of {source.dataset_id}",
    )
    axes.legend(fontsize=7, loc="lower left")


def _draw_returns(axes, metadata) -> None:
    before, after = (np.array([m[key] for m in metadata]) for key in ("return_before", "return_after"))
    span = [min(before.min(), after.min()), max(before.max(), after.max())]
    axes.plot(span, span, color=GREY, lw=1)
    axes.scatter(before, after, s=6, color=BRIDGE, alpha=0.6, linewidths=0)
    axes.set(
        xlabel="discounted return before",
        ylabel="after stitching",
        title=f"{len(before):,} bridge starts, +{(after - before).mean():.0f} on average",
    )


if __name__ == "__main__":
    main()
