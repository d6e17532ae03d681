"""AbsTopK against its definition, written naively."""

import pytest
import torch

from lightning_modules.autoencoders import AbsTopK
from run_store import UserError


def built(d_sae=24, k=4, d_in=6):
    torch.manual_seed(0)
    model = AbsTopK(d_sae, k)
    model.build(d_in)
    with torch.no_grad():
        model.b_enc.normal_()
        model.b_dec.normal_()
        model.mean.normal_()
    return model.double()


def pre_activations(model, x):
    return (x - model.b_dec) @ model.W_enc.T + model.b_enc


def farthest_from_zero(z, latents, k):
    """z [b, s] with all but the k of `latents` that are farthest from 0 in each row set to 0."""
    mask = torch.zeros_like(z)
    for row in range(len(z)):
        mask[row, sorted(latents, key=lambda i: -abs(z[row, i].item()))[:k]] = 1
    return z * mask


def naive_terms(model, x, dead):
    z = pre_activations(model, x)
    reconstruction = farthest_from_zero(z, range(model.d_sae), model.k) @ model.W_dec + model.b_dec
    error = (x - reconstruction).detach()
    kept = min(model.d_in // 2, len(dead))
    estimate = farthest_from_zero(z, dead, kept) @ model.W_dec
    variance = (error - error.mean(dim=0)).square().sum()
    return {
        "reconstruction": (x - reconstruction).square().sum() / (x - model.mean).square().sum(),
        "aux_k": (error - estimate).square().sum() / variance * kept / (model.d_in // 2),
    }


def test_the_largest_magnitudes_are_kept_with_their_sign_and_each_counts_as_firing():
    model, x = built(), torch.randn(10, 6, dtype=torch.float64)
    codes, reconstruction = model(x)
    expected = farthest_from_zero(pre_activations(model, x), range(24), 4)
    torch.testing.assert_close(codes.dense(), expected)
    torch.testing.assert_close(reconstruction, expected @ model.W_dec + model.b_dec)
    assert (expected < 0).any()
    assert (expected > 0).any()
    assert torch.equal(codes.firing_counts(), (expected != 0).sum(dim=0))
    assert codes.firing_counts().sum() == 40


@pytest.mark.parametrize("dead", [[3], [1, 5, 7], list(range(12))])
def test_every_loss_term_and_its_gradients_equal_the_naive_ones(dead):
    model, x = built(), torch.randn(10, 6, dtype=torch.float64)
    ours, naive = model.training_pass(x, torch.tensor(dead)).terms, naive_terms(model, x, dead)
    assert ours.keys() == naive.keys()
    assert ours["aux_k"].weight == 1 / 32
    parameters = dict(model.named_parameters())
    for name, term in ours.items():
        torch.testing.assert_close(term.value, naive[name])
        gradients = torch.autograd.grad(term.value, parameters.values())
        expected = torch.autograd.grad(naive[name], parameters.values(), retain_graph=True)
        for parameter, gradient, right in zip(parameters, gradients, expected, strict=True):
            assert right.any(), (name, parameter)
            torch.testing.assert_close(gradient, right, msg=lambda text, at=(name, parameter): f"{at}: {text}")


def test_gradcheck_of_the_reconstruction():
    model, x = built(d_sae=8, k=2, d_in=3), torch.randn(5, 3, dtype=torch.float64)
    names = [name for name, _ in model.named_parameters()]

    def loss(*parameters):
        _, reconstruction = torch.func.functional_call(model, dict(zip(names, parameters, strict=True)), (x,))
        return (x - reconstruction).square().sum()

    assert torch.autograd.gradcheck(loss, [p.detach().clone().requires_grad_() for p in model.parameters()])


@pytest.mark.parametrize("k", [0, 25])
def test_an_impossible_k_is_told_with_both_numbers(k):
    with pytest.raises(UserError, match=rf"k is {k} and d_sae is 24"):
        AbsTopK(24, k).build(6)
