"""Low-rank adapters: a model's linear layers get a small trainable part each, and its own weights stay as they are."""

from __future__ import annotations

import copy
import importlib.util
import warnings
from typing import Any

import torch
from jsonargparse.typing import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import nn
from transformers import PreTrainedModel

from backbones.sources import first_line
from run_store import UserError


class LoRA:
    """W + (alpha / r) · B A in place of W, with B = 0 at the start (Hu et al. 2021, arXiv 2106.09685), through peft.

    Args:
        r: Rank of the added part.
        alpha: What it is scaled by, over r.
        dropout: Share of the inputs of A that are dropped in training.
        target_modules: Endings of the names of the layers that get adapters; null takes every linear layer.
    """

    def __init__(
        self,
        r: PositiveInt = 16,
        alpha: PositiveFloat = 32.0,
        dropout: NonNegativeFloat = 0.0,
        target_modules: list[str] | None = None,
    ) -> None:
        self.r = r
        self.alpha = alpha
        self.dropout = dropout
        self.target_modules = target_modules

    def check_settings(self) -> None:
        """Raises:
        UserError: peft is missing, or a setting is out of its range.
        """
        if importlib.util.find_spec("peft") is None:
            raise UserError('lora needs the package peft: run pip install -e ".[lora]", or set lora to null')
        if self.dropout >= 1:
            raise UserError(f"lora.dropout {self.dropout} leaves nothing: set it below 1")
        if self.target_modules == []:
            raise UserError("lora.target_modules names no layer: set it to null for every linear layer")

    def put_into(self, backbone: PreTrainedModel) -> None:
        """Adds adapters, the only parameters that require gradients from then on.

        Raises:
            UserError: the model has no layers of these names.
        """
        from peft import LoraConfig, inject_adapter_in_model

        targets = self.target_modules or "all-linear"
        config = LoraConfig(r=self.r, lora_alpha=self.alpha, lora_dropout=self.dropout, target_modules=targets)  # type: ignore[arg-type]
        try:
            with warnings.catch_warnings():
                # GPT-2 keeps its matrices the other way round, which peft sees and says.
                warnings.filterwarnings("ignore", message="fan_in_fan_out")
                inject_adapter_in_model(config, backbone)
        except ValueError as error:
            raise UserError(f"lora.target_modules {targets} does not suit the model ({first_line(error)})") from error
        for name, parameter in backbone.named_parameters():
            # A pooler of the model's own is read by nothing here: an adapter in it would never get a gradient.
            is_trained = "lora_" in name and not name.startswith("pooler.")
            if is_trained:
                # The weights below may have less, in which the steps of training would be rounded away.
                parameter.data = parameter.data.float()
            parameter.requires_grad_(is_trained)

    def describe(self) -> dict[str, Any]:
        """The settings as plain values."""
        return dict(vars(self))


def merged(backbone: PreTrainedModel) -> PreTrainedModel:
    """A copy with the adapters added to the weights: the model's own modules and names, nothing of peft.

    It is in float32, since the sum would be rounded in less.
    """
    whole = copy.deepcopy(backbone)
    whole.to(torch.float32)  # type: ignore[arg-type]
    for path, module in list(whole.named_modules()):
        if hasattr(module, "get_base_layer") and hasattr(module, "merge"):
            module.merge()
            parent, _, name = path.rpartition(".")
            setattr(whole.get_submodule(parent), name, module.get_base_layer())
    whole.__dict__.pop("peft_config", None)
    return whole.requires_grad_(False)


def freeze_layers(backbone: PreTrainedModel, count: int) -> None:
    """Stops gradients of the first layers and of all that comes before them, the embeddings.

    Raises:
        UserError: the model has fewer layers.
    """
    path, layers = _layers(backbone)
    if count > len(layers):
        raise UserError(f"frozen_layers {count} exceeds the {len(layers)} layers of the model: lower it")
    # Modules are listed in the order in which they are read: what stands in front of the layers feeds them.
    names = [name for name, _ in backbone.named_parameters()]
    frozen = max(place for place, name in enumerate(names) if name.startswith(f"{path}.{count - 1}."))
    for parameter in list(backbone.parameters())[: frozen + 1]:
        parameter.requires_grad_(False)


def _layers(backbone: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The list of a model's layers with its path."""
    count = getattr(backbone.config.get_text_config(), "num_hidden_layers", None)
    for path, module in backbone.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return path, module
    raise UserError("frozen_layers cannot be told from the rest in this model: set it to 0")
