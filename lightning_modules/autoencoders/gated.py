"""Gated sparse autoencoder (Rajamanoharan et al. 2024, "Improving Dictionary Learning with Gated Sparse Autoencoders",
arXiv 2404.16014).
"""

from __future__ import annotations

import torch
from jsonargparse.typing import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from lightning_modules.autoencoders.base import Autoencoder
from lightning_modules.autoencoders.inference import Gate
from lightning_modules.autoencoders.target_l0 import SparsityCoefficient
from lightning_modules.autoencoders.terms import LossTerm, WholeBatch
from lightning_modules.autoencoders.wiring import Wiring
from lightning_modules.functional import Codes, DenseCodes, squared_error


class Gated(Autoencoder):
    """One affine map decides whether a latent fires, another with the same directions how high:

        π = (x − b_dec) W_encᵀ + b_enc,  f = 1[π > 0] · relu((x − b_dec) (exp(r_mag) · W_enc)ᵀ + b_mag)

    So a penalty on π does not shrink f. The loss gains, as means over rows,

        l1:          l1_coefficient · Σ_i relu(π_i) ‖W_dec[i]‖
        gate:        FVU of relu(π) W_dec + b_dec, with W_dec and b_dec of the decoder held fixed

    The gate has no gradient, so b_enc learns from these two alone. b_enc is the paper's b_gate: it decides what fires,
    as in every other variant. The coefficient is meant for inputs of mean norm sqrt(d_in) (the default normalisation);
    the paper's belong to a squared error summed over d_in, FVU times some d_in.

    Args:
        d_sae: number of latents.
        l1_coefficient: weight of the penalty; more makes codes sparser. With target_l0 it is where the search begins.
        target_l0: the mean L0 that is asked for: from 1 on a number of latents, below 1 a share of d_sae. Given, a
            controller moves the weight of the penalty until the L0 is reached.
        wiring: what is read and what is reconstructed; one hook point for both by default.
    """

    encodes_by_pre_activations = True

    coefficient: SparsityCoefficient
    r_mag: nn.Parameter
    b_mag: nn.Parameter

    def __init__(
        self,
        d_sae: PositiveInt,
        l1_coefficient: NonNegativeFloat = 0.01,
        target_l0: PositiveFloat | None = None,
        wiring: Wiring | None = None,
    ) -> None:
        super().__init__(d_sae, wiring)
        self.coefficient = SparsityCoefficient("l1_coefficient", l1_coefficient, target_l0, d_sae)

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

    def inference(self) -> Gate:
        return Gate(self.r_mag, self.b_mag - self.b_enc * self.r_mag.exp())

    def sparsity_terms(
        self, x: Tensor, y: Tensor, codes: Codes, error: Tensor, dead: Tensor | None, whole: WholeBatch
    ) -> dict[str, LossTerm]:
        assert isinstance(codes, DenseCodes)
        gate = self.pre_activations(x) if codes.pre_activations is None else codes.pre_activations
        opened = gate.relu()
        reconstruction = self.wiring.decode(DenseCodes(opened), self.W_dec.detach()) + self.without_latents(x).detach()
        return {
            "l1": LossTerm(self.weighed(opened).sum() / whole.rows, self.coefficient.weight, warms_up=True),
            "gate": LossTerm(squared_error(y, reconstruction) / whole.unit, 1.0),
        }

    def latent_parameters(self) -> dict[str, nn.Parameter]:
        return {**super().latent_parameters(), "r_mag": self.r_mag, "b_mag": self.b_mag}

    @torch.no_grad()
    def revive(self, latents: Tensor, x: Tensor, error: Tensor) -> None:
        super().revive(latents, x, error)
        self.r_mag[latents] = 0
        self.b_mag[latents] = 0
