"""Crosscoder (Lindsey et al. 2024, "Sparse Crosscoders for Cross-Layer Features and Model Diffing", Anthropic)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jsonargparse.typing import OpenUnitInterval
from torch import Tensor

from lightning_modules.autoencoders.wiring import Sides, Wiring
from run_store import UserError

SHARED = -1
"""In `Crosscoder.owners`: no hook point has a latent to itself."""


class Crosscoder(Wiring):
    """One code for several hook points: layers of a model, or the same layer of two models.

        f = σ(Σ_h (x_h − b_dec,h) W_enc,hᵀ + b_enc),  x̂_h = f W_dec,h + b_dec,h

    W_enc,h and W_dec,h are blocks of columns of W_enc and W_dec, in the order of the data's hook points. Penalties on
    latents count f_i Σ_h ‖W_dec,h,i‖, the sum of the norms, not the norm of the whole row: so a latent pays for every
    hook point that it writes to. Whole rows have unit norm, which fixes their scale and leaves their shares free. Each
    hook point is normalised by itself, so none outweighs the others by its scale; one whose rows vary little around a
    long mean counts for little, as `val/fvu/NAME` shows.

    How a row's norms are shared out says whose a latent is: one hook point's own if that has more than `own_above` of
    Σ_h ‖W_dec,h,i‖, else shared. Validation reports the shares of the dictionary as val/latents_shared and
    val/latents_own/NAME. An L1 penalty makes shared latents look like one model's own, selection by batch (BatchTopK)
    far less so (Minder et al. 2025, arXiv 2504.02922).

    Args:
        own_above: share of a row's norms above which a latent is one hook point's own; between two hook points 0.7
            means that one norm is 2⅓ times the other.
    """

    def __init__(self, own_above: OpenUnitInterval = 0.7) -> None:
        super().__init__()
        self.own_above = own_above

    def sides(self, hook_points: Sequence[str]) -> Sides:
        if len(hook_points) < 2:
            raise UserError(
                f"a crosscoder reads several hook points and the data gives {len(hook_points)} "
                f"({', '.join(hook_points)}): name two or more in data.hook_points, or leave out "
                "model.autoencoder.wiring"
            )
        every = tuple(range(len(hook_points)))
        return Sides(every, every)

    def norms(self, W_dec: Tensor) -> Tensor:
        """‖W_dec,h,i‖ of every latent and hook point, [s, hooks]; W_dec is [s, d_out]."""
        blocks = torch.split(W_dec, list(self.outputs), dim=1)
        return torch.stack([torch.linalg.vector_norm(block, dim=1) for block in blocks], dim=1)

    def decoder_norms(self, W_dec: Tensor) -> Tensor:
        return self.norms(W_dec).sum(dim=1)

    def relative_norms(self, W_dec: Tensor) -> Tensor:
        """Each hook point's share of Σ_h ‖W_dec,h,i‖, [s, hooks]; W_dec is [s, d_out]."""
        norms = self.norms(W_dec)
        return norms / norms.sum(dim=1, keepdim=True).clamp_min(torch.finfo(norms.dtype).tiny)

    def owners(self, W_dec: Tensor) -> Tensor:
        """[s] int64: the place of the hook point whose own a latent is, or SHARED; W_dec is [s, d_out]."""
        largest = self.relative_norms(W_dec).max(dim=1)
        return largest.indices.where(largest.values > self.own_above, SHARED)

    @torch.no_grad()
    def gauges(self, W_dec: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        owners = self.owners(W_dec)
        own = {f"latents_own/{name}": (owners == place).float().mean() for place, name in enumerate(names)}
        return {"latents_shared": (owners == SHARED).float().mean(), **own}
