"""Every wiring with every kind of variant: what reaches which parameter, and steps in parts."""

import pytest
import torch

from lightning_modules.autoencoders import (
    AbsTopK,
    Autoencoding,
    BatchTopK,
    Crosscoder,
    CrossLayerTranscoder,
    Gated,
    HierarchicalTopK,
    JumpReLU,
    MatchingPursuit,
    MatryoshkaBatchTopK,
    PAnneal,
    ReLU,
    Skip,
    TopK,
    Transcoder,
)
from lightning_modules.memory_guard import Batch, MemoryGuard
from run_store import UserError

S, ROWS = 24, 40
DEAD = torch.tensor([1, 5, 13, 22])
WIRINGS = {
    "autoencoding": (Autoencoding, (6,), (6,)),
    "skip": (lambda: Skip(0.3), (6,), (6,)),
    "affine skip": (lambda: Skip(0, affine=True), (6,), (6,)),
    "transcoder": (Transcoder, (6,), (5,)),
    "skip transcoder": (lambda: Transcoder(skip=True), (6,), (5,)),
    "crosscoder": (Crosscoder, (4, 3), (4, 3)),
    "cross-layer transcoder": (CrossLayerTranscoder, (4, 4, 4), (3, 3, 3)),
}
AUX_K = {"aux_k_coefficient": 0.7}
VARIANTS = {
    "relu": lambda wiring: ReLU(S, 0.003, wiring=wiring),
    "p_anneal": lambda wiring: PAnneal(S, 0.003, wiring=wiring),
    "topk": lambda wiring: TopK(S, 6, **AUX_K, wiring=wiring),
    "abs_topk": lambda wiring: AbsTopK(S, 6, **AUX_K, wiring=wiring),
    "hierarchical_topk": lambda wiring: HierarchicalTopK(S, 6, **AUX_K, wiring=wiring),
    "batch_topk": lambda wiring: BatchTopK(S, 6, **AUX_K, wiring=wiring),
    "matryoshka": lambda wiring: MatryoshkaBatchTopK(S, 6, [0.5, 1.0], **AUX_K, wiring=wiring),
    "jump_relu": lambda wiring: JumpReLU(S, 0.001, bandwidth=1.0, pre_act_coefficient=0.1, wiring=wiring),
    "tanh": lambda wiring: JumpReLU(S, 0.003, penalty="tanh", bandwidth=1.0, pre_act_coefficient=0.1, wiring=wiring),
    "gated": lambda wiring: Gated(S, 0.003, wiring=wiring),
    "matching_pursuit": lambda wiring: MatchingPursuit(S, 6, wiring=wiring),
}


def suits(variant, wiring):
    model = VARIANTS[variant](None)
    return {
        "cross-layer transcoder": model.encodes_by_pre_activations,
        "transcoder": not model.shares_directions,
        "skip transcoder": not model.shares_directions,
    }.get(wiring, True)


COMBINATIONS = [(variant, wiring) for variant in VARIANTS for wiring in WIRINGS if suits(variant, wiring)]
TRAINED = [pair for pair in COMBINATIONS if pair[0] in ("relu", "topk", "tanh", "gated")]


def built(variant, wiring):
    torch.manual_seed(0)
    make, inputs, outputs = WIRINGS[wiring]
    model = VARIANTS[variant](make())
    model.build(inputs, outputs)
    return model.double()


def rows(model):
    """x [ROWS, d_in] and y [ROWS, d_out]: x itself, or sparse codes that no linear map of x gives."""
    codes = torch.rand(ROWS, 12, dtype=torch.float64) * (torch.rand(ROWS, 12) < 0.25)
    x = codes @ torch.randn(12, model.d_in, dtype=torch.float64) + 0.5
    if model.wiring.same_space:
        return x, x
    return x, (codes > 0.5).double() @ torch.randn(12, model.d_out, dtype=torch.float64) + 1


def total(terms):
    return torch.stack([term.value * term.weight for term in terms.values()]).sum()


def trained(variant, wiring, steps):
    """A model that was started from its rows and has made some steps; and the rows."""
    model = built(variant, wiring)
    x, y = rows(model)
    model.start_from_data(y.mean(dim=0), y.mean(dim=0), x.mean(dim=0))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        total(model.training_pass(x, DEAD, y=y).terms).backward()
        model.before_optimizer_step()
        optimizer.step()
        model.after_optimizer_step()
    return model, x, y


def reached(model, term):
    gradients = torch.autograd.grad(term, list(model.parameters()), retain_graph=True, materialize_grads=True)
    return {name for (name, _), gradient in zip(model.named_parameters(), gradients, strict=True) if gradient.any()}


@pytest.mark.parametrize(("variant", "wiring"), COMBINATIONS)
def test_after_one_step_every_term_reaches_the_parameters_it_should_and_no_other(variant, wiring):
    model, x, y = trained(variant, wiring, steps=1)
    terms = model.training_pass(x, DEAD, y=y).terms
    encoder = {"W_enc", "b_enc"} if variant != "matching_pursuit" else {"W_dec"}
    encoder |= {"b_dec"} if model.wiring.centered_on_b_dec else set()
    own = {"jump_relu": {"threshold"}, "tanh": {"threshold"}, "gated": {"r_mag", "b_mag"}}.get(variant, set())
    skip = {"wiring.W_skip"} if model.wiring.affine else set()
    norms = {"W_dec"} if model.wiring.decoder_norms(model.W_dec) is not None else set()
    expected = {
        "reconstruction": {*encoder, *own, *skip, "W_dec", "b_dec"},
        "l1": encoder | norms,
        "lp": encoder | norms,
        "aux_k": {*encoder, "W_dec"},
        "l0": own,
        "tanh": encoder | own | norms,
        "pre_act": encoder | own | norms,
        "gate": encoder,
    }
    if variant == "gated":
        expected["reconstruction"] -= {"b_enc"}  # the gate itself has no gradient
    assert {name: reached(model, term.value) for name, term in terms.items()} == {
        name: expected[name] for name in terms
    }


@pytest.mark.parametrize(("variant", "wiring"), [pair for pair in TRAINED if pair[1] != "affine skip"])
def test_training_explains_more_than_is_explained_without_latents(variant, wiring):
    model, x, y = trained(variant, wiring, steps=40)
    result = model.training_pass(x, DEAD, y=y)
    without = (y - model.without_latents(x)).square().sum()
    assert (y - result.reconstruction).square().sum() < 0.7 * without
    assert result.fvu < 0.5


@pytest.mark.parametrize(
    ("variant", "wiring"),
    [(variant, wiring) for variant, wiring in COMBINATIONS if VARIANTS[variant](None).rows_are_independent],
)
def test_the_gradient_of_parts_is_that_of_the_whole(variant, wiring):
    model, x, y = trained(variant, wiring, steps=3)
    loss = total(model.training_pass(x, DEAD, y=y).terms)
    expected = torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True)
    step = MemoryGuard(rows_at_once=13).step(Batch.of(model, x, DEAD, total, y))
    model.zero_grad()
    step.loss.backward()
    torch.testing.assert_close(step.loss.detach(), loss.detach(), rtol=1e-12, atol=0)
    largest = max(right.abs().max() for right in expected)
    for parameter, right in zip(model.parameters(), expected, strict=True):
        assert (parameter.grad - right).abs().max() <= 1e-12 * largest


@pytest.mark.parametrize(("variant", "wiring"), TRAINED)
def test_latents_that_were_started_anew_fire_and_learn_to_write(variant, wiring):
    model, x, y = trained(variant, wiring, steps=20)
    dead = torch.arange(4, S - 4)
    with torch.no_grad():
        model.b_enc[dead] = -1e4
    assert not model(x)[0].firing_counts()[dead].any()
    before = model(x)[1].detach()
    model.revive(dead, x[-len(dead) :], (y - before)[-len(dead) :])
    if not model.wiring.same_space:
        assert not model.W_dec[dead].any(), "a start that disturbs nothing"
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(30):
        optimizer.zero_grad()
        result = model.training_pass(x, None, y=y)
        result.terms["reconstruction"].value.backward()
        optimizer.step()
        model.after_optimizer_step()
    fires = result.codes.firing_counts()[dead] > 0
    assert fires.float().mean() > 0.6
    assert model.W_dec[dead][fires].any(dim=1).all()
    assert (y - result.reconstruction).square().sum() < 0.8 * (y - before).square().sum()


@pytest.mark.parametrize("wiring", [name for name in WIRINGS if name != "autoencoding"])
def test_biases_of_zero_mean_the_middle_of_x_at_the_start(wiring):
    model = built("relu", wiring)
    x, y = rows(model)
    model.start_from_data(y.mean(dim=0), y.mean(dim=0), x.mean(dim=0))
    z = model.pre_activations(x)
    torch.testing.assert_close(z.mean(dim=0), torch.zeros(S, dtype=torch.float64))
    # and without a latent, the mean of y is all there is, but for what the skip brings
    torch.testing.assert_close(model.without_latents(x).mean(dim=0), y.mean(dim=0))


@pytest.mark.parametrize("wiring", [name for name in WIRINGS if not WIRINGS[name][0]().same_space])
def test_shared_directions_are_refused_where_another_hook_point_is_reconstructed(wiring):
    class Tied(ReLU):
        shares_directions = True

    make, inputs, outputs = WIRINGS[wiring]
    sentence = f"Tied encodes and decodes with the same directions, and {type(make()).__name__}"
    with pytest.raises(UserError, match=sentence):
        Tied(S, wiring=make()).build(inputs, outputs)


def test_a_middle_of_x_is_state():
    model, x, _ = trained("topk", "skip transcoder", steps=2)
    other = built("topk", "skip transcoder")
    assert not torch.equal(other(x)[1], model(x)[1])
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x)[1], model(x)[1])
    torch.testing.assert_close(model.state_dict()["wiring.center"], x.mean(dim=0))
