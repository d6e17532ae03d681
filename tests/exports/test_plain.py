"""Our own files hold every variant and wiring as it is."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from exports import export_model, import_autoencoder
from lightning_modules.autoencoders import (
    Crosscoder,
    LayerNormalization,
    MatchingPursuit,
    ReLU,
    Skip,
    TopK,
    Transcoder,
)
from run_store import UserError
from tests.exports.models import SETTINGS, D, model_of, rows


def everything(model):
    return {name: value for name, value in model.only.state_dict().items() if name not in model.only.counters}


@pytest.mark.parametrize("variant", SETTINGS)
def test_every_variant_is_read_back_bit_by_bit(tmp_path, variant):
    model = model_of(variant)
    export_model(model, tmp_path / "files", "safetensors")
    again = import_autoencoder(tmp_path / "files", tmp_path / "imported")
    assert type(again.autoencoder) is variant
    expected, found = everything(model), everything(again)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.parametrize(
    ("variant", "wiring", "widths"),
    [
        (TopK, Transcoder(True), (D, 9)),
        (TopK, Skip(0.25, True), (D,)),
        (ReLU, Crosscoder(), (D, D, 5)),
    ],
)
def test_every_wiring_is_read_back(tmp_path, variant, wiring, widths):
    model = model_of(variant, wiring, LayerNormalization(), widths)
    export_model(model, tmp_path / "files", "safetensors")
    again = import_autoencoder(tmp_path / "files", tmp_path / "imported")
    x = [rows(width=width) for width in widths]
    with torch.no_grad():
        (codes, parts), (same_codes, same) = model(*x), again(*x)
    assert torch.equal(codes.dense(), same_codes.dense())
    assert all(torch.equal(one, other) for one, other in zip(parts, same, strict=True))
    assert again.shapes == model.shapes


def test_a_file_with_the_unused_normalisation_that_early_ones_had_is_read(tmp_path):
    model = model_of(TopK)
    export_model(model, tmp_path / "files", "safetensors")
    weights = tmp_path / "files" / "autoencoder.safetensors"
    save_file(load_file(weights) | {"one_normalization.factor": torch.ones(())}, weights)
    again = import_autoencoder(tmp_path / "files", tmp_path / "imported")
    assert torch.equal(again.autoencoder.W_enc, model.autoencoder.W_enc)


def test_tied_weights_stay_tied(tmp_path):
    export_model(model_of(MatchingPursuit), tmp_path / "files", "safetensors")
    again = import_autoencoder(tmp_path / "files", tmp_path / "imported")
    assert again.autoencoder.W_enc is again.autoencoder.W_dec


@pytest.fixture
def changed(tmp_path):
    """changed(change) → a folder whose settings somebody has changed."""

    def make(change):
        export_model(model_of(TopK), tmp_path / "files", "safetensors")
        path = tmp_path / "files" / "autoencoder.json"
        settings = json.loads(path.read_text())
        change(settings)
        path.write_text(json.dumps(settings))
        return tmp_path / "files"

    return make


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s["model"]["autoencoder"].update(class_path="os.system"), "the class 'os.system', which is none"),
        (lambda s: s["model"]["autoencoder"].update(class_path="SparseCodes"), "which is none of ours"),
        (lambda s: s["model"]["autoencoder"].update(class_path="DatasetScale"), "are none of ours"),
        (lambda s: s["model"]["autoencoder"]["init_args"].update(k="many"), "are none of ours"),
        (lambda s: s["model"]["autoencoder"]["init_args"].update(k=21), "k is 21 and d_sae is 20"),
        (lambda s: s["model"]["autoencoder"]["init_args"].update(d_sae=10**14), "are none of ours .*"),
        (lambda s: s["model"].update(optimizer={}), "nothing else, not .'optimizer'"),
        (lambda s: s["model"]["shapes"].update({"layer.0": 7}), "do not fit its settings .*W_dec"),
        (lambda s: s.update(version=2), "is of version 2 and this release reads 1"),
        (lambda s: s.update(model=None), "model must be of type dict, not None"),
    ],
)
def test_settings_that_are_not_ours_are_refused_in_one_sentence(changed, tmp_path, change, message):
    folder = changed(change)
    with pytest.raises(UserError, match=message) as raised:
        import_autoencoder(folder, tmp_path / "imported")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "imported").exists()


def test_values_that_are_not_finite_are_refused(tmp_path):
    export_model(model_of(TopK), tmp_path / "files", "safetensors")
    path = tmp_path / "files" / "autoencoder.safetensors"
    weights = load_file(path)
    weights["autoencoder.W_dec"][0, 0] = torch.nan
    save_file(weights, path)
    with pytest.raises(UserError, match=r"not finite in autoencoder\.W_dec"):
        import_autoencoder(tmp_path / "files", tmp_path / "imported")


def test_a_model_without_its_settings_is_refused(tmp_path):
    model = model_of(TopK)
    del model.hparams["autoencoder"]
    with pytest.raises(UserError, match="does not know the settings of its autoencoder"):
        export_model(model, tmp_path / "files", "safetensors")
