"""BatchTopK sparse autoencoder (Bussmann, Leask & Nanda 2024, "BatchTopK sparse autoencoders", arXiv 2412.06410)."""

from __future__ import annotations

from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, PositiveInt
from torch import Tensor

from lightning_modules.autoencoders.aux_k import AuxK
from lightning_modules.autoencoders.base import Autoencoder
from lightning_modules.autoencoders.batch_selection import BatchSelection
from lightning_modules.autoencoders.inference import Thresholds
from lightning_modules.autoencoders.terms import TrainingPass, Whole
from lightning_modules.autoencoders.topk import check_k
from lightning_modules.autoencoders.wiring import Wiring
from lightning_modules.functional import Codes


class BatchTopK(Autoencoder):
    """Keeps the k·b largest of relu(z) over the b rows of a batch, those of all ranks, in training, and what exceeds a
    threshold θ that follows from these in evaluation: see `BatchSelection`.

    `AuxK` revives dead latents.

    Args:
        d_sae: number of latents.
        k: latents kept for each row on average.
        aux_k_coefficient: weight of the AuxK loss; 0 leaves it out.
        k_aux: how many dead latents reconstruct the error; d_in / 2 by default.
        threshold_decay: how much of θ the next batch leaves, once the run is long enough.
        screening: find the latents by a product in bfloat16 and compute them exactly, in training: see
            `functional.screening`.
        wiring: what is read and what is reconstructed; one hook point for both by default.
    """

    rows_are_independent = False
    shardable = True
    revived_length = 0.7

    def __init__(
        self,
        d_sae: PositiveInt,
        k: PositiveInt = 32,
        aux_k_coefficient: NonNegativeFloat = 1 / 32,
        k_aux: PositiveInt | None = None,
        threshold_decay: ClosedUnitInterval = 0.999,
        screening: bool = False,
        wiring: Wiring | None = None,
    ) -> None:
        super().__init__(d_sae, wiring)
        self.auxiliary = AuxK(aux_k_coefficient, k_aux)
        self.selection = BatchSelection(k, threshold_decay, screening)

    @property
    def k(self) -> int:
        """Latents kept for each row on average."""
        return self.selection.k

    @property
    def threshold(self) -> Tensor:
        """θ, scalar."""
        return self.selection.threshold

    def check_settings(self) -> None:
        super().check_settings()
        check_k(self.k, self.d_sae)

    def encode(self, x: Tensor) -> Codes:
        return self.selection.encode(self, x)

    def inference(self) -> Thresholds:
        return Thresholds(self.threshold.expand(self.d_sae))

    def training_pass(
        self, x: Tensor, dead: Tensor | None = None, whole: Whole = None, y: Tensor | None = None
    ) -> TrainingPass:
        result = super().training_pass(x, dead, whole, y)
        self.selection.follow(result.codes)
        return result

    def gauges(self) -> dict[str, Tensor]:
        return {"threshold": self.threshold}
