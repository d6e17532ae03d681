"""Chunks that share their rounded weights and their table's gradient, against chunks that do not."""

import pytest
import torch
from torch import nn

from backbones.linear_layers import SharedEmbedding, route_embeddings, route_linear_layers, unroute
from backbones.one_batch import lookup, one_batch, rounded

IDS = [torch.tensor([[3, 3, 0], [1, 9, 3]]), torch.tensor([[5]]), torch.tensor([], dtype=torch.int64).view(0, 2)]


def gradients(table, head, shared, ids=IDS, padding=None):
    table.grad = head.grad = None

    def encode():
        return [(lookup(part, table, padding) @ head).sin().sum() for part in ids]

    if shared:
        with one_batch():
            parts = encode()
    else:
        parts = encode()
    torch.stack(parts).prod().backward()
    return table.grad, head.grad


@pytest.mark.parametrize("padding", [None, 0, 3])
@pytest.mark.parametrize("ids", [IDS, IDS[:1], IDS[1:]], ids=["three", "one", "empty"])
def test_a_table_has_the_gradient_that_its_lookups_have_one_by_one(ids, padding):
    torch.manual_seed(0)
    table = nn.Parameter(torch.randn(10, 4, dtype=torch.float64))
    head = nn.Parameter(torch.randn(4, 2, dtype=torch.float64))
    for ours, theirs in zip(
        gradients(table, head, True, ids, padding), gradients(table, head, False, ids, padding), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_a_graph_that_is_kept_gives_its_gradient_again_and_a_part_of_it_gives_its_part():
    table = nn.Parameter(torch.randn(6, 3))
    with one_batch():
        first, second = (lookup(ids, table, None).square().sum() for ids in (torch.tensor([1, 1]), torch.tensor([2])))
    expected = torch.zeros(6, 3)
    expected[2] = 2 * table.detach()[2]
    (part,) = torch.autograd.grad(second, table, retain_graph=True)
    torch.testing.assert_close(part, expected)
    expected[1] = 4 * table.detach()[1]
    for _ in range(2):
        (whole,) = torch.autograd.grad(first + second, table, retain_graph=True)
        torch.testing.assert_close(whole, expected)


def test_a_weight_is_rounded_once_a_batch_and_anew_in_the_next():
    weight = nn.Parameter(torch.ones(2, 2))
    assert rounded(weight, torch.bfloat16) is not rounded(weight, torch.bfloat16)
    with one_batch():
        first = rounded(weight, torch.bfloat16)
        assert rounded(weight, torch.bfloat16) is first
        assert rounded(weight, torch.float16).dtype == torch.float16
    weight.data.mul_(2)  # as optimisers of a certain age do, which tell nobody
    with one_batch():
        assert rounded(weight, torch.bfloat16).eq(2).all()


def test_plain_tables_are_routed_and_sent_back():
    model = nn.ModuleList(
        [nn.Embedding(4, 2), nn.Embedding(4, 2, sparse=True), nn.Embedding(4, 2, max_norm=1.0), nn.Linear(2, 2)]
    )
    route_embeddings(model)
    route_linear_layers(model, "onednn")
    assert [type(part) is SharedEmbedding for part in model] == [True, False, False, False]
    unroute(model)
    assert [type(part) for part in model] == [nn.Embedding, nn.Embedding, nn.Embedding, nn.Linear]


def test_under_autocast_a_layer_gives_its_weight_the_gradient_of_rounded_operands_in_float32():
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(6, 5))
    route_linear_layers(layer, "onednn")
    x = torch.randn(7, 3, 6).bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    assert y.shape == (7, 3, 5)
    grad = torch.randn(7, 3, 5).bfloat16()
    y.backward(grad)
    weight, rows, given = layer[0].weight.detach().bfloat16().double(), x.detach().double(), grad.double()
    assert layer[0].weight.grad.dtype == layer[0].bias.grad.dtype == torch.float32
    close = {"rtol": 2**-7, "atol": 2**-5, "check_dtype": False}
    torch.testing.assert_close(y, (rows @ weight.T + layer[0].bias.detach().double()).detach(), **close)
    torch.testing.assert_close(x.grad, given @ weight, **close)
    torch.testing.assert_close(layer[0].weight.grad, torch.einsum("abo,abi->oi", given, rows), **close)
    torch.testing.assert_close(layer[0].bias.grad, given.sum(dim=(0, 1)), rtol=1e-6, atol=1e-6, check_dtype=False)
