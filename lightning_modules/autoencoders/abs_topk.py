"""AbsTopK sparse autoencoder (Zhu et al. 2025, "AbsTopK: Rethinking sparse autoencoders for bidirectional features",
arXiv 2510.00404)."""

from __future__ import annotations

from jsonargparse.typing import NonNegativeFloat, PositiveInt
from torch import Tensor

from lightning_modules.autoencoders.aux_k import AuxK
from lightning_modules.autoencoders.base import Autoencoder
from lightning_modules.autoencoders.inference import LargestMagnitudes
from lightning_modules.autoencoders.topk import check_k
from lightning_modules.autoencoders.wiring import Wiring
from lightning_modules.functional import SparseCodes, linear_topk


class AbsTopK(Autoencoder):
    """Keeps the k of the largest |z| with their sign, z = (x − b_dec) W_encᵀ + b_enc: one latent stands for a direction
    and its opposite, which TopK needs two for. L0 is k by construction.

    `AuxK` revives dead latents, selecting them by |z| too.

    Args:
        d_sae: number of latents.
        k: latents kept for each row.
        aux_k_coefficient: weight of the AuxK loss; 0 leaves it out.
        k_aux: how many dead latents reconstruct the error; d_in / 2 by default.
        wiring: what is read and what is reconstructed; one hook point for both by default.
    """

    signed = True
    shardable = True
    revived_length = 0.5

    def __init__(
        self,
        d_sae: PositiveInt,
        k: PositiveInt = 32,
        aux_k_coefficient: NonNegativeFloat = 1 / 32,
        k_aux: PositiveInt | None = None,
        wiring: Wiring | None = None,
    ) -> None:
        super().__init__(d_sae, wiring)
        self.k = k
        self.auxiliary = AuxK(aux_k_coefficient, k_aux, signed=True)

    def check_settings(self) -> None:
        super().check_settings()
        check_k(self.k, self.d_sae)

    def encode(self, x: Tensor) -> SparseCodes:
        values, indices = linear_topk(x, self.W_enc, self.encoder_bias(), self.k, signed=True)
        return SparseCodes(values, indices, self.d_sae)

    def inference(self) -> LargestMagnitudes:
        return LargestMagnitudes(self.k)
