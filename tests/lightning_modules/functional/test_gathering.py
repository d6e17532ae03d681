"""Rows of three processes."""

import torch

from lightning_modules.functional import gather_rows, ranks

COUNTS = [2, 0, 3]


def rows(rank):
    return torch.arange(COUNTS[rank] * 2, dtype=torch.float64).view(-1, 2) + 10 * rank


def test_rows_come_in_the_order_of_ranks_and_gradients_are_summed(on_ranks):
    def work(rank):
        x = rows(rank).requires_grad_()
        gathered = gather_rows(x, COUNTS)
        (gathered.square().sum() * (rank + 1)).backward()
        return [gathered.detach(), x.grad, gather_rows(x.detach().long(), COUNTS)]

    expected = torch.cat([rows(rank) for rank in range(3)])
    for rank, (gathered, gradient, integers) in enumerate(on_ranks(work, 3)):
        assert torch.equal(gathered, expected)
        assert torch.equal(integers, expected.long())
        torch.testing.assert_close(gradient, 2 * rows(rank) * (1 + 2 + 3))


def test_one_process_is_one():
    assert ranks() == 1
