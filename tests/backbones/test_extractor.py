import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import RobertaConfig, RobertaModel

from backbones import Extractor, capture
from datamodules.text import TokenBatch
from run_store import UserError

LAYERS = ["encoder.layer.0", "encoder.layer.1"]


def make_batch(tokens, special=(1, 2)):
    """A batch in which the tokens of `special` are special ones and each context is a document of its own."""
    tokens = torch.as_tensor(tokens)
    documents = torch.arange(len(tokens))[:, None].expand_as(tokens)
    positions = torch.arange(tokens.shape[1]).expand_as(tokens)
    positions = positions.masked_fill(torch.isin(tokens, torch.tensor(special)), -1)
    return TokenBatch(tokens, documents, positions, torch.full((len(tokens),), tokens.shape[1]))


def random_batch(contexts=6, length=10):
    return make_batch(torch.cat([torch.ones(contexts, 1).long(), torch.randint(2, 40, (contexts, length - 1))], dim=1))


def extractor(model, **settings):
    return Extractor(model, **{"hook_points": LAYERS, "precision": "float32", "store_dtype": "float32", **settings})


@pytest.fixture
def loud(models, tmp_path):
    """The tiny BERT with an embedding for token 39 that is a thousand times as long as the others."""
    folder = Path(shutil.copytree(models["bert"], tmp_path / "loud"))
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][39] *= 1000
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return str(folder)


def test_rows_are_the_hidden_states_of_the_content_tokens(models):
    batch = random_batch()
    reader = extractor(models["bert"], max_norm_ratio=None)
    rows = reader(batch)
    states = capture(reader.load(), LAYERS, input_ids=batch.tokens)

    content = [(c, i) for c in range(6) for i in range(10) if batch.tokens[c, i] > 2]
    assert rows.tokens.tolist() == [int(batch.tokens[at]) for at in content]
    assert list(zip(rows.documents.tolist(), rows.positions.tolist(), strict=True)) == content
    assert list(rows.activations) == LAYERS
    for name in LAYERS:
        assert torch.equal(rows.activations[name], torch.stack([states[name][at] for at in content]))


def test_an_outlier_is_left_out_at_every_hook_point(loud):
    batch = make_batch([[1, 5, 39, 7, 8, 9], [1, 3, 4, 5, 6, 2]])
    # Layer norms hide the length of the embedding from the layer, where the row must be missing all the same.
    names = ["embeddings.word_embeddings", "encoder.layer.0"]
    rows = extractor(loud, hook_points=names)(batch)
    assert rows.tokens.tolist() == [5, 7, 8, 9, 3, 4, 5, 6]
    assert {len(states) for states in rows.activations.values()} == {8}
    assert rows.positions.tolist() == [1, 3, 4, 5, 1, 2, 3, 4]
    assert 39 in extractor(loud, hook_points=names, max_norm_ratio=None)(batch).tokens
    assert 39 in extractor(loud, hook_points=names[1:])(batch).tokens


def test_which_rows_are_kept_does_not_depend_on_batches(models):
    batch = random_batch(contexts=8, length=12)
    reader = extractor(models["bert"], hook_points=["embeddings.word_embeddings"], max_norm_ratio=1.05)
    whole = reader(batch)
    assert 0 < len(whole.tokens) < int((batch.positions >= 0).sum())
    parts = [
        reader(TokenBatch(*(column[start : start + size] for column in batch)))
        for start, size in [(0, 1), (1, 5), (6, 2)]
    ]
    for name in ("tokens", "documents", "positions"):
        assert torch.equal(getattr(whole, name), torch.cat([getattr(part, name) for part in parts]))


def test_contexts_of_special_tokens_alone_give_no_rows(models):
    rows = extractor(models["bert"])(make_batch([[1, 2, 2]]))
    assert len(rows.tokens) == 0
    assert rows.activations[LAYERS[0]].shape == (0, 16)


def test_nothing_is_loaded_before_it_is_needed(models):
    extractor("./nowhere")
    reader = extractor(models["bert"])
    backbone = reader.load()
    assert reader.load() is backbone
    reader.unload()
    assert reader.load() is not backbone


def test_shapes(models):
    names = ["encoder.layer.1", "encoder.layer.0.intermediate"]
    assert extractor(models["bert"], hook_points=names).shapes() == dict(zip(names, (16, 32), strict=True))


def test_describes_what_decides_the_rows(models):
    settings = extractor(models["bert"], max_norm_ratio=5.0, device="cpu").describe()
    assert json.loads(json.dumps(settings)) == settings
    assert len(settings.pop("weights_sha256")) == 64
    assert settings == {
        "model": models["bert"],
        "revision": None,
        "hook_points": LAYERS,
        "dtype": "float32",
        "precision": "float32",
        "attention": None,
        "store_dtype": "float32",
        "keep_special_tokens": False,
        "keep_first_token": None,
        "positions": None,
        "max_norm_ratio": 5.0,
    }


@pytest.mark.parametrize("question", ["_is_avx512_bf16_supported", "_is_amx_tile_supported"])
@pytest.mark.parametrize(("answer", "precision"), [(True, "bfloat16"), (False, "float32")])
def test_auto_takes_bfloat16_where_the_cpu_multiplies_it(models, monkeypatch, question, answer, precision):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda name=name: answer and name == question, raising=False)
    assert extractor(models["bert"], precision="auto", device="cpu").describe()["precision"] == precision


def test_bfloat16_is_near_float32_and_not_equal(models):
    batch = random_batch()
    exact, rounded = (
        extractor(models["bert"], precision=precision)(batch).activations[LAYERS[1]]
        for precision in ("float32", "bfloat16")
    )
    assert rounded.dtype == torch.float32
    error = (rounded - exact).norm() / exact.norm()
    assert 0 < error < 0.02


def test_activations_have_the_dtype_of_the_store(models):
    batch = random_batch()
    exact = extractor(models["bert"])(batch).activations[LAYERS[0]]
    stored = extractor(models["bert"], store_dtype="bfloat16")(batch).activations[LAYERS[0]]
    assert torch.equal(stored, exact.bfloat16())


def test_an_int8_store_gets_exact_rows(models):
    batch = random_batch()
    exact = extractor(models["bert"])(batch).activations[LAYERS[0]]
    assert torch.equal(extractor(models["bert"], store_dtype="int8")(batch).activations[LAYERS[0]], exact)


def test_patterns_and_aliases_name_the_rows(models):
    reader = extractor(models["bert"], hook_points=["encoder.layer.[01]", "residual.0", "mlp.2"])
    names = [*LAYERS, "residual.0", "mlp.2"]
    assert reader.describe()["hook_points"] == names
    assert reader._backbone is None
    assert list(reader.shapes()) == list(reader(random_batch()).activations) == names
    assert reader.describe() == extractor(models["bert"], hook_points=names).describe()


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5"])
def test_weights_in_half_precision_are_computed_as_they_are(models, family):
    batch, names = random_batch(), ["residual.*"]
    settings = {"hook_points": names, "precision": "auto", "max_norm_ratio": None}
    exact = extractor(models[family], **settings | {"precision": "float32"})(batch).activations["residual.2"]
    reader = extractor(models[family], **settings, dtype="bfloat16")
    half = reader(batch).activations["residual.2"]
    assert reader.describe()["precision"] == reader.describe()["dtype"] == "bfloat16"
    assert torch.equal(half, half.bfloat16().float())
    assert 0 < (half - exact).norm() / exact.norm() < 0.05


def test_a_device_map_changes_no_row(models):
    batch = random_batch()
    plain = extractor(models["gpt2"], hook_points=["h.*"])(batch)
    mapped = extractor(models["gpt2"], hook_points=["h.*"], device_map="auto")
    if torch.cuda.is_available():
        pytest.skip("a GPU rounds otherwise")
    assert all(map(torch.equal, plain.activations.values(), mapped(batch).activations.values()))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"dtype": "float16", "precision": "auto"}, "dtype float16 is a hundred times slower .* set dtype to bfloat16"),
        ({"dtype": "bfloat16"}, "precision float32 cannot be had from weights of dtype bfloat16"),
        ({"device_map": "auto", "device": "cpu"}, "device 'cpu' and device_map 'auto' both place the model"),
        ({"revision": "v1"}, "revision 'v1' is of no use"),
        ({"remote_code_of": "bert"}, "remote_code_of names 'bert', but the model is"),
    ],
)
def test_settings_that_cannot_be_are_said_before_anything_is_read(models, settings, sentence):
    with pytest.raises(UserError, match=sentence):
        extractor(models["bert"], **{"device": "cpu"} | settings).load()


def test_broken_weights_are_said(models, tmp_path):
    folder = Path(shutil.copytree(models["bert"], tmp_path / "broken"))
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][39] = torch.nan
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    reader = extractor(str(folder), hook_points=["embeddings"])
    reader(make_batch([[1, 5, 6, 7], [1, 5, 6, 7]]))
    with pytest.raises(UserError, match=r"hook point 'embeddings' are NaN or infinite \(document 1, position 3\)"):
        reader(make_batch([[1, 5, 6, 7], [1, 5, 6, 39]]))


def test_contexts_too_long_for_the_model_are_said(models):
    with pytest.raises(UserError, match="context_length 17 exceeds the 16 positions"):
        extractor(models["bert"])(make_batch([[1] + [5] * 16]))


def test_positions_that_a_model_keeps_for_itself_are_no_room_for_tokens(tmp_path):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    RobertaModel(RobertaConfig(vocab_size=40, max_position_embeddings=16, **sizes)).save_pretrained(tmp_path)
    reader = extractor(str(tmp_path), hook_points=["encoder.layer.0"])
    assert len(reader(make_batch([[0] + [5] * 13])).tokens) == 14
    with pytest.raises(UserError, match="context_length 15 exceeds the 14 positions"):
        reader(make_batch([[0] + [5] * 14]))


def test_a_foreign_tokenizer_is_said(models):
    with pytest.raises(UserError, match="token id 40 is beyond the model's 40: set `tokenizer`"):
        extractor(models["bert"])(make_batch([[1, 40]]))


@pytest.mark.parametrize("device", ["nonsense", "cuda:77"])
def test_a_missing_device_is_said(models, device):
    with pytest.raises(UserError, match=f"device '{device}' cannot be used"):
        extractor(models["bert"], device=device).load()


def test_a_missing_hook_point_is_said_at_loading(models):
    with pytest.raises(UserError, match=r"hook point 'encoder.layer.7' does not exist"):
        extractor(models["bert"], hook_points=["encoder.layer.7"]).load()
