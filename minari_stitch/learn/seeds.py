"""Generators of their own for every network and every chunk, so that neither order nor processes matter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch


def seeded(entropy: Sequence[int], device: torch.device | str) -> torch.Generator:
    """A generator of its own for every list of numbers."""
    return torch.Generator(device).manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))


def chunk_generator(seed: int, chunk: int, device: torch.device | str) -> torch.Generator:
    """The generator of a numbered chunk of a run."""
    state = np.random.SeedSequence([seed, chunk]).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(state[0]) >> 1)
