"""Transcoders against their formula."""

import pytest
import torch

from lightning_modules.autoencoders import BatchTopK, Gated, JumpReLU, ReLU, TopK, Transcoder
from lightning_modules.functional import DenseCodes
from run_store import UserError

D_IN, D_OUT, S, ROWS = 6, 5, 24, 40


def made(skip=False, make=ReLU, **settings):
    torch.manual_seed(0)
    model = make(S, **settings, wiring=Transcoder(skip))
    model.build(D_IN, D_OUT)
    return model.double()


def built(skip=False, make=ReLU, **settings):
    model = made(skip, make, **settings)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.7)
        model.mean.normal_()
        model.wiring.center.normal_()
    return model


def rows():
    return torch.randn(ROWS, D_IN, dtype=torch.float64), torch.randn(ROWS, D_OUT, dtype=torch.float64)


def naive_pre_activations(model, x):
    z = torch.zeros(len(x), S, dtype=torch.float64)
    for row in range(len(x)):
        for latent in range(S):
            z[row, latent] = model.W_enc[latent] @ (x[row] - model.wiring.center) + model.b_enc[latent]
    return z


def naive_reconstruction(model, x, f):
    reconstruction = model.b_dec.expand(len(x), -1)
    if model.wiring.W_skip is not None:
        reconstruction = reconstruction + x @ model.wiring.W_skip
    for latent in range(S):
        reconstruction = reconstruction + f[:, latent, None] * model.W_dec[latent]
    return reconstruction


@pytest.mark.parametrize("skip", [False, True])
def test_relu_equals_its_formula_with_a_penalty_on_what_is_written(skip):
    model, (x, y) = built(skip), rows()
    f = naive_pre_activations(model, x).relu()
    result = model.training_pass(x, y=y)
    torch.testing.assert_close(result.codes.dense(), f)
    torch.testing.assert_close(result.reconstruction, naive_reconstruction(model, x, f))
    error = (y - naive_reconstruction(model, x, f)).square().sum()
    torch.testing.assert_close(result.terms["reconstruction"].value, error / (y - model.mean).square().sum())
    penalty = sum(f[r, i] * model.W_dec[i].norm() for r in range(ROWS) for i in range(S)) / ROWS
    torch.testing.assert_close(result.terms["l1"].value, penalty)


@pytest.mark.parametrize("skip", [False, True])
def test_topk_keeps_the_largest_and_its_dead_latents_reconstruct_the_error_of_y(skip):
    dead, k_aux = [1, 5, 7, 20], 3
    model, (x, y) = built(skip, TopK, k=4, k_aux=k_aux, aux_k_coefficient=0.5), rows()
    z = naive_pre_activations(model, x).relu()
    f, estimate = torch.zeros_like(z), torch.zeros_like(y)
    for row in range(ROWS):
        for latent in sorted(range(S), key=lambda i: -z[row, i].item())[:4]:
            f[row, latent] = z[row, latent]
        for latent in sorted(dead, key=lambda i: -z[row, i].item())[:k_aux]:
            estimate[row] = estimate[row] + z[row, latent] * model.W_dec[latent]
    result = model.training_pass(x, torch.tensor(dead), y=y)
    torch.testing.assert_close(result.codes.dense(), f)
    torch.testing.assert_close(result.reconstruction, naive_reconstruction(model, x, f))
    error = y - result.reconstruction
    spread = (error - error.mean(dim=0)).square().sum()
    torch.testing.assert_close(result.terms["aux_k"].value, (error - estimate).square().sum() / spread)


def test_the_gates_loss_and_tanh_count_what_is_written():
    (x, y), gated = rows(), built(True, Gated)
    opened = naive_pre_activations(gated, x).relu()
    terms = gated.training_pass(x, y=y).terms
    error = (y - naive_reconstruction(gated, x, opened)).square().sum()
    torch.testing.assert_close(terms["gate"].value, error / (y - gated.mean).square().sum())
    torch.testing.assert_close(terms["l1"].value, (opened * gated.W_dec.norm(dim=1)).sum() / ROWS)
    jump = built(False, JumpReLU, penalty="tanh", tanh_scale=3.0)
    z = naive_pre_activations(jump, x)
    f = z * (z > jump.threshold)
    expected = torch.tanh(3 * f * jump.W_dec.norm(dim=1)).sum() / ROWS
    torch.testing.assert_close(jump.training_pass(x, y=y).terms["tanh"].value, expected)


@pytest.mark.parametrize("make", [ReLU, TopK, BatchTopK, JumpReLU, Gated])
def test_the_first_reconstruction_is_the_mean_of_y_and_the_first_step_leaves_the_encoder(make):
    model, (x, y) = made(True, make, **({"k": 4} if make in (TopK, BatchTopK) else {})), rows()
    model.start_from_data(y.mean(dim=0), y.mean(dim=0), x.mean(dim=0))
    result = model.training_pass(x, y=y)
    torch.testing.assert_close(result.reconstruction, y.mean(dim=0).expand(ROWS, -1))
    assert result.fvu.item() == pytest.approx(1)
    assert result.codes.firing_counts().any()
    result.terms["reconstruction"].value.backward()
    assert model.W_dec.grad.any()
    assert model.wiring.W_skip.grad.any()
    assert not model.W_enc.grad.any()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_penalties_neither_move_nor_break_latents_that_write_nothing_yet():
    """The norm of a row has no gradient at 0."""
    model, (x, y) = made(), rows()
    term = model.training_pass(x, y=y).terms["l1"].value
    assert term == 0
    for gradient in torch.autograd.grad(term, [model.W_enc, model.b_enc, model.W_dec]):
        assert not gradient.any()


def test_rows_of_the_decoder_keep_the_length_that_a_step_gives_them():
    model, (x, y) = made(), rows()
    model.training_pass(x, y=y).terms["reconstruction"].value.backward()
    grad = model.W_dec.grad.clone()
    model.before_optimizer_step()
    assert torch.equal(model.W_dec.grad, grad)
    with torch.no_grad():
        model.W_dec -= grad
    model.after_optimizer_step()
    assert torch.equal(model.W_dec, -grad)


def test_gradcheck():
    model, (x, y) = built(skip=True), rows()
    names = ["W_enc", "b_enc", "W_dec", "b_dec", "wiring.W_skip"]

    def loss(*parameters):
        _, reconstruction = torch.func.functional_call(model, dict(zip(names, parameters, strict=True)), (x[:5],))
        return (reconstruction - y[:5]).square().sum()

    parameters = [model.get_parameter(name).detach().clone().requires_grad_() for name in names]
    assert torch.autograd.gradcheck(loss, parameters)


def test_bf16_autocast_keeps_fp32_weights_and_gradients():
    (x, y), model = (part.float() for part in rows()), built(skip=True, make=TopK, k=4).float()
    exact = model(x)[1].detach()
    with torch.autocast("cpu", torch.bfloat16):
        result = model.training_pass(x, y=y)
    result.terms["reconstruction"].value.backward()
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in model.parameters())
    assert (result.reconstruction - exact).square().mean() < 0.05 * exact.square().mean()


def test_codes_are_read_from_x_and_written_to_y():
    model = built()
    assert (model.d_in, model.d_out) == (D_IN, D_OUT)
    assert model.W_enc.shape == (S, D_IN)
    assert model.W_dec.shape == (S, D_OUT)
    assert model.wiring.decode(DenseCodes(torch.ones(2, S, dtype=torch.float64)), model.W_dec).shape == (2, D_OUT)


@pytest.mark.parametrize("names", [["a"], ["a", "b", "c"]])
def test_any_other_number_of_hook_points_than_two_is_refused_with_their_names(names):
    sentence = rf"the data gives {len(names)} \({', '.join(names)}\): set data\.hook_points to two names, the input"
    with pytest.raises(UserError, match=sentence):
        Transcoder().sides(names)
