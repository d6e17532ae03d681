"""A model's linear layers and embedding tables by other ways to the same result."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from backbones.one_batch import lookup, rounded
from lightning_modules.functional.onednn import has_onednn, onednn_linear, rounded_linear, runs_on_onednn
from run_store import UserError

LinearLayers = Literal["auto", "onednn", "torch"]


class OneDNNLinear(nn.Linear):
    """The same layer with the same weights: on a CPU float32 goes through oneDNN, and under autocast the weight is
    rounded once a batch and its gradient comes in float32. On a GPU and in other dtypes it is torch's."""

    def forward(self, input: Tensor) -> Tensor:
        if runs_on_onednn(input, self.weight):
            return onednn_linear(input, self.weight, self.bias)
        if input.device.type == "cpu" and self.weight.dtype == torch.float32 and torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
            return rounded_linear(input.to(dtype), self.weight, self.bias, rounded(self.weight, dtype))
        return super().forward(input)


class SharedEmbedding(nn.Embedding):
    """The same table, whose gradient is made once for all chunks of a batch."""

    def forward(self, input: Tensor) -> Tensor:
        return lookup(input, self.weight, self.padding_idx)


def route_embeddings(model: nn.Module) -> None:
    """Makes the gradient of each table once a batch, for tables that are plain."""
    for module in model.modules():
        plain = type(module) is nn.Embedding and module.max_norm is None and not module.scale_grad_by_freq
        if plain and not module.sparse:
            module.__class__ = SharedEmbedding


def route_linear_layers(model: nn.Module, way: LinearLayers) -> bool:
    """Sends the products of a model through oneDNN: always, never, or (`auto`) where this torch has it. Results differ
    by rounding alone. Returns whether they go there.

    Raises:
        UserError: oneDNN is asked for, and this torch was built without it.
    """
    layers = [module for module in model.modules() if type(module) is nn.Linear]
    if way == "onednn" and not has_onednn():
        raise UserError("linear_layers onednn needs a torch that was built with oneDNN: set it to auto")
    if way == "torch" or not layers or not has_onednn():
        return False
    for layer in layers:
        # The class is exchanged and not the module: names, weights and hooks stay what they are.
        layer.__class__ = OneDNNLinear
    return True


def unroute(model: nn.Module) -> None:
    """Takes `route_linear_layers` and `route_embeddings` back."""
    plain: dict[type[nn.Module], type[nn.Module]] = {OneDNNLinear: nn.Linear, SharedEmbedding: nn.Embedding}
    for module in model.modules():
        module.__class__ = plain.get(type(module), type(module))
