"""Matching pursuit against its paper's algorithm, written as loops."""

import pytest
import torch
from torch import nn

from lightning_modules.autoencoders import Crosscoder, MatchingPursuit, Skip, Transcoder
from lightning_modules.memory_guard import Batch, MemoryGuard
from run_store import UserError

D, S, ROWS = 6, 24, 10


def built(k=4, **settings):
    torch.manual_seed(0)
    model = MatchingPursuit(S, k, **settings)
    model.build(D)
    with torch.no_grad():
        model.b_dec.normal_()
        model.mean.normal_()
    return model.double()


def rows(count=ROWS):
    return torch.randn(count, D, dtype=torch.float64)


def naive_codes(model, x):
    codes = []
    for row in x:
        residual, latents = row - model.without_latents(row[None])[0], torch.zeros(S, dtype=x.dtype)
        for _ in range(model.k):
            correlations = model.W_dec @ residual
            best = max(range(S), key=lambda i: correlations[i].item())
            value = correlations[best].relu()
            latents = latents + value * nn.functional.one_hot(torch.tensor(best), S)
            residual = residual - value * model.W_dec[best]
            if residual.norm() < model.residual_threshold:
                break
        codes.append(latents)
    return torch.stack(codes)


@pytest.mark.parametrize("settings", [{}, {"k": 12}, {"k": 12, "residual_threshold": 0.7}])
def test_codes_loss_and_gradients_equal_the_definition(settings):
    model, x = built(**settings), rows()
    result = model.training_pass(x)
    codes = naive_codes(model, x)
    reconstruction = codes @ model.W_dec + model.b_dec
    expected = (x - reconstruction).square().sum() / (x - model.mean).square().sum()
    torch.testing.assert_close(result.codes.dense(), codes)
    torch.testing.assert_close(result.reconstruction, reconstruction)
    assert result.terms.keys() == {"reconstruction"}
    torch.testing.assert_close(result.terms["reconstruction"].value, expected)
    parameters = [model.W_dec, model.b_dec]
    for mine, naive in zip(
        torch.autograd.grad(result.terms["reconstruction"].value, parameters),
        torch.autograd.grad(expected, parameters),
        strict=True,
    ):
        assert mine.any()
        torch.testing.assert_close(mine, naive)


WIRINGS = {
    "autoencoding": (lambda: None, (6,)),
    "affine skip": (lambda: Skip(0.3, affine=True), (6,)),
    "crosscoder": (Crosscoder, (4, 3)),
}


@pytest.mark.parametrize("name", WIRINGS)
def test_it_pursues_what_passes_by_the_latents_leaves_and_can_do_so_in_parts(name):
    make, widths = WIRINGS[name]
    torch.manual_seed(0)
    model = MatchingPursuit(S, 4, wiring=make())
    model.build(widths)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    model.double().after_optimizer_step()
    x = torch.randn(ROWS, sum(widths), dtype=torch.float64)
    expected = (x - model.without_latents(x) - naive_codes(model, x) @ model.W_dec).square().sum() / x.square().sum()
    gradients = torch.autograd.grad(expected, list(model.parameters()))
    for rows_at_once in (ROWS, 6, 1):
        step = MemoryGuard(rows_at_once).step(Batch.of(model, x, None, lambda terms: terms["reconstruction"].value))
        model.zero_grad()
        step.loss.backward()
        torch.testing.assert_close(step.loss.detach(), expected.detach())
        for parameter, right in zip(model.parameters(), gradients, strict=True):
            assert right.any()
            torch.testing.assert_close(parameter.grad, right)


def test_a_latent_that_is_taken_again_fires_once():
    model, x = built(k=12), rows(200)
    codes = model(x)[0]
    counts = (codes.dense() > 0).sum(dim=1)
    assert (codes.dense() >= 0).all()
    assert (counts < 12).any(), "some latent was taken again"
    assert torch.equal((codes.values > 0).sum(dim=1), counts)
    assert torch.equal(codes.firing_counts(), (codes.dense() > 0).sum(dim=0))
    latents = torch.tensor([3, 0, 17])
    assert torch.equal(codes.columns(latents), codes.dense()[:, latents])


def test_directions_and_bias_are_all_the_parameters():
    model = built()
    assert [name for name, _ in model.named_parameters()] == ["W_dec", "b_dec"]
    assert model.W_enc is model.W_dec
    assert model.b_enc is None
    other = MatchingPursuit(S, 4)
    other.build(D)
    other.double().load_state_dict(model.state_dict())
    x = rows()
    assert torch.equal(other(x)[1], model(x)[1])
    assert other.W_enc is other.W_dec


class Reconstruction(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model.training_pass(x).terms["reconstruction"].value


def test_gradcheck_in_float64():
    model, x = built(k=5), rows(5)
    names = ["W_dec", "b_dec"]

    def value(*parameters):
        replaced = {f"model.{name}": parameter for name, parameter in zip(names, parameters, strict=True)}
        return torch.func.functional_call(Reconstruction(model), replaced, (x,), tie_weights=True)

    parameters = [model.get_parameter(name).detach().clone().requires_grad_() for name in names]
    assert torch.autograd.gradcheck(value, parameters)


def test_a_step_keeps_directions_of_unit_norm_and_every_parameter_is_reached_after_it():
    model, x = built(), rows(64)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(2):
        optimizer.zero_grad()
        model.training_pass(x).terms["reconstruction"].value.backward()
        assert all(parameter.grad.any() for parameter in model.parameters())
        model.before_optimizer_step()
        torch.testing.assert_close((model.W_dec.grad * model.W_dec).sum(dim=1), torch.zeros(S).double())
        optimizer.step()
        model.after_optimizer_step()
        torch.testing.assert_close(model.W_dec.norm(dim=1), torch.ones(S).double())


def test_a_dictionary_of_which_nine_tenths_cannot_fire_comes_alive_when_it_is_revived():
    torch.manual_seed(2)
    atoms = nn.functional.normalize(torch.randn(40, 16), dim=1)
    x = (torch.rand(2000, 40) * (torch.rand(2000, 40) < 0.1)) @ atoms
    model = MatchingPursuit(40, 4)
    model.build(16)
    with torch.no_grad():
        model.W_dec[4:] = -x.mean(dim=0) / x.mean(dim=0).norm()
    codes, reconstruction = model(x)
    dead = (codes.firing_counts() == 0).nonzero().flatten()
    assert len(dead) >= 35
    error = x - reconstruction
    worst = error.norm(dim=1).topk(len(dead)).indices
    model.revive(dead, x[worst], error[worst])
    torch.testing.assert_close(model.W_dec.norm(dim=1), torch.ones(40))
    assert (model(x)[0].firing_counts() == 0).float().mean() < 0.05


@pytest.mark.parametrize("k", [0, 25])
def test_an_impossible_k_is_told_with_both_numbers(k):
    with pytest.raises(UserError, match=rf"k is {k} and d_sae is 24"):
        MatchingPursuit(S, k).build(D)


def test_what_is_reconstructed_must_be_what_is_read():
    with pytest.raises(UserError, match="MatchingPursuit encodes and decodes with the same directions"):
        MatchingPursuit(S, 4, wiring=Transcoder()).build(D, D)
