"""Tiny transformers of three families, saved as a person would have them."""

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

VOCABULARY = 40


def make_bert():
    return BertModel(
        BertConfig(
            vocab_size=VOCABULARY,
            hidden_size=16,
            num_hidden_layers=3,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=16,
        )
    )


def make_gpt2():
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=16, n_layer=3, n_head=2, n_positions=16))


def make_t5():
    return T5EncoderModel(
        T5Config(vocab_size=VOCABULARY, d_model=16, d_kv=8, d_ff=32, num_layers=3, num_heads=2, is_encoder_decoder=True)
    )


def save_tokenizer(folder):
    vocabulary = {name: index for index, name in enumerate(["[UNK]", "[CLS]", "[SEP]"])}
    vocabulary |= {f"w{index}": index for index in range(3, VOCABULARY)}
    words = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]")
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Folders of models with random weights, three layers, d = 16, 16 positions and 40 tokens: bert, gpt2 and t5."""
    folders = {}
    for name, make in {"bert": make_bert, "gpt2": make_gpt2, "t5": make_t5}.items():
        torch.manual_seed(0)
        folder = tmp_path_factory.mktemp(name)
        make().save_pretrained(folder)
        save_tokenizer(folder)
        folders[name] = str(folder)
    return folders
