"""What the generative model is asked, and how close what it dreams comes to real states.

Shape letters: `B` pairs, `P` candidate targets, `I` dreamed states, `H` horizon, `S` state width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from minari_stitch.diffstitch.config import StitchConfig
from minari_stitch.diffstitch.diffusion import draw_windows
from minari_stitch.diffstitch.models import Models
from minari_stitch.diffstitch.source import Source

_BLOCK = 2**26
"""Similarities held at once: 256 MB."""


def generate(
    models: Models,
    source: Source,
    start: Tensor,
    target: Tensor | None,
    steps: Tensor,
    config: StitchConfig,
    generator: torch.Generator,
) -> Tensor:
    """Fill windows that begin at `start` rows, and with a target continue there after `steps` states.

    Returns:
        `(B, H - context + 1, S)` standardised states from the source's own state on.
    """
    diffusion = models.config.diffusion
    device, context, horizon = start.device, diffusion.context, diffusion.horizon
    position = torch.arange(horizon, device=device)
    # The window shows the last real states of the source, then the unknown, then the target's own future.
    history = start[:, None] + (position - context + 1).clamp(max=0)
    row, known = history, (position < context).expand(len(start), -1)
    valid = torch.ones_like(known)
    if target is not None:
        ahead = position - (context + steps[:, None])
        future = target[:, None] + ahead
        last = source.last[target][:, None]
        row = torch.where(ahead >= 0, torch.minimum(future, last), history)
        valid = (ahead < 0) | (future <= last)
        known = known | ((ahead >= 0) & valid)
    given = source.windows[row] * known[..., None]
    known_f, valid_f = known.float(), valid.float()
    target_return = torch.full((len(start),), config.target_return, device=device)

    def predict(noised: Tensor, step: Tensor) -> Tensor:
        inputs = (noised, given, known_f, valid_f, step)
        if diffusion.return_dropout == 0:
            return models.denoise(*inputs)
        # Both passes of classifier-free guidance in one doubled batch.
        doubled = (torch.cat([x, x]) for x in inputs)
        asked = torch.cat([target_return, torch.full_like(target_return, torch.nan)])
        conditional, free = models.denoise(*doubled, asked).chunk(2)
        return free + config.guidance * (conditional - free)

    window = draw_windows(
        predict,
        given,
        known,
        models.schedule,
        steps=config.sampler_steps,
        eta=config.eta,
        temperature=config.temperature,
        generator=generator,
        bounds=models.scales.window_bounds(),
        overwrite=diffusion.known == "clean",
    )[:, context - 1 :]
    if diffusion.normalizer == "standard":
        return window
    return models.scales.state.encode(models.scales.window.decode(window))


def closest(dream: Tensor, fits: Tensor, targets: Tensor, config: StitchConfig) -> tuple[Tensor, Tensor]:
    """Eq. 4: the largest similarity of each target with a dreamed state, and the index of that state.

    Args:
        dream: `(B, I, S)` dreamed states.
        fits: `(B, I)` where a target may stand.
        targets: `(B, P, S)`, or `(1, P, S)` shared by all, which are never copied.
        config: Says what similar is.

    Returns:
        Two `(B, P)`.
    """
    size = max(1, _BLOCK // (dream.shape[1] * targets.shape[1]))
    best, index = [], []
    for rows in torch.arange(len(dream), device=dream.device).split(size):
        block = targets if len(targets) == 1 else targets[rows]
        similarity = _similarity(dream[rows], block, config).masked_fill_(~fits[rows][..., None], -torch.inf)
        values, offsets = similarity.max(1)
        best.append(values)
        index.append(offsets)
    return torch.cat(best), torch.cat(index)


def spread(similarity: Tensor, heads: Tensor, tails: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The most similar cells that share no trajectory with each other; once none is left, of the other cells again.

    Args:
        similarity: `(B, P)` of sources and targets, -inf where they may not be joined: taken when no other is left.
        heads: `(B,)` trajectories of the sources.
        tails: `(P,)` trajectories of the targets.
        count: Cells, at most B P.

    Returns:
        Rows and columns, two `(count,)`.
    """
    others, left, cells = similarity.clone(), similarity.clone(), []
    for _ in range(count):
        if left.max() == -torch.inf:
            left = others.clone()
        best, at = left.flatten().max(0)
        closed = best == -torch.inf
        row, column = divmod(int(similarity.argmin() if closed else at), left.shape[1])
        cells.append((row, column))
        others[row, column] = -torch.inf
        left[heads == heads[row]] = -torch.inf
        left[:, tails == tails[column]] = -torch.inf
    rows, columns = torch.tensor(cells, device=similarity.device).T
    return rows, columns


def _similarity(dream: Tensor, targets: Tensor, config: StitchConfig) -> Tensor:
    """`(B, I, P)` of dreamed states `(B, I, S)` with targets `(B, P, S)` or `(1, P, S)`; 1 is equal."""
    shape = (*dream.shape[:2], targets.shape[1])
    if len(targets) == 1:  # one product instead of one for each dream
        dream = dream.reshape(1, -1, dream.shape[-1])
    if config.similarity == "cosine":
        dream, targets = (x / x.norm(dim=-1, keepdim=True).clamp(min=1e-8) for x in (dream, targets))
        return (dream @ targets.transpose(1, 2)).reshape(shape)
    return (1 / (1 + torch.cdist(dream, targets))).reshape(shape)
