"""Skips against their formula, and what their latents are worth."""

import pytest
import torch
from lightning.pytorch import Trainer

from lightning_modules.autoencoders import ReLU, Skip, TopK
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from run_store import UserError

D, S, ROWS = 6, 24, 40


def built(wiring, make=ReLU):
    torch.manual_seed(0)
    model = make(S, wiring=wiring)
    model.build(D)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
        model.wiring.center.normal_()
    return model.double()


@pytest.mark.parametrize(("scale", "affine"), [(0.0, False), (0.3, False), (0.0, True), (0.3, True)])
def test_codes_and_reconstruction_equal_their_formula(scale, affine):
    model, x = built(Skip(scale, affine)), torch.randn(ROWS, D, dtype=torch.float64)
    codes, reconstruction = model(x)
    for row in range(ROWS):
        expected = scale * x[row] + model.b_dec
        if affine:
            expected = expected + model.wiring.W_skip.T @ x[row]
        torch.testing.assert_close(model.without_latents(x)[row], expected)
        for latent in range(S):
            f = max(0, (model.W_enc[latent] @ (x[row] - model.wiring.center) + model.b_enc[latent]).item())
            assert codes.dense()[row, latent].item() == pytest.approx(f)
            expected = expected + f * model.W_dec[latent]
        torch.testing.assert_close(reconstruction[row], expected)


def test_a_fixed_scale_is_no_parameter_and_an_affine_skip_starts_at_zero():
    fixed, learnt = ReLU(S, wiring=Skip(0.3)), ReLU(S, wiring=Skip(0.3, affine=True))
    fixed.build(D)
    learnt.build(D)
    assert {name for name, _ in learnt.named_parameters()} - {name for name, _ in fixed.named_parameters()} == {
        "wiring.W_skip"
    }
    assert not learnt.wiring.W_skip.any()


def test_gradcheck_of_the_skip():
    model, x = built(Skip(0.3, affine=True)), torch.randn(5, D, dtype=torch.float64)
    names = ["W_enc", "b_enc", "W_dec", "b_dec", "wiring.W_skip"]

    def reconstruction(*parameters):
        return torch.func.functional_call(model, dict(zip(names, parameters, strict=True)), (x,))[1]

    parameters = [model.get_parameter(name).detach().clone().requires_grad_() for name in names]
    assert torch.autograd.gradcheck(reconstruction, parameters)


def test_a_scale_of_zero_is_an_autoencoder_without_a_skip():
    """But for what centres x, which is b_dec there and the same at the start."""
    torch.manual_seed(0)
    without, skipped = TopK(S, 4), TopK(S, 4, wiring=Skip(0.0))
    without.build(D)
    skipped.build(D)
    skipped.load_state_dict(without.state_dict(), strict=False)
    x = torch.randn(ROWS, D) + 1
    for model in (without, skipped):
        model.start_from_data(x.mean(dim=0), x.mean(dim=0))
    torch.testing.assert_close(skipped(x)[1], without(x)[1])


def fitted(wiring, data, folder, rate):
    torch.manual_seed(0)
    trainer = Trainer(
        max_epochs=4,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
    )
    model = SparseAutoencoding(TopK(24, 3, wiring=wiring), lambda parameters: torch.optim.Adam(parameters, rate))
    trainer.fit(model, data)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def test_validation_tells_what_the_skip_alone_leaves_unexplained(data, tmp_path):
    metrics = fitted(Skip(0.5), data, tmp_path, 3e-3)
    # b_dec is free: what is left of (x − x̄) after half of it has passed
    assert metrics["val/fvu_without_latents"] == pytest.approx(0.25, rel=0.05)
    assert metrics["val/fvu"] < 0.6 * metrics["val/fvu_without_latents"]


def test_a_learnt_skip_leaves_the_latents_nothing_to_say(data, tmp_path):
    metrics = fitted(Skip(0.0, affine=True), data, tmp_path, 3e-2)
    assert metrics["val/fvu_without_latents"] < 0.2
    assert metrics["val/fvu"] < 0.1


def test_a_scale_of_one_is_refused_with_what_it_would_do():
    with pytest.raises(UserError, match=r"wiring\.scale is 1.*without any latent"):
        TopK(S, 4, wiring=Skip(1.0)).build(D)
