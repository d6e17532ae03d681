"""What ranks select together against sorting everything in one process, where many values are equal."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_modules.functional import linear_batch_topk, linear_topk
from lightning_modules.functional.batch_topk import linear_above
from lightning_modules.functional.encoding import reconstructed_by
from lightning_modules.functional.sharded import (
    Shard,
    among_largest,
    held_of,
    local,
    mean_over_latents,
    merged_entries,
    merged_largest,
    placed,
    placed_like,
)

SIZES = [(5, 3, 12, 4), (1, 1, 2, 1), (4, 2, 8, 8), (7, 2, 4, 1), (3, 4, 6, 5)]
"""b, d, s and k."""


def whole_numbers(b: int, d: int, s: int, seed: int) -> list[Tensor]:
    """x, weight, bias of small integers: many values are equal, and no product is rounded."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(-2, 3, shape, generator=generator).double() for shape in ((b, d), (s, d), (s,))]


def sorted_places(keys: Tensor) -> list[int]:
    """Of keys [n], the largest first, of equal ones the first first."""
    return sorted(range(len(keys)), key=lambda place: -keys[place].item())


def mesh_of(groups: int, ranks: int) -> Any:
    from torch.distributed.device_mesh import init_device_mesh

    return init_device_mesh("cpu", (groups, ranks), mesh_dim_names=("data", "latents"))


def part_of(whole: Tensor, mesh: Any) -> Tensor:
    size = len(whole) // mesh.size()
    first = mesh.get_local_rank() * size
    return placed(whole[first : first + size].clone(), mesh, True)


def check_rows(mesh: Any) -> None:
    for case, (b, d, s, k) in enumerate(SIZES):
        x, weight, bias = whole_numbers(b, d, s, case)
        z = x @ weight.T + bias
        cut = part_of(weight, mesh)
        shard = Shard.of(cut)
        own = slice(shard.first, shard.first + shard.size)
        for signed in (False, True):
            keys = z.abs() if signed else z
            # of a rank's own values the first of equal ones, as a GPU selects
            n = min(k, shard.size)
            latents = torch.tensor([sorted_places(row)[:n] for row in keys[:, own]])
            values, indices = merged_largest(z[:, own].gather(1, latents), latents, k, shard, signed)
            expected = torch.tensor([sorted(sorted_places(row)[:k]) for row in keys])
            assert torch.equal(indices, expected)
            assert torch.equal(values, z.gather(1, expected))

            values, indices = linear_topk(x, cut, bias[own], k, signed)
            wanted = keys.topk(k).values if signed else keys.topk(k).values.relu()
            assert torch.equal((values.abs() if signed else values).sort(descending=True).values, wanted)
            assert torch.equal((z if signed else z.relu()).gather(1, indices), values)
            assert all(len(set(row)) == k for row in indices.tolist())

        some = torch.arange(s)[:: 2 if s > 2 else 1]
        kept = min(k, len(some))
        decoder = whole_numbers(s, s, d, 9)[0][:, :d]
        told = reconstructed_by(some, x, cut, bias[own], part_of(decoder, mesh), kept)
        alone = reconstructed_by(some, x, weight, bias, decoder, kept)
        if len(set(z[:, some].flatten().tolist())) == z[:, some].numel() or kept == len(some):
            assert torch.equal(told, alone)


def check_batches(mesh: Any, groups: int, group: int) -> None:
    for case, (b, d, s, k) in enumerate(SIZES):
        every, weight, bias = whole_numbers(b * groups, d, s, case)
        z, x = every @ weight.T + bias, every[group * b : (group + 1) * b]
        positive = [place for place in sorted_places(z.flatten()) if z.flatten()[place] > 0][: k * len(every)]
        expected = torch.zeros_like(z.flatten()).index_put(
            (torch.tensor(positive, dtype=torch.int64),), torch.ones(()).double()
        )
        expected = (expected.view_as(z) * z)[group * b : (group + 1) * b]
        cut = part_of(weight, mesh)
        shard = Shard.of(cut)
        codes = linear_batch_topk(x, cut, bias[shard.first : shard.first + shard.size], k)
        assert torch.equal(codes.dense(), expected)
        fired = codes.values != 0
        places = (codes.rows * s + codes.indices)[fired]
        assert torch.equal(places, expected.flatten().nonzero().squeeze(1))
        least = z.flatten()[positive].min() if positive else torch.tensor(torch.inf)
        assert float(codes.least) == float(least)
        for threshold in (torch.tensor(0.0), torch.tensor(1e6)):
            above = linear_above(x, cut, bias[shard.first : shard.first + shard.size], threshold)
            assert torch.equal(above.dense(), linear_above(x, weight, bias, threshold).dense())


def check_odds_and_ends(mesh: Any) -> None:
    rank = mesh.get_local_rank()
    whole = torch.arange(12.0).view(6, 2)
    cut = part_of(whole, mesh)
    shard = Shard.of(cut)
    assert torch.equal(local(placed_like(whole, cut)), local(cut))
    assert torch.equal(local(placed_like(local(cut), cut)), local(cut))
    assert torch.equal(placed_like(cut, whole), whole)
    held = held_of(torch.tensor([5, 0, 3]), cut)
    assert held.rows.tolist() == ([0] if rank == 0 else [2, 0])
    assert held.which.tolist() == ([1] if rank == 0 else [0, 2])
    assert float(mean_over_latents(torch.ones(rank * 2) * 3, cut)) == 3
    assert float(mean_over_latents(torch.ones(0), cut)) == 1
    values, places = merged_entries(torch.arange(float(rank)), torch.tensor([4] * rank, dtype=torch.int64), shard)
    assert (values.tolist(), places.tolist()) == ([0.0], [4])
    nothing = merged_entries(torch.ones(0), torch.ones(0, dtype=torch.int64), shard)
    assert not len(nothing[0])
    # what is not a number is seen, and of equal values the lower rank's are kept
    own = torch.tensor([[2.0, 5.0]]) if rank == 0 else torch.tensor([[5.0, torch.nan, 5.0]])
    kept = among_largest(own, 3, [2, 3], shard).tolist()
    assert kept == ([[False, True]] if rank == 0 else [[True, True, False]])
    assert among_largest(own[:, : 2 * (1 - rank)], 2, [2, 0], shard).tolist() == ([[True, True]] if rank == 0 else [[]])


@pytest.mark.slow
def test_ranks_that_share_latents_select_what_one_would(on_ranks: Callable[..., list[Any]]) -> None:
    def on_two(rank: int) -> None:
        mesh = mesh_of(1, 2)["latents"]
        check_rows(mesh)
        check_batches(mesh, 1, 0)
        check_odds_and_ends(mesh)

    def on_four(rank: int) -> None:
        check_batches(mesh_of(2, 2)["latents"], 2, rank // 2)

    on_ranks(on_two, 2)
    on_ranks(on_four, 4)
