"""A trained model as one plain map from activations to activations: what file formats of others can hold.

Shapes: s = d_sae latents, d_in and d_out the widths of the two hook points. Everything is computed in float64.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lightning_modules.autoencoders import Activation, Autoencoder
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from run_store import UserError

ALL_ROWS_ALIKE = 1e-3
"""Norms of decoder rows that differ by less than this share count as equal: they were, before rounding."""
NEARLY_UNIT = 0.05
"""Trainers that bring rows to unit norm before a step, as sparsify's does, leave them off by the last step."""


@dataclass(frozen=True)
class Folded:
    """ŷ = f W_dec + b_dec + x W_skip, with f the `activation` of z = x W_encᵀ + bias; x and y are raw activations.

    Attributes:
        W_enc: [s, d_in].
        bias: [s]; whatever is subtracted from x first is in it.
        activation: how latents follow from z.
        W_dec: [s, d_out].
        b_dec: [d_out].
        W_skip: [d_in, d_out]; None where nothing passes by the latents.
        per_row: whether each row is brought to mean 0 and variance 1 first (LayerNormalization), and ŷ back by the mean
            and variance of x.
        hook_points: what is read and what is reconstructed, twice the same name where y is x.
        variant: class that was trained, for messages.
    """

    W_enc: Tensor
    bias: Tensor
    activation: Activation
    W_dec: Tensor
    b_dec: Tensor
    W_skip: Tensor | None
    per_row: bool
    hook_points: tuple[str, str]
    variant: str

    @property
    def transcodes(self) -> bool:
        """Whether y is another hook point than x."""
        return self.hook_points[0] != self.hook_points[1]

    @property
    def centred_bias(self) -> Tensor:
        """[s] b such that z = (x − b_dec) W_encᵀ + b, for formats that subtract b_dec; y must be x."""
        return self.bias + self.W_enc @ self.b_dec

    def row_norms(self) -> Tensor:
        """‖W_dec[i]‖ [s], 1 for a row of zeros."""
        norms: Tensor = torch.linalg.vector_norm(self.W_dec, dim=1)
        return norms.where(norms > 0, torch.ones_like(norms))

    def rescaled(self, factor_in: Tensor, factor_out: Tensor) -> Folded:
        """The same map for x that has yet to be multiplied by factor_in and ŷ that has yet to be divided by factor_out,
        scalars both.

        Every activation gives factor · f of factor · z. So W_enc stays as it is and latents are told on the scale of x,
        and where both factors are the same, so does W_dec.
        """
        inverse = 1 / factor_in
        return replace(
            self,
            bias=self.bias * inverse,
            activation=self.activation.scaled(inverse),
            W_dec=self.W_dec * (factor_in / factor_out),
            b_dec=self.b_dec / factor_out,
            W_skip=None if self.W_skip is None else self.W_skip * (factor_in / factor_out),
        )

    def with_unit_rows(self) -> Folded:
        """The same map with rows of W_dec of unit norm: latents become f_i ‖W_dec[i]‖. A row of zeros stays, and where
        latents compete so do rows that are nearly of unit norm: the next training step makes them so.

        Raises:
            UserError: the rows differ in length and latents compete, so others would be chosen.
        """
        norms = self.row_norms()
        if (norms - 1).abs().max() <= (NEARLY_UNIT if self.activation.latents_compete else ALL_ROWS_ALIKE):
            return self
        if self.activation.latents_compete:
            if norms.max() - norms.min() > ALL_ROWS_ALIKE * norms.max():
                raise UserError(
                    f"{self.variant} {self.activation.words}, and its decoder rows have norms from {norms.min():.3g} to"
                    f" {norms.max():.3g}: brought to the unit norm that training keeps, others would be chosen"
                )
            norms = norms.mean()
        return replace(
            self,
            W_enc=self.W_enc * norms.reshape(-1, 1),
            bias=self.bias * norms,
            activation=self.activation.scaled(norms),
            W_dec=self.W_dec / norms.reshape(-1, 1),
        )


@torch.no_grad()
def fold(model: SparseAutoencoding) -> Folded:
    """A built model in evaluation as one map of raw activations.

    Raises:
        UserError: no such map does the same.
    """
    pair, variant = model.only.pair, type(model.autoencoder).__name__
    wiring = type(model.autoencoder.wiring).__name__
    if len(pair.inputs) != 1 or len(pair.outputs) != 1 or model.autoencoder.wiring.needs_pre_activations:
        raise UserError(
            f"{wiring} reads {len(pair.inputs)} hook points and reconstructs {len(pair.outputs)}, and this format "
            "holds one map from one to one: use --format safetensors"
        )
    (read,), (reconstructed,) = pair.sides
    autoencoder = copy.deepcopy(model.autoencoder).double().eval().requires_grad_(False)
    offset, W_skip = _skip(autoencoder)
    folded = Folded(
        W_enc=autoencoder.W_enc,
        bias=_bias(autoencoder),
        activation=autoencoder.inference(),
        W_dec=autoencoder.W_dec,
        b_dec=autoencoder.b_dec + offset,
        W_skip=W_skip,
        per_row=False,
        hook_points=(pair.names[read], pair.names[reconstructed]),
        variant=variant,
    )
    factor_in, factor_out = (pair.normalizations[place].common_factor() for place in (read, reconstructed))  # type: ignore[operator]
    if factor_in is not None and factor_out is not None:
        return folded.rescaled(factor_in.double(), factor_out.double())
    if folded.transcodes:
        raise UserError(
            f"a {wiring} with LayerNormalization scales what it reconstructs by what it should be, row by row, which "
            "this format cannot hold: use --format safetensors"
        )
    return replace(folded, per_row=True)


def _bias(autoencoder: Autoencoder) -> Tensor:
    """[s]; a variant without b_enc still centres x."""
    b_enc = autoencoder.W_enc.new_zeros(autoencoder.d_sae) if autoencoder.b_enc is None else autoencoder.b_enc
    return autoencoder.wiring.encoder_bias(autoencoder.W_enc, b_enc, autoencoder.b_dec)


def _skip(autoencoder: Autoencoder) -> tuple[Tensor | float, Tensor | None]:
    """What passes by the latents of an autoencoder in float64 is b + x W_skip: b and W_skip, 0 and None where nothing
    does.
    """
    units = torch.eye(autoencoder.d_in, dtype=torch.float64)
    passed = autoencoder.wiring.skip(units)
    offset = autoencoder.wiring.skip(torch.zeros_like(units[:1]))
    return (0.0, None) if passed is None or offset is None else (offset[0], passed - offset)
