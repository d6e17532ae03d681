"""How BatchTopK and its relatives select latents: over the batch in training, by a threshold in evaluation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_modules.autoencoders.base import Autoencoder
from lightning_modules.functional import BatchCodes, Codes, linear_above, linear_batch_topk

STEPS_PER_WINDOW = 10
"""The threshold averages over the last 1/10 of the batches so far, as long as that is fewer than 1 / (1 − decay)."""


class BatchSelection(nn.Module):
    """In training keeps the k·b largest of relu(z) over the b rows of a batch, z = (x − b_dec) W_encᵀ + b_enc: a row
    with much to tell keeps more than k, another fewer. The batch is that of all ranks together, so that their number
    changes nothing. In evaluation (`eval()`) a row cannot depend on its neighbours, so what is kept is what exceeds a
    threshold:

        f_i = z_i · 1[z_i > θ],  θ ← θ + w (least − θ),  w = max(1 − threshold_decay, 10 / (10 + n))

    with `least` the smallest positive value that the n-th batch kept (n from 0, so the first sets θ). A fixed decay
    would remember the first batches of a short run to its end; with w as it is, θ is that of the recent batches
    whatever the length of the run, and L0 in evaluation comes out near k. Before any training θ is 0. A batch without
    a finite positive value leaves θ as it is.

    θ and n are buffers, the same on every rank. As the ranks' values are compared, all of them must encode in training
    together.

    Args:
        k: latents kept for each row on average.
        threshold_decay: how much of θ the next batch leaves, once the run is long enough.
        screening: find the latents by a product in bfloat16 first, in training.
    """

    threshold: Tensor
    batches_seen: Tensor

    def __init__(self, k: int, threshold_decay: float, screening: bool = False) -> None:
        super().__init__()
        self.k = k
        self.threshold_decay = threshold_decay
        self.screening = screening
        self.register_buffer("threshold", torch.zeros(()))
        self.register_buffer("batches_seen", torch.zeros((), dtype=torch.int64))

    def encode(self, autoencoder: Autoencoder, x: Tensor) -> Codes:
        """Latents of x [b, d_in]."""
        if self.training:
            return linear_batch_topk(x, autoencoder.W_enc, autoencoder.encoder_bias(), self.k, self.screening)
        return linear_above(x, autoencoder.W_enc, autoencoder.encoder_bias(), self.threshold)

    @torch.no_grad()
    def follow(self, codes: Codes) -> None:
        """Moves the threshold towards the smallest positive value that a batch kept in training."""
        if not isinstance(codes, BatchCodes):
            return
        weight = (STEPS_PER_WINDOW / (STEPS_PER_WINDOW + self.batches_seen)).clamp_min(1 - self.threshold_decay)
        usable = codes.least.isfinite()
        moved = torch.lerp(self.threshold, codes.least.to(self.threshold), weight.to(self.threshold))
        self.threshold.copy_(torch.where(usable, moved, self.threshold))
        self.batches_seen += usable
