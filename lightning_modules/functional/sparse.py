"""Sparse encode and decode with gradients that stay sparse in both directions.

Shapes: b rows of a batch, k kept latents a row, s latents, d width of the activations. E = b·k kept entries.

A dense implementation spends six GEMMs of b × s × d a training step. Here one is left, the encoder's forward. The rest
touches the E kept entries:

    decode        x̂[r]     = Σ_i f[r, i] · W_dec[i]          a bag of weighted rows
    its gradients ∂f[r, i]  = ∂x̂[r] · W_dec[i]                a gathered dot product
                  ∂W_dec[i] = Σ_r f[r, i] · ∂x̂[r]             a sum over the rows that kept i
    encoder       ∂W_enc[i] = Σ_r ∂z[r, i] · x[r]             the same sum with other operands

Nothing of size b × k × d is ever made; of size b × s there are the pre-activations alone, on a CPU a part of them at a
time. `embedding_bag` does all three: it is a weighted gather-and-sum with a kernel of its own on every device, adds
each bag in order (so the result does not depend on the number of threads), and its derivative for the weights is the
gathered dot product. On a GPU with Triton the kernels of `kernels/` do the same work; each operation that has one asks
for it first.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag

from lightning_modules.functional.kernels import compiled_kernels_run_on, kernels_run_on, native
from lightning_modules.functional.sharded import Shard, is_sharded, local, own_entries, summed

CPU_BYTES = 2**23
"""Of pre-activations that are held at once on a CPU."""


def sparse_decode(values: Tensor, indices: Tensor, W_dec: Tensor, starts: Tensor | None = None) -> Tensor:
    """Σ_i values[r, i] · W_dec[indices[r, i]] for every row r: [b, k], [b, k], [s, d] → [b, d].

    Rows that keep different numbers of latents come one behind the other, values and indices [E], with the place where
    each row begins, starts [b] int64.

    Of a W_dec that is sharded by latents it is what all ranks come to; all of them must ask for it together.
    """
    if is_sharded(W_dec):
        return _sharded_decode(values, indices, W_dec, starts)
    return _SparseDecode.apply(values, indices, W_dec, starts)  # type: ignore[no-any-return, no-untyped-call]


def linear_kept(
    x: Tensor, weight: Tensor, bias: Tensor, values: Tensor, indices: Tensor, rows: Tensor | None = None
) -> Tensor:
    """Values of x Wᵀ + bias that were selected without a gradient, with one.

    Args:
        x: [b, d]; it gets no gradient.
        weight: [s, d]; sharded by latents or not.
        bias: [s], of a weight that is sharded those of this process.
        values: [b, k]; those that are 0 have no gradient.
        indices: [b, k] int64 latents.
        rows: [E] int64 the row of each, where values and indices are [E].
    """
    if is_sharded(weight):
        own = own_entries(indices, Shard.of(weight), rows)
        flat = values.flatten()
        kept = linear_kept(x, local(weight), bias, flat[own.places], own.latents, own.rows)
        return flat.index_put((own.places,), kept).view_as(values)
    return _LinearKept.apply(x, weight, bias, values, indices, rows)  # type: ignore[no-any-return, no-untyped-call]


def _sharded_decode(values: Tensor, indices: Tensor, W_dec: Tensor, starts: Tensor | None) -> Tensor:
    shard = Shard.of(W_dec)
    own = own_entries(indices, shard, None if starts is None else _rows_of(starts, len(indices)))
    batch = len(values) if starts is None else len(starts)
    own_starts = torch.searchsorted(own.rows, torch.arange(batch, device=own.rows.device))
    return summed(sparse_decode(values.flatten()[own.places], own.latents, local(W_dec), own_starts), shard)


class _SparseDecode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, indices: Tensor, W_dec: Tensor, starts: Tensor | None) -> Tensor:
        ctx.save_for_backward(values, indices, W_dec, starts)
        return bag_sums(values, indices, W_dec, starts)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor | None, None]:
        values, indices, W_dec, starts = ctx.saved_tensors
        grad = grad.contiguous()
        grad_values = gathered_dot(grad, W_dec, indices, starts) if ctx.needs_input_grad[0] else None
        grad_decoder = None
        if ctx.needs_input_grad[2]:
            rows = None if starts is None else _rows_of(starts, len(indices))
            grad_decoder = latent_sums(values, indices, grad, W_dec.shape[0], rows)
        return grad_values, None, grad_decoder, None


class _LinearKept(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, values: Tensor, indices: Tensor, rows: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(x, values, indices, rows)
        ctx.latents = weight.shape[0]
        return values.view_as(values)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor | None, Tensor | None, None, None, None]:
        x, values, indices, rows = ctx.saved_tensors
        grad = grad * (values != 0)
        by_latent = sort_by_latent(indices, ctx.latents)
        grad_weight = latent_sums(grad, indices, x, ctx.latents, rows, by_latent) if ctx.needs_input_grad[1] else None
        grad_bias = _latent_totals(grad, indices, ctx.latents, by_latent) if ctx.needs_input_grad[2] else None
        return None, grad_weight, grad_bias, None, None, None


def rows_at_once(x: Tensor, latents: int, dtype: torch.dtype) -> int:
    """How many rows' pre-activations of this dtype are made before they are selected from.

    On a CPU they are selected from while they are still in the cache, and a buffer of megabytes is reused where one of
    the whole batch would be mapped and cleared by the kernel at every step. A GPU wants the whole batch in one launch.
    """
    rows = x.shape[0]
    if x.device.type != "cpu":
        return max(1, rows)
    at_most = max(1, CPU_BYTES // (latents * dtype.itemsize))
    return max(1, -(-rows // -(-rows // at_most))) if rows else 1  # as many each time, not a few at the end


def bag_sums(weights: Tensor, indices: Tensor, table: Tensor, starts: Tensor | None = None) -> Tensor:
    """Σ_i weights[r, i] · table[indices[r, i]]: [b, k], [b, k], [s, d] → [b, d]; of weights and indices [E] where bags
    begin at `starts`. Without a gradient.
    """
    if kernels_run_on(table):
        from lightning_modules.functional.kernels import bags

        return bags.bag_sums(weights, indices, table, starts)
    if compiled_kernels_run_on(weights, indices, table):
        return native.bag_sums(weights, indices, table, starts)
    return embedding_bag(indices, table, starts, per_sample_weights=weights, mode="sum")


def gathered_dot(rows: Tensor, table: Tensor, indices: Tensor, starts: Tensor | None = None) -> Tensor:
    """rows[r] · table[indices[r, i]]: [b, d], [s, d], [b, k] → [b, k], without a [b, k, d] intermediate; [E] where
    indices are [E] and rows begin at `starts`.
    """
    if kernels_run_on(table):
        from lightning_modules.functional.kernels import bags

        return bags.gathered_dot(rows, table, indices, None if starts is None else _rows_of(starts, len(indices)))
    if compiled_kernels_run_on(rows, table, indices):
        return native.gathered_dot(rows, table, indices, starts)
    if rows.device.type == "cpu" and rows.dtype == table.dtype and rows.dtype in (torch.float32, torch.float64):
        return _sampled(rows, table, indices, starts)
    with torch.enable_grad():
        weights = torch.zeros(indices.shape, dtype=table.dtype, device=table.device, requires_grad=True)
        sums = embedding_bag(indices, table.detach(), starts, per_sample_weights=weights, mode="sum")
    return torch.autograd.grad(sums, weights, rows)[0]


def _sampled(rows: Tensor, table: Tensor, indices: Tensor, starts: Tensor | None) -> Tensor:
    """`gathered_dot` as some entries of rows · tableᵀ, for which a CPU has a kernel of twice the speed."""
    count = indices.numel()
    if starts is None:
        bounds = torch.arange(0, count + 1, indices.shape[1])
    else:
        bounds = torch.cat([starts, starts.new_tensor([count])])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
        pattern = torch.sparse_csr_tensor(
            bounds, indices.flatten(), rows.new_zeros(count), (len(rows), len(table)), check_invariants=False
        )
    products: Tensor = torch.sparse.sampled_addmm(pattern, rows, table.t(), beta=0)
    return products.values().view(indices.shape)


class ByLatent(NamedTuple):
    """The E entries of a batch in the order of their latents, those of a latent in the order of the rows."""

    order: Tensor
    """[E] int64 places in the flattened indices."""
    starts: Tensor
    """[latents + 1] int64: where in `order` each latent begins (one that no row keeps is empty), then the last end."""


def sort_by_latent(indices: Tensor, latents: int) -> ByLatent:
    """One stable sort, and no question that a GPU would have to answer first."""
    if compiled_kernels_run_on(indices):
        return ByLatent(*native.by_latent(indices.flatten(), latents))
    # int32 sorts at twice the speed of int64; a dictionary never has 2^31 latents
    sorted_indices, order = torch.sort(indices.flatten().to(torch.int32), stable=True)
    every = torch.arange(latents + 1, dtype=torch.int32, device=indices.device)
    return ByLatent(order, torch.searchsorted(sorted_indices, every))


def latent_sums(
    weights: Tensor,
    indices: Tensor,
    source: Tensor,
    latents: int,
    rows: Tensor | None = None,
    by_latent: ByLatent | None = None,
) -> Tensor:
    """Σ over the entries (r, i) of latent l of weights[r, i] · source[r]: [b, k], [b, k], [b, d] → [latents, d]; the
    same of entries [E] whose rows are named. `by_latent` is made where it is not given.

    In the order of their latents the entries of each are a bag, added in the order of the rows: the result is the same
    on every run.
    """
    order, starts = by_latent or sort_by_latent(indices, latents)
    if compiled_kernels_run_on(weights, source, indices):
        return native.latent_sums(weights.flatten(), order, starts, rows, indices.shape[-1], source)
    entry_rows = torch.div(order, indices.shape[1], rounding_mode="floor") if rows is None else rows[order]
    return bag_sums(weights.flatten()[order].to(source.dtype), entry_rows, source, starts[:-1])


def _latent_totals(weights: Tensor, indices: Tensor, latents: int, by_latent: ByLatent) -> Tensor:
    """Σ of the weights of each latent's entries, [latents]; the same on every run."""
    if kernels_run_on(weights):
        from lightning_modules.functional.kernels import bags

        return bags.segment_totals(weights.flatten(), *by_latent)
    return torch.bincount(indices.flatten(), weights=weights.flatten(), minlength=latents).to(weights.dtype)


def _rows_of(starts: Tensor, entries: int) -> Tensor:
    """[entries] int64: the row of each entry, where rows begin at `starts`; rows may be empty."""
    return torch.searchsorted(starts, torch.arange(entries, device=starts.device), right=True) - 1
