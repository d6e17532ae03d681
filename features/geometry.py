"""Latents by the directions of their decoder rows: which are near each other, and a map of all of them.

Shapes: s latents, d width, k neighbours of each.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

_AT_ONCE = 1024
EPOCHS = 300
REPELLED = 8
"""Others that a latent is pushed away from in every epoch."""
REPULSION = 3.0
"""Strength of that push: rows of a dictionary are nearly orthogonal, and with less all of them end in one heap."""


def nearest(directions: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The neighbours of every row by cosine, those of highest cosine first.

    Args:
        directions: [s, d].
        count: k; s − 1 at most.

    Returns:
        int64 [s, k] numbers of rows, and their cosines [s, k].
    """
    rows = normalize(directions.float(), dim=1)
    count = min(count, max(0, len(rows) - 1))
    found: list[tuple[Tensor, Tensor]] = []
    for first in range(0, len(rows), _AT_ONCE):
        cosines = rows[first : first + _AT_ONCE] @ rows.T
        mine = torch.arange(len(cosines))
        cosines[mine, first + mine] = -torch.inf
        best = cosines.topk(count, dim=1)
        found.append((best.indices, best.values))
    if not found:
        return torch.zeros(0, 0, dtype=torch.int64), torch.zeros(0, 0)
    numbers, cosines = (torch.cat(column) for column in zip(*found, strict=True))
    return numbers, cosines


def layout(directions: Tensor, neighbours: int = 4, seed: int = 0) -> Tensor:
    """A map [s, 2] on which near rows lie near each other; the same on every run.

    It starts from the first two principal components and is refined as UMAP's is (McInnes et al. 2018, arXiv
    1802.03426): similarities on the map are 1 / (1 + distance²), every row is drawn to its nearest neighbours by cosine
    and pushed away from some rows that are drawn anew in every epoch, by the gradients of log q and log (1 − q), in
    steps that shrink to nothing. Its longest side lies across.

    Args:
        directions: [s, d].
        neighbours: of each row, that it is drawn to.
        seed: draws the rows that it is pushed away from.
    """
    rows = normalize(directions.float(), dim=1)
    places = _components(rows)
    if len(rows) < 3:
        return places
    numbers, cosines = nearest(rows, neighbours)
    # the nearest pulls with all its strength, the others by how near they are beside it
    strength = (cosines.clamp_min(0) / cosines[:, :1].clamp_min(1e-6)).square()
    sources = torch.arange(len(rows)).repeat_interleave(numbers.shape[1])
    generator = torch.Generator().manual_seed(seed)
    for epoch in range(EPOCHS):
        step = 1 - epoch / EPOCHS
        moved = torch.zeros_like(places)
        apart = places[sources] - places[numbers.flatten()]
        pull = (apart * (2 * strength.flatten() / (1 + apart.square().sum(dim=1))).unsqueeze(1)).clamp(-4, 4)
        moved.index_add_(0, sources, -pull)
        moved.index_add_(0, numbers.flatten(), pull)
        others = torch.randint(len(rows), (len(rows), REPELLED), generator=generator)
        apart = places.unsqueeze(1) - places[others]
        square = apart.square().sum(dim=2, keepdim=True)
        moved += REPULSION * (apart * 2 / ((0.01 + square) * (1 + square))).clamp(-4, 4).sum(dim=1)
        places = places + 0.1 * step * moved
    return _components(places)


def _components(rows: Tensor) -> Tensor:
    """The first two principal components [s, 2] of rows [s, d], as wide as UMAP's start, each with the sign that makes
    its largest value positive.
    """
    centred = rows - rows.mean(dim=0) if len(rows) else rows
    places = torch.zeros(len(rows), 2)
    # of d × d, since there may be very many rows
    directions = torch.linalg.eigh((centred.T @ centred).double()).eigenvectors.flip(1)[:, :2].float()
    found = centred @ directions
    if len(found):
        largest = found.gather(0, found.abs().argmax(dim=0, keepdim=True))
        found = found * torch.where(largest < 0, -1.0, 1.0)
    places[:, : found.shape[1]] = found
    return places * (10 / places.abs().max().clamp_min(1e-6)) if len(places) else places
