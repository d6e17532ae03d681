"""Texts read by tiny models, against every token by itself."""

from __future__ import annotations

import json

import pytest
import torch

from backbones import TextEncoder, load_tokenizer
from explanations import active, open_reader, side_named
from lightning_modules.autoencoders import (
    AbsTopK,
    BatchTopK,
    Crosscoder,
    CrossLayerTranscoder,
    DatasetScale,
    JumpReLU,
    LayerNormalization,
    TopK,
    Transcoder,
)
from lightning_modules.functional import pooled, similarity_terms
from run_store import UserError
from tests.explanations.readers import LAST, D, autoencoding, save_embedder

TEXTS = ["open the file", "sort a list of text and number the item", "close", "", "read " * 40]


@pytest.fixture(scope="module")
def embedder(tmp_path_factory):
    return save_embedder(tmp_path_factory.mktemp("embedder"))


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    return save_embedder(tmp_path_factory.mktemp("tuned"), seed=1, max_length=12)


def embeddings(model, texts, max_length):
    """[n, d] by the encoder, each text by itself."""
    encoder = TextEncoder(model, precision="float32", normalize=False, max_length=max_length)
    encoder.build()
    tokenizer = load_tokenizer(model)
    rows = []
    for text in texts:
        ids = torch.tensor([tokenizer(text, truncation=True, max_length=max_length)["input_ids"]])
        hidden = encoder.backbone(input_ids=ids).last_hidden_state
        rows.append(pooled(hidden, torch.ones_like(ids, dtype=torch.bool), encoder.pooling))
    return torch.cat(rows).double().detach()


def test_a_text_without_tokens_is_refused_by_name(tmp_path):
    model = save_embedder(tmp_path)
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "post_processor": None}))
    reader = open_reader(autoencoding(TopK(24, k=4)).only, {"model": model})
    with pytest.raises(UserError, match="makes no tokens of the text ' ': take it out"):
        reader.read(["open", " "])


@pytest.mark.parametrize(
    ("autoencoder", "normalization"),
    [
        (TopK(24, k=4), DatasetScale()),
        (BatchTopK(24, k=4), LayerNormalization()),
        (AbsTopK(24, k=4), DatasetScale()),
        (JumpReLU(24), LayerNormalization()),
    ],
    ids=lambda part: type(part).__name__,
)
def test_parts_make_up_the_embedding_and_codes_are_those_of_the_tokens(embedder, autoencoder, normalization):
    model = autoencoding(autoencoder, normalization=normalization)
    reader = open_reader(model.only, {"model": embedder})
    read = reader.read(TEXTS)[LAST]
    torch.testing.assert_close(read.pooled, embeddings(embedder, TEXTS, 16), rtol=1e-4, atol=1e-4)
    assert read.truncated.tolist() == [False] * 4 + [True]
    assert read.lengths.tolist() == [5, 11, 3, 2, 16]
    # a text by itself, its tokens through the whole autoencoder
    states = reader._extractor.states(read.tokens[read.text_of_token == 1].unsqueeze(0))[LAST].clone()[0]
    codes, (reconstruction,) = model.only(states)
    scale = model.only.pair([states]).reconstructed[0].scale.double()
    effective = codes.dense().detach().double() / scale
    for latent in range(24):
        torch.testing.assert_close(read.on_tokens(1, latent), effective[:, latent], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(read.error[1], (states - reconstruction).mean(0).detach().double(), rtol=1e-3, atol=1e-5)
    split = read.split(active(read))
    torch.testing.assert_close(split.whole(read.W[active(read)]), read.pooled)


@pytest.mark.parametrize("pooling", ["cls", "lasttoken", "weightedmean"])
def test_other_poolings_are_sums_too(tmp_path, pooling):
    folder = save_embedder(tmp_path, pooling=pooling)
    read = open_reader(autoencoding(TopK(24, k=4)).only, {"model": folder}).read(TEXTS)[LAST]
    torch.testing.assert_close(read.pooled, embeddings(folder, TEXTS, 16), rtol=1e-4, atol=1e-4)


def test_a_crosscoder_tells_of_both_models(embedder, tuned):
    names = (f"base/{LAST}", f"tuned/{LAST}")
    model = autoencoding(BatchTopK(24, k=4, wiring=Crosscoder()), names)
    described = {
        "class_path": "backbones.JointExtractor",
        "init_args": {
            "extractors": {
                "base": {"model": embedder, "hook_points": [LAST], "device": None},
                "tuned": {"model": tuned, "hook_points": [LAST]},
            }
        },
    }
    reader = open_reader(model.only, described)
    assert reader.hook_points == list(names)
    assert side_named(reader, None) == side_named(reader, "tuned") == names[1]
    assert side_named(reader, "base") == names[0]
    with pytest.raises(UserError, match="side 'other' is not there: choose one of base/"):
        side_named(reader, "other")
    read = reader.read(TEXTS)
    # texts are cut as the last model cuts them
    for name, folder in zip(names, (embedder, tuned), strict=True):
        torch.testing.assert_close(read[name].pooled, embeddings(folder, TEXTS, 12), rtol=1e-4, atol=1e-4)
    assert torch.equal(read[names[0]].codes.latents, read[names[1]].codes.latents)
    W_dec = model.autoencoder.W_dec.detach().double()
    assert torch.equal(read[names[0]].W, W_dec[:, :D])
    assert torch.equal(reader.directions(names[1]), W_dec[:, D:])


def test_terms_sum_to_the_cosine_of_the_encoder(embedder):
    model = autoencoding(TopK(24, k=4))
    reader = open_reader(model.only, {"model": embedder})
    queries, documents = (reader.read(texts)[LAST] for texts in (TEXTS[:2], TEXTS[2:]))
    latents = active(queries, documents)
    terms = similarity_terms(queries.split(latents), documents.split(latents), queries.W[latents])
    x, y = (torch.nn.functional.normalize(embeddings(embedder, texts, 16), dim=1) for texts in (TEXTS[:2], TEXTS[2:]))
    torch.testing.assert_close(terms.diagonal + terms.cross + terms.residual, x @ y.T, rtol=0, atol=1e-6)


def test_prompts_stand_in_front(embedder):
    reader = open_reader(autoencoding(TopK(24, k=4)).only, {"model": embedder})
    with_prompt, written_out = reader.read(["file"], "read the ")[LAST], reader.read(["read the file"])[LAST]
    assert torch.equal(with_prompt.pooled, written_out.pooled)


def test_what_texts_share_a_reading_changes_nothing(embedder):
    reader = open_reader(autoencoding(TopK(24, k=4)).only, {"model": embedder})
    together = reader.read(TEXTS)[LAST]
    for place, text in enumerate(TEXTS):
        alone = reader.read([text])[LAST]
        torch.testing.assert_close(alone.pooled[0], together.pooled[place], rtol=1e-4, atol=1e-5)
        assert alone.tokens_of(0) == together.tokens_of(place)


def test_another_place_than_the_pooled_one_is_refused_with_the_right_one(embedder):
    model = autoencoding(TopK(24, k=4), ("encoder.layer.0",))
    with pytest.raises(UserError, match=rf"'encoder.layer.0' is not where .* on {LAST}$"):
        open_reader(model.only, {"model": embedder}).read(TEXTS)


def test_what_cannot_be_taken_apart_is_refused(tmp_path, embedder):
    maxima = save_embedder(tmp_path / "maxima", pooling="max")
    with pytest.raises(UserError, match="pools by the maximum"):
        open_reader(autoencoding(TopK(24, k=4)).only, {"model": maxima}).load()
    across = autoencoding(JumpReLU(24, wiring=CrossLayerTranscoder()), ("residual.0", "residual.1", "mlp.1", "mlp.2"))
    with pytest.raises(UserError, match="CrossLayerTranscoder decodes latents in its own way"):
        open_reader(across.only, {"model": embedder}).load()
    for described in ({}, {"class_path": "Mine", "init_args": {"x": 1}}):
        with pytest.raises(UserError, match="not known which model"):
            open_reader(autoencoding(TopK(24, k=4)).only, described)


def test_what_passes_by_the_latents_is_bias(embedder):
    model = autoencoding(TopK(24, k=4, wiring=Transcoder(skip=True)), ("encoder.layer.1:input", LAST))
    read = open_reader(model.only, {"model": embedder}).read(TEXTS)[LAST]
    torch.testing.assert_close(read.pooled, embeddings(embedder, TEXTS, 16), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pooling", ["mean", "cls", "weightedmean"])
def test_without_tokens_the_same_texts_are_told(tmp_path, pooling):
    model = save_embedder(tmp_path, pooling=pooling)
    reader = open_reader(autoencoding(AbsTopK(24, k=4), normalization=LayerNormalization()).only, {"model": model})
    whole, short = (reader.read(TEXTS, "of ", by_token=by_token)[LAST] for by_token in (True, False))
    assert torch.equal(whole.codes.rows, short.codes.rows)
    assert torch.equal(whole.codes.latents, short.codes.latents)
    torch.testing.assert_close(whole.codes.values, short.codes.values)
    torch.testing.assert_close(whole.pooled, short.pooled)
    assert short.firings(0) == []
    assert whole.firings(0)


def test_a_base_that_says_no_pooling_has_that_of_the_model_that_began_from_it(tmp_path):
    for name in ("base", "tuned"):
        (tmp_path / name).mkdir()
    base, tuned = (save_embedder(tmp_path / name, pooling="cls") for name in ("base", "tuned"))
    models = {"base": {"model": base}, "tuned": {"model": tuned}}
    names = tuple(f"{name}/{LAST}" for name in models)
    member = autoencoding(BatchTopK(24, k=4, wiring=Crosscoder()), names).only
    (tmp_path / "base" / "modules.json").unlink()
    encoders = open_reader(member, models).encoders
    assert [encoders[name].pooling for name in names] == ["cls", "cls"]
    (tmp_path / "tuned" / "modules.json").unlink()
    assert open_reader(member, models).encoders[names[1]].pooling == "mean"
