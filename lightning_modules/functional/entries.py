"""A vector for every kept entry, as losses and encoders need that go through a row's latents one after another.

Shapes: b rows of a batch, of which c are looked at at once, k kept latents a row, s latents, d width.

Such passes keep a residual for each of the k places, [k, c, d]: place first, so that a step of the pass reads and
writes memory that lies together.
"""

from __future__ import annotations

from torch import Tensor

from lightning_modules.functional.sparse import latent_sums

CPU_ELEMENTS = 2**22
"""Elements of [k, c, d] on a CPU: 16 MB in float32. With many more they fall out of its cache, with many fewer the
[s, d] sums of the parts, which have to be added, cost more than the parts."""

GPU_ELEMENTS = 2**28
"""The same on any other device: 1 GB in float32, since a GPU wants as much as memory allows in one launch."""


def rows_with_entries_at_once(values: Tensor, width: int) -> int:
    """c for values [b, k] and width d, at least 1."""
    elements = CPU_ELEMENTS if values.device.type == "cpu" else GPU_ELEMENTS
    return max(1, elements // (values.shape[1] * width))


def entry_sums(weights: Tensor, latents: Tensor, vectors: Tensor, d_sae: int) -> Tensor:
    """Σ over the entries of latent l of weights[j, r] · vectors[j, r]: [k, c], [k, c] int64, [k, c, d] → [d_sae, d].
    The result is the same on every run.
    """
    return latent_sums(weights.reshape(-1, 1), latents.reshape(-1, 1), vectors.flatten(0, 1), d_sae)
