"""TopK sparse autoencoder (Gao et al. 2024, "Scaling and evaluating sparse autoencoders", arXiv 2406.04093)."""

from __future__ import annotations

import torch
from jsonargparse.typing import NonNegativeFloat, PositiveInt
from torch import Tensor

from lightning_modules.autoencoders.aux_k import AuxK
from lightning_modules.autoencoders.base import Autoencoder
from lightning_modules.autoencoders.inference import LargestValues
from lightning_modules.autoencoders.terms import LossTerm, WholeBatch
from lightning_modules.autoencoders.wiring import Wiring
from lightning_modules.functional import Codes, Missed, SparseCodes, linear_topk, squared_error
from run_store import UserError

WIDER = 4
"""Multi-TopK's second reconstruction has so many times k latents, as in the paper."""


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

    `AuxK` revives dead latents. Multi-TopK (appendix of the paper) adds

        multi_topk_coefficient · ‖y − ŷ_4k‖² in the unit of the reconstruction's

    with ŷ_4k made of the 4 k largest, so that codes stay good where more than k latents are kept afterwards.

    Args:
        d_sae: number of latents.
        k: latents kept for each row.
        aux_k_coefficient: weight of the AuxK loss; 0 leaves it out.
        k_aux: how many dead latents reconstruct the error; the paper's d_in / 2 by default.
        multi_topk_coefficient: weight of the reconstruction from 4 k latents, 1/8 in the paper; 0 leaves it out.
        screening: find the latents by a product in bfloat16 and compute them exactly, in training: see
            `functional.screening`.
        wiring: what is read and what is reconstructed; one hook point for both by default.
    """

    shardable = True
    revived_length = 0.5

    def __init__(
        self,
        d_sae: PositiveInt,
        k: PositiveInt = 32,
        aux_k_coefficient: NonNegativeFloat = 1 / 32,
        k_aux: PositiveInt | None = None,
        multi_topk_coefficient: NonNegativeFloat = 0.0,
        screening: bool = False,
        wiring: Wiring | None = None,
    ) -> None:
        super().__init__(d_sae, wiring)
        self.k = k
        self.auxiliary = AuxK(aux_k_coefficient, k_aux)
        self.multi_topk_coefficient = multi_topk_coefficient
        self.screening = screening

    def check_settings(self) -> None:
        super().check_settings()
        check_k(self.k, self.d_sae)
        if self.multi_topk_coefficient and WIDER * self.k > self.d_sae:
            raise UserError(
                f"multi_topk_coefficient is {self.multi_topk_coefficient}, which keeps {WIDER} · k = {WIDER * self.k} "
                f"latents, and d_sae is {self.d_sae}: raise d_sae, lower k or set multi_topk_coefficient to 0"
            )

    def encode(self, x: Tensor) -> SparseCodes:
        screening = self.screening and self.training
        if not self.multi_topk_coefficient or not (self.training or torch.is_grad_enabled()):
            values, indices = linear_topk(x, self.W_enc, self.encoder_bias(), self.k, screening=screening)
            return SparseCodes(values, indices, self.d_sae)
        values, indices = linear_topk(x, self.W_enc, self.encoder_bias(), WIDER * self.k, screening=screening)
        places = values.detach().topk(self.k, dim=1, sorted=False).indices
        wider = SparseCodes(values, indices, self.d_sae)
        return SparseCodes(values.gather(1, places), indices.gather(1, places), self.d_sae, wider)

    def reconstruction_terms(
        self, x: Tensor, y: Tensor, codes: Codes, missed: Missed, whole: WholeBatch
    ) -> dict[str, LossTerm]:
        terms = super().reconstruction_terms(x, y, codes, missed, whole)
        if isinstance(codes, SparseCodes) and codes.wider is not None:
            error = squared_error(y, self.decode(codes.wider, x))
            terms["multi_topk"] = LossTerm(error / whole.unit, self.multi_topk_coefficient)
        return terms

    def inference(self) -> LargestValues:
        return LargestValues(self.k)
