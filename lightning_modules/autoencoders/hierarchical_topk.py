"""Hierarchical TopK sparse autoencoder (Balagansky et al. 2025, "Train One Sparse Autoencoder Across Multiple Sparsity
Budgets to Preserve Interpretability and Accuracy", arXiv 2505.24473).
"""

from __future__ import annotations

from jsonargparse.typing import NonNegativeFloat, PositiveInt
from torch import Tensor

from lightning_modules.autoencoders.aux_k import AuxK
from lightning_modules.autoencoders.base import Autoencoder
from lightning_modules.autoencoders.inference import LargestValues
from lightning_modules.autoencoders.terms import LossTerm, WholeBatch
from lightning_modules.autoencoders.topk import check_k
from lightning_modules.autoencoders.wiring import Wiring
from lightning_modules.functional import Codes, Missed, SparseCodes, linear_topk, nested_squared_error
from run_store import UserError


class HierarchicalTopK(Autoencoder):
    """One dictionary for every budget j ≤ k: keeps the k largest of relu(z), z = (x − b_dec) W_encᵀ + b_enc, and is
    trained to reconstruct from the j largest of them alone, f_1 ≥ f_2 ≥ …:

        reconstruction = mean over j of ‖y − b_dec − Σ_(i ≤ j) f_i W_dec[i]‖²

    with j from 1 to k, or those of `budgets`. The cost is that of about two more passes over the kept entries, not that
    of k decodes.

    FVU and what `AuxK`'s dead latents explain are those of all k.

    Args:
        d_sae: number of latents.
        k: latents kept for each row in training, the largest budget.
        budgets: which j are trained, ascending and up to k itself; all of them by default.
        evaluation_k: latents kept for each row outside training, up to k; k by default. It may be changed at any time.
        aux_k_coefficient: weight of the AuxK loss; 0 leaves it out.
        k_aux: how many dead latents reconstruct the error; d_in / 2 by default.
        screening: find the latents by a product in bfloat16 and compute them exactly, in training: see
            `functional.screening`.
        wiring: what is read and what is reconstructed; one hook point for both by default.
    """

    revived_length = 0.5

    def __init__(
        self,
        d_sae: PositiveInt,
        k: PositiveInt = 32,
        budgets: list[PositiveInt] | None = None,
        evaluation_k: PositiveInt | None = None,
        aux_k_coefficient: NonNegativeFloat = 1 / 32,
        k_aux: PositiveInt | None = None,
        screening: bool = False,
        wiring: Wiring | None = None,
    ) -> None:
        super().__init__(d_sae, wiring)
        self.k = k
        self.budgets = budgets
        self.evaluation_k = evaluation_k
        self.screening = screening
        self.auxiliary = AuxK(aux_k_coefficient, k_aux)

    def check_settings(self) -> None:
        super().check_settings()
        check_k(self.k, self.d_sae)
        budgets = [self.k] if self.budgets is None else self.budgets
        if budgets != sorted({budget for budget in budgets if budget >= 1}) or budgets[-1:] != [self.k]:
            raise UserError(
                f"budgets is {budgets} and k is {self.k}: give ascending numbers from 1 up, the last of them k"
            )
        if self.evaluation_k is not None and not 1 <= self.evaluation_k <= self.k:
            raise UserError(
                f"evaluation_k is {self.evaluation_k} and k is {self.k}: evaluation_k must be between 1 and k"
            )

    def encode(self, x: Tensor) -> SparseCodes:
        k = self.k if self.training or self.evaluation_k is None else self.evaluation_k
        screening = self.screening and self.training
        values, indices = linear_topk(x, self.W_enc, self.encoder_bias(), k, screening=screening)
        return SparseCodes(values, indices, self.d_sae)

    def inference(self) -> LargestValues:
        return LargestValues(self.k if self.evaluation_k is None else self.evaluation_k)

    def reconstruction_terms(
        self, x: Tensor, y: Tensor, codes: Codes, missed: Missed, whole: WholeBatch
    ) -> dict[str, LossTerm]:
        assert isinstance(codes, SparseCodes)
        values, order = codes.values.sort(dim=1, descending=True)
        indices = codes.indices.gather(1, order)
        target = y - self.without_latents(x)
        error = nested_squared_error(values, indices, self.W_dec, target, self._weights(values.shape[1]))
        return {"reconstruction": LossTerm(error / whole.unit, 1.0)}

    def _weights(self, kept: int) -> list[float]:
        """What the error of each budget up to `kept` counts in the mean."""
        budgets = range(1, self.k + 1) if self.budgets is None else self.budgets
        return [(budget in budgets) / len(budgets) for budget in range(1, kept + 1)]
