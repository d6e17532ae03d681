"""SAELens' files: as the real library computes them, and read back."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from exports import export_model, import_autoencoder
from lightning_modules.autoencoders import (
    AbsTopK,
    BatchTopK,
    Gated,
    JumpReLU,
    LayerNormalization,
    MatchingPursuit,
    NoNormalization,
    PAnneal,
    ReLU,
    Skip,
    TopK,
    Transcoder,
)
from run_store import UserError
from tests.exports.models import SETTINGS, D, model_of, ours, rows

SKIPPING = {
    "transcoder": (ReLU, lambda: Transcoder(False), (D, 9)),
    "skip_transcoder": (PAnneal, lambda: Transcoder(True), (D, 9)),
    "jumprelu_transcoder": (BatchTopK, lambda: Transcoder(False), (D, D)),
    "jumprelu_skip_transcoder": (JumpReLU, lambda: Transcoder(True), (D, 9)),
    "scaled skip": (JumpReLU, lambda: Skip(0.4), (D,)),
    "affine skip": (ReLU, lambda: Skip(0.4, affine=True), (D,)),
}


def cases():
    """A model of every combination that SAELens holds, by name."""
    torch.manual_seed(0)
    models = {variant.__name__: model_of(variant) for variant in SETTINGS}
    models |= {
        f"{variant.__name__} by rows": model_of(variant, normalization=LayerNormalization()) for variant in SETTINGS
    }
    models |= {name: model_of(variant, wiring(), widths=widths) for name, (variant, wiring, widths) in SKIPPING.items()}
    models["tied"] = model_of(ReLU, tied=True)
    models["stopping pursuit"] = model_of(MatchingPursuit, residual_threshold=1.5)
    return models


NAMES = list(cases())


def inputs(models):
    torch.manual_seed(1)
    # layer_norm's epsilons, which are added in other places, do not matter for rows as long as these
    return {name: rows() * (100 if name.endswith("by rows") else 1) for name in models}


@pytest.fixture(scope="module")
def computed(run_with_peer):
    """(models, inputs, what SAELens makes of them)."""
    models = cases()
    x = inputs(models)
    return models, x, run_with_peer("saelens", models, x)


@pytest.mark.slow
@pytest.mark.peers
@pytest.mark.parametrize("name", NAMES)
def test_saelens_computes_the_same(computed, name):
    models, x, theirs = computed
    latents, y = ours(models[name], x[name])
    torch.testing.assert_close(theirs[f"{name}.output"], y, rtol=1e-5, atol=1e-5 * float(y.abs().max()))
    assert torch.equal(theirs[f"{name}.latents"] != 0, latents != 0)
    assert (latents != 0).any()


@pytest.mark.first_is_fast
@pytest.mark.parametrize("name", NAMES)
def test_what_is_read_back_computes_the_same(tmp_path, name):
    models = cases()
    model, x = models[name], inputs(models)[name]
    export_model(model, tmp_path / "files", "saelens")
    again = import_autoencoder(tmp_path / "files", tmp_path / "imported")
    latents, y = ours(model, x)
    same_latents, same = ours(again, x)
    torch.testing.assert_close(same, y, rtol=1e-5, atol=1e-5 * float(y.abs().max()))
    assert torch.equal(same_latents != 0, latents != 0)


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        (ReLU, "standard"),
        (TopK, "topk"),
        (AbsTopK, "abstopk"),
        (BatchTopK, "jumprelu"),
        (Gated, "gated"),
        (MatchingPursuit, "matching_pursuit"),
    ],
)
def test_the_settings_are_those_that_saelens_asks_for(tmp_path, variant, expected):
    export_model(model_of(variant), tmp_path / "files", "saelens")
    settings = json.loads((tmp_path / "files" / "cfg.json").read_text())
    assert settings["architecture"] == expected
    assert (settings["d_in"], settings["d_sae"], settings["dtype"]) == (D, 20, "float32")
    assert settings["normalize_activations"] == "none"
    assert settings["metadata"]["hook_name"] == "layer.0"
    assert settings["metadata"]["sae_lens_version"].startswith("6.")
    assert all(
        tensor.dtype == torch.float32 for tensor in load_file(tmp_path / "files" / "sae_weights.safetensors").values()
    )


@pytest.mark.parametrize("variant", [TopK, Gated, MatchingPursuit])
def test_a_transcoder_that_saelens_does_not_have_is_refused_by_name(tmp_path, variant):
    if variant is MatchingPursuit:
        model = model_of(variant, Skip(0.5))
    else:
        model = model_of(variant, Transcoder(), widths=(D, D))
    with pytest.raises(UserError, match=f"SAELens has .* for ReLU and JumpReLU alone, and {variant.__name__} "):
        export_model(model, tmp_path / "files", "saelens")
    assert not list(tmp_path.iterdir())


def test_layer_normalisation_past_a_skip_is_refused(tmp_path):
    with pytest.raises(UserError, match="SAELens undoes layer normalisation for plain autoencoders alone"):
        export_model(model_of(ReLU, Skip(0.5), LayerNormalization()), tmp_path / "files", "saelens")


# ---- files of others


@pytest.fixture
def published(tmp_path):
    """published(variant, config, **tensors) → a folder as others may have made it: ours, changed."""

    def make(variant=ReLU, config=None, **tensors):
        folder = tmp_path / "published"
        export_model(model_of(variant, normalization=NoNormalization()), folder, "saelens")
        settings = json.loads((folder / "cfg.json").read_text()) | (config or {})
        (folder / "cfg.json").write_text(json.dumps({k: v for k, v in settings.items() if v is not ...}))
        weights = load_file(folder / "sae_weights.safetensors") | tensors
        save_file({k: v for k, v in weights.items() if v is not None}, folder / "sae_weights.safetensors")
        return folder

    return make


def test_latents_that_were_chosen_times_their_norms_keep_being_chosen(published, tmp_path):
    folder = published(TopK, {"rescale_acts_by_decoder_norm": True}, W_dec=torch.randn(20, D) * torch.rand(20, 1) * 4)
    w = {name: value.double() for name, value in load_file(folder / "sae_weights.safetensors").items()}
    x = rows()
    norms = w["W_dec"].norm(dim=1)
    z = ((x.double() - w["b_dec"]) @ w["W_enc"] + w["b_enc"]) * norms
    top = z.topk(4, dim=1)
    f = torch.zeros_like(z).scatter(1, top.indices, top.values.relu())
    _, y = ours(import_autoencoder(folder, tmp_path / "imported"), x)
    torch.testing.assert_close(y.double(), (f / norms) @ w["W_dec"] + w["b_dec"], rtol=1e-4, atol=1e-4)


def test_an_input_that_is_not_centred_is_read_as_it_is(published, tmp_path):
    folder = published(ReLU, {"apply_b_dec_to_input": False})
    w = load_file(folder / "sae_weights.safetensors")
    x = rows()
    expected = (x @ w["W_enc"] + w["b_enc"]).relu() @ w["W_dec"] + w["b_dec"]
    torch.testing.assert_close(ours(import_autoencoder(folder, tmp_path / "i"), x)[1], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("variant", "config", "tensors", "message"),
    [
        (ReLU, {"architecture": "temporal"}, {}, "names the architecture 'temporal', which is none of those"),
        (ReLU, {"architecture": ...}, {}, "architecture must be of type str, not None"),
        (ReLU, {"d_sae": "20"}, {}, "d_sae must be of type int, not '20'"),
        (ReLU, {"d_in": True}, {}, "d_in must be of type int, not True"),
        (ReLU, {"d_sae": 21}, {}, r"W_dec is \[20, 6\], and cfg.json makes it \[21, 6\]"),
        (ReLU, {"normalize_activations": "expected_average_only_in"}, {}, "only none and layer_norm can be imported"),
        (ReLU, {}, {"b_enc": None}, "has no tensor b_enc"),
        (ReLU, {}, {"b_enc": torch.full((20,), torch.nan)}, "b_enc has values that are not finite"),
        (TopK, {"k": ...}, {}, "k must be of type int"),
        (TopK, {"k": 21}, {}, "k is 21 and d_sae is 20"),
        (TopK, {}, {"W_dec": torch.rand(20, D)}, "topk keeps the k largest latents, and its decoder rows have norms"),
        (MatchingPursuit, {"stop_on_duplicate_support": True}, {}, "stop_on_duplicate_support is true"),
        (MatchingPursuit, {}, {"W_dec": torch.rand(20, D)}, "rows of W_dec are not of unit norm"),
    ],
)
def test_what_cannot_be_imported_is_named_in_one_sentence(published, tmp_path, variant, config, tensors, message):
    folder = published(variant, config, **tensors)
    with pytest.raises(UserError, match=message) as raised:
        import_autoencoder(folder, tmp_path / "imported")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "imported").exists()
