"""Short names for places that every transformer has, family by family."""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import nn

Side = Literal["input", "output"]


class Place(NamedTuple):
    """A module's path in its model, and what of it is read."""

    path: str
    side: Side


class Family(NamedTuple):
    """Where the layers of a family are, and in a layer the modules whose outputs are added to the residual stream."""

    layers: str
    attention: str
    mlp: str


# BERT adds and normalises inside its output modules: what is added leaves their dense layer, as dropout is off.
_BERT = Family("encoder.layer", "attention.output.dense", "output.dense")
_LLAMA = Family("layers", "self_attn", "mlp")
# Gemma normalises once more between a block and the addition.
_GEMMA_2 = Family("layers", "post_attention_layernorm", "post_feedforward_layernorm")
# T5 normalises and adds inside its sublayers.
_T5 = Family("encoder.block", "layer.0.SelfAttention", "layer.1.DenseReluDense")

FAMILIES = {
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "gpt2": Family("h", "attn", "mlp"),
    "gpt_neox": Family("layers", "attention", "mlp"),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma": _LLAMA,
    "gemma2": _GEMMA_2,
    "gemma3_text": _GEMMA_2,
    "t5": _T5,
    "mt5": _T5,
}
"""The configuration's `model_type` → where its layers are, in the model without its head."""

KINDS = ("residual", "attention", "mlp")


def aliases(model: nn.Module) -> dict[str, Place]:
    """Every alias of a model → the place that it stands for; none for a model of an unknown family.

    Layers are counted from 1, so that numbers are those of transformers' `hidden_states`. `residual.0` is what enters
    the first layer; `residual.L` is what leaves layer L, before any norm that follows the last one. `attention.L` and
    `mlp.L` are what layer L adds to the stream: where nothing is normalised after the addition,
    residual.L = residual.(L-1) + attention.L + mlp.L.
    """
    family = FAMILIES.get(getattr(getattr(model, "config", None), "model_type", ""))
    if family is None:
        return {}
    layers = model.get_submodule(family.layers)
    paths = [f"{family.layers}.{index}" for index in range(len(list(layers.children())))]
    places = {"residual.0": Place(paths[0], "input")}
    places |= {f"residual.{layer}": Place(path, "output") for layer, path in enumerate(paths, start=1)}
    for kind, inner in (("attention", family.attention), ("mlp", family.mlp)):
        places |= {f"{kind}.{layer}": Place(f"{path}.{inner}", "output") for layer, path in enumerate(paths, start=1)}
    return places
