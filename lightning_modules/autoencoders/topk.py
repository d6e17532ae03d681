"""TopK sparse autoencoder (Gao et al. 2024, "Scaling and evaluating sparse autoencoders", arXiv 2406.04093)."""

from __future__ import annotations

from jsonargparse.typing import NonNegativeFloat, PositiveInt
from torch import Tensor

from lightning_modules.autoencoders.aux_k import AuxK
from lightning_modules.autoencoders.base import Autoencoder
from lightning_modules.autoencoders.wiring import Wiring
from lightning_modules.functional import SparseCodes, linear_topk
from run_store import UserError


def check_k(k: int, d_sae: int) -> None:
    """Refuses a k that a dictionary of d_sae latents cannot keep.

    Raises:
        UserError: naming both.
    """
    if not 1 <= k <= d_sae:
        raise UserError(f"k is {k} and d_sae is {d_sae}: k must be between 1 and d_sae")


class TopK(Autoencoder):
    """Keeps the k largest of relu(z), z = (x − b_dec) W_encᵀ + b_enc; L0 is k by construction and there is no
    coefficient to tune.

    `AuxK` revives dead latents.

    Args:
        d_sae: number of latents.
        k: latents kept for each row.
        aux_k_coefficient: weight of the AuxK loss; 0 leaves it out.
        k_aux: how many dead latents reconstruct the error; the paper's d_in / 2 by default.
        wiring: what is read and what is reconstructed; one hook point for both by default.
    """

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
        self.auxiliary = AuxK(aux_k_coefficient, k_aux)

    def check_settings(self) -> None:
        super().check_settings()
        check_k(self.k, self.d_sae)

    def encode(self, x: Tensor) -> SparseCodes:
        values, indices = linear_topk(x, self.W_enc, self.encoder_bias(), self.k)
        return SparseCodes(values, indices, self.d_sae)
