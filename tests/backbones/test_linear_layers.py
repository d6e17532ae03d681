import copy

import pytest
import torch
from torch import nn

from backbones.linear_layers import OneDNNLinear, route_linear_layers, unroute
from lightning_modules.functional import onednn
from run_store import UserError


@pytest.fixture
def model():
    return nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 4, bias=False))


def test_the_way_changes_rounding_alone_and_can_be_taken_back(model):
    plain = copy.deepcopy(model)
    assert route_linear_layers(model, "onednn")
    assert [type(layer) for layer in model] == [OneDNNLinear, nn.GELU, OneDNNLinear]
    assert list(model.state_dict()) == list(plain.state_dict())
    for dtype in (torch.float32, torch.float64):
        x = torch.randn(5, 8, dtype=dtype)
        model.to(dtype).zero_grad(), plain.to(dtype).zero_grad()
        torch.testing.assert_close(model(x), plain(x))
        for network in (model, plain):
            network(x).square().sum().backward()
        for mine, theirs in zip(model.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(mine.grad, theirs.grad)
    with torch.autocast("cpu", torch.bfloat16):
        assert model.float()(torch.randn(5, 8, dtype=torch.float32)).dtype == torch.bfloat16
    unroute(model)
    assert [type(layer) for layer in model] == [nn.Linear, nn.GELU, nn.Linear]


def test_auto_is_the_same_in_every_process_whatever_else_the_machine_does(model):
    assert route_linear_layers(model, "auto") == onednn.has_onednn()


def test_a_torch_without_onednn(model, monkeypatch):
    monkeypatch.setattr(onednn.torch.backends.mkldnn, "is_available", lambda: False)
    assert not route_linear_layers(model, "auto")
    with pytest.raises(UserError, match="linear_layers onednn needs a torch that was built with oneDNN"):
        route_linear_layers(model, "onednn")


def test_torch_is_left_alone_and_so_is_a_model_without_linear_layers(model):
    assert not route_linear_layers(model, "torch")
    assert not route_linear_layers(nn.Sequential(nn.GELU()), "auto")
