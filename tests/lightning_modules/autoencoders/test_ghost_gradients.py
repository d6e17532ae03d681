"""Ghost gradients against their description, row by row."""

import pytest
import torch

from lightning_modules.autoencoders import CrossLayerTranscoder, ReLU
from run_store import UserError

D, S, ROWS = 6, 24, 10
DEAD = [1, 5, 7]
ALIVE = [latent for latent in range(S) if latent not in DEAD]


def built(coefficient=1.0, **settings):
    torch.manual_seed(0)
    model = ReLU(S, l1_coefficient=0.3, ghost_gradients=coefficient, **settings)
    model.build(D)
    with torch.no_grad():
        model.b_enc.normal_()
        model.b_dec.normal_()
    return model.double()


def rows():
    return torch.randn(ROWS, D, dtype=torch.float64)


def naive_ghost(model, x):
    """Factors without a gradient are plain numbers here."""
    total = 0
    for row in x:
        z = model.W_enc @ (row - model.b_dec) + model.b_enc
        error = (row - z.clamp_min(0) @ model.W_dec - model.b_dec).detach()
        ghost = sum(z[latent].exp() * model.W_dec[latent] for latent in DEAD)
        factor = error.norm().item() / 2 / ghost.norm().item()
        missed = ((factor * ghost - error) ** 2).sum()
        total = total + missed * ((error**2).sum() / missed).item()
    return total / ((x - model.mean) ** 2).sum()


def gradients(model, value):
    names = [name for name, _ in model.named_parameters()]
    found = torch.autograd.grad(value, list(model.parameters()), retain_graph=True, materialize_grads=True)
    return dict(zip(names, found, strict=True))


def test_value_and_gradients_equal_the_naive_ones():
    model, x = built(), rows()
    term, expected = model.training_pass(x, torch.tensor(DEAD)).terms["ghost"], naive_ghost(model, x)
    torch.testing.assert_close(term.value, expected)
    assert (term.weight, term.warms_up) == (1.0, False)
    ours, theirs = gradients(model, term.value), gradients(model, expected)
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], msg=lambda text, name=name: f"{name}: {text}")


def test_the_value_is_that_of_the_reconstruction_term():
    terms = built().training_pass(rows(), torch.tensor(DEAD)).terms
    torch.testing.assert_close(terms["ghost"].value, terms["reconstruction"].value)


def test_only_dead_latents_get_a_gradient_and_in_all_that_is_theirs():
    model = built()
    found = gradients(model, model.training_pass(rows(), torch.tensor(DEAD)).terms["ghost"].value)
    for name in ("W_enc", "b_enc", "W_dec"):
        assert found[name].view(S, -1)[DEAD].any(dim=1).all()
        assert not found[name][ALIVE].any()


def test_a_step_makes_dead_latents_say_more_of_what_is_missing():
    model, x = built(), rows()
    dead = torch.tensor(DEAD)

    def cosine():
        error = x - model(x)[1]
        ghosts = model.pre_activations(x, dead).exp() @ model.W_dec[dead]
        return torch.cosine_similarity(ghosts, error, dim=1).mean()

    before = cosine()
    found = gradients(model, model.training_pass(x, dead).terms["ghost"].value)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name != "b_dec":  # which would change the error
                parameter -= 1e-3 * found[name]
    assert cosine() > before


def test_on_and_off_differ_in_the_gradient_of_dead_latents_alone():
    x, dead = rows(), torch.tensor(DEAD)
    on, off = built(), built(coefficient=0.0)
    assert "ghost" not in off.training_pass(x, dead).terms
    assert on.training_pass(x).terms["ghost"].value == 0
    totals = [sum(term.value * term.weight for term in m.training_pass(x, dead).terms.values()) for m in (on, off)]
    assert totals[0] > totals[1]
    a, b = (gradients(m, total)["W_enc"] for m, total in zip((on, off), totals, strict=True))
    assert not torch.equal(a[DEAD], b[DEAD])
    torch.testing.assert_close(a[ALIVE], b[ALIVE])


def test_a_bias_that_underflows_keeps_a_finite_gradient():
    model = built()
    with torch.no_grad():
        model.b_enc[DEAD] = -1e4
    model.float()
    found = gradients(model, model.training_pass(rows().float(), torch.tensor(DEAD)).terms["ghost"].value)
    assert all(gradient.isfinite().all() for gradient in found.values())
    assert found["b_enc"][DEAD].all()
    assert found["W_enc"][DEAD].any(dim=1).all()
    assert found["W_dec"][DEAD].any(dim=1).all()


def test_rows_without_an_error_or_without_a_direction_give_finite_gradients():
    model, x = built(), rows()
    loss = model.auxiliary.loss(model, x, torch.zeros_like(x), torch.tensor(DEAD))
    assert loss == 0
    assert not any(gradient.any() for gradient in gradients(model, loss).values())
    with torch.no_grad():
        model.W_dec[DEAD] = 0
    found = gradients(model, model.training_pass(x, torch.tensor(DEAD)).terms["ghost"].value)
    assert all(gradient.isfinite().all() for gradient in found.values())
    assert found["W_dec"][DEAD].any(dim=1).all()


def test_a_wiring_with_blocks_is_refused():
    with pytest.raises(UserError, match=r"ghost_gradients is 1\.0 .*CrossLayerTranscoder"):
        built(wiring=CrossLayerTranscoder())
