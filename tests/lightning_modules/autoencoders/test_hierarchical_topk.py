"""Hierarchical TopK against the formula of its paper, written naively."""

import pytest
import torch
from torch import nn

from lightning_modules.autoencoders import Crosscoder, HierarchicalTopK, Skip, TopK, Transcoder
from lightning_modules.functional import SparseCodes
from lightning_modules.memory_guard import Batch, MemoryGuard
from run_store import UserError

D, S, ROWS = 6, 24, 10
DEAD = torch.tensor([1, 5, 7])


def built(k=4, **settings):
    torch.manual_seed(0)
    model = HierarchicalTopK(S, k, **settings)
    model.build(D)
    with torch.no_grad():
        model.b_enc.normal_()
        model.b_dec.normal_()
        model.mean.normal_()
    return model.double()


def rows(count=ROWS):
    return torch.randn(count, D, dtype=torch.float64)


def naive_codes(model, x, k):
    z = (x - model.b_dec) @ model.W_enc.T + model.b_enc
    codes = torch.zeros_like(z)
    for row in range(len(x)):
        kept = sorted(range(S), key=lambda i: -z[row, i].item())[:k]
        mask = torch.zeros(S, dtype=z.dtype)
        mask[kept] = 1
        codes = codes + torch.zeros_like(z).index_put((torch.tensor([row]),), (mask * z[row].relu()).unsqueeze(0))
    return codes


def naive_fvu(model, x, k):
    reconstruction = naive_codes(model, x, k) @ model.W_dec + model.b_dec
    return (x - reconstruction).square().sum() / (x - model.mean).square().sum()


@pytest.mark.parametrize("budgets", [None, [4], [1, 3, 4]])
def test_the_loss_is_the_mean_error_of_the_budgets_and_so_is_its_gradient(budgets):
    model, x = built(budgets=budgets), rows()
    ours = model.training_pass(x).terms["reconstruction"]
    budgets = budgets or [1, 2, 3, 4]
    expected = sum(naive_fvu(model, x, budget) for budget in budgets) / len(budgets)
    torch.testing.assert_close(ours.value, expected)
    assert (ours.weight, ours.warms_up) == (1.0, False)
    parameters = list(model.parameters())
    for mine, naive in zip(
        torch.autograd.grad(ours.value, parameters), torch.autograd.grad(expected, parameters), strict=True
    ):
        torch.testing.assert_close(mine, naive)


def test_codes_reconstruction_and_fvu_are_those_of_all_k():
    model, x = built(), rows()
    result = model.training_pass(x)
    torch.testing.assert_close(result.codes.dense(), naive_codes(model, x, 4))
    torch.testing.assert_close(result.reconstruction, naive_codes(model, x, 4) @ model.W_dec + model.b_dec)
    torch.testing.assert_close(result.fvu, naive_fvu(model, x, 4).detach())


def test_k_as_the_only_budget_is_topk():
    model, x = built(budgets=[4]), rows()
    other = TopK(S, 4)
    other.build(D)
    other.double().load_state_dict(model.state_dict())
    ours, theirs = model.training_pass(x, DEAD), other.training_pass(x, DEAD)
    assert ours.terms.keys() == theirs.terms.keys() == {"reconstruction", "aux_k"}
    for name, term in ours.terms.items():
        torch.testing.assert_close(term.value, theirs.terms[name].value)
        gradients = zip(
            torch.autograd.grad(term.value, list(model.parameters())),
            torch.autograd.grad(theirs.terms[name].value, list(other.parameters())),
            strict=True,
        )
        for mine, naive in gradients:
            torch.testing.assert_close(mine, naive)


def test_outside_training_it_keeps_as_many_as_it_is_asked_to():
    model, x = built(evaluation_k=2), rows()
    torch.testing.assert_close(model(x)[0].dense(), naive_codes(model, x, 4))
    model.eval()
    torch.testing.assert_close(model(x)[0].dense(), naive_codes(model, x, 2))
    model.evaluation_k = 3
    torch.testing.assert_close(model(x)[0].dense(), naive_codes(model, x, 3))
    model.evaluation_k = None
    torch.testing.assert_close(model(x)[0].dense(), naive_codes(model, x, 4))


WIRINGS = {
    "autoencoding": (lambda: None, (6,), (6,)),
    "affine skip": (lambda: Skip(0.3, affine=True), (6,), (6,)),
    "skip transcoder": (lambda: Transcoder(skip=True), (6,), (5,)),
    "crosscoder": (Crosscoder, (4, 3), (4, 3)),
}


def wired(name):
    """A model of that wiring with none of its weights 0, rows of x and of y."""
    torch.manual_seed(0)
    make, inputs, outputs = WIRINGS[name]
    model = HierarchicalTopK(S, 5, budgets=[1, 2, 5], aux_k_coefficient=0.7, wiring=make())
    model.build(inputs, outputs)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    x = torch.randn(ROWS, sum(inputs), dtype=torch.float64)
    return model.double(), x, x if inputs == outputs else torch.randn(ROWS, sum(outputs), dtype=torch.float64)


@pytest.mark.parametrize("name", WIRINGS)
def test_whatever_it_is_wired_as_a_budget_leaves_out_the_smaller_latents_alone(name):
    model, x, y = wired(name)
    ours = model.training_pass(x, y=y).terms["reconstruction"].value
    values, order = model.encode(x).values.sort(dim=1, descending=True)
    indices = model.encode(x).indices.gather(1, order)
    error = sum(
        (y - model.decode(SparseCodes(values[:, :budget], indices[:, :budget], S), x)).square().sum()
        for budget in (1, 2, 5)
    )
    expected = error / 3 / (y - model.mean).square().sum()
    torch.testing.assert_close(ours, expected)
    parameters = list(model.parameters())
    for mine, naive in zip(
        torch.autograd.grad(ours, parameters), torch.autograd.grad(expected, parameters), strict=True
    ):
        assert mine.any()
        torch.testing.assert_close(mine, naive)


@pytest.mark.parametrize("rows_at_once", [6, 1])
@pytest.mark.parametrize("name", WIRINGS)
def test_the_gradient_of_parts_is_that_of_the_whole(name, rows_at_once):
    def total(terms):
        return torch.stack([term.value * term.weight for term in terms.values()]).sum()

    model, x, y = wired(name)
    loss = total(model.training_pass(x, DEAD, y=y).terms)
    expected = torch.autograd.grad(loss, list(model.parameters()))
    step = MemoryGuard(rows_at_once).step(Batch.of(model, x, DEAD, total, y))
    step.loss.backward()
    torch.testing.assert_close(step.loss.detach(), loss.detach())
    for parameter, right in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, right)


class Reconstruction(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model.training_pass(x).terms["reconstruction"].value


def test_gradcheck_in_float64():
    model, x = built(), rows(5)
    names = ["W_enc", "b_enc", "W_dec", "b_dec"]

    def value(*parameters):
        replaced = {f"model.{name}": parameter for name, parameter in zip(names, parameters, strict=True)}
        return torch.func.functional_call(Reconstruction(model), replaced, (x,))

    parameters = [model.get_parameter(name).detach().clone().requires_grad_() for name in names]
    assert torch.autograd.gradcheck(value, parameters)


def test_every_term_reaches_every_parameter_it_should_after_a_step():
    model, x = built(), rows(64)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    sum(term.value * term.weight for term in model.training_pass(x, DEAD).terms.values()).backward()
    model.before_optimizer_step()
    optimizer.step()
    model.after_optimizer_step()
    terms = model.training_pass(x, DEAD).terms
    for term in terms.values():
        gradients = torch.autograd.grad(term.value, list(model.parameters()), retain_graph=True)
        assert all(gradient.any() for gradient in gradients)
    by_dead = torch.autograd.grad(terms["aux_k"].value, [model.W_enc, model.b_enc, model.W_dec])
    alive = [latent for latent in range(S) if latent not in DEAD]
    for gradient in by_dead:
        assert gradient[DEAD].any()
        assert not gradient[alive].any()


@pytest.mark.slow
def test_few_latents_of_it_reconstruct_better_than_few_of_a_topk_and_all_of_it_nearly_as_well():
    def trained(make):
        torch.manual_seed(1)
        atoms = nn.functional.normalize(torch.randn(S, D * 2), dim=1)
        model = make()
        model.build(D * 2)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for _ in range(150):
            x = (torch.rand(128, S) * (torch.rand(128, S) < 0.15)) @ atoms
            optimizer.zero_grad()
            model.training_pass(x).terms["reconstruction"].value.backward()
            model.before_optimizer_step()
            optimizer.step()
            model.after_optimizer_step()
        x = (torch.rand(2048, S) * (torch.rand(2048, S) < 0.15)) @ atoms

        def fvu(k):
            model.k = k
            return float(model.training_pass(x).fvu)

        return [fvu(k) for k in (1, 2, 6)]

    ours, topk = trained(lambda: HierarchicalTopK(S, 6, budgets=[1, 2, 6])), trained(lambda: TopK(S, 6))
    assert ours[0] < topk[0]
    assert ours[1] < topk[1]
    assert ours[2] < 1.5 * topk[2]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"k": 0}, "k is 0 and d_sae is 24"),
        ({"k": 25}, "k is 25 and d_sae is 24"),
        ({"budgets": []}, r"budgets is \[\] and k is 4"),
        ({"budgets": [1, 2]}, r"budgets is \[1, 2\] and k is 4"),
        ({"budgets": [2, 1, 4]}, r"budgets is \[2, 1, 4\] and k is 4"),
        ({"budgets": [0, 4]}, r"budgets is \[0, 4\] and k is 4"),
        ({"budgets": [4, 8]}, r"budgets is \[4, 8\] and k is 4"),
        ({"evaluation_k": 5}, "evaluation_k is 5 and k is 4"),
        ({"evaluation_k": 0}, "evaluation_k is 0 and k is 4"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        HierarchicalTopK(S, **{"k": 4, **settings}).build(D)
