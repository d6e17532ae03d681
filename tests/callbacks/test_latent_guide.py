import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from backbones import ConcatenatedEncoder, TextEncoder
from callbacks import LatentGuide
from datamodules.contrastive_triplets import TripletDataModule
from datamodules.triplets import HardNegatives, TripletColumns, TripletFiles
from explanations import PooledReader, StateReader, latent_sets
from exports import load_autoencoder
from lightning_modules.autoencoders import TopK
from lightning_modules.contrastive_embedding import ContrastiveEmbedding
from lightning_modules.functional import Fired
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from run_store import UserError
from tests.callbacks.small_models import WIDTH, activations, trainer
from tests.explanations.final_states import exported

ROWS = [{"anchor": f"gives {i}", "positive": f"def f{i}(): {'x' * (i % 7)} {i}"} for i in range(40)]


@pytest.fixture(scope="session")
def dictionary(tmp_path_factory):
    return exported(tmp_path_factory.mktemp("dictionaries") / "final", WIDTH)


@pytest.fixture
def parts(products, tmp_path):
    """parts(mining) → a small model and its data."""
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))

    def make(mining, lr=1e-2):
        torch.manual_seed(0)
        encoder = TextEncoder(str(products / "bert"), max_length=32, precision="float32", pooling="mean")
        source = TripletFiles(str(tmp_path / "rows.jsonl"), TripletColumns(negatives=[]))
        data = TripletDataModule(source, 8, validation_share=0.0, mining=mining, cache=str(products / "cache"))
        optimizer = lambda parameters: torch.optim.AdamW(parameters, lr=lr)  # noqa: E731
        return ContrastiveEmbedding(encoder, optimizer=optimizer), data

    return make


class Asked:
    """Takes down what the guide has said, and whether it drew random numbers."""

    def __init__(self, data):
        self.sets = []
        self.drew = False
        guide_with = data.guide_with

        def listening(latents_of):
            def told(texts):
                before = torch.get_rng_state()
                self.sets.append(latents_of(texts))
                self.drew |= not torch.equal(before, torch.get_rng_state())
                return self.sets[-1]

            guide_with(told)

        data.guide_with = listening


def test_negatives_are_those_that_the_bases_latents_allow_in_every_epoch(dictionary, parts, tmp_path):
    settings = HardNegatives(2, 0, 20, max_share=1.0, most_overlap=0.9, refresh_every_n_epochs=1)
    model, data = parts(settings)
    asked = Asked(data)
    trainer(tmp_path, LatentGuide(dictionary, latents=5)).fit(model, data)
    # the model has moved between the epochs, and its base has not
    first, second = asked.sets
    assert all(torch.equal(*pair) for pair in zip(first[:2], second[:2], strict=True))

    model, data = parts(settings)
    model.configure_model()
    data.tokenisations = model.tokenisations()
    data.prepare_data()
    data.setup("fit")
    sae = load_autoencoder(dictionary)
    table = data.table("train")
    documents = data.retrieval("train").documents
    pooled = PooledReader(StateReader(model.encoder.eval(), sae)).read(table.texts(documents))
    expected = latent_sets(pooled.codes, len(documents), sae.autoencoder.W_dec.detach(), 5)
    assert torch.equal(first.latents, expected.latents)
    assert torch.allclose(first.values, expected.values, atol=1e-5)


def test_a_second_training_of_the_same_model_is_guided_by_the_base_too(dictionary, parts, tmp_path):
    model, data = parts(HardNegatives(2, 0, 20, max_share=1.0, most_overlap=0.9))
    asked = Asked(data)
    for _ in range(2):
        trainer(tmp_path, LatentGuide(dictionary, latents=5), max_epochs=1).fit(model, data)
    first, second = asked.sets
    assert all(torch.equal(*pair) for pair in zip(first[:2], second[:2], strict=True))


def test_weights_that_the_bases_file_leaves_out_are_drawn_without_a_trace(dictionary, parts, products, tmp_path):
    bare = shutil.copytree(products / "bert", tmp_path / "bare")
    weights = {name: value for name, value in load_file(bare / "model.safetensors").items() if "pooler" not in name}
    save_file(weights, bare / "model.safetensors", {"format": "pt"})
    model, data = parts(HardNegatives(2, 0, 20, max_share=1.0, most_overlap=0.9))
    model.encoder.model = str(bare)
    asked = Asked(data)
    trainer(tmp_path, LatentGuide(dictionary, latents=5), max_epochs=1).fit(model, data)
    assert asked.sets
    assert not asked.drew


def test_the_sets_of_a_text_hold_its_heaviest_latents_by_rarity():
    codes = torch.tensor([[1.0, 2.0, 0.0, 4.0], [1.0, 0.0, 3.0, 0.0], [1.0, 1.0, 0.0, 0.0]])
    rows, latents = codes.nonzero(as_tuple=True)
    sets = latent_sets(Fired(rows, latents, codes[rows, latents]), 3, torch.eye(4), 2)
    # what all have weighs nothing
    assert [sorted(set(row)) for row in (sets.latents * (sets.values > 0)).tolist()] == [[1, 3], [0, 2], [0, 1]]
    assert torch.allclose(sets.values.norm(dim=1), torch.ones(3))
    assert sets.overlaps(torch.tensor([0]), torch.tensor([[0, 1]])).tolist() == [[1.0, 0.0]]


def test_what_cannot_be_guided_is_refused(dictionary, parts, products, tmp_path):
    with pytest.raises(UserError, match="compare latents: add callback LatentGuide"):
        trainer(tmp_path).fit(*parts(HardNegatives(1, 0, 5, sampling="least_overlap")))
    data = activations(str(products / "gpt2"), products / "store", ["residual.1"])
    with pytest.raises(UserError, match="not a SparseAutoencoding on a ActivationDataModule"):
        trainer(tmp_path, LatentGuide(dictionary)).fit(SparseAutoencoding(TopK(48, 4)), data)
    model, data = parts(HardNegatives(1, 0, 5, most_overlap=0.5))
    several = ContrastiveEmbedding(ConcatenatedEncoder([model.encoder, model.encoder]))
    with pytest.raises(UserError, match="encoder ConcatenatedEncoder is made of several: leave the callback out"):
        trainer(tmp_path, LatentGuide(dictionary)).fit(several, data)
    guide = LatentGuide("nowhere", folder=str(tmp_path))
    with pytest.raises(UserError, match="nowhere"):
        trainer(tmp_path, guide).fit(*parts(HardNegatives(1, 0, 5, most_overlap=0.5)))


def test_a_guide_that_nobody_asks_is_told_of(dictionary, parts, tmp_path):
    with pytest.warns(UserWarning, match="LatentGuide does nothing, since mining compares no latents"):
        trainer(tmp_path, LatentGuide(dictionary), max_epochs=1).fit(*parts(HardNegatives(1, 0, 5)))
