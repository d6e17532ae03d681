"""The largest pre-activations of a whole batch, over all ranks, selected exactly.

Shapes: b rows of a rank's batch, s latents, d width of the activations, r ranks. A selection keeps k·b·r values.

To sort b × s values costs ten times what it costs to compare them with a number. So a few rows tell what number the
values that are kept will all exceed, most likely; what does exceed it is selected from, and it is lowered should too
few have done so. Several ranks tell each other their largest values: 2·k·b of each, twice as many should one of them
have kept all of its own. That is 8·k·b bytes sent and r times as many received by each rank (1 MiB sent at k = 32 and
b = 4096), whatever s is.

Of equal values those of lower ranks, rows and latents are kept, in this order, so that exactly k·b·r are.

Where latents are sharded over t ranks that see the same rows, r counts such groups, whose ranks follow one another:
each rank tells 2·k·b/t of the values that its latents have, and those of a group then tell each other what is kept.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, distributed

from lightning_modules.functional.codes import BatchCodes, Codes, DenseCodes
from lightning_modules.functional.kernels import compiled_kernels_run_on, native
from lightning_modules.functional.onednn import product
from lightning_modules.functional.screening import Screen
from lightning_modules.functional.sharded import Shard, is_sharded, local, merged_entries
from lightning_modules.functional.side_by_side import shared_out
from lightning_modules.functional.sparse import gathered_dot, linear_kept, rows_at_once

SAMPLED_ROWS = 64
"""Rows that the first guess is made from."""

MARGIN = 1.5
"""How many candidates the guess aims at for each that is needed."""


class _Candidates(NamedTuple):
    """Positive values of a rank's batch, its largest among them."""

    values: Tensor
    """[n]; one that is not a number counts as infinite, so that it is kept and seen."""
    places: Tensor
    """[n] int64, ascending: row · s + latent."""


class _Encoder(NamedTuple):
    """What makes pre-activations."""

    weight: Tensor
    """[s, d]."""
    bias: Tensor
    """[s]."""
    screen: Screen | None
    """Of both, where candidates are found by a product in bfloat16."""

    @property
    def made_in(self) -> torch.dtype:
        """What dtype pre-activations are made in."""
        return self.weight.dtype if self.screen is None else torch.bfloat16

    def above(self, floor: Tensor, x: Tensor) -> _Candidates:
        """Values of x [b, d] that are not below the floor, which is above 0; places count from 0. With a screen what is
        as near to the floor as rounding leaves in doubt may be missing or too much.
        """
        if self.screen is None and compiled_kernels_run_on(x, self.weight, self.bias):
            z = product(x, self.weight).to(self.weight)
            return _Candidates(*native.reaching(z, self.bias, float(floor)))
        if self.screen is None:
            return _above(floor, torch.nn.functional.linear(x, self.weight, self.bias).flatten())
        places = _not_below(floor, self.screen.coarse(x).flatten())
        rows, latents = places // len(self.weight), places % len(self.weight)
        starts = torch.searchsorted(rows, torch.arange(len(x), device=x.device))
        exact = gathered_dot(x, self.weight, latents, starts) + self.bias[latents]
        positive = (exact <= 0).logical_not_()
        return _Candidates(_infinite_if_bad(exact[positive]), places[positive])


class _Bar(NamedTuple):
    """What a rank keeps: everything above `value`, and the first so many of what equals it."""

    value: Tensor
    """Scalar."""
    equal: Tensor
    """Scalar int64: how many of the rank's values that equal it are kept."""
    least: Tensor
    """Scalar: see `BatchCodes`."""


class _Kept(NamedTuple):
    """What a rank keeps, row by row."""

    values: Tensor
    """[e]."""
    rows: Tensor
    """[e] int64."""
    latents: Tensor
    """[e] int64."""
    least: Tensor
    """Scalar: see `BatchCodes`."""


def linear_batch_topk(x: Tensor, weight: Tensor, bias: Tensor, k: int, screening: bool = False) -> BatchCodes:
    """The k·b·r largest of relu(x Wᵀ + bias) over the batches of all ranks, with the gradient of `linear_topk`.

    Where several processes are connected, all of them must call it, with as many rows each. On one process with a GPU
    nothing waits for the GPU.

    Args:
        x: [b, d], b ≥ 1; it gets no gradient.
        weight: [s, d], one row a latent; sharded by latents, it gives every rank of a group the same.
        bias: [s], of a weight that is sharded those of this process.
        k: how many to keep a row on average, ≤ s.
        screening: find candidates by a product in bfloat16, see `screening`: half as many again as are kept, so that
            none is missed. One process with a GPU, which compares with no number, does without.
    """
    with torch.no_grad():
        own = local(weight)
        encoder = _Encoder(own, bias, Screen.of(x, own, bias) if screening else None)
        if is_sharded(weight):
            kept = _over_shards(x, encoder, k, Shard.of(weight))
        elif _ranks() > 1:
            kept = _kept(*_over_ranks(x, encoder, k), len(weight))
        elif x.device.type == "cpu":
            kept = _by_comparing(x, encoder, k)
        else:
            kept = _at_once(x, weight, bias, k)
    values = linear_kept(x, weight, bias, kept.values, kept.latents, kept.rows)
    return BatchCodes(values, kept.latents, kept.rows, len(x), len(weight), kept.least)


def linear_above(x: Tensor, weight: Tensor, bias: Tensor, threshold: Tensor) -> Codes:
    """z = x Wᵀ + bias where z exceeds a threshold, and 0 elsewhere, row by row.

    Args:
        x: [b, d].
        weight: [s, d]; sharded by latents, it gives every rank the same.
        bias: [s], of a weight that is sharded those of this process.
        threshold: scalar, ≥ 0.
    """
    if not is_sharded(weight):
        z = torch.nn.functional.linear(x, weight, bias).to(weight.dtype)
        return DenseCodes(z * (z > threshold))
    shard, latents = Shard.of(weight), len(weight)
    with torch.no_grad():
        z = torch.nn.functional.linear(x, local(weight), bias).to(weight.dtype)
        rows, own = (z <= threshold).logical_not_().nonzero(as_tuple=True)
        values, places = merged_entries(z[rows, own], rows * latents + own + shard.first, shard)
        rows, indices = places // latents, places % latents
        least = values.where(values > 0, torch.inf).amin() if len(values) else values.new_tensor(torch.inf)
    return BatchCodes(linear_kept(x, weight, bias, values, indices, rows), indices, rows, len(x), latents, least)


def _by_comparing(x: Tensor, encoder: _Encoder, k: int) -> _Kept:
    """What one process keeps; fewer than k·b where fewer are positive."""
    found = _candidates(x, encoder, k * len(x))
    count = k * len(x)
    if len(found.values) > count and compiled_kernels_run_on(found.values):
        bar = _bar_of(found.values, count)
    else:
        bar = _bar(_largest(found.values, count)[None], count, 0)
    return _kept(found, bar, len(encoder.weight))


def _at_once(x: Tensor, weight: Tensor, bias: Tensor, k: int) -> _Kept:
    """As `_by_comparing`, always k·b of them, so that their number is known without asking the GPU."""
    count = k * len(x)
    z = torch.nn.functional.linear(x, weight, bias).to(weight.dtype).flatten().relu_()
    values = _infinite_if_bad(z)
    bar = _bar(_largest(values, count)[None], count, 0)
    # how many are kept up to each place: the first place with n of them is that of the n-th
    kept = _mask(values, bar).cumsum(0, dtype=torch.int32)
    places = torch.searchsorted(kept, torch.arange(1, count + 1, dtype=torch.int32, device=z.device))
    return _Kept(z[places], places // len(weight), places % len(weight), bar.least)


def _over_shards(x: Tensor, encoder: _Encoder, k: int, shard: Shard) -> _Kept:
    """As `_by_comparing`, of what the processes that share this one's rows keep together."""
    found, bar = _over_ranks(x, encoder, k, shard.ranks)
    maybe = (found.values >= bar.value).nonzero().squeeze(1)
    rows, latents = found.places[maybe] // shard.size, found.places[maybe] % shard.size
    places = rows * (shard.size * shard.ranks) + latents + shard.first
    merged = _Candidates(*merged_entries(found.values[maybe], places, shard))
    return _kept(merged, bar, shard.size * shard.ranks)


def _over_ranks(x: Tensor, encoder: _Encoder, k: int, sharing: int = 1) -> tuple[_Candidates, _Bar]:
    """What this one of several processes has found, and what it keeps of it, or what the `sharing` processes of its
    group keep that have different latents of the same rows.
    """
    count = k * len(x) * (_ranks() // sharing)
    told = min(-(-2 * k * len(x) // sharing), count)
    while True:
        try:
            found = _candidates(x, encoder, told)
        except Exception:
            # the others wait for this rank: they are told that it has failed, and agree on what to do afterwards
            _gathered(x.new_full((told,), torch.nan, dtype=encoder.weight.dtype))
            raise
        largest = _gathered(_largest(found.values, told))
        bar = _bar(largest.view(-1, sharing * told), count, distributed.get_rank() // sharing)
        least = largest.amin(dim=1)
        missed = ((least >= bar.value) & (least > 0)).any()
        if told == count or not bool(missed) or bool(largest.isnan().any()):
            return found, bar
        told = min(2 * told, count)


def _candidates(x: Tensor, encoder: _Encoder, needed: int) -> _Candidates:
    """All values above some number, at least `needed` of them or else all that are positive."""
    latents = len(encoder.weight)
    share = MARGIN * needed / (len(x) * latents)
    while True:
        floor = _guess(x, encoder, share)
        pieces = torch.split(x, rows_at_once(x, latents, encoder.made_in))
        found = shared_out([partial(encoder.above, floor, rows) for rows in pieces])
        parts = [part._replace(places=part.places + n * len(pieces[0]) * latents) for n, part in enumerate(found)]
        values, places = (torch.cat(both) for both in zip(*parts, strict=True))
        if len(values) >= needed or share >= 1:
            return _Candidates(values.to(encoder.weight.dtype), places)
        share *= 2


def _guess(x: Tensor, encoder: _Encoder, share: float) -> Tensor:
    """What the largest `share` of all values exceed, judged from a few rows; a share of 1 has all that are positive."""
    tiny = torch.finfo(encoder.weight.dtype).tiny
    if share >= 1:
        return encoder.weight.new_tensor(tiny)
    z = torch.nn.functional.linear(x[:: -(-len(x) // SAMPLED_ROWS)], encoder.weight, encoder.bias).flatten()
    wanted = max(1, int(share * len(z)))
    if compiled_kernels_run_on(z):
        return _infinite_if_bad(native.nth_largest(z.relu_(), wanted)).clamp_min(tiny)
    return _infinite_if_bad(z).topk(wanted, sorted=False).values.amin().clamp_min(tiny)


def _above(floor: Tensor, z: Tensor) -> _Candidates:
    """Values of z [n] that are not below the floor, and their places."""
    places = _not_below(floor, z)
    return _Candidates(_infinite_if_bad(z[places]), places)


def _not_below(floor: Tensor, z: Tensor) -> Tensor:
    return (z < floor).logical_not_().nonzero().squeeze(1)


def _bar(largest: Tensor, count: int, rank: int) -> _Bar:
    """What `rank` keeps for all to keep `count`, from the largest values of every rank [r, n]."""
    top = largest.flatten().topk(count, sorted=False).values
    value = top.amin()
    equal = (largest == value).sum(dim=1)
    # of the lower ranks' equal values none is left out before all of this one's are
    left = count - (top > value).sum() - equal[:rank].sum()
    usable = (top > 0) & top.isfinite()
    return _Bar(value, left, top.where(usable, torch.inf).amin())


def _bar_of(values: Tensor, count: int) -> _Bar:
    """As `_bar`, of one rank's values > 0, more than are kept."""
    value = native.nth_largest(values, count)
    return _Bar(value, count - (values > value).sum(), value)


def _mask(values: Tensor, bar: _Bar) -> Tensor:
    equal = values == bar.value
    return (values > bar.value) | (equal & (equal.cumsum(0, dtype=torch.int32) <= bar.equal))


def _kept(found: _Candidates, bar: _Bar, latents: int) -> _Kept:
    if compiled_kernels_run_on(found.values, found.places):
        entries = native.above_bar(found.values, found.places, latents, float(bar.value), int(bar.equal))
        return _Kept(*entries, bar.least)
    kept = _mask(found.values, bar).nonzero().squeeze(1)
    places = found.places[kept]
    return _Kept(found.values[kept], places // latents, places % latents, bar.least)


def _largest(values: Tensor, count: int) -> Tensor:
    """The `count` largest of values ≥ 0 [n], in no particular order, filled up with zeros: [count]."""
    if len(values) < count:
        return torch.cat([values, values.new_zeros(count - len(values))])
    return values.topk(count, sorted=False).values


def _infinite_if_bad(values: Tensor) -> Tensor:
    return values.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)


def _ranks() -> int:
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def _gathered(values: Tensor) -> Tensor:
    """[r, n] of every rank's [n]."""
    gathered = [torch.empty_like(values) for _ in range(_ranks())]
    distributed.all_gather(gathered, values)
    return torch.stack(gathered)
