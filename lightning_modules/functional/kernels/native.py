"""The C kernels as functions of float32 tensors on a CPU, for callers that asked `compiled_kernels_run_on` first."""

from __future__ import annotations

from ctypes import c_float, c_int, c_int64
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_modules.functional.kernels.compiled import in_threads, kernels, pointer

# ---- selection


def largest(z: Tensor, bias: Tensor, k: int, magnitude: bool = False) -> tuple[Tensor, Tensor]:
    """Values and indices [b, k] of the k largest of each row of z [b, s] + bias [s], or of those of largest magnitude.
    Of values below 0 any may be kept; what is not a number counts as largest.
    """
    (rows, latents), bias = z.shape, bias.contiguous()
    values, indices = z.new_empty(rows, k), torch.empty(rows, k, dtype=torch.int64)

    def work(begin: int, end: int) -> bool:
        given = pointer(z), pointer(bias), c_int64(latents), c_int64(k), c_int(magnitude)
        return bool(kernels().largest(*given, pointer(values), pointer(indices), c_int64(begin), c_int64(end)))

    in_threads(work, rows)
    return values, indices


def rounded(x: Tensor, center: Tensor) -> Tensor:
    """x [b, d] − center [d] in bfloat16."""
    x, center = x.contiguous(), center.contiguous()
    result = torch.empty_like(x, dtype=torch.bfloat16)
    given = pointer(x), pointer(center), c_int64(x.shape[1]), pointer(result)
    in_threads(lambda begin, end: kernels().rounded(*given, c_int64(begin), c_int64(end)), len(x))
    return result


def screened(
    coarse: Tensor, coarse_bias: Tensor, x: Tensor, weight: Tensor, bias: Tensor, candidates: int, k: int
) -> tuple[Tensor, Tensor]:
    """Values and indices [b, k] of the k largest of x Wᵀ + bias among those that are largest in a rounded product.

    Args:
        coarse: [b, s] bfloat16.
        coarse_bias: [s], to be added to it.
        x: [b, d].
        weight: [s, d].
        bias: [s].
        candidates: how many of a row are computed exactly.
        k: how many are kept, ≤ candidates.
    """
    coarse_bias, x, weight, bias = coarse_bias.contiguous(), x.contiguous(), weight.contiguous(), bias.contiguous()
    sizes = [c_int64(size) for size in (*weight.shape, candidates, k)]
    values, indices = x.new_empty(len(x), k), torch.empty(len(x), k, dtype=torch.int64)

    def work(begin: int, end: int) -> bool:
        given = pointer(coarse), pointer(coarse_bias), pointer(x), pointer(weight), pointer(bias), *sizes
        return bool(kernels().screened(*given, pointer(values), pointer(indices), c_int64(begin), c_int64(end)))

    in_threads(work, len(x))
    return values, indices


def reaching(z: Tensor, bias: Tensor, floor: float) -> tuple[Tensor, Tensor]:
    """What of z [b, s] + bias [s] is not below the floor: values, infinite where one is not a number, and places [n]
    int64 in the flattened z, ascending.
    """
    (rows, latents), bias = z.shape, bias.contiguous()
    # room for all of it, of which only what is written to becomes memory
    values, places = z.new_empty(rows * latents), torch.empty(rows * latents, dtype=torch.int64)
    found: dict[int, int] = {}

    def work(begin: int, end: int) -> None:
        into = pointer(values[begin * latents :]), pointer(places[begin * latents :])
        given = pointer(z), pointer(bias), c_int64(latents), c_float(floor), *into
        found[begin * latents] = kernels().reaching(*given, c_int64(begin), c_int64(end))

    in_threads(work, rows)
    parts = [slice(start, start + count) for start, count in sorted(found.items())]
    return torch.cat([values[part] for part in parts]), torch.cat([places[part] for part in parts])


def nth_largest(values: Tensor, n: int) -> Tensor:
    """The n-th largest of values ≥ 0 [e], a scalar; 1 ≤ n ≤ e."""
    values = values.contiguous()
    return values.new_tensor(kernels().nth_largest(pointer(values), c_int64(len(values)), c_int64(n)))


def above_bar(values: Tensor, places: Tensor, latents: int, bar: float, equal: int) -> tuple[Tensor, Tensor, Tensor]:
    """Values, rows and latents [e] of what is above the bar, and of the first `equal` values at it.

    Args:
        values: [n].
        places: [n] int64, ascending: row · latents + latent.
        latents: s.
        bar: what is compared with.
        equal: how many of the values that equal it are kept.
    """
    values, places = values.contiguous(), places.contiguous()
    kept, rows, indices = torch.empty_like(values), torch.empty_like(places), torch.empty_like(places)
    given = pointer(values), pointer(places), c_int64(len(values)), c_int64(latents), c_float(bar), c_int64(equal)
    found = kernels().above_bar(*given, pointer(kept), pointer(rows), pointer(indices))
    return kept[:found], rows[:found], indices[:found]


# ---- entries by row


def bag_sums(weights: Tensor, indices: Tensor, table: Tensor, starts: Tensor | None) -> Tensor:
    """Σ_i weights[r, i] · table[indices[r, i]]: [b, k], [b, k] int64, [s, d] → [b, d]; of weights and indices [E] where
    rows begin at `starts` [b].
    """
    weights, indices, table = weights.contiguous(), indices.contiguous(), table.contiguous()
    bounds = _bounds(indices, starts)
    sums = table.new_empty(len(indices) if starts is None else len(starts), table.shape[1])
    given = pointer(weights), pointer(indices), pointer(bounds), c_int64(indices.shape[-1]), pointer(table)
    made = c_int64(table.shape[1]), pointer(sums)
    in_threads(lambda begin, end: kernels().bag_sums(*given, *made, c_int64(begin), c_int64(end)), len(sums))
    return sums


def gathered_dot(rows: Tensor, table: Tensor, indices: Tensor, starts: Tensor | None) -> Tensor:
    """rows[r] · table[indices[r, i]]: [b, d], [s, d], [b, k] int64 → [b, k]; [E] where indices are [E] and rows begin
    at `starts` [b].
    """
    rows, table, indices = rows.contiguous(), table.contiguous(), indices.contiguous()
    bounds = _bounds(indices, starts)
    dots = rows.new_empty(indices.shape)
    given = pointer(rows), pointer(indices), pointer(bounds), c_int64(indices.shape[-1]), pointer(table)
    made = c_int64(table.shape[1]), pointer(dots)
    in_threads(lambda begin, end: kernels().row_dots(*given, *made, c_int64(begin), c_int64(end)), len(rows))
    return dots


def _bounds(indices: Tensor, starts: Tensor | None) -> Tensor | None:
    return None if starts is None else torch.cat([starts, starts.new_tensor([len(indices)])])


# ---- entries by latent


def by_latent(indices: Tensor, latents: int) -> tuple[Tensor, Tensor]:
    """Places [E] of indices [E] int64 in the order of their latents, those of a latent in their own order, and where
    each latent begins, [latents + 1], the last the end of all.
    """
    indices = indices.contiguous()
    order, starts = torch.empty_like(indices), torch.empty(latents + 1, dtype=torch.int64)
    kernels().by_latent(pointer(indices), c_int64(len(indices)), c_int64(latents), pointer(starts), pointer(order))
    return order, starts


def firing_counts(values: Tensor, indices: Tensor, latents: int) -> Tensor:
    """[latents] int64: how many of the entries of each latent, values and indices of any shape, are not 0."""
    values, indices = values.contiguous(), indices.contiguous()
    counts = torch.empty(latents, dtype=torch.int64)
    sizes = c_int64(indices.numel()), c_int64(latents)
    kernels().firing_counts(pointer(values), pointer(indices), *sizes, pointer(counts))
    return counts


def latent_sums(
    weights: Tensor,
    order: Tensor,
    starts: Tensor,
    rows: Tensor | None,
    entries_a_row: int,
    source: Tensor,
    sums: Tensor | None = None,
) -> Tensor:
    """Σ over the entries of latent l of weights · source[row], [latents, d], added in their order.

    Args:
        weights: [E].
        order: [E] as `by_latent` gives it.
        starts: [latents + 1], too.
        rows: [E] int64; None where every `entries_a_row` entries belong to a row.
        entries_a_row: k.
        source: [b, d].
        sums: [latents, d] contiguous, what they are added to; zeros by default.
    """
    weights, rows, source = weights.contiguous(), None if rows is None else rows.contiguous(), source.contiguous()
    if sums is None:
        sums = source.new_zeros(len(starts) - 1, source.shape[1])
    given = pointer(weights), pointer(order), pointer(starts), pointer(rows), c_int64(entries_a_row), pointer(source)
    made = *map(c_int64, sums.shape), pointer(sums)
    in_threads(lambda begin, end: kernels().latent_sums(*given, *made, c_int64(begin), c_int64(end)), len(weights))
    return sums


# ---- errors


def row_errors(x: Tensor, y: Tensor, wanted: bool) -> tuple[Tensor | None, Tensor]:
    """y − x where it is wanted, [b, d], and the sum of its squares over each row, [b].

    Args:
        x: [b, d].
        y: [b, d], or [d], with which all rows are compared.
        wanted: whether the errors themselves are.
    """
    x, y = x.contiguous(), y.contiguous()
    errors, sums = torch.empty_like(x) if wanted else None, x.new_empty(len(x))
    given = pointer(x), pointer(y), c_int64(0 if y.dim() == 1 else x.shape[1]), c_int64(x.shape[1])
    made = pointer(errors), pointer(sums)
    in_threads(lambda begin, end: kernels().row_errors(*given, *made, c_int64(begin), c_int64(end)), len(x))
    return errors, sums


# ---- nested reconstructions


class Nested(NamedTuple):
    """What nested reconstructions of c rows come to."""

    errors: Tensor
    """[c, n] squared, of each row and prefix; 0 where the prefix has no weight."""
    values: Tensor
    """[E] gradient of the weighted sum of errors."""
    target: Tensor
    """[c, d] gradient."""


def nested(
    values: Tensor,
    indices: Tensor,
    starts: Tensor,
    groups: Tensor,
    W_dec: Tensor,
    target: Tensor,
    weights: Tensor,
    W_dec_grad: Tensor,
) -> Nested:
    """How well the first groups of each row's latents reconstruct it, and the gradient of their weighted errors.

    Args:
        values: [E], row by row.
        indices: [E] int64 latents.
        starts: [c + 1] int64: where the entries of each row begin, and where the last one's end.
        groups: [E] int64 < n, ascending within a row.
        W_dec: [s, d].
        target: [c, d].
        weights: [n].
        W_dec_grad: [s, d]; that of W_dec is added to it.
    """
    (rows, width), prefixes = target.shape, len(weights)
    onwards, bags = target.new_empty(rows, prefixes, width), torch.empty_like(indices)
    result = Nested(target.new_empty(rows, prefixes), torch.empty_like(values), torch.empty_like(target))
    entries = pointer(values), pointer(indices), pointer(starts), pointer(groups)
    sizes = c_int64(prefixes), c_int64(width)

    def pass_rows(begin: int, end: int) -> None:
        given = *entries, pointer(W_dec), pointer(target), pointer(weights), *sizes
        made = pointer(result.errors), pointer(result.values), pointer(result.target)
        kernels().nested(*given, *made, pointer(onwards), pointer(bags), c_int64(begin), c_int64(end))

    in_threads(pass_rows, rows)
    order = by_latent(indices, len(W_dec))
    latent_sums(-2 * values, *order, bags, 1, onwards.flatten(0, 1), W_dec_grad)
    return result
