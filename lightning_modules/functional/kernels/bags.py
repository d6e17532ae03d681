"""Sums over bags of weighted rows of a table, and what their gradients need, as kernels.

Shapes: E kept entries, in bags one behind the other; s rows of a table, d its width. A bag is what one row of a batch
keeps, where k entries each; or what `starts` say: the kept latents of a row, or the rows that keep a latent.

Everything is added in float32 (float64 where the table is), in an order that follows from the shapes alone. So there is
no autotuning by the clock: it could choose another order in the next process, and a resumed run would end with other
bits. How much a program reads at once follows from the dtype instead: a warp reads 16 bytes a thread, the most that one
instruction reads.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lightning_modules.functional.kernels.availability import on_device_of

WARP_BYTES = 32 * 16
ENTRIES_AHEAD = 16
"""Rows of the table that are asked for before the first has arrived."""

ENTRIES_OF_A_DOT = 16
ENTRIES_OF_A_TOTAL = 128


def bag_sums(weights: Tensor, indices: Tensor, table: Tensor, starts: Tensor | None = None) -> Tensor:
    """Σ_i weights[r, i] · table[indices[r, i]]: [b, k], [b, k], [s, d] → [b, d] in the table's dtype; of entries [E]
    where bags begin at `starts` [b] int64.
    """
    indices, table, weights = indices.contiguous(), table.contiguous(), weights.contiguous()
    bags = indices.shape[0] if starts is None else len(starts)
    sums = table.new_empty(bags, table.shape[1])
    columns = _columns(table)
    with on_device_of(table):
        _bag_sums_kernel[(bags, triton.cdiv(table.shape[1], columns))](
            sums,
            indices,
            weights,
            table,
            starts,
            bags,
            indices.numel(),
            bag_size=indices.shape[1] if starts is None else 0,
            width=table.shape[1],
            COLUMNS=columns,
            AHEAD=ENTRIES_AHEAD,
            SUM=_sum_dtype(table),
            num_warps=1,
        )
    return sums


def gathered_dot(rows: Tensor, table: Tensor, indices: Tensor, owners: Tensor | None = None) -> Tensor:
    """rows[r] · table[indices[r, i]]: [b, d], [s, d], [b, k] → [b, k] in the table's dtype; [E] where indices are [E]
    and `owners` [E] int64 says which row each belongs to.
    """
    rows, table, indices = rows.contiguous(), table.contiguous(), indices.contiguous()
    dots = table.new_empty(indices.shape)
    with on_device_of(table):
        _gathered_dot_kernel[(triton.cdiv(indices.numel(), ENTRIES_OF_A_DOT),)](
            dots,
            rows,
            table,
            indices,
            owners,
            indices.numel(),
            bag_size=indices.shape[1] if owners is None else 0,
            width=table.shape[1],
            ENTRIES=ENTRIES_OF_A_DOT,
            COLUMNS=_columns(table),
            SUM=_sum_dtype(table),
            num_warps=4,
        )
    return dots


def segment_totals(weights: Tensor, order: Tensor, starts: Tensor) -> Tensor:
    """Σ of the weights of each segment, [E] → [n]. The entries in order [E] int64 form segments one behind the other,
    which begin at `starts` [n + 1] int64 and end where the next one begins.
    """
    weights, starts = weights.contiguous(), starts[:-1]
    totals = weights.new_empty(len(starts))
    with on_device_of(weights):
        _segment_totals_kernel[(len(starts),)](
            totals,
            weights,
            order,
            starts,
            len(starts),
            len(order),
            ENTRIES=ENTRIES_OF_A_TOTAL,
            SUM=_sum_dtype(weights),
            num_warps=1,
        )
    return totals


def _columns(table: Tensor) -> int:
    return int(min(WARP_BYTES // table.element_size(), triton.next_power_of_2(table.shape[1])))


def _sum_dtype(table: Tensor) -> tl.dtype:
    return tl.float64 if table.dtype == torch.float64 else tl.float32


@triton.jit
def _bag_sums_kernel(
    sums: tl.tensor,
    indices: tl.tensor,
    weights: tl.tensor,
    table: tl.tensor,
    starts: tl.tensor,
    bags: int,
    entries: int,
    bag_size: int,
    width: int,
    COLUMNS: tl.constexpr,
    AHEAD: tl.constexpr,
    SUM: tl.constexpr,
) -> None:
    """One program a bag and a block of columns; entries are added one after another."""
    bag = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    if starts is None:
        begin = bag * bag_size
        end = begin + bag_size
    else:
        begin = tl.load(starts + bag)
        end = tl.load(starts + bag + 1, mask=bag + 1 < bags, other=entries)
    total = tl.zeros([COLUMNS], dtype=SUM)
    for first in range(begin, end, AHEAD):
        for step in tl.static_range(AHEAD):
            entry = first + step
            row = tl.load(indices + entry, mask=entry < end, other=0).to(tl.int64)
            weight = tl.load(weights + entry, mask=entry < end, other=0).to(SUM)
            there = columns < tl.where(entry < end, width, 0)
            total += weight * tl.load(table + row * width + columns, mask=there, other=0).to(SUM)
    tl.store(sums + bag * width + columns, total.to(sums.dtype.element_ty), mask=columns < width)


@triton.jit
def _gathered_dot_kernel(
    dots: tl.tensor,
    rows: tl.tensor,
    table: tl.tensor,
    indices: tl.tensor,
    owners: tl.tensor,
    entries: int,
    bag_size: int,
    width: int,
    ENTRIES: tl.constexpr,
    COLUMNS: tl.constexpr,
    SUM: tl.constexpr,
) -> None:
    """One program for ENTRIES entries, whoever they belong to; neighbours mostly share the row, which stays in L1."""
    entry = tl.program_id(0).to(tl.int64) * ENTRIES + tl.arange(0, ENTRIES)
    real = entry < entries
    row = entry // bag_size if owners is None else tl.load(owners + entry, mask=real, other=0)
    latent = tl.load(indices + entry, mask=real, other=0).to(tl.int64)
    total = tl.zeros([ENTRIES], dtype=SUM)
    for first in range(0, width, COLUMNS):
        columns = first + tl.arange(0, COLUMNS)
        mask = real[:, None] & (columns < width)[None, :]
        of_row = tl.load(rows + row[:, None] * width + columns[None, :], mask=mask, other=0).to(SUM)
        of_table = tl.load(table + latent[:, None] * width + columns[None, :], mask=mask, other=0).to(SUM)
        total += tl.sum(of_row * of_table, axis=1)
    tl.store(dots + entry, total.to(dots.dtype.element_ty), mask=real)


@triton.jit
def _segment_totals_kernel(
    totals: tl.tensor,
    weights: tl.tensor,
    order: tl.tensor,
    starts: tl.tensor,
    segments: int,
    entries: int,
    ENTRIES: tl.constexpr,
    SUM: tl.constexpr,
) -> None:
    segment = tl.program_id(0).to(tl.int64)
    begin = tl.load(starts + segment)
    end = tl.load(starts + segment + 1, mask=segment + 1 < segments, other=entries)
    total = tl.zeros([ENTRIES], dtype=SUM)
    for first in range(begin, end, ENTRIES):
        entry = first + tl.arange(0, ENTRIES)
        place = tl.load(order + entry, mask=entry < end, other=0)
        total += tl.load(weights + place, mask=entry < end, other=0).to(SUM)
    tl.store(totals + segment, tl.sum(total, axis=0).to(totals.dtype.element_ty))
