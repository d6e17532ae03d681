"""Crosscoders against their formula, hook point by hook point."""

import pytest
import torch

from lightning_modules.autoencoders import BatchTopK, Crosscoder, ReLU
from lightning_modules.autoencoders.crosscoder import SHARED
from run_store import UserError

WIDTHS, S, ROWS = (4, 3, 5), 24, 40
D = sum(WIDTHS)


def built(make=ReLU, **settings):
    torch.manual_seed(0)
    model = make(S, **settings, wiring=Crosscoder())
    model.build(WIDTHS)
    with torch.no_grad():
        model.b_enc.normal_(std=0.3)
        model.b_dec.normal_()
        model.mean.normal_()
    return model.double()


def rows():
    return torch.randn(ROWS, D, dtype=torch.float64)


def block(tensor, hook):
    return torch.split(tensor, WIDTHS, dim=-1)[hook]


def naive_codes(model, x):
    """Sums over the hook points what each says of every latent."""
    z = model.b_enc.expand(len(x), -1)
    for hook in range(len(WIDTHS)):
        z = z + (block(x, hook) - block(model.b_dec, hook)) @ block(model.W_enc, hook).T
    return z.relu()


def test_codes_reconstructions_and_penalty_equal_their_formulae():
    model, x = built(), rows()
    f = naive_codes(model, x)
    result = model.training_pass(x)
    torch.testing.assert_close(result.codes.dense(), f)
    for hook in range(len(WIDTHS)):
        expected = f @ block(model.W_dec, hook) + block(model.b_dec, hook)
        torch.testing.assert_close(block(result.reconstruction, hook), expected)
    penalty = 0.0
    for row in range(ROWS):
        for latent in range(S):
            norms = sum(block(model.W_dec, hook)[latent].norm() for hook in range(len(WIDTHS)))
            penalty = penalty + f[row, latent] * norms / ROWS
    torch.testing.assert_close(result.terms["l1"].value, penalty)


def test_the_penalty_prefers_latents_that_write_to_few_hook_points():
    """Two rows of the same length: one shared out, one in a single block."""
    model = built()
    with torch.no_grad():
        model.W_dec.zero_()
        model.W_dec[0, 0] = 1
        model.W_dec[1, 0] = model.W_dec[1, 4] = 0.5**0.5
    norms = model.wiring.decoder_norms(model.W_dec)
    torch.testing.assert_close(norms[:2], torch.tensor([1, 2**0.5], dtype=torch.float64))


def test_gradcheck_of_the_penalty_and_the_reconstruction():
    model, x = built(), rows()[:4]
    names = ["W_enc", "b_enc", "W_dec", "b_dec"]

    def loss(*parameters):
        replaced = dict(zip(names, parameters, strict=True))
        codes, reconstruction = torch.func.functional_call(model, replaced, (x,))
        norms = model.wiring.decoder_norms(replaced["W_dec"])
        return (reconstruction - x).square().sum() + 0.3 * (codes.dense() * norms).sum()

    parameters = [model.get_parameter(name).detach().clone().requires_grad_() for name in names]
    assert torch.autograd.gradcheck(loss, parameters)


def test_whole_rows_have_unit_norm_and_a_step_may_share_it_out_anew():
    model, x = built(BatchTopK, k=4), rows()
    before = model.wiring.relative_norms(model.W_dec).detach()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        model.training_pass(x).terms["reconstruction"].value.backward()
        model.before_optimizer_step()
        optimizer.step()
        model.after_optimizer_step()
    torch.testing.assert_close(model.W_dec.norm(dim=1), torch.ones(S, dtype=torch.float64))
    assert (model.wiring.relative_norms(model.W_dec) - before).abs().max() > 0.01


def test_relative_norms_say_whose_a_latent_is():
    model = built()
    with torch.no_grad():
        model.W_dec.zero_()
        model.W_dec[0, 0] = model.W_dec[0, 4] = model.W_dec[0, 7] = 2.0  # everyone's
        model.W_dec[1, 5] = 0.1  # the second's
        model.W_dec[2, 8], model.W_dec[2, 0] = 8.0, 2.0  # the third's, nearly
        model.W_dec[3, 8], model.W_dec[3, 0] = 6.0, 4.0  # not quite
    shares = model.wiring.relative_norms(model.W_dec)
    expected = torch.tensor([[1 / 3, 1 / 3, 1 / 3], [0, 1, 0], [0.2, 0, 0.8], [0.4, 0, 0.6]], dtype=torch.float64)
    torch.testing.assert_close(shares[:4], expected)
    assert not shares[4:].any(), "a row of zeros is nobody's"
    assert model.wiring.owners(model.W_dec)[:4].tolist() == [SHARED, 1, 2, SHARED]
    gauges = model.wiring.gauges(model.W_dec, ["a", "b", "c"])
    assert {name: round(value.item() * S) for name, value in gauges.items()} == {
        "latents_shared": 22,
        "latents_own/a": 0,
        "latents_own/b": 1,
        "latents_own/c": 1,
    }


def test_training_finds_out_what_two_hook_points_share():
    """Sixteen directions: eight in both hook points, four in each alone."""
    torch.manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(16, 2, 16), dim=2)
    atoms[8:12, 1] = 0
    atoms[12:, 0] = 0
    atoms = torch.nn.functional.normalize(atoms.flatten(1), dim=1)
    model = BatchTopK(32, 2, wiring=Crosscoder())
    model.build((16, 16))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(300):
        x = ((1 + torch.rand(128, 16)) * (torch.rand(128, 16) < 2 / 16)) @ atoms
        optimizer.zero_grad()
        model.training_pass(x).terms["reconstruction"].value.backward()
        model.before_optimizer_step()
        optimizer.step()
        model.after_optimizer_step()
    found = (atoms @ model.W_dec.T).max(dim=1)
    owners = model.wiring.owners(model.W_dec)[found.indices]
    right = owners == torch.tensor([SHARED] * 8 + [0] * 4 + [1] * 4)
    assert right[found.values > 0.9].all()
    assert (found.values > 0.9).sum() >= 14


def test_one_hook_point_is_refused_by_name():
    with pytest.raises(UserError, match=r"a crosscoder reads several hook points and the data gives 1 \(layer\)"):
        Crosscoder().sides(["layer"])
