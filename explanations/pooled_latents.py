"""Texts as an embedding model pools them, and as the latents of its token states do.

Shapes: n texts, t tokens, E entries, s latents, d width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from datamodules.triplets import TokenisedTexts
from explanations.token_states import StateReader
from lightning_modules.functional import Fired
from lightning_modules.metrics import ReconstructionScores


class PooledLatents(NamedTuple):
    """n texts, on the device that read them."""

    embeddings: Tensor
    """[n, d] float32, before they are brought to norm 1."""
    reconstructed: Tensor
    """[n, d]: the same with the reconstruction in the place of every state that is pooled."""
    codes: Fired
    """ḡ, the pooled codes on the scale of the states; `rows` counts the n texts, and within a text latents ascend."""


class PooledReader:
    """Reads texts and keeps what the autoencoder misses of their states over all of them.

    Args:
        reader: of the states.
    """

    def __init__(self, reader: StateReader) -> None:
        self.reader = reader
        device = reader.trainee.tokens_seen.device
        self.missed = ReconstructionScores(reader.encoder.width).to(device)

    @property
    def fvu(self) -> float:
        """Over the tokens of all texts so far."""
        return float(self.missed.compute()["fvu"])

    @property
    def mean_state(self) -> Tensor:
        """[d] float32, over the same tokens."""
        return (self.missed.total / self.missed.rows).float()

    @torch.no_grad()
    def read(self, texts: Sequence[TokenisedTexts]) -> PooledLatents:
        """Texts in the encoder's tokenisation, on its device.

        Raises:
            UserError: the autoencoder is not of what the encoder pools.
        """
        d_sae, width = self.reader.trainee.autoencoder.d_sae, self.reader.encoder.width
        count, device = len(texts[0].lengths), texts[0].tokens.device
        embeddings, reconstructed = (torch.zeros(count, width, device=device) for _ in range(2))
        entries: list[Fired] = []
        for part in self.reader.read(texts):
            self.missed.update(part.states, part.reconstructions, part.reconstructions)
            embeddings[part.places] = part.pooled
            reconstructed[part.places] = part.pooled_of(part.reconstructions)
            tokens, latents, values = part.codes.fired()
            weighed = values * (part.weights / part.scales)[tokens]
            entries.append(added_up(Fired(part.places[part.texts[tokens]], latents, weighed), d_sae))
        empty = torch.empty(0, dtype=torch.int64, device=device)
        columns = (
            zip(*entries, strict=True) if entries else iter([(empty,), (empty,), (torch.empty(0, device=device),)])
        )
        rows, latents, values = (torch.cat(list(column)) for column in columns)
        order = (rows * d_sae + latents).argsort()
        return PooledLatents(embeddings, reconstructed, Fired(rows[order], latents[order], values[order]))


def added_up(entries: Fired, d_sae: int) -> Fired:
    """One entry for each row and latent, by row and within a row by latent: the sum of those that were there. What adds
    up to 0 is no entry.
    """
    keys, where = torch.unique(entries.rows * d_sae + entries.latents, return_inverse=True)
    sums = torch.zeros(len(keys), dtype=entries.values.dtype, device=keys.device).index_add_(0, where, entries.values)
    keys, sums = keys[sums != 0], sums[sums != 0]
    return Fired(keys // d_sae, keys % d_sae, sums)
