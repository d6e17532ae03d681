"""Latent scaling against a least-squares solver, and on a model that is made to have what the crosscoder denies it."""

import pytest
import torch

from datamodules.shards import ActivationStore
from explanations.latent_groups import two_decoders
from explanations.latent_scaling import weaker_has
from lightning_modules.autoencoders import BatchTopK, Crosscoder, NoNormalization, TopK
from tests.explanations.readers import D, autoencoding
from tests.explanations.stores import write_rows

POINTS = ("base/a", "tuned/a")


def store_of(folder, activations, documents=3):
    return ActivationStore(write_rows(folder, dict(zip(POINTS, activations, strict=True)), documents))


def whole(store):
    return torch.tensor([[0, store.rows]])


@torch.no_grad()
def test_it_is_the_least_squares_factor(tmp_path):
    member = autoencoding(BatchTopK(d_sae=12, k=3, wiring=Crosscoder()), POINTS).only
    torch.manual_seed(5)
    store = store_of(tmp_path / "store", [torch.randn(90, D), torch.randn(90, D) + 0.5])
    decoders = two_decoders(member)
    found = weaker_has(member, decoders, store, POINTS, whole(store))
    rows = store.read(torch.arange(90), POINTS)
    codes, reconstructions = member.reconstructed(member.pair(rows))
    dense = codes.dense().double()
    fired = 0
    for latent in range(12):
        f = dense[:, latent]
        if not (f != 0).any():
            assert found[latent].isnan()
            continue
        fired += 1
        norms = [float(W[latent].norm()) for W in decoders]
        weaker = int(norms[1] < norms[0])  # 0 where the base's row is the shorter one
        target = rows[weaker].double() - reconstructions[weaker].double() + f.unsqueeze(1) * decoders[weaker][latent]
        design = (f.unsqueeze(1) * decoders[1 - weaker][latent]).flatten()
        solved = torch.linalg.lstsq(design.unsqueeze(1), target.flatten().unsqueeze(1)).solution
        assert found[latent].item() == pytest.approx(float(solved), abs=1e-4)
    assert fired > 3


@pytest.mark.parametrize("has", [0.0, 0.5, 1.0])
def test_a_feature_that_a_row_of_zeros_denies_is_found_in_the_error(tmp_path, has):
    model = autoencoding(TopK(d_sae=1, k=1, wiring=Crosscoder()), POINTS, NoNormalization())
    member, direction = model.only, torch.zeros(D)
    direction[2] = 1.0
    with torch.no_grad():
        for parameter in member.autoencoder.parameters():
            parameter.zero_()
        member.autoencoder.W_enc[0, D:] = direction
        member.autoencoder.W_dec[0, D:] = direction
    strength = torch.rand(50, 1) + 0.5
    store = store_of(tmp_path / "store", [has * strength * direction, strength * direction])
    (found,) = weaker_has(member, two_decoders(member), store, POINTS, whole(store)).tolist()
    assert found == pytest.approx(has, abs=1e-5)
