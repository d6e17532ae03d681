import pytest
import torch

from lightning_modules.autoencoders import DatasetScale, LayerNormalization, NoNormalization


@pytest.mark.parametrize("normalization", [NoNormalization(), DatasetScale(), LayerNormalization(epsilon=0)])
def test_undo_gives_the_input_back(normalization):
    x = 3 + 5 * torch.randn(20, 7)
    normalization.fit(x)
    normalized = normalization(x)
    torch.testing.assert_close(normalized.undo(normalized.x), x)


def test_dataset_scale_brings_the_mean_norm_to_sqrt_d_and_is_state():
    sample = 0.01 * torch.randn(500, 9)
    scale = DatasetScale()
    scale.fit(sample)
    torch.testing.assert_close(scale(sample).x.norm(dim=1).mean(), torch.tensor(3.0))
    other = DatasetScale()
    other.load_state_dict(scale.state_dict())
    assert torch.equal(other(sample).x, scale(sample).x)


def test_layer_normalization_brings_every_row_to_mean_0_and_variance_1():
    x = LayerNormalization()(4 + 2 * torch.randn(20, 64)).x
    torch.testing.assert_close(x.mean(dim=1), torch.zeros(20), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.var(dim=1, correction=0), torch.ones(20), atol=1e-4, rtol=0)
