import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, GemmaConfig, GemmaForCausalLM

from backbones import Unembedding, load_backbone
from backbones.unembedding import final_gain

SIZES = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}


def saved(model, folder):
    model.save_pretrained(folder)
    return str(folder)


def test_a_causal_model_speaks_through_its_last_norm_and_its_head(models, tmp_path):
    model = load_backbone(models["gpt2"], language_head=True)
    gain = torch.linspace(0.5, 2, 16)
    model.transformer.ln_f.weight.copy_(gain)
    model.transformer.ln_f.bias.copy_(torch.randn(16))
    folder = saved(model, tmp_path / "gpt2")
    found = Unembedding.of(folder)
    expected = model.lm_head.weight * gain
    torch.testing.assert_close(found.weights, expected - expected.mean(dim=0), rtol=1e-3, atol=1e-5)


def test_the_gain_of_a_norm_that_keeps_it_less_one_is_the_real_one(tmp_path):
    model = GemmaForCausalLM(GemmaConfig(**SIZES, num_key_value_heads=2, head_dim=8)).requires_grad_(False)
    model.model.norm.weight.copy_(torch.linspace(-0.5, 1, 16))
    torch.testing.assert_close(final_gain(model, 16), torch.linspace(0.5, 2, 16), rtol=1e-4, atol=1e-5)


def test_a_model_that_fills_gaps_speaks_through_its_matrix(tmp_path):
    model = BertForMaskedLM(BertConfig(**SIZES, tie_word_embeddings=True))
    found = Unembedding.of(saved(model, tmp_path))
    weights = model.cls.predictions.decoder.weight.detach()
    torch.testing.assert_close(found.weights, weights - weights.mean(dim=0))


@pytest.mark.parametrize("family", ["bert", "t5"])
def test_a_model_without_a_head_has_none(models, family):
    assert Unembedding.of(models[family]) is None


def test_the_tokens_spoken_for_and_against_are_those_of_the_whole_product(monkeypatch):
    monkeypatch.setattr("backbones.unembedding._AT_ONCE", 100)
    found = Unembedding(torch.randn(40, 16))
    directions = torch.randn(7, 16)
    order = (directions @ found.weights.T).sort(dim=1, descending=True)
    up, up_scores, down, down_scores = found.strongest(directions, 3)
    assert torch.equal(up, order.indices[:, :3])
    assert torch.equal(down, order.indices.flip(1)[:, :3])
    torch.testing.assert_close(up_scores, order.values[:, :3])
    torch.testing.assert_close(down_scores, order.values.flip(1)[:, :3])
