"""Gated sparse autoencoder (Rajamanoharan et al. 2024, "Improving Dictionary Learning with Gated Sparse Autoencoders",
arXiv 2404.16014).
"""

from __future__ import annotations

import torch
from jsonargparse.typing import NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from lightning_modules.autoencoders.base import Autoencoder, LossTerm, WholeBatch
from lightning_modules.autoencoders.wiring import Wiring
from lightning_modules.functional import Codes, DenseCodes, squared_error


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
        wiring: what is read and what is reconstructed; one hook point for both by default.
    """

    r_mag: nn.Parameter
    b_mag: nn.Parameter

    def __init__(
        self, d_sae: PositiveInt, l1_coefficient: NonNegativeFloat = 0.01, wiring: Wiring | None = None
    ) -> None:
        super().__init__(d_sae, wiring)
        self.l1_coefficient = l1_coefficient

    def build_own(self) -> None:
        self.r_mag = nn.Parameter(torch.zeros(self.d_sae))
        self.b_mag = nn.Parameter(torch.zeros(self.d_sae))

    def encode(self, x: Tensor) -> DenseCodes:
        # both maps share one GEMM
        centering = self.wiring.encoder_bias(self.W_enc, torch.zeros_like(self.b_enc), self.b_dec)
        projected = self.wiring.project(x, self.W_enc, centering).to(self.W_enc.dtype)
        gate = projected + self.b_enc
        magnitude = (projected * self.r_mag.exp() + self.b_mag).relu()
        return DenseCodes(magnitude * (gate > 0), gate if torch.is_grad_enabled() else None)

    def sparsity_terms(
        self, x: Tensor, y: Tensor, codes: Codes, error: Tensor, dead: Tensor | None, whole: WholeBatch
    ) -> dict[str, LossTerm]:
        assert isinstance(codes, DenseCodes)
        gate = self.pre_activations(x) if codes.pre_activations is None else codes.pre_activations
        opened = gate.relu()
        reconstruction = self.wiring.decode(DenseCodes(opened), self.W_dec.detach()) + self.without_latents(x).detach()
        return {
            "l1": LossTerm(self.weighed(opened).sum() / whole.rows, self.l1_coefficient, warms_up=True),
            "gate": LossTerm(squared_error(y, reconstruction) / whole.unit, 1.0),
        }
