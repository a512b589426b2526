"""Three lines with which other libraries train on a dataset; `make clients` runs them as they stand."""

from __future__ import annotations

CLIENTS = {
    "d3rlpy": (
        "import d3rlpy, minari",
        # Not by get_minari, in which 2.8.1 lets states and actions drift apart.
        "episodes = [d3rlpy.dataset.Episode(e.observations[:-1], e.actions, e.rewards[:, None], "
        'bool(e.terminations[-1])) for e in minari.load_dataset("{id}")]',
        "d3rlpy.algos.TD3PlusBCConfig().create().fit(d3rlpy.dataset.create_infinite_replay_buffer(episodes), "
        "n_steps=10_000)",
    ),
    "TorchRL": (
        "from torchrl.data.datasets import MinariExperienceReplay",
        'replay = MinariExperienceReplay("{id}", batch_size=256, load_from_local_minari=True)',
        'batch = replay.sample()  # "observation", "action", ("next", "reward"), ("info", "synthetic"), ...',
    ),
}
"""Library -> its lines."""


def lines(library: str, dataset_id: str) -> list[str]:
    """The lines for a dataset."""
    return [line.replace("{id}", dataset_id) for line in CLIENTS[library]]
