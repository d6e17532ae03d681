"""Several models that read the same text."""

import json

import pytest
import torch
from transformers import BertModel

from backbones import Extractor, JointExtractor
from datamodules.text import TokenBatch
from run_store import UserError

POINTS = ["encoder.layer.1"]
AS_IT_IS = {"precision": "float32", "store_dtype": "float32", "device": "cpu"}


@pytest.fixture(scope="module")
def tuned(models, tmp_path_factory):
    """The tiny BERT with other weights, as if it had been trained on."""
    model = BertModel.from_pretrained(models["bert"])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp("tuned")
    model.save_pretrained(folder)
    return str(folder)


def joint(models, tuned, base=None, **settings):
    alike = {"hook_points": POINTS, **AS_IT_IS, **settings}
    first = Extractor(models["bert"], **{**alike, **(base or {})})
    return JointExtractor({"base": first, "tuned": Extractor(tuned, **alike)})


def contexts():
    tokens = torch.cat([torch.ones(5, 1).long(), torch.randint(2, 40, (5, 9))], dim=1)
    documents = torch.arange(5)[:, None].expand_as(tokens)
    positions = torch.arange(10).expand_as(tokens).masked_fill(tokens <= 2, -1)
    return TokenBatch(tokens, documents, positions, torch.full((5,), 10))


def test_rows_of_all_models_lie_side_by_side(models, tuned):
    batch = contexts()
    rows = joint(models, tuned, max_norm_ratio=None)(batch)
    assert list(rows.activations) == ["base/encoder.layer.1", "tuned/encoder.layer.1"]
    for name, model in (("base", models["bert"]), ("tuned", tuned)):
        alone = Extractor(model, POINTS, max_norm_ratio=None, **AS_IT_IS)(batch)
        assert torch.equal(rows.activations[f"{name}/encoder.layer.1"], alone.activations["encoder.layer.1"])
        assert torch.equal(rows.tokens, alone.tokens)


def test_a_token_that_is_an_outlier_in_one_model_gives_no_row_in_any(models, tuned):
    # the lengths of the embeddings differ from token to token, and a layer norm has not made them alike yet
    batch, settings = contexts(), {"hook_points": ["embeddings.word_embeddings"], "max_norm_ratio": 1.05, **AS_IT_IS}
    together = joint(models, tuned, **settings)(batch)
    alone = [Extractor(model, **settings)(batch) for model in (models["bert"], tuned)]
    places = [set(zip(rows.documents.tolist(), rows.positions.tolist(), strict=True)) for rows in (*alone, together)]
    assert places[2] == places[0] & places[1]
    assert 0 < len(places[2]) < min(len(places[0]), len(places[1]))


def test_its_description_is_plain_and_that_of_every_model(models, tuned):
    description = joint(models, tuned).describe()
    assert json.loads(json.dumps(description)).keys() == {"base", "tuned"}
    assert description["base"]["weights_sha256"] != description["tuned"]["weights_sha256"]
    assert joint(models, tuned, precision="auto").rounding_settings() == {"base.precision", "tuned.precision"}


def test_models_that_were_unloaded_are_loaded_again(models, tuned):
    reader = joint(models, tuned)
    first = reader.load()
    reader.unload()
    assert reader.load()["base"] is not first["base"]


@pytest.mark.parametrize(
    "setting", [{"max_norm_ratio": 3.0}, {"keep_special_tokens": True}, {"positions": [1]}, {"store_dtype": "int8"}]
)
def test_filters_that_differ_are_refused_by_name(models, tuned, setting):
    with pytest.raises(UserError, match=rf"{next(iter(setting))} is .* for tuned and .* for base"):
        joint(models, tuned, base=setting).load()


def test_no_models_and_a_slash_in_a_name_are_refused(models):
    with pytest.raises(UserError, match="extractors is empty"):
        JointExtractor({}).load()
    with pytest.raises(UserError, match="holds a slash"):
        JointExtractor({"a/b": Extractor(models["bert"], POINTS)}).load()
