"""sparsify's files: as the real library computes them, and read back."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from exports import export_model, import_autoencoder
from lightning_modules.autoencoders import (
    AbsTopK,
    BatchTopK,
    Gated,
    HierarchicalTopK,
    LayerNormalization,
    MatchingPursuit,
    ReLU,
    Skip,
    TopK,
    Transcoder,
)
from run_store import UserError
from tests.exports.models import D, model_of, ours, rows

CASES = {
    "TopK": lambda: model_of(TopK),
    "HierarchicalTopK": lambda: model_of(HierarchicalTopK),
    "transcoder": lambda: model_of(TopK, Transcoder(False), widths=(D, D)),
    "skip transcoder": lambda: model_of(HierarchicalTopK, Transcoder(True), widths=(D, D)),
    "skip": lambda: model_of(TopK, Skip(0.4, affine=True)),
}


@pytest.fixture(scope="module")
def computed(run_with_peer):
    """(models, inputs, what sparsify makes of them)."""
    torch.manual_seed(0)
    models = {name: make() for name, make in CASES.items()}
    x = {name: rows() for name in models}
    return models, x, run_with_peer("sparsify", models, x)


@pytest.mark.slow
@pytest.mark.peers
@pytest.mark.parametrize("name", CASES)
def test_sparsify_computes_the_same(computed, name):
    models, x, theirs = computed
    latents, y = ours(models[name], x[name])
    torch.testing.assert_close(theirs[f"{name}.output"], y, rtol=1e-5, atol=1e-5 * float(y.abs().max()))
    assert torch.equal(theirs[f"{name}.latents"] != 0, latents != 0)
    assert (latents != 0).any()


@pytest.mark.parametrize("name", CASES)
def test_what_is_read_back_computes_the_same(tmp_path, name):
    model, x = CASES[name](), rows()
    export_model(model, tmp_path / "files", "sparsify")
    again = import_autoencoder(tmp_path / "files", tmp_path / "imported")
    latents, y = ours(model, x)
    same_latents, same = ours(again, x)
    torch.testing.assert_close(same, y, rtol=1e-5, atol=1e-5 * float(y.abs().max()))
    assert torch.equal(same_latents != 0, latents != 0)


@pytest.mark.parametrize("variant", [ReLU, Gated, AbsTopK, BatchTopK, MatchingPursuit])
def test_a_variant_that_is_no_topk_is_refused_by_name(tmp_path, variant):
    with pytest.raises(UserError, match=f"keeps the k largest latents and nothing else, and {variant.__name__} "):
        export_model(model_of(variant), tmp_path / "files", "sparsify")
    assert not list(tmp_path.iterdir())


def test_layer_normalisation_is_refused_with_the_reason(tmp_path):
    with pytest.raises(UserError, match="no layer normalisation, which does not fold into weights"):
        export_model(model_of(TopK, normalization=LayerNormalization()), tmp_path / "files", "sparsify")


def test_two_widths_are_refused(tmp_path):
    with pytest.raises(UserError, match="one width for input and output, and these have 6 and 9"):
        export_model(model_of(TopK, Transcoder(), widths=(D, 9)), tmp_path / "files", "sparsify")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"activation": "groupmax"}, "activation is 'groupmax', and only topk can be imported"),
        ({"signed": True}, "signed is true"),
        ({"num_latents": 40}, "encoder.weight is"),
        ({"skip_connection": True}, "has no tensor W_skip"),
    ],
)
def test_what_cannot_be_imported_is_named(tmp_path, config, message):
    export_model(model_of(TopK), tmp_path / "files", "sparsify")
    path = tmp_path / "files" / "cfg.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    with pytest.raises(UserError, match=message):
        import_autoencoder(tmp_path / "files", tmp_path / "imported")


def test_a_dictionary_by_its_expansion_factor_is_imported(tmp_path):
    """Files of early releases say how many times wider the dictionary is, and nothing of activation or skips."""
    export_model(model_of(TopK), tmp_path / "files", "sparsify")
    weights = load_file(tmp_path / "files" / "sae.safetensors")
    cut = {name: value[:18] if len(value) == 20 else value for name, value in weights.items()}
    save_file(cut, tmp_path / "files" / "sae.safetensors")
    settings = {"d_in": D, "expansion_factor": 3, "num_latents": 0, "k": 4}
    (tmp_path / "files" / "cfg.json").write_text(json.dumps(settings))
    model = import_autoencoder(tmp_path / "files", tmp_path / "imported")
    assert model.autoencoder.d_sae == 18
    assert list(model.shapes) == ["input"]
