"""ReLU sparse autoencoder with an L1 penalty (Bricken et al. 2023, "Towards Monosemanticity"; Anthropic's update of
April 2024).
"""

from __future__ import annotations

from jsonargparse.typing import NonNegativeFloat, PositiveInt
from torch import Tensor

from lightning_modules.autoencoders.base import Autoencoder, LossTerm, WholeBatch
from lightning_modules.autoencoders.wiring import Wiring
from lightning_modules.functional import Codes, DenseCodes


class ReLU(Autoencoder):
    """f = relu((x − b_dec) W_encᵀ + b_enc) with a penalty l1_coefficient · mean over rows of Σ_i f_i ‖W_dec[i]‖.

    The decoder's rows have unit norm, so the penalty is plain L1 and cannot be escaped by shrinking f while W_dec
    grows. The coefficient is meant for a reconstruction term in units of FVU and inputs of mean norm sqrt(d_in) (the
    default normalisation); published values near 5 belong to a summed squared error, d_in times as large.

    Args:
        d_sae: number of latents.
        l1_coefficient: weight of the penalty; more makes codes sparser.
        wiring: what is read and what is reconstructed; one hook point for both by default.
    """

    encodes_by_pre_activations = True

    def __init__(
        self, d_sae: PositiveInt, l1_coefficient: NonNegativeFloat = 0.01, wiring: Wiring | None = None
    ) -> None:
        super().__init__(d_sae, wiring)
        self.l1_coefficient = l1_coefficient

    def encode(self, x: Tensor) -> DenseCodes:
        return DenseCodes(self.pre_activations(x).relu())

    def sparsity_terms(
        self, x: Tensor, y: Tensor, codes: Codes, error: Tensor, dead: Tensor | None, whole: WholeBatch
    ) -> dict[str, LossTerm]:
        return {"l1": LossTerm(self.weighed(codes.values).sum() / whole.rows, self.l1_coefficient, warms_up=True)}
