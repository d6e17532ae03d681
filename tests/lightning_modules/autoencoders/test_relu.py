"""ReLU, tied and untied, against its formulae."""

import copy

import pytest
import torch
from lightning.pytorch import Trainer

from callbacks import AtomicCheckpointIO
from lightning_modules.autoencoders import ReLU, Transcoder
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from run_store import UserError


def built(**settings):
    torch.manual_seed(0)
    model = ReLU(24, **{"l1_coefficient": 0.3, **settings})
    model.build(6)
    with torch.no_grad():
        model.b_enc.normal_()
        model.b_dec.normal_()
    return model.double()


def rows(count=10):
    return torch.randn(count, 6, dtype=torch.float64)


@pytest.mark.parametrize("tied", [False, True])
def test_codes_reconstruction_and_losses_equal_their_formulae(tied):
    model, x = built(tied=tied), rows()
    result = model.training_pass(x)
    codes = ((x - model.b_dec) @ (model.W_dec if tied else model.W_enc).T + model.b_enc).clamp_min(0)
    reconstruction = codes @ model.W_dec + model.b_dec
    torch.testing.assert_close(result.codes.dense(), codes)
    torch.testing.assert_close(result.reconstruction, reconstruction)
    penalty = sum(codes[r, i] * model.W_dec[i].norm() for r in range(10) for i in range(24)) / 10
    torch.testing.assert_close(result.terms["l1"].value, penalty)
    fvu = (x - reconstruction).square().sum() / (x - model.mean).square().sum()
    torch.testing.assert_close(result.terms["reconstruction"].value, fvu)


def test_in_units_of_mse_the_reconstruction_term_is_the_mean_squared_error_summed_over_the_width():
    model, x = built(), rows()
    model.reconstruction_unit = "mse"
    result = model.training_pass(x)
    expected = sum(((x[r] - result.reconstruction[r]) ** 2).sum() for r in range(10)) / 10
    torch.testing.assert_close(result.terms["reconstruction"].value, expected)


def test_the_penalty_counts_the_norms_of_rows_that_may_grow():
    torch.manual_seed(0)
    model = ReLU(24, wiring=Transcoder())
    model.build(6, 5)
    with torch.no_grad():
        model.W_dec.normal_()
    x = torch.randn(10, 6)
    result = model.training_pass(x, y=torch.randn(10, 5))
    codes = result.codes.dense()
    expected = sum(codes[r, i] * model.W_dec[i].norm() for r in range(10) for i in range(24)) / 10
    torch.testing.assert_close(result.terms["l1"].value, expected)
    assert torch.autograd.grad(result.terms["l1"].value, model.W_dec)[0].any()


def test_the_penalty_warms_up_and_the_reconstruction_does_not():
    terms = built().training_pass(rows(4)).terms
    assert terms.keys() == {"reconstruction", "l1"}
    assert (terms["l1"].weight, terms["l1"].warms_up) == (0.3, True)
    assert not terms["reconstruction"].warms_up


@pytest.mark.parametrize("tied", [False, True])
def test_every_term_reaches_the_parameters_it_should_and_no_other(tied):
    model = built(tied=tied)
    reached = {}
    for name, term in model.training_pass(rows(64)).terms.items():
        gradients = torch.autograd.grad(term.value, list(model.parameters()), retain_graph=True, materialize_grads=True)
        reached[name] = {
            p for (p, _), gradient in zip(model.named_parameters(), gradients, strict=True) if gradient.any()
        }
    encoder = {"W_enc", "b_enc", "b_dec"}
    decoder = set() if tied else {"W_dec"}
    assert reached == {"reconstruction": {*encoder, *decoder}, "l1": encoder}


@pytest.mark.parametrize("tied", [False, True])
def test_gradcheck(tied):
    model, x = built(tied=tied), rows(5)
    names = [name for name, _ in model.named_parameters()]

    def losses(*parameters):
        replaced = dict(zip(names, parameters, strict=True))
        _, reconstruction = torch.func.functional_call(model, replaced, (x,))
        codes = torch.func.functional_call(Encoder(model), {f"model.{n}": p for n, p in replaced.items()}, (x,))
        return (x - reconstruction).square().sum(), codes.sum()

    parameters = [parameter.detach().clone().requires_grad_() for parameter in model.parameters()]
    assert torch.autograd.gradcheck(losses, parameters)


class Encoder(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model.encode(x).values


def test_tied_has_one_matrix_fewer_and_stays_tied_and_of_unit_norm_after_a_step():
    tied, untied = built(tied=True), built()
    counts = [sum(parameter.numel() for parameter in model.parameters()) for model in (tied, untied)]
    assert counts[1] - counts[0] == 24 * 6
    start = tied.W_dec.detach().clone()
    optimizer = torch.optim.Adam(tied.parameters(), lr=0.1)
    sum(term.value * term.weight for term in tied.training_pass(rows(64)).terms.values()).backward()
    tied.before_optimizer_step()
    assert (tied.W_dec.grad * tied.W_dec).sum(dim=1).abs().max() < 1e-6
    optimizer.step()
    tied.after_optimizer_step()
    assert tied.W_enc is tied.W_dec
    assert not torch.equal(tied.W_dec, start)
    torch.testing.assert_close(tied.W_dec.norm(dim=1), torch.ones(24, dtype=torch.float64))
    assert copy.deepcopy(tied).W_enc is not tied.W_enc


def test_the_gradient_of_a_tied_matrix_is_the_sum_of_both_its_uses():
    tied, untied, x = built(tied=True), built(), rows()
    assert torch.equal(tied.W_dec, untied.W_enc)
    for model in (tied, untied):
        model.training_pass(x).terms["reconstruction"].value.backward()
    torch.testing.assert_close(tied.W_dec.grad, untied.W_enc.grad + untied.W_dec.grad)


def test_a_revived_tied_latent_has_one_unit_direction():
    model, x = built(tied=True), rows(2)
    before = model.W_dec.detach().clone()
    model.revive(torch.tensor([3, 9]), x, x - model(x)[1])
    torch.testing.assert_close(model.W_enc[[3, 9]].norm(dim=1), torch.ones(2, dtype=torch.float64))
    assert not model.b_enc[[3, 9]].any()
    assert not torch.equal(model.W_dec[[3, 9]], before[[3, 9]])
    assert torch.equal(model.W_dec[4], before[4])


def test_a_tied_transcoder_is_refused():
    with pytest.raises(UserError, match="same directions"):
        ReLU(24, tied=True, wiring=Transcoder()).build(6, 6)


def test_a_tied_checkpoint_holds_the_matrix_once_and_comes_back_tied(data, tmp_path):
    model = SparseAutoencoding(ReLU(24, l1_coefficient=0.003, tied=True, ghost_gradients=1.0))
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path,
        plugins=[AtomicCheckpointIO()],
    )
    trainer.fit(model, data)
    trainer.save_checkpoint(tmp_path / "whole")
    written = (tmp_path / "whole" / "model.safetensors").read_bytes()
    names = (f'"members.only.autoencoder.{name}"' for name in ("W_enc", "W_dec"))
    assert sum(written.count(name.encode()) for name in names) == 1
    loaded = SparseAutoencoding.load_from_checkpoint(tmp_path / "whole", autoencoder=ReLU(24, tied=True))
    assert loaded.autoencoder.W_enc is loaded.autoencoder.W_dec
    x = data.sample(50).activations[0]
    assert torch.equal(loaded(x)[1][0], model(x)[1][0])
