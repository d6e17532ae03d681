"""The AuxK loss, which revives dead latents (Gao et al. 2024, arXiv 2406.04093, appendix A.2)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lightning_modules.autoencoders.base import Autoencoder
from lightning_modules.autoencoders.terms import LossTerm, WholeBatch
from lightning_modules.functional import Spread, reconstructed_by, squared_error


@dataclass(frozen=True)
class AuxK:
    """The k_aux dead latents with the largest relu(z) reconstruct what the living ones miss, e = (x − x̂) detached, and
    the loss gains

        coefficient · min(n_dead / k_aux, 1) · ‖e − ê‖² / ‖e − ē‖²,  ê = Σ_dead f_i W_dec[i]

    without a bias. The coefficient (1/32 in the paper) is meant for a reconstruction term in units of FVU, which is
    what the base class gives.
    """

    coefficient: float
    """Weight of the term; 0 leaves it out."""
    k_aux: int | None
    """How many dead latents reconstruct the error; d_in / 2 by default."""
    signed: bool = False
    """Whether latents have a sign: the k_aux with the largest |z|, with their sign, instead of relu(z)."""

    def measured(
        self,
        whole: WholeBatch,
        autoencoder: Autoencoder,
        x: Tensor,
        y: Tensor,
        dead: Tensor | None,
        error: Tensor | None,
    ) -> WholeBatch:
        """`whole` with what the term divides by; the arguments are those of `Autoencoder.measure`."""
        if dead is None or self.coefficient == 0:
            return whole
        return whole._replace(error=Spread.of(y - autoencoder(x)[1] if error is None else error))

    def terms(
        self, autoencoder: Autoencoder, x: Tensor, error: Tensor, dead: Tensor | None, whole: WholeBatch
    ) -> dict[str, LossTerm]:
        """The term under its name; the arguments are those of `Autoencoder.sparsity_terms`."""
        if self.coefficient == 0:
            return {}
        if dead is None or whole.error is None:
            return {"aux_k": LossTerm(x.new_zeros(()), self.coefficient)}
        return {"aux_k": LossTerm(self.loss(autoencoder, x, error, dead, whole.error.squares), self.coefficient)}

    def loss(self, autoencoder: Autoencoder, x: Tensor, error: Tensor, dead: Tensor, variance: Tensor) -> Tensor:
        """How badly the dead latents reconstruct the error, scalar; x [b, d_in]; error [b, d_out]; dead [n], n ≥ 1;
        variance is ‖e − ē‖² over the whole batch.
        """
        k_aux = self.k_aux or max(1, autoencoder.d_in // 2)
        kept = min(k_aux, dead.numel())
        bias = autoencoder.encoder_bias()
        reconstruction = reconstructed_by(dead, x, autoencoder.W_enc, bias, autoencoder.W_dec, kept, self.signed)
        # an error without variance (a perfect reconstruction, a single row) leaves nothing for the dead latents to
        # explain: neither a loss nor a gradient
        variance = variance.where(variance != 0, float("inf"))
        return squared_error(error, reconstruction) / variance * (kept / k_aux)
