"""TopK against the formulae of its paper, written naively."""

import pytest
import torch

from lightning_modules.autoencoders import TopK
from run_store import UserError


def built(d_sae=24, k=4, d_in=6, **settings):
    torch.manual_seed(0)
    model = TopK(d_sae, k, **settings)
    model.build(d_in)
    with torch.no_grad():
        model.b_enc.normal_()
        model.b_dec.normal_()
    return model.double()


def naive_codes(model, x):
    z = (x - model.b_dec) @ model.W_enc.T + model.b_enc
    kept = z.relu().topk(model.k, dim=1)
    return torch.zeros_like(z).scatter(1, kept.indices, kept.values)


def test_encode_and_decode_follow_the_definition():
    model, x = built(), torch.randn(10, 6, dtype=torch.float64)
    codes, reconstruction = model(x)
    expected = naive_codes(model, x)
    torch.testing.assert_close(codes.dense(), expected)
    torch.testing.assert_close(reconstruction, expected @ model.W_dec + model.b_dec)


def test_gradients_equal_those_of_the_naive_centred_encoder():
    model, x = built(), torch.randn(10, 6, dtype=torch.float64)
    model.training_pass(x).terms["reconstruction"].value.backward()
    ours = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    reconstruction = naive_codes(model, x) @ model.W_dec + model.b_dec
    ((x - reconstruction).square().sum() / (x - model.mean).square().sum()).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(ours[name], parameter.grad, msg=lambda text, name=name: f"{name}: {text}")


def naive_aux_k(model, x, dead):
    codes = naive_codes(model, x)
    error = (x - codes @ model.W_dec - model.b_dec).detach()
    z = ((x - model.b_dec) @ model.W_enc.T + model.b_enc).relu()
    k_aux = model.auxiliary.k_aux or model.d_in // 2
    kept = min(k_aux, len(dead))
    estimate = torch.zeros_like(x)
    for row in range(len(x)):
        for latent in sorted(dead, key=lambda i: -z[row, i].item())[:kept]:
            estimate[row] = estimate[row] + z[row, latent] * model.W_dec[latent]
    variance = (error - error.mean(dim=0)).square().sum()
    return (error - estimate).square().sum() / variance * kept / k_aux


@pytest.mark.parametrize("dead", [[3], [1, 5, 7], list(range(12))])
def test_aux_k_follows_the_paper_and_reaches_encoder_and_decoder_of_dead_latents_alone(dead):
    model, x = built(), torch.randn(10, 6, dtype=torch.float64)
    term = model.training_pass(x, torch.tensor(dead)).terms["aux_k"]
    assert term.weight == 1 / 32
    torch.testing.assert_close(term.value, naive_aux_k(model, x, dead))
    term.value.backward()
    alive = [latent for latent in range(24) if latent not in dead]
    for parameter in (model.W_enc, model.b_enc, model.W_dec):
        assert parameter.grad[dead].any()
        assert not parameter.grad[alive].any()


def test_aux_k_costs_nothing_when_no_latent_is_dead():
    model, x = built(), torch.randn(10, 6, dtype=torch.float64)
    assert model.training_pass(x, None).terms["aux_k"].value == 0


def test_aux_k_of_a_perfect_reconstruction_is_zero_and_so_is_its_gradient():
    model = built()
    x = torch.randn(4, 6, dtype=torch.float64)
    loss = model.auxiliary.loss(model, x, torch.zeros_like(x), torch.tensor([0, 1]), torch.zeros((), dtype=x.dtype))
    assert loss == 0
    loss.backward()
    assert not any(parameter.grad.any() for parameter in (model.W_enc, model.W_dec, model.b_enc))


def test_a_batch_of_one_row_has_a_finite_gradient_though_its_error_has_no_variance():
    model = built()
    result = model.training_pass(torch.randn(1, 6, dtype=torch.float64), torch.arange(12))
    sum(term.value * term.weight for term in result.terms.values()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_every_loss_term_reaches_every_parameter_it_should():
    model, x = built(), torch.randn(64, 6, dtype=torch.float64)
    terms = model.training_pass(x, torch.arange(8)).terms
    reached = {
        name: {
            p
            for p, parameter in model.named_parameters()
            if torch.autograd.grad(term.value, parameter, retain_graph=True)[0].any()
        }
        for name, term in terms.items()
        if name == "reconstruction"
    }
    assert reached == {"reconstruction": {"W_enc", "b_enc", "W_dec", "b_dec"}}
    gradients = torch.autograd.grad(terms["aux_k"].value, [model.W_enc, model.b_enc, model.W_dec])
    assert all(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("k", [0, 25])
def test_an_impossible_k_is_told_with_both_numbers(k):
    with pytest.raises(UserError, match=rf"k is {k} and d_sae is 24"):
        TopK(24, k).build(6)


def naive_multi_topk(model, x):
    z = ((x - model.b_dec) @ model.W_enc.T + model.b_enc).relu()
    codes = torch.zeros_like(z)
    for row in range(len(x)):
        kept = sorted(range(model.d_sae), key=lambda i: -z[row, i].item())[: 4 * model.k]
        mask = torch.zeros(model.d_sae, dtype=z.dtype)
        mask[kept] = 1
        codes = codes.index_add(0, torch.tensor([row]), (mask * z[row])[None])
    return (x - codes @ model.W_dec - model.b_dec).square().sum() / (x - model.mean).square().sum()


def test_multi_topk_reconstructs_from_four_times_as_many_latents_and_leaves_the_codes_alone():
    model, plain = built(multi_topk_coefficient=1 / 8), built()
    x, dead = torch.randn(10, 6, dtype=torch.float64), torch.tensor([1, 2])
    ours, without = model.training_pass(x, dead), plain.training_pass(x, dead)
    assert torch.equal(ours.codes.dense(), without.codes.dense())
    assert {name: term.value.item() for name, term in without.terms.items()} == {
        name: pytest.approx(term.value.item()) for name, term in ours.terms.items() if name != "multi_topk"
    }
    term = ours.terms["multi_topk"]
    assert term.weight == 1 / 8
    expected = naive_multi_topk(model, x)
    torch.testing.assert_close(term.value, expected)
    gradients = torch.autograd.grad(term.value, list(model.parameters()))
    naive = torch.autograd.grad(expected, list(model.parameters()))
    for name, gradient, right in zip(dict(model.named_parameters()), gradients, naive, strict=True):
        assert right.any(), name
        torch.testing.assert_close(gradient, right, msg=lambda text, name=name: f"{name}: {text}")


def test_multi_topk_is_in_the_unit_of_the_reconstruction():
    model, x = built(multi_topk_coefficient=1 / 8), torch.randn(10, 6, dtype=torch.float64)
    fvu = model.training_pass(x).terms
    model.reconstruction_unit = "mse"
    mse = model.training_pass(x).terms
    variance = (x - model.mean).square().sum()
    for name in ("reconstruction", "multi_topk"):
        torch.testing.assert_close(mse[name].value, fvu[name].value * variance / 10)


def test_gradcheck_of_multi_topk():
    model, x = built(d_sae=12, k=2, d_in=3, multi_topk_coefficient=1.0), torch.randn(5, 3, dtype=torch.float64)
    whole, names = model.measure(x), [name for name, _ in model.named_parameters()]

    def loss(*parameters):
        replaced = dict(zip(names, parameters, strict=True))
        codes, reconstruction = torch.func.functional_call(model, replaced, (x,))
        wider = codes.wider.decode(replaced["W_dec"]) + replaced["b_dec"]
        return ((x - wider).square().sum() + (x - reconstruction).square().sum()) / whole.unit

    assert torch.autograd.gradcheck(loss, [p.detach().clone().requires_grad_() for p in model.parameters()])


def test_evaluation_selects_no_more_than_k_whatever_training_asks_for():
    model, x = built(multi_topk_coefficient=1 / 8).eval(), torch.randn(10, 6, dtype=torch.float64)
    with torch.no_grad():
        codes = model(x)[0]
    assert codes.wider is None
    torch.testing.assert_close(codes.dense(), naive_codes(model, x))
    assert "multi_topk" in model.training_pass(x).terms, "a diagnosis asks for every term's gradient"
    assert "multi_topk" not in built().training_pass(x).terms


def test_more_latents_than_there_are_for_multi_topk_is_one_sentence():
    TopK(24, 6, multi_topk_coefficient=1 / 8).build(6)
    with pytest.raises(UserError, match=r"multi_topk_coefficient is 0\.125, which keeps 4 · k = 28 latents"):
        TopK(24, 7, multi_topk_coefficient=1 / 8).build(6)
    TopK(24, 7).build(6)
