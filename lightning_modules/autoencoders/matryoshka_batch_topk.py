"""Matryoshka BatchTopK sparse autoencoder (Bussmann, Nabeshima, Karvonen & Nanda 2025, "Learning multi-level features
with Matryoshka sparse autoencoders", arXiv 2503.17547).
"""

from __future__ import annotations

from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from lightning_modules.autoencoders.aux_k import AuxK
from lightning_modules.autoencoders.base import Autoencoder
from lightning_modules.autoencoders.batch_selection import BatchSelection
from lightning_modules.autoencoders.inference import Thresholds
from lightning_modules.autoencoders.prefixes import DEFAULT_SHARES, FixedPrefixes, SampledPrefixes
from lightning_modules.autoencoders.terms import LossTerm, TrainingPass, Whole, WholeBatch
from lightning_modules.autoencoders.topk import check_k
from lightning_modules.autoencoders.wiring import Wiring
from lightning_modules.functional import BatchCodes, Codes, Missed, prefix_errors
from run_store import UserError


class MatryoshkaBatchTopK(Autoencoder):
    """The latents of BatchTopK (see `BatchSelection`), of which each of n nested prefixes reconstructs y by itself:

        loss = 1/n Σ_p ‖y − ŷ_p‖² in the unit of the reconstruction's,  ŷ_p = Σ_(i < p) f_i W_dec[i] + b_dec

    The first latents serve in all prefixes and become general, later ones add detail, so that a general feature does
    not lose its tokens to special ones. The selection is one, over all latents; the prefixes share b_dec.

    Prefixes are fixed, or drawn anew for every batch, log-uniformly, with all d_sae latents always beside the drawn.
    The draws are a low-discrepancy sequence of the number of batches so far: the same on every rank, and in a resumed
    run.

    `AuxK` revives dead latents; it is about the reconstruction from all of them. With fixed prefixes each one's FVU is
    logged.

    Args:
        d_sae: number of latents.
        k: latents kept for each row on average, of all prefixes together.
        prefixes: rising shares of d_sae, each at most 1, or rising numbers of latents; the last is all of them. By
            default 1/16, 1/8, 1/4, 1/2 and 1.
        sampled_prefixes: how many are drawn for each batch instead; leave `prefixes` out.
        shortest_prefix: share of d_sae, or number of latents, that drawn prefixes have at least.
        aux_k_coefficient: weight of the AuxK loss; 0 leaves it out.
        k_aux: how many dead latents reconstruct the error; d_in / 2 by default.
        threshold_decay: how much of θ the next batch leaves, once the run is long enough.
        screening: find the latents by a product in bfloat16 and compute them exactly, in training: see
            `functional.screening`.
        wiring: what is read and what is reconstructed; one hook point for both by default.
    """

    rows_are_independent = False
    revived_length = 0.7

    def __init__(
        self,
        d_sae: PositiveInt,
        k: PositiveInt = 32,
        prefixes: list[PositiveFloat] | None = None,
        sampled_prefixes: PositiveInt | None = None,
        shortest_prefix: PositiveFloat = 1 / 64,
        aux_k_coefficient: NonNegativeFloat = 1 / 32,
        k_aux: PositiveInt | None = None,
        threshold_decay: ClosedUnitInterval = 0.999,
        screening: bool = False,
        wiring: Wiring | None = None,
    ) -> None:
        super().__init__(d_sae, wiring)
        self.auxiliary = AuxK(aux_k_coefficient, k_aux)
        self.selection = BatchSelection(k, threshold_decay, screening)
        self.both_given = prefixes is not None and sampled_prefixes is not None
        self.prefixes: FixedPrefixes | SampledPrefixes = (
            FixedPrefixes(d_sae, DEFAULT_SHARES if prefixes is None else prefixes)
            if sampled_prefixes is None
            else SampledPrefixes(d_sae, sampled_prefixes, shortest_prefix)
        )

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
        if self.both_given:
            raise UserError("prefixes and sampled_prefixes are both given: leave one of them out")
        self.prefixes.check()

    def build_own(self) -> None:
        self.prefixes.build()

    def encode(self, x: Tensor) -> Codes:
        return self.selection.encode(self, x)

    def inference(self) -> Thresholds:
        return Thresholds(self.threshold.expand(self.d_sae))

    def reconstruction_terms(
        self, x: Tensor, y: Tensor, codes: Codes, missed: Missed, whole: WholeBatch
    ) -> dict[str, LossTerm]:
        """The mean over the prefixes. What the whole has missed has no part in it, so that backward decodes once."""
        kept = codes if isinstance(codes, BatchCodes) else BatchCodes.of(codes.dense())
        ends = self.prefixes.ends()
        total, errors = prefix_errors(kept, self.W_dec, ends, y - self.without_latents(x))
        self.prefixes.note(errors / whole.variance)
        return {"reconstruction": LossTerm(total / (len(ends) * whole.unit), 1.0)}

    def training_pass(
        self, x: Tensor, dead: Tensor | None = None, whole: Whole = None, y: Tensor | None = None
    ) -> TrainingPass:
        result = super().training_pass(x, dead, whole, y)
        self.selection.follow(result.codes)
        self.prefixes.advance()
        return result

    def gauges(self) -> dict[str, Tensor]:
        return {"threshold": self.threshold, **self.prefixes.gauges()}
