"""Gated sparse autoencoder (Rajamanoharan et al. 2024, "Improving Dictionary Learning with Gated Sparse Autoencoders",
arXiv 2404.16014).
"""

from __future__ import annotations

import torch
from jsonargparse.typing import NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from lightning_modules.autoencoders.base import Autoencoder, LossTerm, WholeBatch
from lightning_modules.functional import Codes, DenseCodes, fraction_of_variance_unexplained


class Gated(Autoencoder):
    """One affine map decides whether a latent fires, another with the same directions how high:

        π = (x − b_dec) W_encᵀ + b_enc,  f = 1[π > 0] · relu((x − b_dec) (exp(r_mag) · W_enc)ᵀ + b_mag)

    So a penalty on π does not shrink f. The loss gains, as means over rows and with decoder rows of unit norm,

        l1:          l1_coefficient · Σ_i relu(π_i)
        gate:        FVU of relu(π) W_dec + b_dec, with W_dec and b_dec of the decoder held fixed

    The gate has no gradient, so b_enc learns from these two alone. b_enc is the paper's b_gate: it decides what fires,
    as in every other variant.

    Args:
        d_sae: number of latents.
        l1_coefficient: weight of the penalty; more makes codes sparser.
    """

    r_mag: nn.Parameter
    b_mag: nn.Parameter

    def __init__(self, d_sae: PositiveInt, l1_coefficient: NonNegativeFloat = 0.01) -> None:
        super().__init__(d_sae)
        self.l1_coefficient = l1_coefficient

    def build(self, d_in: int) -> None:
        super().build(d_in)
        self.r_mag = nn.Parameter(torch.zeros(self.d_sae))
        self.b_mag = nn.Parameter(torch.zeros(self.d_sae))

    def encode(self, x: Tensor) -> DenseCodes:
        # both maps share one GEMM
        projected = nn.functional.linear(x, self.W_enc, -self.W_enc @ self.b_dec).to(self.W_enc.dtype)
        gate = projected + self.b_enc
        magnitude = (projected * self.r_mag.exp() + self.b_mag).relu()
        return DenseCodes(magnitude * (gate > 0), gate if torch.is_grad_enabled() else None)

    def sparsity_terms(
        self, x: Tensor, codes: Codes, error: Tensor, dead: Tensor | None, whole: WholeBatch
    ) -> dict[str, LossTerm]:
        assert isinstance(codes, DenseCodes)
        gate = self._gate(x) if codes.pre_activations is None else codes.pre_activations
        opened = gate.relu()
        reconstruction = opened @ self.W_dec.detach() + self.b_dec.detach()
        return {
            "l1": LossTerm(opened.sum() / whole.rows, self.l1_coefficient, warms_up=True),
            "gate": LossTerm(fraction_of_variance_unexplained(x, reconstruction, whole.variance), 1.0),
        }

    def _gate(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.W_enc, self.encoder_bias()).to(self.W_enc.dtype)
