"""An autoencoder by whatever a person names it."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from exports import export_model, import_autoencoder, load_autoencoder
from lightning_modules.autoencoders import TopK
from run_store import UserError
from tests.exports.models import model_of, rows


@pytest.mark.parametrize("form", ["safetensors", "saelens", "sparsify"])
def test_exported_files_give_the_model_back_whatever_their_format(form, tmp_path):
    model = model_of(TopK)
    export_model(model, tmp_path / "exported", form)
    loaded = load_autoencoder(str(tmp_path / "exported"))
    assert not loaded.training
    assert list(loaded.only.shapes) == list(model.only.shapes)
    x = rows()
    with torch.no_grad():
        assert_close(loaded(x)[1], model(x)[1], rtol=1e-4, atol=1e-5)


def test_what_import_has_made_is_found_by_its_folder(tmp_path):
    model = model_of(TopK)
    export_model(model, tmp_path / "exported", "safetensors")
    import_autoencoder(tmp_path / "exported", tmp_path / "imported")
    x = rows()
    with torch.no_grad():
        assert_close(load_autoencoder(str(tmp_path / "imported"))(x)[1], model(x)[1])


def test_nothing_of_that_name_is_told(tmp_path):
    with pytest.raises(UserError, match="nobody"):
        load_autoencoder("nobody", str(tmp_path))
