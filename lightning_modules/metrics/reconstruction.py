"""How well activations are reconstructed, over a whole data set."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_modules.functional import squared_error


class ReconstructionScores(Metric):
    """Scores of reconstructions x̂ of rows x over every row seen, x̄ the mean of those rows:

        fvu                              Σ‖x − x̂‖² / Σ‖x − x̄‖²; explained variance is 1 minus it
        fvu_without_latents              the same of x̂₀, what is reconstructed when every latent is 0
        mse                              mean of ‖x − x̂‖², a sum over d
        cosine                           mean of x·x̂ / (‖x‖ ‖x̂‖), 0 for a row where either is 0
        relative_reconstruction_bias     γ = Σ‖x̂‖² / Σ x·x̂, the γ with the least Σ‖x̂/γ − x‖² (Rajamanoharan et al.
                                         2024, arXiv 2404.16014): below 1 where latents are shrunk

    What is kept are sums over rows, in float64: batches and ranks merge by adding, and the difference Σ‖x‖² − n‖x̄‖²
    loses nothing that matters even for rows far from the origin.

    Args:
        d: width of a row.
        over_ranks: whether every rank asks, for scores of all their rows; else a rank's scores are its own.
    """

    full_state_update = False
    is_differentiable = False

    rows: Tensor
    total: Tensor
    squares: Tensor
    error: Tensor
    error_without_latents: Tensor
    reconstructed_squares: Tensor
    products: Tensor
    cosines: Tensor

    def __init__(self, d: int, over_ranks: bool = True) -> None:
        super().__init__(sync_on_compute=over_ranks)
        self.add_state("rows", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(d, dtype=torch.float64), dist_reduce_fx="sum")
        for name in ("squares", "error", "error_without_latents", "reconstructed_squares", "products", "cosines"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, x: Tensor, reconstruction: Tensor, without_latents: Tensor) -> None:
        """x, reconstruction, without_latents: [b, d]."""
        x, reconstruction = x.float(), reconstruction.float()
        norms = torch.linalg.vector_norm(x, dim=1, dtype=torch.float64)
        reconstructed_norms = torch.linalg.vector_norm(reconstruction, dim=1, dtype=torch.float64)
        products = (x * reconstruction).sum(dim=1, dtype=torch.float64)
        self.rows += x.shape[0]
        self.total += x.sum(dim=0, dtype=torch.float64)
        self.squares += norms.square().sum()
        self.error += squared_error(x, reconstruction).double()
        self.error_without_latents += squared_error(x, without_latents).double()
        self.reconstructed_squares += reconstructed_norms.square().sum()
        self.products += products.sum()
        self.cosines += (products / (norms * reconstructed_norms).clamp_min(1e-24)).sum()

    def compute(self) -> dict[str, Tensor]:
        """Scalars by name; nan before any row was seen."""
        variance = self.squares - self.total.square().sum() / self.rows
        scores = {
            "fvu": self.error / variance,
            "fvu_without_latents": self.error_without_latents / variance,
            "mse": self.error / self.rows,
            "cosine": self.cosines / self.rows,
            "relative_reconstruction_bias": self.reconstructed_squares / self.products,
        }
        return {name: value.float() for name, value in scores.items()}
