"""A tiny language model going on, against reading everything anew for each token."""

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from backbones import Extractor, GreedyContinuation, SplicedModel
from datamodules.text import TokenBatch

LENGTH, COUNT = 7, 9


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def model(request, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("models") / request.param)
    torch.manual_seed(0)
    if request.param == "gpt2":
        sizes = {"vocab_size": 50, "n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 20}
        GPT2LMHeadModel(GPT2Config(**sizes, initializer_range=0.5)).save_pretrained(folder)
    else:
        sizes = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
        config = LlamaConfig(**sizes, intermediate_size=24, max_position_embeddings=20, initializer_range=0.5)
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def batch_of(tokens):
    positions = torch.arange(tokens.shape[1]).expand_as(tokens)
    return TokenBatch(tokens, torch.zeros_like(tokens), positions, torch.full((len(tokens),), tokens.shape[1]))


def contexts():
    return batch_of(torch.from_numpy(np.random.default_rng(0).integers(0, 50, (3, LENGTH))))


def extractor(model, hook_points):
    # without outliers, what is replaced does not depend on the context
    return Extractor(model, hook_points, "float32", "float32", max_norm_ratio=None, device="cpu")


def read_anew(reader, replace):
    """The same by forwards of everything."""
    spliced, tokens = SplicedModel(reader, language_head=True), contexts().tokens
    for _ in range(COUNT):
        clean = spliced.read(batch_of(tokens))
        output = clean.output
        if replace is not None:
            output = spliced.splice(batch_of(tokens), clean.kept, replace(clean.rows))
        tokens = torch.cat([tokens, output[:, -1].argmax(dim=-1, keepdim=True)], dim=1)
    return tokens[:, LENGTH:]


def first_from_both(rows):
    return {"residual.1": rows["residual.1"].flip(1) - rows["residual.2"]}


@pytest.mark.parametrize(
    ("hook_points", "replace"),
    [
        (["residual.1"], None),
        (["residual.1"], lambda rows: {"residual.1": -rows["residual.1"]}),
        (["residual.1"], lambda rows: {"residual.1": rows["residual.1"]}),
        (["residual.1", "residual.2"], first_from_both),
    ],
    ids=["as it is", "turned round", "the same", "from two"],
)
def test_kept_keys_and_values_change_nothing(model, hook_points, replace):
    reader = extractor(model, hook_points)
    found = GreedyContinuation(reader)(contexts(), COUNT, replace)
    assert torch.equal(found, read_anew(reader, replace))


def test_a_replacement_is_heard(model):
    going_on = GreedyContinuation(extractor(model, ["residual.1"]))
    clean = going_on(contexts(), COUNT)
    assert not torch.equal(clean, going_on(contexts(), COUNT, lambda rows: {"residual.1": -rows["residual.1"]}))
    assert torch.equal(clean, going_on(contexts(), COUNT, lambda rows: rows))


def test_it_ends_where_the_models_positions_end(model):
    going_on = GreedyContinuation(extractor(model, ["residual.1"]))
    assert going_on(contexts(), 100).shape == (3, 20 - LENGTH)
    assert going_on(batch_of(torch.zeros(1, 20, dtype=torch.int64)), 4).shape == (1, 0)
