"""Tiny embedding models as sentence-transformers saves them, and autoencoders on their last states."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from torch import nn
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from lightning_modules.autoencoders import Autoencoder, Normalization
from lightning_modules.sparse_autoencoding import SparseAutoencoding

D = 16
LAST = "encoder.layer.1"
# fmt: off
WORDS = [
    "open", "file", "read", "write", "close", "path", "name", "list", "sort", "item", "key", "value", "number", "text",
    "split", "join", "the", "a", "of", "and",
]
# fmt: on


def save_embedder(folder: Path, seed: int = 0, pooling: str = "mean", max_length: int = 16) -> str:
    """A BERT of two layers, d = 16, that puts a class token in front and a separator behind."""
    torch.manual_seed(seed)
    vocabulary = {word: number for number, word in enumerate(["[UNK]", "[CLS]", "[SEP]", *WORDS])}
    words = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    words.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    special = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[UNK]"}
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=D,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        initializer_range=0.5,
    )
    BertModel(config).save_pretrained(folder)
    kinds = ["Transformer", "Pooling", "Normalize"]
    modules = [
        {"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for place, (kind, path) in enumerate(zip(kinds, ["", "1_Pooling", "2_Normalize"], strict=True))
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": max_length}))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": pooling}))
    return str(folder)


def autoencoding(
    autoencoder: Autoencoder,
    hook_points: tuple[str, ...] = (LAST,),
    normalization: Normalization | None = None,
    center: float = 0.2,
) -> SparseAutoencoding:
    """A model as a training might leave it: no weight or factor is 0 or 1."""
    torch.manual_seed(3)
    model = SparseAutoencoding(autoencoder, normalization=normalization, shapes=dict.fromkeys(hook_points, D))
    model.configure_model()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=center)
    for name, buffer in model.named_buffers():
        if name.endswith(("threshold", "factor", "center")):
            buffer.uniform_(0.3, 0.9)
    with torch.no_grad():
        autoencoder.after_optimizer_step()
    return model.eval()
