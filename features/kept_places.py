"""The places of every latent with the largest keys, in one pass with memory that does not grow.

Shapes: b rows of a batch, E entries, s latents, n places kept of each, w rows of a window.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from features.entries import Entries, runs
from features.windows import Windows


class Places(NamedTuple):
    """Where latents fired, for each of them the largest key first."""

    rows: Tensor
    """[s, n] int64 numbers of rows in the store; −1 where there are no more."""
    values: Tensor
    """[s, n] what the latent was there."""
    around: Tensor
    """[s, n, w] what it was on the rows around and on the row itself, which is in the middle; nan for a row that is not
    of the same document."""


class KeptPlaces:
    """Keeps `count` places of every latent. Of equal keys the one that came first stays.

    Args:
        d_sae: s.
        count: n.
        window: w, odd.
        device: of what is kept.
    """

    def __init__(self, d_sae: int, count: int, window: int, device: torch.device) -> None:
        self._keys = torch.full((d_sae, count), -torch.inf, device=device)
        self._rows = torch.full((d_sae, count), -1, device=device)
        self._values = torch.zeros(d_sae, count, device=device)
        # half precision is enough to shade a token by
        self._around = torch.full((d_sae, count, window), torch.nan, dtype=torch.float16, device=device)

    @property
    def places(self) -> Places:
        """What has been kept so far."""
        return Places(self._rows, self._values, self._around)

    def update(self, entries: Entries, keys: Tensor, windows: Windows) -> None:
        """Takes in a batch.

        Args:
            entries: those that may be kept.
            keys: [E] their keys, all finite.
            windows: tells what is around them.
        """
        # what cannot get in is left out first: after a few batches that is nearly all
        chosen = (keys > self._keys[entries.latents, -1]).nonzero().flatten()
        if not len(chosen):
            return
        order = chosen[keys[chosen].sort(descending=True, stable=True).indices]
        order = order[entries.latents[order].sort(stable=True).indices]
        _, _, within = runs(entries.latents[order])
        order = order[within < self._keys.shape[1]]
        self._merge(entries, order, keys, windows)

    def _merge(self, entries: Entries, order: Tensor, keys: Tensor, windows: Windows) -> None:
        """`order` are the entries that may get in, by latent and then by key, at most n of each."""
        touched, counts, within = runs(entries.latents[order])
        line = torch.arange(len(touched), device=order.device).repeat_interleave(counts)
        old = self._keys[touched]
        new, source = torch.full_like(old, -torch.inf), torch.full_like(old, -1, dtype=torch.int64)
        new[line, within], source[line, within] = keys[order], order
        # the old ones stand first, and a stable sort leaves equal ones in their order
        both, best = torch.cat([old, new], dim=1).sort(dim=1, descending=True, stable=True)
        count = old.shape[1]
        both, best = both[:, :count], best[:, :count]
        stayed = best.clamp_max(count - 1)
        came = (best >= count) & (both > -torch.inf)
        entry = source.gather(1, (best - count).clamp_min(0))[came]
        rows, values, around = windows.of(entries.latents[entry], entries.places[entry])
        self._keys[touched] = both
        self._rows[touched] = _replaced(self._rows[touched], stayed, came, rows)
        self._values[touched] = _replaced(self._values[touched], stayed, came, values)
        deep = stayed.unsqueeze(2).expand(-1, -1, around.shape[1])
        self._around[touched] = _replaced(self._around[touched], deep, came, around)


def _replaced(old: Tensor, stayed: Tensor, came: Tensor, new: Tensor) -> Tensor:
    """What stayed in its new order, and what came where it belongs."""
    moved = old.gather(1, stayed)
    moved[came] = new.to(old.dtype)
    return moved
