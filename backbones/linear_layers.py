"""A model's linear layers through oneDNN, where that is the faster way."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from lightning_modules.functional.onednn import has_onednn, onednn_is_fast, onednn_linear, runs_on_onednn
from run_store import UserError

LinearLayers = Literal["auto", "onednn", "torch"]


class OneDNNLinear(nn.Linear):
    """The same layer with the same weights. On a GPU, in other dtypes than float32 and under autocast it is torch's."""

    def forward(self, input: Tensor) -> Tensor:
        if runs_on_onednn(input, self.weight):
            return onednn_linear(input, self.weight, self.bias)
        return super().forward(input)


def route_linear_layers(model: nn.Module, way: LinearLayers) -> bool:
    """Sends the products of a model through oneDNN: always, never, or (`auto`) where its largest layer is no slower
    that way on this machine. Results differ by rounding alone. Returns whether they go there.

    Raises:
        UserError: oneDNN is asked for, and this torch was built without it.
    """
    layers = [module for module in model.modules() if type(module) is nn.Linear]
    if way == "onednn" and not has_onednn():
        raise UserError("linear_layers onednn needs a torch that was built with oneDNN: set it to auto")
    if way == "torch" or not layers:
        return False
    largest = max(layers, key=lambda layer: layer.weight.numel())
    if way == "auto" and not onednn_is_fast(largest.in_features, largest.out_features):
        return False
    for layer in layers:
        # The class is exchanged and not the module: names, weights and hooks stay what they are.
        layer.__class__ = OneDNNLinear
    return True


def unroute_linear_layers(model: nn.Module) -> None:
    """Takes `route_linear_layers` back."""
    for module in model.modules():
        if type(module) is OneDNNLinear:
            module.__class__ = nn.Linear  # type: ignore[assignment]
