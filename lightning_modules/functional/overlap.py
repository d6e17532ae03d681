"""How much two texts share of the latents that are in them.

Shapes: n texts, k kept latents of each, e texts of these, w others that each is compared with, s latents.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

VALUES_AT_ONCE = 2**22


class LatentSets(NamedTuple):
    """n texts as weighted sets of latents."""

    latents: Tensor
    """[n, k] int64; those of a text whose value is not 0 are distinct."""
    values: Tensor
    """[n, k] ≥ 0; 0 where a text has fewer."""
    d_sae: int

    def overlaps(self, texts: Tensor, others: Tensor) -> Tensor:
        """[e, w] in [0, 1]: the weighted Jaccard similarity Σ_i min(v_i, u_i) / Σ_i max(v_i, u_i) of each text with
        each of its others; 0 where both are empty.

        Args:
            texts: int64 [e] places.
            others: int64 [e, w] places.
        """
        width = max(self.d_sae, others.shape[1] * self.latents.shape[1])
        step = max(1, VALUES_AT_ONCE // max(1, width))
        parts = [
            self._of_block(*block) for block in zip(torch.split(texts, step), torch.split(others, step), strict=True)
        ]
        return torch.cat(parts) if parts else self.values.new_empty(others.shape)

    def _of_block(self, texts: Tensor, others: Tensor) -> Tensor:
        own = self.values.new_zeros(len(texts), self.d_sae).scatter_add_(1, self.latents[texts], self.values[texts])
        theirs = self.values[others]
        latents = self.latents[others]
        found = own.gather(1, latents.flatten(1)).view(latents.shape)
        both = torch.minimum(found, theirs).sum(dim=2)
        # max(a, b) = a + b − min(a, b)
        either = own.sum(dim=1, keepdim=True) + theirs.sum(dim=2) - both
        return torch.where(either > 0, both / either, 0)
