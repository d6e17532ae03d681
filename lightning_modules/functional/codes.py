"""What an encoder returns: the latents of a batch, kept sparse where the variant is sparse.

Shapes: b rows of a batch, k kept latents a row, s = d_sae latents, d = d_in.
All classes answer the same questions, so that metrics and callbacks never ask which of them they hold.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_modules.functional.kernels import compiled_kernels_run_on, native
from lightning_modules.functional.sparse import sparse_decode


class Fired(NamedTuple):
    """The E latents that fired in a batch, row by row."""

    rows: Tensor
    """[E] int64, ascending: the row of each."""
    latents: Tensor
    """[E] int64, in no order within a row."""
    values: Tensor
    """[E], none of them 0."""


class SparseCodes(NamedTuple):
    """The k latents that each row keeps. A latent whose value is 0 did not fire."""

    values: Tensor
    """[b, k]; ≥ 0, but for variants whose latents have a sign."""
    indices: Tensor
    """[b, k] int64 latent numbers; those of a row that fired are distinct, the others may repeat any."""
    d_sae: int
    """Size of the dictionary."""
    wider: SparseCodes | None = None
    """More latents, these among them, where a loss term asks for them."""

    @property
    def batch(self) -> int:
        """b."""
        return self.values.shape[0]

    def decode(self, W_dec: Tensor) -> Tensor:
        """Σ_i f_i W_dec[i]: [b, d]."""
        return sparse_decode(self.values, self.indices, W_dec)

    def firing_counts(self) -> Tensor:
        """[s] int64: in how many rows each latent fired."""
        return _firing_counts(self.values, self.indices, self.d_sae)

    def columns(self, latents: Tensor) -> Tensor:
        """[b, len(latents)] values of some latents, dense; nothing of size b × s is made."""
        column_of = self.indices.new_full((self.d_sae,), -1)
        column_of[latents] = torch.arange(len(latents), device=latents.device)
        columns = column_of[self.indices]
        rows, slots = ((columns >= 0) & (self.values != 0)).nonzero(as_tuple=True)
        values = self.values.new_zeros(self.values.shape[0], len(latents))
        values[rows, columns[rows, slots]] = self.values[rows, slots]
        return values

    def fired(self) -> Fired:
        """What is not 0."""
        rows, slots = (self.values != 0).nonzero(as_tuple=True)
        return Fired(rows, self.indices[rows, slots], self.values[rows, slots])

    def dense(self) -> Tensor:
        """[b, s] values of all latents."""
        zeros = self.values.new_zeros(self.values.shape[0], self.d_sae)
        return zeros.scatter_add(1, self.indices, self.values)


class BatchCodes(NamedTuple):
    """The E latents that a batch keeps, as many of a row as it takes, row by row and within a row by ascending number.
    A latent whose value is 0 did not fire.
    """

    values: Tensor
    """[E] ≥ 0."""
    indices: Tensor
    """[E] int64 latent numbers."""
    rows: Tensor
    """[E] int64, ascending: the row of each."""
    batch: int
    """b; a row may keep nothing."""
    d_sae: int
    """Size of the dictionary."""
    least: Tensor
    """Scalar without a graph: the smallest positive value that was kept, on any rank; inf where there is none."""

    @classmethod
    def of(cls, dense: Tensor) -> BatchCodes:
        """What is not 0 of values [b, s]."""
        rows, indices = dense.nonzero(as_tuple=True)
        least = dense.detach().where(dense > 0, torch.inf).amin()
        return cls(dense[rows, indices], indices, rows, dense.shape[0], dense.shape[1], least)

    def decode(self, W_dec: Tensor) -> Tensor:
        """Σ_i f_i W_dec[i]: [b, d]."""
        starts = torch.searchsorted(self.rows, torch.arange(self.batch, device=self.rows.device))
        return sparse_decode(self.values, self.indices, W_dec, starts)

    def firing_counts(self) -> Tensor:
        """[s] int64: in how many rows each latent fired."""
        return _firing_counts(self.values, self.indices, self.d_sae)

    def columns(self, latents: Tensor) -> Tensor:
        """[b, len(latents)] values of some latents, dense; nothing of size b × s is made."""
        column_of = self.indices.new_full((self.d_sae,), -1)
        column_of[latents] = torch.arange(len(latents), device=latents.device)
        columns = column_of[self.indices]
        values = self.values.new_zeros(self.batch, len(latents))
        values[self.rows[columns >= 0], columns[columns >= 0]] = self.values[columns >= 0]
        return values

    def fired(self) -> Fired:
        """What is not 0."""
        (entries,) = self.values.nonzero(as_tuple=True)
        return Fired(self.rows[entries], self.indices[entries], self.values[entries])

    def dense(self) -> Tensor:
        """[b, s] values of all latents."""
        return self.values.new_zeros(self.batch, self.d_sae).index_put((self.rows, self.indices), self.values)


class DenseCodes(NamedTuple):
    """A value for every latent; those at 0 did not fire."""

    values: Tensor
    """[b, s]; ≥ 0, but for variants whose latents have a sign."""
    pre_activations: Tensor | None = None
    """[b, s] what decides whether a latent fires, in training, where a loss term asks for it."""

    @property
    def batch(self) -> int:
        """b."""
        return self.values.shape[0]

    @property
    def d_sae(self) -> int:
        """Size of the dictionary."""
        return self.values.shape[1]

    def decode(self, W_dec: Tensor) -> Tensor:
        """f @ W_dec: [b, d]."""
        return self.values @ W_dec

    def firing_counts(self) -> Tensor:
        """[s] int64: in how many rows each latent fired."""
        return (self.values != 0).sum(dim=0)

    def columns(self, latents: Tensor) -> Tensor:
        """[b, len(latents)] values of some latents."""
        return self.values[:, latents]

    def fired(self) -> Fired:
        """What is not 0."""
        rows, latents = self.values.nonzero(as_tuple=True)
        return Fired(rows, latents, self.values[rows, latents])

    def dense(self) -> Tensor:
        """[b, s] values of all latents."""
        return self.values


Codes = SparseCodes | BatchCodes | DenseCodes


def _firing_counts(values: Tensor, indices: Tensor, d_sae: int) -> Tensor:
    values = values.detach()
    if compiled_kernels_run_on(values, indices):
        return native.firing_counts(values, indices, d_sae)
    return torch.bincount(indices[values != 0], minlength=d_sae)
