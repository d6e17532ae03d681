"""Small trainings of both products."""

import json

import pytest
import torch

from backbones import TextEncoder
from datamodules.contrastive_triplets import TripletDataModule
from datamodules.triplets import TripletFiles
from lightning_modules.autoencoders import TopK
from lightning_modules.contrastive_embedding import ContrastiveEmbedding
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from tests.callbacks.small_models import activations, save_bert, save_gpt2
from tests.lightning_modules.conftest import on_ranks  # noqa: F401  (a fixture)


@pytest.fixture(scope="session")
def products(tmp_path_factory):
    """The folder of their small models and data."""
    products = tmp_path_factory.mktemp("products")
    save_gpt2(products / "gpt2")
    save_bert(products / "bert")
    rows = [{"anchor": f"gives {i}", "positive": f"def f{i}(): {i}", "negative": f"def g{i}()"} for i in range(60)]
    (products / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return products


@pytest.fixture(params=["autoencoder", "embedder"])
def parts(request, products):
    """parts() → a model of either product and its data."""

    def autoencoder():
        torch.manual_seed(0)
        return SparseAutoencoding(TopK(48, 4)), activations(str(products / "gpt2"), products / "store", ["residual.1"])

    def embedder():
        torch.manual_seed(0)
        # with dropout, whose random numbers go on behind the predictions
        encoder = TextEncoder(str(products / "bert"), max_length=32, precision="float32", dropout=True)
        source, cache = TripletFiles(str(products / "rows.jsonl")), str(products / "cache")
        return ContrastiveEmbedding(encoder), TripletDataModule(source, 8, validation_share=0.3, cache=cache)

    return {"autoencoder": autoencoder, "embedder": embedder}[request.param]
