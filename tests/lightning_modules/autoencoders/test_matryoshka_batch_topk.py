"""Matryoshka BatchTopK against its definition, written naively."""

import pytest
import torch

from lightning_modules.autoencoders import BatchTopK, MatryoshkaBatchTopK, Transcoder
from lightning_modules.functional import missed
from run_store import UserError

SETTINGS = {
    "default": {},
    "two": {"prefixes": [0.5, 1.0]},
    "numbers": {"prefixes": [1, 7, 24]},
    "sampled": {"sampled_prefixes": 3, "shortest_prefix": 2},
}


def built(d_sae=24, k=4, d_in=6, d_out=None, **settings):
    torch.manual_seed(0)
    model = MatryoshkaBatchTopK(d_sae, k, **settings)
    model.build(d_in, d_out)
    with torch.no_grad():
        for parameter in (model.b_enc, model.b_dec, model.mean):
            parameter.normal_()
    return model.double()


def rows(count=10, width=6):
    x = torch.randn(count, width, dtype=torch.float64)
    return x * torch.logspace(-1, 1, count, dtype=torch.float64)[:, None] + 1


def naive_codes(model, x):
    f = ((x - model.b_dec) @ model.W_enc.T + model.b_enc).relu()
    order = sorted(range(f.numel()), key=lambda i: -f.flatten()[i].item())
    mask = torch.zeros_like(f).flatten()
    mask[order[: model.k * len(x)]] = 1
    return f * mask.view_as(f)


def naive_fvus(model, x):
    """FVU of each prefix by itself."""
    codes, variance = naive_codes(model, x), (x - model.mean).square().sum()
    fvus = []
    for end in model.prefixes.ends().tolist():
        reconstruction = model.b_dec.expand_as(x)
        for latent in range(end):
            reconstruction = reconstruction + codes[:, latent, None] * model.W_dec[latent]
        fvus.append((x - reconstruction).square().sum() / variance)
    return fvus


def naive_terms(model, x, dead):
    codes = naive_codes(model, x)
    error = (x - codes @ model.W_dec - model.b_dec).detach()
    f = ((x - model.b_dec) @ model.W_enc.T + model.b_enc).relu()
    kept = min(model.d_in // 2, len(dead))
    estimate = torch.zeros_like(x)
    for row in range(len(x)):
        for latent in sorted(dead, key=lambda i: -f[row, i].item())[:kept]:
            estimate[row] = estimate[row] + f[row, latent] * model.W_dec[latent]
    variance = (error - error.mean(dim=0)).square().sum()
    fvus = naive_fvus(model, x)
    return {
        "reconstruction": sum(fvus) / len(fvus),
        "aux_k": (error - estimate).square().sum() / variance * kept / (model.d_in // 2),
    }


@pytest.mark.parametrize("name", SETTINGS)
def test_codes_and_reconstruction_are_those_of_batch_topk(name):
    model, x = built(**SETTINGS[name]), rows()
    result = model.training_pass(x)
    expected = naive_codes(model, x)
    torch.testing.assert_close(result.codes.dense(), expected)
    torch.testing.assert_close(result.reconstruction, expected @ model.W_dec + model.b_dec)
    torch.testing.assert_close(
        result.fvu, (x - expected @ model.W_dec - model.b_dec).square().sum() / (x - model.mean).square().sum()
    )


@pytest.mark.parametrize("dead", [[3], [1, 5, 7]])
@pytest.mark.parametrize("name", SETTINGS)
def test_every_loss_term_and_its_gradients_equal_the_naive_ones(name, dead):
    model, x = built(**SETTINGS[name]), rows()
    naive = naive_terms(model, x, dead)  # before the pass, which goes on to the next prefixes
    ours = model.training_pass(x, torch.tensor(dead)).terms
    assert ours.keys() == naive.keys()
    assert [term.weight for term in ours.values()] == [1.0, 1 / 32]
    parameters = dict(model.named_parameters())
    for term in ours:
        torch.testing.assert_close(ours[term].value, naive[term])
        gradients = torch.autograd.grad(ours[term].value, parameters.values())
        expected = torch.autograd.grad(naive[term], parameters.values())
        for parameter, gradient, right in zip(parameters, gradients, expected, strict=True):
            assert right.any(), (term, parameter)
            torch.testing.assert_close(gradient, right, msg=lambda text, at=(term, parameter): f"{at}: {text}")


def test_after_a_step_every_term_still_reaches_every_parameter_and_aux_k_the_dead_alone():
    model, x, dead = built(), rows(), torch.tensor([0, 9])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    sum(term.value * term.weight for term in model.training_pass(x, dead).terms.values()).backward()
    model.before_optimizer_step()
    optimizer.step()
    model.after_optimizer_step()
    terms, parameters = model.training_pass(x, dead).terms, dict(model.named_parameters())
    for term in terms.values():
        gradients = torch.autograd.grad(term.value, parameters.values(), retain_graph=True)
        assert all(gradient.any() for gradient in gradients)
    alive = [latent for latent in range(24) if latent not in dead]
    for name in ("W_enc", "b_enc", "W_dec"):
        (gradient,) = torch.autograd.grad(terms["aux_k"].value, parameters[name], retain_graph=True)
        assert gradient[dead].any()
        assert not gradient[alive].any()


@pytest.mark.parametrize("name", ["two", "sampled"])
def test_gradcheck_of_the_nested_reconstructions(name):
    settings = {"two": {"prefixes": [3, 8]}, "sampled": {"sampled_prefixes": 2, "shortest_prefix": 2}}[name]
    model, x = built(d_sae=8, k=2, d_in=3, **settings), rows(5, 3) / 3
    whole, names = model.measure(x), [name for name, _ in model.named_parameters()]

    class Loss(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, x):
            codes, reconstruction = self.model(x)
            return self.model.reconstruction_terms(x, x, codes, missed(x, reconstruction), whole)[
                "reconstruction"
            ].value

    def value(*parameters):
        replaced = {f"model.{name}": parameter for name, parameter in zip(names, parameters, strict=True)}
        return torch.func.functional_call(Loss(), replaced, (x,))

    assert torch.autograd.gradcheck(value, [p.detach().clone().requires_grad_() for p in model.parameters()])


def test_one_prefix_of_all_latents_is_batch_topk():
    model, x = built(prefixes=[1.0]), rows()
    plain = BatchTopK(24, 4)
    plain.build(6)
    plain.double().load_state_dict(model.state_dict())
    for name, term in plain.training_pass(x, torch.tensor([2])).terms.items():
        ours = model.training_pass(x, torch.tensor([2])).terms[name].value
        torch.testing.assert_close(ours, term.value)


def test_the_fvu_of_every_fixed_prefix_is_a_curve_and_none_of_drawn_ones():
    model, x = built(prefixes=[1, 7, 24]), rows()
    expected = [fvu.item() for fvu in naive_fvus(model, x)]
    model.training_pass(x)
    gauges = model.gauges()
    assert list(gauges) == ["threshold", "fvu_of_1", "fvu_of_7", "fvu_of_24"]
    assert [float(gauges[f"fvu_of_{end}"]) for end in (1, 7, 24)] == pytest.approx(expected)
    assert list(built(**SETTINGS["sampled"]).gauges()) == ["threshold"]


def test_drawn_prefixes_change_from_batch_to_batch_and_are_those_of_a_resumed_run():
    model, x = built(**SETTINGS["sampled"]), rows()
    ends = [model.prefixes.ends().tolist()]
    for _ in range(3):
        model.training_pass(x)
        ends.append(model.prefixes.ends().tolist())
    assert len({tuple(end) for end in ends}) == 4
    resumed = built(**SETTINGS["sampled"])
    resumed.load_state_dict(model.state_dict())
    assert (
        resumed.training_pass(x).terms["reconstruction"].value == model.training_pass(x).terms["reconstruction"].value
    )


def test_what_is_reconstructed_may_be_another_hook_point_and_x_may_be_skipped_to_it():
    model = built(d_out=5, wiring=Transcoder(skip=True))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    x, y = rows(), torch.randn(10, 5, dtype=torch.float64)
    result = model.training_pass(x, y=y)
    f = result.codes.dense()
    errors = [
        (y - model.without_latents(x) - f[:, :end] @ model.W_dec[:end]).square().sum()
        for end in model.prefixes.ends().tolist()
    ]
    expected = sum(errors) / len(errors) / (y - model.mean).square().sum()
    torch.testing.assert_close(result.terms["reconstruction"].value, expected)
    gradients = torch.autograd.grad(result.terms["reconstruction"].value, list(model.parameters()))
    assert all(gradient.any() for gradient in gradients)


def test_evaluation_has_the_same_loss_for_the_same_codes():
    """A threshold that exactly the kept values exceed."""
    model, x = built(), rows()
    kept = model.training_pass(x)
    model.eval().threshold.copy_(kept.codes.least * (1 - 1e-9))
    term = model.training_pass(x).terms["reconstruction"].value
    torch.testing.assert_close(term, kept.terms["reconstruction"].value)


def test_bf16_autocast_keeps_fp32_weights_and_gradients():
    model = built(d_sae=48).float()
    x = rows(32).float()
    exact = model.training_pass(x).terms["reconstruction"].value
    with torch.autocast("cpu", torch.bfloat16):
        terms = model.training_pass(x, torch.tensor([1, 2])).terms
        loss = sum(term.value * term.weight for term in terms.values())
    loss.backward()
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in model.parameters())
    torch.testing.assert_close(terms["reconstruction"].value, exact, rtol=0.02, atol=0)


@pytest.mark.parametrize("k", [0, 25])
def test_an_impossible_k_is_told_with_both_numbers(k):
    with pytest.raises(UserError, match=rf"k is {k} and d_sae is 24"):
        MatryoshkaBatchTopK(24, k).build(6)
