"""Ghost gradients, which revive dead latents (Jermyn & Templeton 2024, "Ghost Grads: An improvement on resampling", in
Anthropic's update of January 2024).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lightning_modules.autoencoders.base import Autoencoder
from lightning_modules.autoencoders.terms import LossTerm, WholeBatch
from lightning_modules.autoencoders.wiring import Wiring
from run_store import UserError

LEAST_NORM = 1e-3
"""Below this a ghost's reconstruction is no longer brought to a length: rows of W_dec that are 0 have no direction."""


@dataclass(frozen=True)
class GhostGradients:
    """Dead latents get the gradient that they would have with another activation function, exp. What a row's
    reconstruction misses is e = (y − ŷ) detached; what the dead latents say of it is brought to half its length,

        ĝ = Σ_dead exp(z_i) W_dec[i],  ê = ĝ · ‖e‖ / (2 ‖ĝ‖),

    and the loss gains, with factors that have no gradient, a squared error as large as that of the reconstruction:

        coefficient · Σ_rows ‖ê − e‖² · (‖e‖² / ‖ê − e‖²) / unit

    The last factor is each row's own, so that a batch can be computed in parts. The value says nothing, then: it is
    that of the reconstruction term. Its gradient is the purpose.

    Of exp(z_i) only ratios within a row count, so the largest of a row is taken as 1: no bias is low enough to lose the
    gradient of all dead latents. One that lies far below the others has none, though, and steps of an optimiser bring
    none back from a bias of −10⁴: that is what resampling is for.
    """

    coefficient: float
    """Weight of the term, 1 as published; 0 leaves it out."""

    def check(self, wiring: Wiring) -> None:
        """Refuses a wiring that latents cannot be taken out of.

        Raises:
            UserError: naming it.
        """
        if self.coefficient != 0 and wiring.needs_pre_activations:
            raise UserError(
                f"ghost_gradients is {self.coefficient} and the wiring {type(wiring).__name__} knows none: set it to 0"
            )

    def measured(
        self,
        whole: WholeBatch,
        autoencoder: Autoencoder,
        x: Tensor,
        y: Tensor,
        dead: Tensor | None,
        error: Tensor | None,
    ) -> WholeBatch:
        """`whole` as it is: nothing is asked of the other rows."""
        return whole

    def terms(
        self, autoencoder: Autoencoder, x: Tensor, error: Tensor, dead: Tensor | None, whole: WholeBatch
    ) -> dict[str, LossTerm]:
        """The term under its name; the arguments are those of `Autoencoder.sparsity_terms`."""
        if self.coefficient == 0:
            return {}
        value = x.new_zeros(()) if dead is None else self.loss(autoencoder, x, error, dead) / whole.unit
        return {"ghost": LossTerm(value, self.coefficient)}

    def loss(self, autoencoder: Autoencoder, x: Tensor, error: Tensor, dead: Tensor) -> Tensor:
        """The sum over rows, scalar: x [b, d_in]; error [b, d_out]; dead [n], n ≥ 1."""
        z = autoencoder.pre_activations(x, dead)
        ghosts = (z - z.detach().amax(dim=1, keepdim=True)).exp() @ autoencoder.W_dec[dead]
        missed = (ghosts * _halving(ghosts.detach(), error) - error).square().sum(dim=1)
        size, own = error.square().sum(dim=1), missed.detach()
        return (missed * (size / own.where(own > 0, 1))).sum()


def _halving(ghosts: Tensor, error: Tensor) -> Tensor:
    """[b, 1], what makes each row of `ghosts` [b, d] half as long as that of `error`."""
    found, wanted = (rows.square().sum(dim=1, keepdim=True).sqrt() for rows in (ghosts, error))
    return wanted / (2 * found.clamp_min(LEAST_NORM))
