import pytest
import torch

from lightning_modules.functional import pooled


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ("mean", lambda context: sum(context) / len(context)),
        ("cls", lambda context: context[0]),
        ("last_token", lambda context: context[-1]),
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


def test_a_mean_of_bfloat16_is_taken_in_float32():
    hidden, real = torch.ones(1, 1000, 2, dtype=torch.bfloat16), torch.ones(1, 1000, dtype=torch.bool)
    assert torch.equal(pooled(hidden, real, "mean"), torch.ones(1, 2))
