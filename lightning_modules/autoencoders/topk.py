"""TopK sparse autoencoder (Gao et al. 2024, "Scaling and evaluating sparse autoencoders", arXiv 2406.04093)."""

from __future__ import annotations

import torch
from jsonargparse.typing import NonNegativeFloat, PositiveInt
from torch import Tensor

from lightning_modules.autoencoders.base import Autoencoder, LossTerm, WholeBatch
from lightning_modules.functional import Codes, SparseCodes, Spread, linear_topk, sparse_decode, squared_error
from run_store import UserError


class TopK(Autoencoder):
    """Keeps the k largest of relu(z), z = (x − b_dec) W_encᵀ + b_enc; L0 is k by construction and there is no
    coefficient to tune.

    AuxK revives dead latents: the k_aux dead latents with the largest relu(z) reconstruct what the living ones miss, e
    = (x − x̂) detached, and the loss gains

        aux_k_coefficient · min(n_dead / k_aux, 1) · ‖e − ê‖² / ‖e − ē‖²,  ê = Σ_dead f_i W_dec[i]

    without a bias. The coefficient (1/32 in the paper) is meant for a reconstruction term in units of FVU, which is
    what the base class gives.

    Args:
        d_sae: number of latents.
        k: latents kept for each row.
        aux_k_coefficient: weight of the AuxK loss; 0 leaves it out.
        k_aux: how many dead latents reconstruct the error; the paper's d_in / 2 by default.
    """

    def __init__(
        self,
        d_sae: PositiveInt,
        k: PositiveInt = 32,
        aux_k_coefficient: NonNegativeFloat = 1 / 32,
        k_aux: PositiveInt | None = None,
    ) -> None:
        super().__init__(d_sae)
        self.k = k
        self.aux_k_coefficient = aux_k_coefficient
        self.k_aux = k_aux

    def check_settings(self) -> None:
        super().check_settings()
        if not 1 <= self.k <= self.d_sae:
            raise UserError(f"k is {self.k} and d_sae is {self.d_sae}: k must be between 1 and d_sae")

    def encode(self, x: Tensor) -> SparseCodes:
        values, indices = linear_topk(x, self.W_enc, self.encoder_bias(), self.k)
        return SparseCodes(values, indices, self.d_sae)

    @torch.no_grad()
    def measure(self, x: Tensor, dead: Tensor | None = None, error: Tensor | None = None) -> WholeBatch:
        whole = super().measure(x, dead, error)
        if dead is None or self.aux_k_coefficient == 0:
            return whole
        return whole._replace(error=Spread.of(x - self(x)[1] if error is None else error))

    def sparsity_terms(
        self, x: Tensor, codes: Codes, error: Tensor, dead: Tensor | None, whole: WholeBatch
    ) -> dict[str, LossTerm]:
        if self.aux_k_coefficient == 0:
            return {}
        if dead is None or whole.error is None:
            return {"aux_k": LossTerm(x.new_zeros(()), self.aux_k_coefficient)}
        return {"aux_k": LossTerm(self.aux_k_loss(x, error, dead, whole.error.squares), self.aux_k_coefficient)}

    def aux_k_loss(self, x: Tensor, error: Tensor, dead: Tensor, variance: Tensor) -> Tensor:
        """How badly the dead latents reconstruct the error, scalar; x, error [b, d]; dead [n], n ≥ 1; variance is
        ‖e − ē‖² over the whole batch.
        """
        k_aux = self.k_aux or max(1, self.d_in // 2)
        kept = min(k_aux, dead.numel())
        values, indices = linear_topk(x, self.W_enc[dead], self.encoder_bias()[dead], kept)
        reconstruction = sparse_decode(values, indices, self.W_dec[dead])
        # an error without variance (a perfect reconstruction, a single row) leaves nothing for the dead latents to
        # explain: neither a loss nor a gradient
        variance = variance.where(variance != 0, torch.inf)
        return squared_error(error, reconstruction) / variance * (kept / k_aux)
