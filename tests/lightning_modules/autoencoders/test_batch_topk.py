"""BatchTopK against its definition, written naively."""

import pytest
import torch
from lightning.pytorch import Trainer

from lightning_modules.autoencoders import BatchTopK, Transcoder
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from run_store import UserError


def built(d_sae=24, k=4, d_in=6, **settings):
    torch.manual_seed(0)
    model = BatchTopK(d_sae, k, **settings)
    model.build(d_in)
    with torch.no_grad():
        model.b_enc.normal_()
        model.b_dec.normal_()
    return model.double()


def pre_activations(model, x):
    return (x - model.b_dec) @ model.W_enc.T + model.b_enc


def naive_codes(model, x):
    """Sorts all values of the batch and keeps the first k·b."""
    f = pre_activations(model, x).relu()
    order = sorted(range(f.numel()), key=lambda i: -f.flatten()[i].item())
    mask = torch.zeros_like(f).flatten()
    mask[order[: model.k * len(x)]] = 1
    return f * mask.view_as(f)


def naive_terms(model, x, dead):
    codes = naive_codes(model, x)
    reconstruction = codes @ model.W_dec + model.b_dec
    terms = {"reconstruction": (x - reconstruction).square().sum() / (x - model.mean).square().sum()}
    error = (x - reconstruction).detach()
    f = pre_activations(model, x).relu()
    k_aux = model.auxiliary.k_aux or model.d_in // 2
    kept = min(k_aux, len(dead))
    estimate = torch.zeros_like(x)
    for row in range(len(x)):
        for latent in sorted(dead, key=lambda i: -f[row, i].item())[:kept]:
            estimate[row] = estimate[row] + f[row, latent] * model.W_dec[latent]
    variance = (error - error.mean(dim=0)).square().sum()
    terms["aux_k"] = (error - estimate).square().sum() / variance * kept / k_aux
    return terms


def uneven_rows(rows=10):
    """Rows of very different norms, so that some keep many latents and others none."""
    return torch.randn(rows, 6, dtype=torch.float64) * torch.logspace(-2, 2, rows, dtype=torch.float64)[:, None]


@pytest.mark.parametrize("k", [1, 2, 4, 9])
def test_a_batch_keeps_its_largest_values_wherever_they_lie(k):
    model, x = built(k=k), uneven_rows()
    codes, reconstruction = model(x)
    expected = naive_codes(model, x)
    torch.testing.assert_close(codes.dense(), expected)
    torch.testing.assert_close(reconstruction, expected @ model.W_dec + model.b_dec)
    assert (codes.dense() > 0).sum(dim=1).unique().numel() > 1


@pytest.mark.parametrize("dead", [[3], [1, 5, 7], list(range(12))])
def test_every_loss_term_and_its_gradients_equal_the_naive_ones(dead):
    model, x = built(), uneven_rows() + 1
    with torch.no_grad():
        model.mean.normal_()
    ours = model.training_pass(x, torch.tensor(dead)).terms
    naive = naive_terms(model, x, dead)
    assert ours.keys() == naive.keys()
    assert ours["aux_k"].weight == 1 / 32
    for name, term in ours.items():
        torch.testing.assert_close(term.value, naive[name])
        parameters = dict(model.named_parameters())
        gradients = torch.autograd.grad(term.value, parameters.values())
        expected = torch.autograd.grad(naive[name], parameters.values())
        for parameter, gradient, right in zip(parameters, gradients, expected, strict=True):
            assert right.any(), (name, parameter)
            torch.testing.assert_close(gradient, right, msg=lambda text, at=(name, parameter): f"{at}: {text}")


def test_gradcheck_of_the_reconstruction():
    model, x = built(d_sae=8, k=2, d_in=3), torch.randn(5, 3, dtype=torch.float64)
    error = (x - model(x)[1]).detach()
    whole = model.measure(x, torch.tensor([0, 1]), error)

    def loss(*parameters):
        _, reconstruction = torch.func.functional_call(model, dict(zip(names, parameters, strict=True)), (x,))
        return (x - reconstruction).square().sum() / whole.variance

    names = [name for name, _ in model.named_parameters()]
    assert torch.autograd.gradcheck(loss, [p.detach().clone().requires_grad_() for p in model.parameters()])


def test_l0_in_evaluation_is_within_5_percent_of_k_after_a_short_training(data, tmp_path):
    model = SparseAutoencoding(BatchTopK(24, 3))
    trainer = Trainer(
        max_epochs=8,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path,
    )
    trainer.fit(model, data)
    rows = data.sample(10**6).activations[0]
    model.eval()
    codes, (reconstruction,) = model(rows)
    assert codes.firing_counts().sum() / len(rows) == pytest.approx(3, rel=0.05)
    assert (rows - reconstruction).square().sum() < 0.3 * (rows - rows.mean(dim=0)).square().sum()
    scores = trainer.test(model, data, verbose=False)[0]
    assert scores["test/l0"] == pytest.approx(3, rel=0.05)


def test_what_is_reconstructed_may_be_another_hook_point():
    torch.manual_seed(0)
    model = BatchTopK(24, 4, wiring=Transcoder())
    model.build(6, 5)
    model.double()
    x, y, dead = uneven_rows(), torch.randn(10, 5, dtype=torch.float64), [1, 5, 7]
    with torch.no_grad():
        for parameter in (model.W_dec, model.b_enc, model.b_dec):
            parameter.normal_()
    terms = model.training_pass(x, torch.tensor(dead), y=y).terms
    f = (x @ model.W_enc.T + model.b_enc).relu()
    f = f * (f >= f.flatten().topk(40).values[-1])
    reconstruction = f @ model.W_dec + model.b_dec
    naive = (y - reconstruction).square().sum() / (y - model.mean).square().sum()
    torch.testing.assert_close(terms["reconstruction"].value, naive)
    names = [name for name, _ in model.named_parameters()]
    gradients = torch.autograd.grad(terms["reconstruction"].value, list(model.parameters()))
    expected = torch.autograd.grad(naive, list(model.parameters()))
    for name, gradient, right in zip(names, gradients, expected, strict=True):
        assert right.any(), name
        torch.testing.assert_close(gradient, right)


def test_the_threshold_is_a_curve():
    model = built()
    model.training_pass(uneven_rows())
    assert model.gauges() == {"threshold": model.threshold}
    assert model.threshold > 0


def test_rows_in_parts_are_refused_because_the_batch_cannot_be_cut():
    with pytest.raises(UserError, match=r"rows_at_once is 8.*BatchTopK selects over the whole batch"):
        SparseAutoencoding(BatchTopK(24, 3), rows_at_once=8).check_settings()


@pytest.mark.parametrize("k", [0, 25])
def test_an_impossible_k_is_told_with_both_numbers(k):
    with pytest.raises(UserError, match=rf"k is {k} and d_sae is 24"):
        BatchTopK(24, k).build(6)
