"""ReLU sparse autoencoder with an L1 penalty (Bricken et al. 2023, "Towards Monosemanticity"; Anthropic's update of
April 2024).
"""

from __future__ import annotations

from jsonargparse.typing import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from lightning_modules.autoencoders.base import Autoencoder
from lightning_modules.autoencoders.ghost_gradients import GhostGradients
from lightning_modules.autoencoders.inference import Rectifier
from lightning_modules.autoencoders.target_l0 import SparsityCoefficient
from lightning_modules.autoencoders.terms import LossTerm, WholeBatch
from lightning_modules.autoencoders.wiring import Wiring
from lightning_modules.functional import Codes, DenseCodes


class ReLU(Autoencoder):
    """f = relu((x − b_dec) W_encᵀ + b_enc) with a penalty l1_coefficient · mean over rows of Σ_i f_i ‖W_dec[i]‖.

    Where the decoder's rows have unit norm, the penalty is plain L1; where they may grow it cannot be escaped by
    shrinking f while W_dec grows. The coefficient is meant for a reconstruction term in units of FVU and inputs of mean
    norm sqrt(d_in) (the default normalisation). Published values near 5 belong to a squared error summed over d_in: in
    units of FVU they are 5 / d_in for centred inputs.

    `GhostGradients` revive dead latents.

    Args:
        d_sae: number of latents.
        l1_coefficient: weight of the penalty; more makes codes sparser. With target_l0 it is where the search begins.
        target_l0: the mean L0 that is asked for: from 1 on a number of latents, below 1 a share of d_sae. Given, a
            controller moves the weight of the penalty until the L0 is reached.
        tied: encoder and decoder are one matrix, W_enc = W_dec.
        ghost_gradients: weight of the ghost gradients' loss; the published one is 1, 0 leaves it out.
        wiring: what is read and what is reconstructed; one hook point for both by default.
    """

    encodes_by_pre_activations = True

    coefficient: SparsityCoefficient

    def __init__(
        self,
        d_sae: PositiveInt,
        l1_coefficient: NonNegativeFloat = 0.01,
        target_l0: PositiveFloat | None = None,
        tied: bool = False,
        ghost_gradients: NonNegativeFloat = 0.0,
        wiring: Wiring | None = None,
    ) -> None:
        super().__init__(d_sae, wiring)
        self.coefficient = SparsityCoefficient("l1_coefficient", l1_coefficient, target_l0, d_sae)
        self.tied = tied
        self.auxiliary = self.ghost_gradients = GhostGradients(ghost_gradients)

    def check_settings(self) -> None:
        super().check_settings()
        self.ghost_gradients.check(self.wiring)

    def build_own(self) -> None:
        if self.tied:
            self.W_enc = self.W_dec

    @property
    def shares_directions(self) -> bool:
        return self.tied

    def encode(self, x: Tensor) -> DenseCodes:
        return DenseCodes(self.pre_activations(x).relu())

    def inference(self) -> Rectifier:
        return Rectifier()

    def sparsity_terms(
        self, x: Tensor, y: Tensor, codes: Codes, error: Tensor, dead: Tensor | None, whole: WholeBatch
    ) -> dict[str, LossTerm]:
        value = self.weighed(codes.dense()).sum() / whole.rows
        return {
            "l1": LossTerm(value, self.coefficient.weight, warms_up=True),
            **super().sparsity_terms(x, y, codes, error, dead, whole),
        }
