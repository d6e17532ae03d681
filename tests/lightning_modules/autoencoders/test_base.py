"""What all variants share, tried on one sparse and several dense variants."""

import pytest
import torch

from lightning_modules.autoencoders import Gated, JumpReLU, ReLU, TopK
from run_store import UserError

VARIANTS = [lambda: TopK(24, 4), lambda: ReLU(24), lambda: JumpReLU(24), lambda: Gated(24)]


@pytest.fixture(params=VARIANTS, ids=["topk", "relu", "jump_relu", "gated"])
def model(request):
    torch.manual_seed(0)
    autoencoder = request.param()
    autoencoder.build(6)
    return autoencoder


def test_start_unit_norm_rows_tied_directions_zero_biases(model):
    torch.testing.assert_close(model.W_dec.norm(dim=1), torch.ones(24))
    assert torch.equal(model.W_enc, model.W_dec)
    assert not model.b_enc.any()
    assert not model.b_dec.any()
    assert model.W_enc.data_ptr() != model.W_dec.data_ptr()


def test_start_from_data_sets_b_dec_and_the_mean(model):
    center, mean = torch.randn(6), torch.randn(6)
    model.start_from_data(center, mean)
    assert torch.equal(model.b_dec, center)
    assert torch.equal(model.mean, mean)
    assert "mean" in model.state_dict()


def test_the_decoders_gradient_is_orthogonal_to_its_rows_and_a_step_keeps_unit_norm(model):
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        sum(term.value for term in model.training_pass(torch.randn(32, 6)).terms.values()).backward()
        model.before_optimizer_step()
        torch.testing.assert_close((model.W_dec.grad * model.W_dec).sum(dim=1), torch.zeros(24), atol=1e-6, rtol=0)
        optimizer.step()
        model.after_optimizer_step()
        torch.testing.assert_close(model.W_dec.norm(dim=1), torch.ones(24))


def test_latents_are_never_negative_and_nothing_is_nan(model):
    for x in (torch.randn(16, 6), torch.zeros(16, 6), 1e4 * torch.randn(16, 6)):
        codes, reconstruction = model(x)
        assert (codes.dense() >= 0).all()
        assert codes.dense().shape == (16, 24)
        assert reconstruction.shape == (16, 6)
        assert torch.isfinite(reconstruction).all()


def test_bf16_autocast_keeps_fp32_weights_and_gradients(model):
    x = torch.randn(32, 6)
    exact = model(x)[1].detach()
    with torch.autocast("cpu", torch.bfloat16):
        result = model.training_pass(x)
        loss = sum(term.value for term in result.terms.values())
    loss.backward()
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in model.parameters())
    assert (result.reconstruction - exact).square().mean() < 0.05 * exact.square().mean()


def test_a_dictionary_without_latents_is_refused():
    with pytest.raises(UserError, match="d_sae is 0"):
        ReLU(0).build(6)
