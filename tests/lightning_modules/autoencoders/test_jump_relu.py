"""JumpReLU against the formulae of its paper, written with loops and with a gradient derived by hand."""

import math

import pytest
import torch
from torch import nn

from lightning_modules.autoencoders import JumpReLU, Transcoder
from run_store import UserError

D, S, ROWS = 6, 24, 40
DEAD = torch.tensor([1, 5, 7])


def built(**settings):
    torch.manual_seed(0)
    model = JumpReLU(S, **{"bandwidth": 0.3, **settings})
    model.build(D)
    with torch.no_grad():
        model.b_enc.normal_(std=0.3)
        model.b_dec.normal_()
        model.threshold.uniform_(0.05, 0.6)
    return model.double()


def rows():
    return torch.randn(ROWS, D, dtype=torch.float64)


def pre_activations(model, x):
    return (x - model.b_dec) @ model.W_enc.T + model.b_enc


def naive_values(model, z):
    values = torch.zeros_like(z)
    for row in range(z.shape[0]):
        for latent in range(S):
            if z[row, latent] > model.threshold[latent]:
                values[row, latent] = z[row, latent]
    return values


def naive_terms(model, x):
    z = pre_activations(model, x)
    f = naive_values(model, z)
    l0 = sum(int(value > 0) for value in f.flatten().tolist()) / ROWS
    return {
        "reconstruction": (((x - f @ model.W_dec - model.b_dec) ** 2).sum() / ((x - model.mean) ** 2).sum()).item(),
        "l0": l0,
        "tanh": sum(math.tanh(model.tanh_scale * value) for value in f.flatten().tolist()) / ROWS,
        "target_l0": (l0 / (model.target_l0 or 1) - 1) ** 2,
        "pre_act": sum(max(0, (model.threshold[i] - z[r, i]).item()) for r in range(ROWS) for i in DEAD) / ROWS,
    }


SETTINGS = {
    "l0": {"l0_coefficient": 0.3},
    "tanh": {"l0_coefficient": 0.3, "penalty": "tanh", "tanh_scale": 3.0},
    "target_l0": {"penalty": "target", "target_l0": 5, "target_l0_coefficient": 0.3},
}


@pytest.mark.parametrize("penalty", SETTINGS)
def test_codes_reconstruction_and_losses_equal_their_formulae(penalty):
    model, x = built(**SETTINGS[penalty]), rows()
    result, expected = model.training_pass(x, DEAD), naive_terms(model, x)
    values = naive_values(model, pre_activations(model, x))
    assert 0 < int((values > 0).sum()) < int((pre_activations(model, x) > 0).sum()), "the threshold matters"
    torch.testing.assert_close(result.codes.dense(), values)
    torch.testing.assert_close(result.reconstruction, values @ model.W_dec + model.b_dec)
    assert result.terms.keys() == {"reconstruction", penalty, "pre_act"}
    for name, term in result.terms.items():
        assert term.value.item() == pytest.approx(float(expected[name]), rel=1e-12), name
    assert (result.terms[penalty].weight, result.terms[penalty].warms_up) == (0.3, True)
    assert not result.terms["reconstruction"].warms_up
    assert not result.terms["pre_act"].warms_up


def by_hand(model, x, penalty):
    """Gradients of 1.7 · reconstruction + 0.3 · penalty by W_enc, b_enc, W_dec, b_dec and the threshold."""
    with torch.no_grad():
        z, epsilon = pre_activations(model, x), model.bandwidth
        near = ((z - model.threshold).abs() < epsilon / 2).double()
        fires = (z > model.threshold).double()
        f = z * fires
        to_output = 1.7 * 2 * (f @ model.W_dec + model.b_dec - x) / ((x - model.mean) ** 2).sum()
        to_f = to_output @ model.W_dec.T
        if penalty == "tanh":
            c = model.tanh_scale
            to_f = to_f + 0.3 * c / torch.cosh(c * f) ** 2 / ROWS
        to_threshold = (to_f * near * -model.threshold / epsilon).sum(dim=0)
        steps = -near.sum(dim=0) / epsilon / ROWS
        if penalty == "l0":
            to_threshold = to_threshold + 0.3 * steps
        if penalty == "target_l0":
            target = model.target_l0
            to_threshold = to_threshold + 0.3 * 2 * (fires.sum() / ROWS / target - 1) / target * steps
        to_z = to_f * fires
        return {
            "W_enc": to_z.T @ (x - model.b_dec),
            "b_enc": to_z.sum(dim=0),
            "W_dec": f.T @ to_output,
            "b_dec": to_output.sum(dim=0) - (to_z @ model.W_enc).sum(dim=0),
            "threshold": to_threshold,
        }


@pytest.mark.parametrize("penalty", SETTINGS)
def test_gradients_equal_those_derived_by_hand(penalty):
    model, x = built(**SETTINGS[penalty]), rows()
    terms = model.training_pass(x).terms
    (1.7 * terms["reconstruction"].value + 0.3 * terms[penalty].value).backward()
    for name, expected in by_hand(model, x, penalty).items():
        assert expected.any(), name
        torch.testing.assert_close(
            model.get_parameter(name).grad, expected, msg=lambda text, name=name: f"{name} {text}"
        )


class OneTerm(nn.Module):
    def __init__(self, model, name):
        super().__init__()
        self.model, self.name = model, name

    def forward(self, x):
        return self.model.training_pass(x, DEAD).terms[self.name].value


@pytest.mark.parametrize(
    ("term", "names"),
    [
        ("reconstruction", ["W_enc", "b_enc", "W_dec", "b_dec"]),
        ("tanh", ["W_enc", "b_enc", "b_dec"]),
        ("pre_act", ["W_enc", "b_enc", "b_dec", "threshold"]),
    ],
)
def test_gradcheck_where_there_is_no_jump(term, names):
    model, x = built(**SETTINGS["tanh"]), rows()[:5]

    def value(*parameters):
        replaced = {f"model.{name}": parameter for name, parameter in zip(names, parameters, strict=True)}
        return torch.func.functional_call(OneTerm(model, term), replaced, (x,))

    parameters = [model.get_parameter(name).detach().clone().requires_grad_() for name in names]
    assert torch.autograd.gradcheck(value, parameters)


def test_every_term_reaches_the_parameters_it_should_and_no_other():
    reached = {}
    for settings in SETTINGS.values():
        model, x = built(**settings), rows()
        for name, term in model.training_pass(x, DEAD).terms.items():
            gradients = torch.autograd.grad(
                term.value, list(model.parameters()), retain_graph=True, materialize_grads=True
            )
            reached[name] = {
                p for (p, _), gradient in zip(model.named_parameters(), gradients, strict=True) if gradient.any()
            }
    encoder = {"W_enc", "b_enc", "b_dec", "threshold"}
    assert reached == {
        "reconstruction": {*encoder, "W_dec"},
        "l0": {"threshold"},
        "target_l0": {"threshold"},
        "tanh": encoder,
        "pre_act": encoder,
    }


def test_the_loss_on_dead_latents_is_theirs_alone_and_nothing_without_any():
    model, x = built(), rows()
    assert model.training_pass(x).terms["pre_act"].value == 0
    assert "pre_act" not in built(pre_act_coefficient=0).training_pass(x, DEAD).terms
    model.training_pass(x, DEAD).terms["pre_act"].value.backward()
    alive = [latent for latent in range(S) if latent not in DEAD]
    for parameter in (model.W_enc, model.b_enc, model.threshold):
        assert parameter.grad[DEAD].any()
        assert not parameter.grad[alive].any()


def test_a_step_leaves_no_threshold_below_zero():
    model, x = built(init_threshold=0.0), rows()
    model.threshold.data.fill_(-1.0)
    model.after_optimizer_step()
    assert torch.equal(model.threshold, torch.zeros(S, dtype=torch.float64))
    torch.testing.assert_close(model(x)[0].dense(), pre_activations(model, x).relu())


@pytest.mark.parametrize("target_l0", [3.0, 8.0])
def test_training_ends_near_the_target_whether_it_starts_above_or_below(target_l0):
    model = built(penalty="target", target_l0=target_l0, init_threshold=0.3).float()
    with torch.no_grad():
        model.b_dec.zero_()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(400):
        terms = model.training_pass(torch.randn(512, D)).terms
        optimizer.zero_grad()
        sum(term.value * term.weight for term in terms.values()).backward()
        model.before_optimizer_step()
        optimizer.step()
        model.after_optimizer_step()
    l0 = model(torch.randn(4096, D))[0].firing_counts().sum() / 4096
    assert float(l0) == pytest.approx(target_l0, rel=0.1)


def test_pre_activations_are_kept_for_a_gradient_alone():
    model, x = built(), rows()
    assert model.encode(x).pre_activations is not None
    with torch.no_grad():
        assert model.encode(x).pre_activations is None
        without = model.training_pass(x).terms["l0"].value
    assert without == model.training_pass(x).terms["l0"].value


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"target_l0": 25}, "target_l0 is 25 and d_sae is 24"),
        ({"target_l0": 0}, "target_l0 is 0 and d_sae is 24"),
        ({"penalty": "target"}, "penalty is target and target_l0 is not given"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        JumpReLU(S, **settings).build(D)


def test_a_share_asks_for_as_much_as_its_count():
    x = rows()
    share, count = (built(penalty="target", target_l0=target).training_pass(x).terms for target in (0.25, 6))
    assert share["target_l0"].value == count["target_l0"].value


def test_the_penalties_count_the_norms_of_rows_that_may_grow():
    torch.manual_seed(0)
    model = JumpReLU(S, penalty="tanh", wiring=Transcoder())
    model.build(D, 5)
    with torch.no_grad():
        model.W_dec.normal_()
    x = torch.randn(ROWS, D)
    result = model.training_pass(x, DEAD, y=torch.randn(ROWS, 5))
    f, norms, z = result.codes.dense(), model.W_dec.norm(dim=1), model.pre_activations(x)
    torch.testing.assert_close(result.terms["tanh"].value, (4 * f * norms).tanh().sum() / ROWS)
    missed = (model.threshold - z).relu() * norms
    torch.testing.assert_close(result.terms["pre_act"].value, missed[:, DEAD].sum() / ROWS)


def test_a_revived_latent_has_the_threshold_of_the_start():
    model, x = built(init_threshold=0.2), rows()[:2]
    before = model.threshold.detach().clone()
    assert model.latent_parameters().keys() == {"W_enc", "b_enc", "W_dec", "threshold"}
    model.revive(torch.tensor([3, 9]), x, x - model(x)[1])
    torch.testing.assert_close(model.threshold[[3, 9]], torch.full((2,), 0.2, dtype=torch.float64))
    assert torch.equal(model.threshold[4:9], before[4:9])


@pytest.mark.parametrize(
    ("l0", "fall"), [(50.0, 0), (5.0, 0), (4.8, 0), (4.0, 0.02 * (math.log(5 / 4) - 0.05)), (0.0, 0.01)]
)
def test_thresholds_give_way_together_where_far_too_little_fires(l0, fall):
    model = built(l0_coefficient=0.1, target_l0=5)
    model.threshold.data[3] = 0.001
    before = model.threshold.detach().clone()
    model.observe(torch.tensor(5.0), 0.1)
    model.observe(torch.tensor(l0), 0.2)
    torch.testing.assert_close(model.threshold, (before - fall).clamp_min(0))
