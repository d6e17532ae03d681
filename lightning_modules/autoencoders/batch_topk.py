"""BatchTopK sparse autoencoder (Bussmann, Leask & Nanda 2024, "BatchTopK sparse autoencoders", arXiv 2412.06410)."""

from __future__ import annotations

import torch
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, PositiveInt
from torch import Tensor

from lightning_modules.autoencoders.aux_k import AuxK
from lightning_modules.autoencoders.base import Autoencoder, TrainingPass, WholeBatch
from lightning_modules.autoencoders.topk import check_k
from lightning_modules.autoencoders.wiring import Wiring
from lightning_modules.functional import Codes, DenseCodes, SparseCodes, linear_batch_topk

STEPS_PER_WINDOW = 10
"""The threshold averages over the last 1/10 of the batches so far, as long as that is fewer than 1 / (1 − decay)."""


class BatchTopK(Autoencoder):
    """In training keeps the k·b largest of relu(z) over the b rows of a batch, z = (x − b_dec) W_encᵀ + b_enc: a row
    with much to tell keeps more than k, another fewer. In evaluation (`eval()`) a row cannot depend on its neighbours,
    so what is kept is what exceeds a threshold:

        f_i = z_i · 1[z_i > θ],  θ ← θ + w (least − θ),  w = max(1 − threshold_decay, 10 / (10 + n))

    with `least` the smallest positive value that the n-th batch kept (n from 0, so the first sets θ). A fixed decay
    would remember the first batches of a short run to its end; with w as it is, θ is that of the recent batches
    whatever the length of the run, and L0 in evaluation comes out near k. Before any training θ is 0. A batch without
    a finite positive value leaves θ as it is.

    The batch is that of one process and one forward: under DDP each rank keeps k·b of its own rows. `AuxK` revives
    dead latents.

    Args:
        d_sae: number of latents.
        k: latents kept for each row on average.
        aux_k_coefficient: weight of the AuxK loss; 0 leaves it out.
        k_aux: how many dead latents reconstruct the error; d_in / 2 by default.
        threshold_decay: how much of θ the next batch leaves, once the run is long enough.
        wiring: what is read and what is reconstructed; one hook point for both by default.
    """

    rows_are_independent = False

    threshold: Tensor
    batches_seen: Tensor

    def __init__(
        self,
        d_sae: PositiveInt,
        k: PositiveInt = 32,
        aux_k_coefficient: NonNegativeFloat = 1 / 32,
        k_aux: PositiveInt | None = None,
        threshold_decay: ClosedUnitInterval = 0.999,
        wiring: Wiring | None = None,
    ) -> None:
        super().__init__(d_sae, wiring)
        self.k = k
        self.auxiliary = AuxK(aux_k_coefficient, k_aux)
        self.threshold_decay = threshold_decay

    def check_settings(self) -> None:
        super().check_settings()
        check_k(self.k, self.d_sae)

    def build_own(self) -> None:
        self.register_buffer("threshold", torch.zeros(()))
        self.register_buffer("batches_seen", torch.zeros((), dtype=torch.int64))

    def encode(self, x: Tensor) -> Codes:
        if self.training:
            return SparseCodes(*linear_batch_topk(x, self.W_enc, self.encoder_bias(), self.k), self.d_sae)
        z = self.pre_activations(x)
        return DenseCodes(z * (z > self.threshold))

    def training_pass(
        self, x: Tensor, dead: Tensor | None = None, whole: WholeBatch | None = None, y: Tensor | None = None
    ) -> TrainingPass:
        result = super().training_pass(x, dead, whole, y)
        if self.training:
            self.follow(result.codes.values)
        return result

    @torch.no_grad()
    def follow(self, kept: Tensor) -> None:
        """Moves the threshold towards the smallest positive of the values that a batch kept, of any shape."""
        least = kept.where(kept > 0, torch.inf).amin()
        weight = (STEPS_PER_WINDOW / (STEPS_PER_WINDOW + self.batches_seen)).clamp_min(1 - self.threshold_decay)
        usable = least.isfinite()
        self.threshold.copy_(torch.where(usable, torch.lerp(self.threshold, least, weight.to(least)), self.threshold))
        self.batches_seen += usable
