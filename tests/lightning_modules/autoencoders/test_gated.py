"""Gated against the formulae of its paper, written naively."""

import pytest
import torch
from torch import nn

from lightning_modules.autoencoders import Gated, Transcoder

D, S, ROWS = 6, 24, 40


def built():
    torch.manual_seed(0)
    model = Gated(S, l1_coefficient=0.3)
    model.build(D)
    with torch.no_grad():
        for parameter in (model.b_enc, model.b_dec, model.r_mag, model.b_mag):
            parameter.normal_(std=0.5)
    return model.double()


def rows():
    return torch.randn(ROWS, D, dtype=torch.float64)


def naive(model, x):
    """Codes and loss terms, with two encoders of their own weights and a frozen copy of the decoder."""
    W_mag = torch.stack([model.W_enc[i] * model.r_mag[i].exp() for i in range(S)])
    gate = (x - model.b_dec) @ model.W_enc.T + model.b_enc
    magnitude = ((x - model.b_dec) @ W_mag.T + model.b_mag).clamp_min(0)
    codes = torch.where(gate > 0, magnitude, torch.zeros_like(magnitude))
    frozen_W, frozen_b = model.W_dec.detach().clone(), model.b_dec.detach().clone()
    variance = ((x - model.mean) ** 2).sum()
    opened = gate.clamp_min(0)
    penalty = sum(opened[r, i] * frozen_W[i].norm() for r in range(ROWS) for i in range(S)) / ROWS
    return codes, {
        "reconstruction": ((x - codes @ model.W_dec - model.b_dec) ** 2).sum() / variance,
        "l1": penalty,
        "gate": ((x - opened @ frozen_W - frozen_b) ** 2).sum() / variance,
    }


def test_codes_losses_and_their_gradients_equal_the_formulae():
    model, x = built(), rows()
    result, (codes, terms) = model.training_pass(x), naive(model, x)
    torch.testing.assert_close(result.codes.dense(), codes)
    torch.testing.assert_close(result.reconstruction, codes @ model.W_dec + model.b_dec)
    assert result.terms.keys() == terms.keys()
    for name, expected in terms.items():
        torch.testing.assert_close(result.terms[name].value, expected)
        ours, theirs = (
            torch.autograd.grad(value, list(model.parameters()), retain_graph=True, materialize_grads=True)
            for value in (result.terms[name].value, expected)
        )
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other)


def test_weights_of_the_terms():
    terms = built().training_pass(rows()).terms
    assert {name: (term.weight, term.warms_up) for name, term in terms.items()} == {
        "reconstruction": (1.0, False),
        "l1": (0.3, True),
        "gate": (1.0, False),
    }


def test_every_term_reaches_the_parameters_it_should_and_no_other():
    """Even at the start, where every bias and r_mag is 0."""
    start = Gated(S)
    start.build(D)
    for model in (built(), start.double()):
        reached = {}
        for name, term in model.training_pass(rows()).terms.items():
            gradients = torch.autograd.grad(
                term.value, list(model.parameters()), retain_graph=True, materialize_grads=True
            )
            reached[name] = {
                p for (p, _), gradient in zip(model.named_parameters(), gradients, strict=True) if gradient.any()
            }
        assert reached == {
            "reconstruction": {"W_enc", "r_mag", "b_mag", "W_dec", "b_dec"},
            "l1": {"W_enc", "b_enc", "b_dec"},
            "gate": {"W_enc", "b_enc", "b_dec"},
        }


class OneTerm(nn.Module):
    def __init__(self, model, name):
        super().__init__()
        self.model, self.name = model, name

    def forward(self, x):
        return self.model.training_pass(x).terms[self.name].value


@pytest.mark.parametrize(
    ("term", "names"),
    [
        ("reconstruction", ["W_enc", "b_enc", "r_mag", "b_mag", "W_dec", "b_dec"]),
        ("l1", ["W_enc", "b_enc", "b_dec"]),
        ("gate", ["W_enc", "b_enc"]),  # the others are held fixed, which no difference quotient knows
    ],
)
def test_gradcheck(term, names):
    model, x = built(), rows()[:5]

    def value(*parameters):
        replaced = {f"model.{name}": parameter for name, parameter in zip(names, parameters, strict=True)}
        return torch.func.functional_call(OneTerm(model, term), replaced, (x,))

    parameters = [model.get_parameter(name).detach().clone().requires_grad_() for name in names]
    assert torch.autograd.gradcheck(value, parameters)


def test_terms_are_the_same_without_a_graph():
    model, x = built(), rows()
    with torch.no_grad():
        assert model.encode(x).pre_activations is None
        without = model.training_pass(x).terms
    for name, term in model.training_pass(x).terms.items():
        torch.testing.assert_close(without[name].value, term.value)


def test_the_penalty_counts_the_norms_of_rows_that_may_grow():
    torch.manual_seed(0)
    model = Gated(S, wiring=Transcoder())
    model.build(D, 5)
    with torch.no_grad():
        model.W_dec.normal_()
    x = torch.randn(ROWS, D)
    opened = model.pre_activations(x).relu()
    expected = sum(opened[r, i] * model.W_dec[i].norm() for r in range(ROWS) for i in range(S)) / ROWS
    torch.testing.assert_close(model.training_pass(x, y=torch.randn(ROWS, 5)).terms["l1"].value, expected)


def test_a_revived_latent_has_a_magnitude_as_at_the_start():
    model, x = built(), rows()[:2]
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    assert model.latent_parameters().keys() == {"W_enc", "b_enc", "W_dec", "r_mag", "b_mag"}
    model.revive(torch.tensor([3, 9]), x, x - model(x)[1])
    for name in ("b_enc", "r_mag", "b_mag"):
        assert not model.get_parameter(name)[[3, 9]].any()
    others = [latent for latent in range(S) if latent not in (3, 9)]
    for name, parameter in model.latent_parameters().items():
        assert torch.equal(parameter[others], before[name][others])
