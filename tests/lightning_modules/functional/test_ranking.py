"""Means and orders in which some entries do not count."""

import math

import pytest
import torch

from lightning_modules.functional import masked_row_means, order_loss


def test_entries_that_do_not_count_have_no_gradient_and_a_row_of_those_is_nothing():
    values = torch.tensor([[1.0, 5.0, math.inf], [2.0, math.nan, 4.0], [7.0, 7.0, 7.0]], requires_grad=True)
    counts = torch.tensor([[True, True, False], [True, False, True], [False, False, False]])
    means = masked_row_means(values, counts)
    assert means.tolist() == [3, 3, 0]
    means.sum().backward()
    assert torch.equal(values.grad, counts / 2)
    assert masked_row_means(torch.zeros(2, 0), torch.zeros(2, 0, dtype=torch.bool)).tolist() == [0, 0]


def test_order_loss_of_two_pairs_ties_and_scores_that_are_not_known():
    s = torch.tensor([0.5, 0.25], dtype=torch.float64)
    assert float(order_loss(s, torch.tensor([1.0, 2.0]), 0.5)) == pytest.approx(math.log1p(math.exp(0.5)))
    assert float(order_loss(s, torch.tensor([2.0, 1.0]), 0.5)) == pytest.approx(math.log1p(math.exp(-0.5)))
    assert order_loss(s, torch.tensor([2.0, 2.0]), 0.5) == 0
    assert order_loss(s, torch.tensor([2.0, math.nan]), 0.5) == 0


def test_order_loss_neither_overflows_nor_vanishes():
    s = torch.tensor([1.0, -1.0], requires_grad=True)
    loss = order_loss(s, torch.tensor([0.0, 1.0]), 1e-3)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(2000)
    assert s.grad.tolist() == pytest.approx([1000, -1000])
