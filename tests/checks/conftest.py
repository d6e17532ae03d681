"""A tiny BERT that knows the words of the snippets, saved as a person would have it, and triplets in a file."""

import json
import re

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from backbones import TextEncoder
from checks.snippets import SNIPPETS
from lightning_modules.losses import InfoNCE

COLOURS = ["red", "green", "blue", "black", "white", "brown", "grey", "pink"]
ROWS = [
    {"anchor": f"what is {colour}", "positive": f"a {colour} thing", "negative": f"a {other} house"}
    for colour, other in zip(COLOURS, COLOURS[1:] + COLOURS[:1], strict=True)
]


def words():
    texts = [*SNIPPETS.values(), *(text for row in ROWS for text in row.values())]
    return sorted({word for text in texts for word in re.findall(r"\w+|[^\w\s]+", text)})


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The folder of a BERT of six layers with 103 tensors, d = 16, random weights."""
    folder = tmp_path_factory.mktemp("tiny")
    vocabulary = {word: index for index, word in enumerate(["[UNK]", "[CLS]", "[SEP]", *words()])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]").save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=6,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def make_encoder(tiny):
    """make_encoder(**settings) → one that is built."""

    def make(**settings):
        encoder = TextEncoder(str(tiny), linear_layers="torch", **settings)
        encoder.build()
        return encoder

    return make


@pytest.fixture
def triplets(tmp_path):
    """A file of eight triplets."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.fixture
def loss():
    return InfoNCE()


@pytest.fixture
def make_optimizer():
    return lambda parameters: torch.optim.AdamW(parameters, lr=3e-3)
