from typing import get_args

import pytest
import torch

from lightning_modules.functional import Pooling, pooled, pooling_weights


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ("mean", lambda context: sum(context) / len(context)),
        ("cls", lambda context: context[0]),
        ("last_token", lambda context: context[-1]),
        ("max", lambda context: torch.stack([max(column) for column in zip(*context, strict=True)])),
        (
            "weighted_mean",
            lambda context: sum((i + 1) * x for i, x in enumerate(context)) / sum(range(len(context) + 1)),
        ),
    ],
)
def test_one_vector_a_context_whatever_stands_in_the_padding(pooling, expected):
    lengths = torch.tensor([5, 1, 3])
    hidden, real = torch.randn(3, 5, 4), torch.arange(5) < lengths[:, None]
    hidden[~real] = 1e6
    vectors = pooled(hidden, real, pooling)
    for context in range(3):
        vector = expected([hidden[context, t] for t in range(lengths[context])])
        torch.testing.assert_close(vectors[context], vector)


@pytest.mark.parametrize("pooling", get_args(Pooling))
def test_gradients_are_those_of_the_values_and_padding_gets_none(pooling):
    hidden, real = torch.randn(3, 4, 2, dtype=torch.float64), torch.arange(4) < torch.tensor([[4], [1], [2]])
    hidden[~real] = torch.inf
    hidden.requires_grad_()
    pooled(hidden, real, pooling).sum().backward()
    assert not hidden.grad[~real].any()

    def of_real_values(values):
        return pooled(torch.zeros_like(hidden).masked_scatter(real[..., None], values), real, pooling)

    assert torch.autograd.gradcheck(of_real_values, hidden[real].detach().requires_grad_())


def test_a_mean_of_bfloat16_is_taken_in_float32():
    hidden, real = torch.ones(1, 1000, 2, dtype=torch.bfloat16), torch.ones(1, 1000, dtype=torch.bool)
    assert torch.equal(pooled(hidden, real, "mean"), torch.ones(1, 2))


@pytest.mark.parametrize("pooling", [pooling for pooling in get_args(Pooling) if pooling != "max"])
def test_weights_add_up_to_what_is_pooled(pooling):
    hidden, real = torch.randn(3, 5, 4).double(), torch.arange(5) < torch.tensor([[5], [1], [3]])
    weights = pooling_weights(real, pooling)
    torch.testing.assert_close((weights.unsqueeze(2) * hidden).sum(1), pooled(hidden, real, pooling))
    torch.testing.assert_close(weights.sum(1), torch.ones(3).double())


def test_maxima_have_no_weights():
    with pytest.raises(ValueError, match="no weighted sum"):
        pooling_weights(torch.ones(1, 2, dtype=torch.bool), "max")
