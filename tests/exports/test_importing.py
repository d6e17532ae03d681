"""What an import leaves behind, and what it does about folders that are none."""

import stat

import pytest
import torch
import yaml

from exports import export_model, find_trained, import_autoencoder, load_trained
from lightning_modules.autoencoders import JumpReLU, TopK, Transcoder
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from run_store import UserError
from run_store.checkpoints import damage
from tests.exports.models import D, model_of, ours, rows


@pytest.fixture
def files(tmp_path):
    """A published JumpReLU autoencoder in SAELens' format."""
    export_model(model_of(JumpReLU), tmp_path / "files", "saelens")
    return tmp_path / "files"


def test_the_checkpoint_is_whole_and_loads_without_data(files, tmp_path):
    model = import_autoencoder(files, tmp_path / "deep" / "imported")
    checkpoint = tmp_path / "deep" / "imported" / "checkpoint"
    assert damage(checkpoint) is None
    loaded = SparseAutoencoding.load_from_checkpoint(checkpoint).eval()
    x = rows()
    assert torch.equal(ours(loaded, x)[1], ours(model, x)[1])
    assert loaded.only.started  # so that fit estimates nothing over it
    assert int(loaded.only.tokens_seen) == 0


def test_the_overlay_names_class_sizes_and_the_checkpoint(files, tmp_path):
    import_autoencoder(files, tmp_path / "imported")
    overlay = yaml.safe_load((tmp_path / "imported" / "config.yaml").read_text())
    assert overlay["run"] == {"source": "path", "path": str(tmp_path / "imported" / "checkpoint")}
    settings = overlay["model"]["init_args"]
    assert settings["autoencoder"]["class_path"] == "lightning_modules.autoencoders.JumpReLU"
    assert settings["autoencoder"]["init_args"]["d_sae"] == 20
    assert settings["normalization"]["class_path"].endswith(".NoNormalization")
    assert settings["shapes"] == {"layer.0": D}


def test_a_transcoder_knows_both_hook_points(tmp_path):
    export_model(model_of(JumpReLU, Transcoder(True), widths=(D, 9)), tmp_path / "files", "saelens")
    assert import_autoencoder(tmp_path / "files", tmp_path / "imported").shapes == {"layer.0": D, "layer.1": 9}


def test_what_was_imported_is_exported_again(files, tmp_path):
    model = import_autoencoder(files, tmp_path / "imported")
    trained = find_trained(str(tmp_path / "imported"))
    assert trained.record is None
    export_model(load_trained(trained), tmp_path / "again", "safetensors", trained)
    third = import_autoencoder(tmp_path / "again", tmp_path / "third")
    x = rows()
    assert torch.equal(ours(third, x)[1], ours(model, x)[1])


def test_a_training_step_keeps_what_was_imported_on_unit_norm(tmp_path):
    export_model(model_of(JumpReLU), tmp_path / "files", "saelens")
    model = import_autoencoder(tmp_path / "files", tmp_path / "imported")
    before = model.autoencoder.W_dec.clone()
    model.autoencoder.after_optimizer_step()
    torch.testing.assert_close(model.autoencoder.W_dec, before)


def test_files_can_be_read_by_everybody_whom_the_umask_allows(files):
    modes = {stat.S_IMODE(path.stat().st_mode) for path in files.iterdir()}
    plain = files.parent / "plain"
    plain.touch()
    assert modes == {stat.S_IMODE(plain.stat().st_mode)}


def test_a_folder_with_something_in_it_is_left_alone(files, tmp_path):
    for output in (files, files / "cfg.json"):
        with pytest.raises(UserError, match=r"there is something in .* already"):
            import_autoencoder(files, output)
    with pytest.raises(UserError, match=r"there is something in .* already"):
        export_model(model_of(TopK), files, "saelens")
    (tmp_path / "empty").mkdir()
    import_autoencoder(files, tmp_path / "empty")
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("cfg.json", b"{", "cfg.json is no JSON"),
        ("cfg.json", b"[]", "cfg.json holds no settings"),
        ("cfg.json", b"\xff\xfe", "cfg.json is no JSON"),
        ("cfg.json", b" " * (2 << 20), "these are no settings"),
        ("cfg.json", None, "cfg.json cannot be read"),
        ("sae_weights.safetensors", b"\x80\x04 a pickle", "no safetensors file"),
        ("sae_weights.safetensors", None, "holds no autoencoder that can be imported"),
    ],
)
def test_a_broken_download_is_one_sentence(files, tmp_path, name, content, message):
    if content is None:
        (files / name).unlink()
    else:
        (files / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as raised:
        import_autoencoder(files, tmp_path / "imported")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "imported").exists()
