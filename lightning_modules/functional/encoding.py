"""The encoder's product and the selection of what each row keeps, with a gradient that touches only that.

Shapes: b rows of a batch, k kept latents a row, s latents, d width of the activations.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from lightning_modules.functional.kernels import compiled_kernels_run_on, native
from lightning_modules.functional.onednn import product
from lightning_modules.functional.screening import Screen, screened_largest
from lightning_modules.functional.selection import largest, largest_magnitudes
from lightning_modules.functional.sharded import (
    Shard,
    among_largest,
    held_of,
    is_sharded,
    local,
    merged_largest,
    summed,
)
from lightning_modules.functional.side_by_side import shared_out
from lightning_modules.functional.sparse import linear_kept, rows_at_once, sparse_decode


def linear_topk(
    x: Tensor, weight: Tensor, bias: Tensor, k: int, signed: bool = False, screening: bool = False
) -> tuple[Tensor, Tensor]:
    """The k largest of relu(x Wᵀ + bias) in each row, with a gradient that touches only what was kept.

    x is data: it gets no gradient, which saves the second-largest GEMM of the dense step.

    Args:
        x: [b, d].
        weight: [s, d], one row a latent. Sharded by latents, it gives every rank the same.
        bias: [s], of a weight that is sharded those of this process.
        k: how many to keep, ≤ s.
        signed: keep the k of the largest magnitude of x Wᵀ + bias instead, with their sign.
        screening: find them by a product in bfloat16, see `screening`; not together with signed.

    Returns:
        values [b, k], ≥ 0 unless signed, in the weight's dtype and indices [b, k] int64, in no particular order. A row
        with fewer than k positive pre-activations is filled with zeros, unless signed.
    """
    with torch.no_grad():
        if is_sharded(weight):
            shard = Shard.of(weight)
            values, indices = _selected(x, local(weight), bias, min(k, shard.size), signed, screening)
            values, indices = merged_largest(values, indices, k, shard, signed)
        else:
            values, indices = _selected(x, weight, bias, k, signed, screening)
        values = values if signed else values.relu_()
    return linear_kept(x, weight, bias, values, indices), indices


def reconstructed_by(
    latents: Tensor, x: Tensor, W_enc: Tensor, bias: Tensor, W_dec: Tensor, k: int, signed: bool = False
) -> Tensor:
    """What the k largest of some latents say: `linear_topk` among these alone, decoded, [b, d_out].

    Args:
        latents: [n] their numbers, n ≥ 1.
        x: [b, d]; it gets no gradient.
        W_enc: [s, d], sharded by latents or not.
        bias: [s], of a weight that is sharded those of this process.
        W_dec: [s, d_out], as W_enc is.
        k: how many of them each row keeps, ≤ n.
        signed: as in `linear_topk`.
    """
    if not is_sharded(W_enc):
        values, indices = linear_topk(x, W_enc[latents], bias[latents], k, signed)
        return sparse_decode(values, indices, W_dec[latents])
    shard = Shard.of(W_enc)
    counts = torch.bincount(latents // shard.size, minlength=shard.ranks).clamp_max(k).tolist()
    own = held_of(latents, W_enc).rows
    if not len(own):  # the others ask all the same
        nothing = local(W_enc.detach()).new_zeros(len(x), W_dec.shape[1])
        among_largest(nothing[:, :0], k, counts, shard)
        return summed(nothing, shard)
    values, indices = linear_topk(x, local(W_enc)[own], bias[own], min(k, len(own)), signed)
    kept = among_largest(values.detach().abs(), k, counts, shard)
    return summed(sparse_decode(values * kept, indices, local(W_dec)[own]), shard)


def _selected(x: Tensor, weight: Tensor, bias: Tensor, k: int, signed: bool, screening: bool) -> tuple[Tensor, Tensor]:
    screen = Screen.of(x, weight, bias) if screening else None
    select = _plain(weight, bias, k, signed) if screen is None else _screened(weight, bias, screen, k)
    made_in = weight.dtype if screen is None else torch.bfloat16
    parts = shared_out([partial(select, rows) for rows in torch.split(x, rows_at_once(x, weight.shape[0], made_in))])
    values = torch.cat([values for values, _ in parts]).to(weight.dtype)
    return values, torch.cat([indices for _, indices in parts])


Selection = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Rows [b, d] → values and indices [b, k]."""


def _plain(weight: Tensor, bias: Tensor, k: int, signed: bool) -> Selection:
    if compiled_kernels_run_on(weight, bias):
        # the kernel adds the bias where it reads; `linear` would first fill the result with copies of it
        return lambda rows: native.largest(product(rows.to(weight), weight).to(weight), bias, k, signed)
    select = largest_magnitudes if signed else largest
    return lambda rows: select(torch.nn.functional.linear(rows, weight, bias), k)


def _screened(weight: Tensor, bias: Tensor, screen: Screen, k: int) -> Selection:
    return lambda rows: screened_largest(rows, weight, bias, screen, k)
