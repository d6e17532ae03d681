"""What is told of a dictionary that is known, where the learned one is made by hand."""

import pytest
import torch
from lightning.pytorch import Trainer

from callbacks import DictionaryRecovery
from datamodules.synthetic import Constant, FeatureSettings, Forest, make_truth
from datamodules.synthetic_activations import SyntheticActivations
from lightning_modules.autoencoders import AbsTopK, JumpReLU, NoNormalization
from lightning_modules.sparse_autoencoding import SparseAutoencoding

PLAIN = FeatureSettings(d=16, count=12, mean_l0=2.0, exponent=1.0, magnitudes=Constant(), max_coherence=0.6)
TREES = FeatureSettings(d=16, count=12, mean_l0=3.0, magnitudes=Constant(), hierarchy=Forest(2, 2), max_coherence=0.3)


def scores(folder, features, autoencoder, start, rows_seen=0, fired_at_least=1000):
    """What validation says after `start` has set the weights, given the truth."""
    data = SyntheticActivations(features, batch_size=256, train_rows=256, validation_rows=2048)
    model = SparseAutoencoding(autoencoder, normalization=NoNormalization(), shapes={"synthetic": features.d})
    model.configure_model()
    data.setup("validate")
    with torch.no_grad():
        start(model.autoencoder, data.truth)
        model.only.tokens_seen.fill_(rows_seen)
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
        callbacks=[DictionaryRecovery(fired_at_least)],
    )
    return trainer.validate(model, data, verbose=False)[0]


def with_directions(directions):
    """Sets the first latents to `directions` of the truth; the others keep their random ones."""

    def start(autoencoder, truth):
        rows = directions(truth)
        autoencoder.W_dec[: len(rows)] = rows
        autoencoder.W_enc[: len(rows)] = rows

    return start


def test_only_features_that_have_fired_often_enough_are_looked_for(tmp_path):
    often = with_directions(lambda truth: truth.atoms[:6])
    rows = int(1000 / float(make_truth(PLAIN).probabilities[7])) + 1  # the first eight features count
    told = scores(tmp_path, PLAIN, JumpReLU(12), often, rows_seen=rows)
    assert told["val/recovered"] == pytest.approx(6 / 8)
    assert scores(tmp_path, PLAIN, JumpReLU(12), often, rows_seen=10**6)["val/recovered"] == pytest.approx(6 / 12)
    assert scores(tmp_path, PLAIN, JumpReLU(12), often)["val/recovered"] == 0
    assert scores(tmp_path, PLAIN, JumpReLU(12), often, fired_at_least=0)["val/recovered"] == pytest.approx(6 / 12)
    assert "val/absorption" not in told


def test_one_latent_cannot_stand_for_two_features(tmp_path):
    twice = with_directions(lambda truth: truth.atoms[:1].expand(12, -1))
    assert scores(tmp_path, PLAIN, JumpReLU(12), twice, rows_seen=10**6)["val/recovered"] == pytest.approx(1 / 12)


def test_an_opposite_direction_is_found_where_latents_have_a_sign(tmp_path):
    turned = with_directions(lambda truth: -truth.atoms)
    signed = scores(tmp_path, PLAIN, AbsTopK(12, 2), turned, rows_seen=10**6)
    assert (signed["val/recovered"], signed["val/mean_max_cosine"]) == (1, pytest.approx(1))
    unsigned = scores(tmp_path, PLAIN, JumpReLU(12), turned, rows_seen=10**6)
    assert unsigned["val/recovered"] == 0


def exact(autoencoder, truth, sign=1.0):
    """Latents that fire where their features do: as many dimensions as features let the encoder undo the atoms."""
    autoencoder.W_dec.copy_(sign * truth.atoms)
    autoencoder.W_enc.copy_(sign * torch.linalg.pinv(truth.atoms).T)
    if isinstance(autoencoder, JumpReLU):
        autoencoder.threshold.fill_(0.5)


def test_a_dictionary_with_a_latent_for_each_feature_absorbs_nothing(tmp_path):
    told = scores(tmp_path, TREES, JumpReLU(12), exact, rows_seen=10**6)
    assert told["val/recovered"] == 1
    assert told["val/absorption"] == told["val/missed_alone"] == 0


def test_a_parent_that_its_children_speak_for_is_absorbed(tmp_path):
    def absorbing(autoencoder, truth):
        exact(autoencoder, truth)
        for child in (truth.parents >= 0).nonzero().flatten():
            parent = truth.parents[child]
            autoencoder.W_dec[child] += truth.atoms[parent]
            autoencoder.W_enc[parent] -= autoencoder.W_enc[child]

    told = scores(tmp_path, TREES, JumpReLU(12), absorbing, rows_seen=10**6)
    assert told["val/absorption"] == 1
    assert told["val/missed_alone"] == 0


def test_a_signed_latent_fires_for_a_feature_by_the_sign_of_its_cosine(tmp_path):
    told = scores(tmp_path, TREES, AbsTopK(12, 12), lambda model, truth: exact(model, truth, -1.0), rows_seen=10**6)
    assert told["val/recovered"] == 1
    # with k of 12 every latent has a value; those of features that are absent are rounding, of either sign
    assert told["val/absorption"] == told["val/missed_alone"] == 0
