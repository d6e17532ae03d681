"""Tiny models of every family, made from configurations, against what they give by themselves."""

import pytest
import torch
from transformers import AutoConfig, AutoModel, T5EncoderModel

from backbones import capture
from backbones.hook_aliases import FAMILIES, aliases
from run_store import UserError

LAYERS = 3
SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
}
GROUPED = {"num_key_value_heads": 1}
HEADS = {**GROUPED, "head_dim": 8}
T5_SIZES = {"vocab_size": 40, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": LAYERS, "num_heads": 2}

SETTINGS = {
    "bert": SIZES,
    "roberta": SIZES,
    "xlm-roberta": SIZES,
    "gpt2": {"vocab_size": 40, "n_embd": 16, "n_layer": LAYERS, "n_head": 2, "n_positions": 32},
    "gpt_neox": SIZES,
    "llama": {**SIZES, **GROUPED},
    "mistral": {**SIZES, **GROUPED},
    "qwen2": {**SIZES, **GROUPED},
    "qwen3": {**SIZES, **HEADS},
    "gemma": {**SIZES, **HEADS},
    "gemma2": {**SIZES, **HEADS},
    "gemma3_text": {**SIZES, **HEADS},
    "t5": T5_SIZES,
    "mt5": T5_SIZES,
}
# These end with a norm, whose output is the last of their hidden_states.
FINAL_NORMS = {
    **dict.fromkeys(["llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"], "norm"),
    **dict.fromkeys(["t5", "mt5"], "encoder.final_layer_norm"),
    "gpt2": "ln_f",
    "gpt_neox": "final_layer_norm",
}
SPECIAL_IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


@pytest.fixture(params=SETTINGS)
def family(request):
    return request.param


@pytest.fixture
def model(family):
    config = AutoConfig.for_model(family, **SETTINGS[family], **SPECIAL_IDS)
    # Large weights, so that a wrong norm or a wrong order of additions shows.
    config.initializer_range = config.initializer_factor = 0.5
    backbone = T5EncoderModel(config) if family in ("t5", "mt5") else AutoModel.from_config(config)
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if parameter.ndim == 1 and "norm" in name.lower():
                parameter.add_(0.3 * torch.randn_like(parameter))
    return backbone.eval().requires_grad_(False)


def tokens():
    return torch.randint(3, 40, (2, 9))


@torch.inference_mode()
def hidden_states_of(model, input_ids):
    return model(input_ids=input_ids, output_hidden_states=True).hidden_states


def test_every_family_of_the_table_is_tested():
    assert set(SETTINGS) == set(FAMILIES)


def test_the_residual_stream_is_hidden_states(model, family):
    input_ids = tokens()
    hidden_states = hidden_states_of(model, input_ids)
    captured = capture(model, ["residual.*"], input_ids=input_ids)
    assert list(captured) == [f"residual.{layer}" for layer in range(LAYERS + 1)]
    for layer in range(LAYERS):
        assert torch.equal(captured[f"residual.{layer}"], hidden_states[layer])

    last = captured[f"residual.{LAYERS}"]
    if family in FINAL_NORMS:
        assert not torch.allclose(last, hidden_states[LAYERS])
        norm = FINAL_NORMS[family]
        assert torch.equal(model.get_submodule(norm)(last), hidden_states[LAYERS])
        assert torch.equal(capture(model, [norm], input_ids=input_ids)[norm], hidden_states[LAYERS])
    else:
        assert torch.equal(last, hidden_states[LAYERS])


def test_attention_and_mlp_are_what_is_added_to_the_stream(model, family):
    input_ids = tokens()
    names = [f"{kind}.{layer}" for layer in range(1, LAYERS + 1) for kind in ("residual", "attention", "mlp")]
    captured = capture(model, ["residual.0", *names], input_ids=input_ids)
    before = captured["residual.0"]
    for layer in range(1, LAYERS + 1):
        attention, mlp, after = (captured[f"{kind}.{layer}"] for kind in ("attention", "mlp", "residual"))
        if FAMILIES[family] is FAMILIES["bert"]:  # it normalises after each addition
            block = model.encoder.layer[layer - 1]
            middle = block.attention.output.LayerNorm(before + attention)
            expected = block.output.LayerNorm(middle + mlp)
        else:
            expected = before + attention + mlp
        torch.testing.assert_close(after, expected, rtol=1e-5, atol=1e-5)
        assert (attention.norm(dim=-1) > 1e-3).all()
        assert (mlp.norm(dim=-1) > 1e-3).all()
        before = after


def mlp_by_hand(model, family, layer, residual, attention):
    """What the layer's own parts make of the stream: the MLP, and the norms around it."""
    at = model.get_submodule(FAMILIES[family].layers)[layer - 1]
    if FAMILIES[family] is FAMILIES["bert"]:
        return at.output.dense(at.intermediate(at.attention.output.LayerNorm(attention + residual)))
    if family == "gpt2":
        return at.mlp(at.ln_2(attention + residual))
    if family == "gpt_neox":  # its blocks stand side by side
        return at.mlp(at.post_attention_layernorm(residual))
    if FAMILIES[family] is FAMILIES["gemma2"]:
        return at.post_feedforward_layernorm(at.mlp(at.pre_feedforward_layernorm(residual + attention)))
    if FAMILIES[family] is FAMILIES["t5"]:
        return at.layer[1].DenseReluDense(at.layer[1].layer_norm(residual + attention))
    return at.mlp(at.post_attention_layernorm(residual + attention))


def test_the_mlp_is_what_its_modules_give_by_themselves(model, family):
    captured = capture(model, ["residual.1", "attention.2", "mlp.2"], input_ids=tokens())
    with torch.inference_mode():
        expected = mlp_by_hand(model, family, 2, captured["residual.1"], captured["attention.2"])
    assert torch.equal(captured["mlp.2"], expected)


def test_the_forward_stops_at_the_last_alias(model, family):
    ran = []
    for name, module in model.named_modules():
        module.register_forward_pre_hook(lambda module, arguments, name=name: ran.append(name))
    layers = FAMILIES[family].layers
    capture(model, ["residual.0", "mlp.2"], input_ids=tokens())
    assert any(name.startswith(f"{layers}.1.") for name in ran)
    assert not [name for name in ran if name.startswith(f"{layers}.2") or "final" in name or name in ("norm", "ln_f")]
    ran.clear()
    capture(model, ["residual.1"], input_ids=tokens())
    assert not [name for name in ran if name.startswith(f"{layers}.1")]
    ran.clear()
    capture(model, ["residual.0"], input_ids=tokens())
    assert not [name for name in ran if name.startswith(f"{layers}.0.")]


def test_a_stopped_forward_leaves_the_model_as_it_was(model):
    input_ids = tokens()
    before = hidden_states_of(model, input_ids)
    capture(model, ["residual.1"], input_ids=input_ids)
    after = hidden_states_of(model, input_ids)
    assert len(before) == len(after) == LAYERS + 1
    assert all(map(torch.equal, before, after))


def test_aliases_name_places_that_exist(model):
    places = aliases(model)
    assert len(places) == 3 * LAYERS + 1
    assert {place.path for place in places.values()} <= {name for name, _ in model.named_modules()}


@pytest.mark.parametrize("name", ["residual.4", "mlp.0", "attention.4"])
def test_layers_that_are_not_there_are_said(model, name):
    with pytest.raises(UserError, match=rf"hook point '{name}' does not exist in \w+; the nearest names are .*\.\d"):
        capture(model, [name], input_ids=tokens())


def test_a_family_that_is_not_known_is_said():
    sizes = {"vocab_size": 40, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}
    model = AutoModel.from_config(AutoConfig.for_model("distilbert", **sizes))
    with pytest.raises(UserError, match=r"'residual.1'.* known only for bert, .*: name a module by its path"):
        capture(model, ["residual.1"], input_ids=tokens())
    assert list(capture(model, ["transformer.layer.0"], input_ids=tokens()))
