"""Latents that are spread over processes, and all that these say to each other about them.

Shapes: b rows of a batch, k kept latents a row, s latents, d width of the activations, r ranks, E kept entries.

A weight with one row a latent is then a DTensor, cut by rows: of r ranks, rank i holds latents i·s/r … (i + 1)·s/r − 1.
All of them see the same rows x, and all have the same codes, those of the whole dictionary: values and numbers of kept
latents are small, so whoever counts, measures or shows codes need not know that nobody has all the weights. Only what
multiplies with a weight does:

    select        every rank its own k largest; all are told all of them and keep the k largest of these
    decode        every rank what its own kept latents say of ŷ; the sum over ranks is ŷ
    gradients     of a rank's own rows, from its own kept entries; nobody is told
    b_dec         through the encoder every rank has a part of its gradient; they are added

A row costs the gathering of 8·k bytes from each rank and the sum of d numbers over the ranks, whatever s is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


class Shard(NamedTuple):
    """The latents that this process holds."""

    first: int
    size: int
    """How many."""
    ranks: int
    """How many processes hold as many each."""
    group: Any
    """These processes."""

    @classmethod
    def of(cls, weight: Any) -> Shard:
        """Of a weight that is sharded."""
        mesh = weight.device_mesh
        count = weight.shape[0] // mesh.size()
        return cls(mesh.get_local_rank() * count, count, mesh.size(), mesh.get_group())


class Held(NamedTuple):
    """Those of some latents that this process holds."""

    which: Tensor
    """[m] int64 places in the list that was asked about."""
    rows: Tensor
    """[m] int64 their rows in what this process holds of a weight."""


class OwnEntries(NamedTuple):
    """Those of E kept entries whose latents this process holds."""

    places: Tensor
    """[n] int64 in the flattened entries, ascending."""
    latents: Tensor
    """[n] int64 rows in what this process holds of a weight."""
    rows: Tensor
    """[n] int64, ascending: of the batch."""


# ---- tensors in parts


def is_sharded(tensor: Tensor | None) -> bool:
    """Whether it is a DTensor, as all parameters of a sharded autoencoder are. Asked by an attribute, since a torch
    without distributed has no such class.
    """
    return hasattr(tensor, "placements")


def local(tensor: Tensor) -> Tensor:
    """What this process holds of it: the tensor itself, or its rows, with a gradient of these."""
    return tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined, no-any-return]


def shared(parameter: Tensor) -> Tensor:
    """A parameter that every rank has, for a use in which the latents of each rank have a part of its gradient. The
    parts are added in `whole_gradient`, once a backward, for a rank without such a use must not keep others waiting.
    """
    if not is_sharded(parameter):
        return parameter
    from torch.distributed.tensor import Partial

    return parameter.to_local(grad_placements=[Partial()])  # type: ignore[attr-defined, no-any-return]


def common(parameter: Tensor) -> Tensor:
    """A parameter that every rank has, for a use in which all do the same: its gradient is counted once."""
    if not is_sharded(parameter):
        return parameter
    first = parameter.device_mesh.get_local_rank() == 0  # type: ignore[attr-defined]
    return _Counted.apply(shared(parameter), first)  # type: ignore[no-any-return, no-untyped-call]


def whole_gradient(gradient: Tensor, parameter: Tensor) -> Tensor:
    """The gradient as the parameter is held, of which ranks may have parts that are still to be added."""
    if not is_sharded(gradient):
        return gradient
    return gradient.redistribute(placements=parameter.placements)  # type: ignore[attr-defined, no-any-return]


def gathered(tensor: Tensor) -> Tensor:
    """The whole of it, on every rank. All of them must ask."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined, no-any-return]


def placed(part: Tensor, mesh: DeviceMesh, by_rows: bool) -> Tensor:
    """A DTensor of what this process holds of it: its rows, all ranks as many, or all of it."""
    from torch.distributed.tensor import DTensor, Replicate
    from torch.distributed.tensor import Shard as Rows

    return DTensor.from_local(part, mesh, [Rows(0) if by_rows else Replicate()], run_check=False)


def placed_like(value: Tensor, like: Tensor) -> Tensor:
    """A value as `like` is held: whole or, where that is sharded, in this process's rows. It may come whole or as
    these rows.
    """
    if not is_sharded(like):
        return gathered(value)
    if is_sharded(value) or value.dim() != like.dim():
        return value
    by_rows = like.placements[0].is_shard()  # type: ignore[attr-defined]
    if by_rows and len(value) == len(like):
        shard = Shard.of(like)
        value = value[shard.first : shard.first + shard.size].clone()
    mesh = like.device_mesh  # type: ignore[attr-defined]
    return placed(value.to(local(like.detach()).device), mesh, by_rows)


def held_of(latents: Tensor, weight: Tensor) -> Held:
    """Those of the latents [n] whose rows of a weight this process holds: all, where it holds all."""
    if not is_sharded(weight):
        return Held(torch.arange(len(latents), device=latents.device), latents)
    first, size = Shard.of(weight)[:2]
    which = ((latents >= first) & (latents < first + size)).nonzero().squeeze(1)
    return Held(which, latents[which] - first)


def mean_over_latents(values: Tensor, weight: Tensor) -> Tensor:
    """The mean, scalar, of values [m] of latents that this process holds and those that others do; 1 of none."""
    if not is_sharded(weight):
        return values.mean() if len(values) else values.new_ones(())
    both = torch.stack([values.sum(), values.new_tensor(float(len(values)))])
    distributed.all_reduce(both, group=Shard.of(weight).group)
    return both[0] / both[1] if both[1] > 0 else values.new_ones(())


# ---- sums over ranks


def summed(part: Tensor, shard: Shard) -> Tensor:
    """The sum of all ranks' parts, in the memory of this one. Every rank goes on with the same sum, so each has the
    whole gradient of its part already.
    """
    return _Summed.apply(part, shard.group)  # type: ignore[no-any-return, no-untyped-call]


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor, group: Any) -> Tensor:
        ctx.mark_dirty(part)
        distributed.all_reduce(part, group=group)
        return part

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


class _Counted(torch.autograd.Function):
    """The same; one rank has the gradient, the others 0."""

    @staticmethod
    def forward(ctx: Any, parameter: Tensor, counts: bool) -> Tensor:
        ctx.counts = counts
        return parameter.view_as(parameter)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad if ctx.counts else torch.zeros_like(grad), None


# ---- selection


def merged_largest(
    values: Tensor, latents: Tensor, k: int, shard: Shard, signed: bool = False
) -> tuple[Tensor, Tensor]:
    """Values and latents [b, k] of the k largest that any rank has, or of those of largest magnitude, by ascending
    latent; of equal ones the lower latents. What is not a number counts as largest.

    Args:
        values: [b, n] the largest of each row that this process holds, n = min(k, s / r).
        latents: [b, n] int64 rows in what it holds.
        k: how many to keep, ≤ s.
        shard: what it holds.
        signed: whether to compare magnitudes.
    """
    latents, order = latents.sort(dim=1)
    values = torch.cat(_gathered(values.gather(1, order), shard), dim=1)
    # a dictionary never has 2^31 latents
    latents = torch.cat(_gathered((latents + shard.first).to(torch.int32), shard), dim=1)
    keys = (values.abs() if signed else values).nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
    bar = keys.topk(k, dim=1, sorted=False).values.amin(dim=1, keepdim=True)
    above, equal = keys > bar, keys == bar
    left = k - above.sum(dim=1, keepdim=True)
    kept = above | (equal & (equal.cumsum(dim=1) <= left))
    places = kept.nonzero()[:, 1].view(-1, k)
    return values.gather(1, places), latents.gather(1, places).long()


def among_largest(values: Tensor, k: int, counts: list[int], shard: Shard) -> Tensor:
    """Which of values ≥ 0 [b, n] are among the k largest of each row that any rank has; of equal ones those of lower
    ranks. [b, n] bool; only values are told.

    Args:
        values: what this process has.
        k: how many are kept.
        counts: n of every rank.
        shard: whose ranks.
    """
    width, rank = max(counts), shard.first // shard.size
    padded = nn.functional.pad(values, (0, width - values.shape[1]), value=-1.0)
    every = torch.stack(_gathered(padded, shard))
    every = every.nan_to_num(nan=torch.inf, posinf=torch.inf)
    bar = every.transpose(0, 1).flatten(1).topk(k, dim=1, sorted=False).values.amin(dim=1, keepdim=True)
    equals = (every == bar).sum(dim=2)
    left = k - (every > bar).sum(dim=(0, 2)) - equals[:rank].sum(dim=0)
    own = every[rank][:, : values.shape[1]]
    equal = own == bar
    return (own > bar) | (equal & (equal.cumsum(dim=1) <= left[:, None]))


def merged_entries(values: Tensor, places: Tensor, shard: Shard) -> tuple[Tensor, Tensor]:
    """All ranks' values [n] at places [n] int64, in the order of the places; another rank may have more or fewer."""
    count = torch.tensor([len(values)], device=values.device)
    counts = [int(other) for other in torch.cat(_gathered(count, shard))]
    if not any(counts):
        return values, places
    padding = (0, max(counts) - len(values))
    parts = _gathered(nn.functional.pad(values, padding), shard), _gathered(nn.functional.pad(places, padding), shard)
    values, places = (torch.cat([p[:n] for p, n in zip(part, counts, strict=True)]) for part in parts)
    places, order = places.sort()
    return values[order], places


def own_entries(indices: Tensor, shard: Shard, rows: Tensor | None = None) -> OwnEntries:
    """Those of the kept latents [b, k], or [E] of named rows [E], that this process holds."""
    entries = indices.flatten()
    places = ((entries >= shard.first) & (entries < shard.first + shard.size)).nonzero().squeeze(1)
    own_rows = torch.div(places, indices.shape[-1], rounding_mode="floor") if rows is None else rows[places]
    return OwnEntries(places, entries[places] - shard.first, own_rows)


def _gathered(part: Tensor, shard: Shard) -> list[Tensor]:
    """Every rank's, of the same shape."""
    parts = [torch.empty_like(part, memory_format=torch.contiguous_format) for _ in range(shard.ranks)]
    distributed.all_gather(parts, part.contiguous(), group=shard.group)
    return parts
