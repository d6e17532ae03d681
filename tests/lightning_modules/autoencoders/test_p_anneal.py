"""PAnneal against its formula, and the course of p and of the penalty's level."""

import pytest
import torch
from torch import nn

from lightning_modules.autoencoders import PAnneal
from lightning_modules.autoencoders.p_anneal import EPSILON
from run_store import UserError

D, S, ROWS = 6, 24, 10


def built(**settings):
    torch.manual_seed(0)
    model = PAnneal(S, **{"sparsity_coefficient": 0.3, **settings})
    model.build(D)
    with torch.no_grad():
        model.b_enc.normal_()
        model.b_dec.normal_()
    return model.double()


def rows(count=ROWS):
    return torch.randn(count, D, dtype=torch.float64)


def naive(model, x, p):
    codes = ((x - model.b_dec) @ model.W_enc.T + model.b_enc).clamp_min(0)
    reconstruction = codes @ model.W_dec + model.b_dec
    norms = model.W_dec.detach().norm(dim=1)  # kept at 1, so without a gradient
    values = [codes[r, i] * norms[i] for r in range(len(x)) for i in range(S)]
    return {
        "reconstruction": (x - reconstruction).square().sum() / (x - model.mean).square().sum(),
        "lp": sum((value + EPSILON) ** p - EPSILON**p for value in values) / len(x),
    }


@pytest.mark.parametrize(("stage", "p"), [(0, 1.0), (5, 0.6), (10, 0.2), (11, 0.2)])
def test_losses_and_gradients_equal_their_formulae(stage, p):
    model, x = built(), rows()
    model.stage.fill_(stage)
    terms, expected = model.training_pass(x).terms, naive(model, x, p)
    assert terms.keys() == expected.keys()
    for name, term in terms.items():
        torch.testing.assert_close(term.value, expected[name], rtol=1e-6, atol=0)
        ours, theirs = (
            torch.autograd.grad(value, list(model.parameters()), retain_graph=True, materialize_grads=True)
            for value in (term.value, expected[name])
        )
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_at_first_the_penalty_is_l1():
    model, x = built(), rows()
    term = model.training_pass(x).terms["lp"]
    torch.testing.assert_close(term.value, model(x)[0].dense().sum() / ROWS)
    assert float(term.weight) == pytest.approx(0.3)
    assert term.warms_up


def test_every_term_reaches_the_parameters_it_should_and_no_other():
    model = built()
    model.stage.fill_(10)
    reached = {}
    for name, term in model.training_pass(rows(64)).terms.items():
        gradients = torch.autograd.grad(term.value, list(model.parameters()), retain_graph=True, materialize_grads=True)
        assert all(gradient.isfinite().all() for gradient in gradients)
        reached[name] = {
            p for (p, _), gradient in zip(model.named_parameters(), gradients, strict=True) if gradient.any()
        }
    assert reached == {"reconstruction": {"W_enc", "b_enc", "W_dec", "b_dec"}, "lp": {"W_enc", "b_enc", "b_dec"}}


class Penalty(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model.training_pass(x).terms["lp"].value


def test_gradcheck_of_the_penalty():
    model, x = built().eval(), rows(4)
    model.stage.fill_(10)
    names = ["W_enc", "b_enc", "b_dec"]

    def value(*parameters):
        replaced = {f"model.{name}": parameter for name, parameter in zip(names, parameters, strict=True)}
        return torch.func.functional_call(Penalty(model), replaced, (x,))

    assert torch.autograd.gradcheck(value, [model.get_parameter(n).detach().clone().requires_grad_() for n in names])


def run(model, steps, run_length, first=0):
    """(p, weight · penalty of one fixed batch) after each step."""
    fixed, course = torch.randn(500, D, dtype=torch.float64), []
    for step in range(first, first + steps):
        torch.manual_seed(step)
        model.train().training_pass(rows(200))
        model.observe(torch.tensor(5.0), (step + 1) / run_length)
        term = model.eval().training_pass(fixed).terms["lp"]
        course.append((round(float(model.gauges()["p"]), 6), float((term.weight * term.value).detach())))
    return course


def test_p_falls_in_equal_stages_between_start_and_end_and_the_penalty_stays_level():
    course = run(built(stages=4, start=0.2, end=0.6, p_end=0.2), 100, 100)
    changes = {
        step + 1: p
        for step, ((p, _), (before, _)) in enumerate(zip(course[1:], course, strict=False), 1)
        if p != before
    }
    assert changes == {30: 0.8, 40: 0.6, 50: 0.4, 60: 0.2}
    levels = [level for _, level in course]
    assert levels == pytest.approx([levels[0]] * 100, rel=0.05)
    assert built().training_pass(rows()).terms["lp"].weight == pytest.approx(0.3)


def test_evaluation_does_not_touch_what_is_remembered():
    model = built().eval()
    model.training_pass(rows())
    assert not model.recent.any()


def test_a_resumed_course_is_the_same_and_p_does_not_rise_in_a_longer_run():
    whole, first, second = (built(stages=3) for _ in range(3))
    torch.manual_seed(1)
    expected = run(whole, 40, 40)
    torch.manual_seed(1)
    run(first, 17, 40)
    second.load_state_dict(first.state_dict())
    torch.manual_seed(1)
    assert run(second, 23, 40, first=17) == expected[17:]
    longer = run(second, 5, 1000, first=40)
    assert {p for p, _ in longer} == {0.2}


def test_a_dictionary_in_which_nothing_fires_keeps_a_finite_scale():
    model = built()
    with torch.no_grad():
        model.b_enc.fill_(-1e4)
    run(model, 20, 20)
    assert model.scale == 1


def test_stages_that_end_before_they_start_are_refused():
    with pytest.raises(UserError, match=r"start is 0\.7 and end is 0\.7"):
        PAnneal(S, start=0.7).build(D)
