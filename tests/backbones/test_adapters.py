import sys

import pytest
import torch

from backbones import LoRA, TextEncoder, load_backbone
from run_store import UserError
from tests.backbones.encoding import gradients, texts_of

LENGTHS = [5, 1, 9, 2, 9]


def adapted(model, lora, **settings):
    encoder = TextEncoder(model, precision="float32", tokens_at_once=20, lora=lora, **settings)
    encoder.train()
    encoder.build()
    return encoder


@pytest.mark.parametrize("model", ["bert", "gpt2", "t5"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_only_adapters_get_gradients_and_nothing_changes_at_the_start(models, model, checkpointing):
    texts = texts_of(LENGTHS)
    encoder = adapted(models[model], LoRA(r=2), gradient_checkpointing=checkpointing)
    plain = TextEncoder(models[model], precision="float32", tokens_at_once=20)
    plain.build()
    embeddings = encoder.encode([texts])
    torch.testing.assert_close(embeddings, plain.encode([texts]))
    embeddings[:, 0].sum().backward()
    trained = {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    assert trained == set(gradients(encoder))
    assert trained
    assert all("lora_" in name for name in trained)
    assert not any("pooler" in name for name in trained)


@pytest.mark.parametrize("model", ["bert", "gpt2"])
def test_merging_gives_a_plain_model_that_does_the_same(models, model):
    texts = texts_of(LENGTHS)
    encoder = adapted(models[model], LoRA(r=2, alpha=8.0))
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.3)
    expected = encoder.encode([texts])
    plain, before = encoder.plain_backbone(), load_backbone(models[model])
    assert list(plain.state_dict()) == list(before.state_dict())
    assert [type(module) for module in plain.modules()] == [type(module) for module in before.modules()]
    encoder.backbone = plain
    torch.testing.assert_close(encoder.encode([texts]), expected, rtol=1e-4, atol=1e-5)
    encoder.backbone = before
    assert not torch.allclose(encoder.encode([texts]), expected, atol=1e-2)


def test_adapters_on_bfloat16_weights_are_merged_without_rounding(models):
    encoder = adapted(models["bert"], LoRA(r=2), dtype="bfloat16")
    layer = next(module for module in encoder.modules() if hasattr(module, "lora_B"))
    with torch.no_grad():
        layer.lora_B["default"].weight.fill_(1e-5)
    name = next(name for name, module in encoder.backbone.named_modules() if module is layer)
    merged = encoder.plain_backbone().get_submodule(name).weight
    expected = layer.get_base_layer().weight.float() + layer.get_delta_weight("default").float()
    torch.testing.assert_close(merged, expected)
    assert not torch.equal(merged, merged.bfloat16().float())


def test_weights_below_adapters_may_be_bfloat16(models):
    encoder = adapted(models["bert"], LoRA(r=2), dtype="bfloat16")
    encoder.precision = "auto"
    encoder.encode([texts_of(LENGTHS)]).sum().backward()
    assert {parameter.dtype for parameter in encoder.parameters() if parameter.requires_grad} == {torch.float32}
    assert {parameter.dtype for parameter in encoder.parameters() if not parameter.requires_grad} == {torch.bfloat16}


def test_layers_can_be_chosen(models):
    trained = gradients_of_names(adapted(models["bert"], LoRA(r=2, target_modules=["query"])))
    assert trained
    assert all(".query." in name for name in trained)


def gradients_of_names(encoder):
    return [name for name, parameter in encoder.named_parameters() if parameter.requires_grad]


@pytest.mark.parametrize(
    ("lora", "settings", "message"),
    [
        (LoRA(dropout=1.0), {}, "lora.dropout 1.0 leaves nothing"),
        (LoRA(target_modules=[]), {}, "lora.target_modules names no layer"),
        (LoRA(target_modules=["nowhere"]), {}, r"lora.target_modules \['nowhere'\] does not suit the model"),
        (LoRA(), {"frozen_layers": 1}, "frozen_layers has no meaning beside lora"),
    ],
)
def test_settings_that_make_no_sense_are_said(models, lora, settings, message):
    with pytest.raises(UserError, match=message):
        adapted(models["bert"], lora, **settings)


def test_a_missing_library_is_said(models, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r'lora needs the package peft: run pip install -e "\.\[lora\]"'):
        TextEncoder(models["bert"], lora=LoRA()).check_settings()
