"""Matching pursuit sparse autoencoder (Costa et al. 2025, "From Flat to Hierarchical: Extracting Sparse Representations
with Matching Pursuit", arXiv 2506.03093).
"""

from __future__ import annotations

from jsonargparse.typing import NonNegativeFloat, PositiveInt
from torch import Tensor

from lightning_modules.autoencoders.base import Autoencoder
from lightning_modules.autoencoders.inference import Pursuit
from lightning_modules.autoencoders.topk import check_k
from lightning_modules.autoencoders.wiring import Wiring
from lightning_modules.functional import SparseCodes, matching_pursuit, merge_repeats
from run_store import UserError


class MatchingPursuit(Autoencoder):
    """Takes k times the latent that explains most of what is left, with unit-norm directions that encode and decode:

        r_0 = x − b_dec;  i = argmax r·W_dec[i],  f_i += r·W_dec[i],  r ← r − (r·W_dec[i]) W_dec[i]

    A step only takes a positive correlation; where there is none, nothing is left to take. The same latent may be taken
    again, so L0 is k or less. Each latent is chosen knowing what those before it have explained, so features that
    depend on one another need not share a direction to fire together.

    W_dec and b_dec are all the parameters (W_enc is W_dec, there is no b_enc), and W_dec has the exact gradient of the
    unrolled steps. There is no sparsity loss and none for dead latents: `revive`, which resampling calls, points a dead
    latent to a row that is reconstructed badly, where it is taken first.

    Args:
        d_sae: number of latents.
        k: steps for each row, the largest L0.
        residual_threshold: a row stops once ‖r‖ is below this, on the scale of the normalised activations; 0 makes all
            k steps.
        wiring: what is read and what is reconstructed; one hook point for both by default.
    """

    def __init__(
        self,
        d_sae: PositiveInt,
        k: PositiveInt = 32,
        residual_threshold: NonNegativeFloat = 0.0,
        wiring: Wiring | None = None,
    ) -> None:
        super().__init__(d_sae, wiring)
        self.k = k
        self.residual_threshold = residual_threshold

    @property
    def shares_directions(self) -> bool:
        return True

    def check_settings(self) -> None:
        super().check_settings()
        check_k(self.k, self.d_sae)
        if not self.wiring.unit_norm:
            raise UserError(
                f"MatchingPursuit needs directions of unit norm, which {type(self.wiring).__name__} does not keep: "
                "take another autoencoder or another wiring"
            )

    def build_own(self) -> None:
        del self.W_enc  # so that the one parameter goes by the name W_dec first
        self.W_enc = self.W_dec
        self.register_parameter("b_enc", None)

    def encode(self, x: Tensor) -> SparseCodes:
        taken = matching_pursuit(x - self.without_latents(x), self.W_dec, self.k, self.residual_threshold)
        return SparseCodes(*merge_repeats(*taken), self.d_sae)

    def inference(self) -> Pursuit:
        return Pursuit(self.k, self.residual_threshold)
