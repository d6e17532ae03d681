"""What is told of texts, against the same worked out one token at a time."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from datamodules.synthetic import FeatureSettings
from datamodules.synthetic_activations import SyntheticActivations
from lightning_modules.autoencoders import BatchTopK, Crosscoder, ReLU, TopK, Transcoder
from lightning_modules.members import Member
from lightning_modules.predictions import AnswerSettings, Sample
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from run_store import UserError
from tests.callbacks.small_models import activations, save_bert, save_gpt2, trainer

SETTINGS = AnswerSettings(top_k=3, text_tokens=16, continuation_tokens=6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("latents")
    save_gpt2(folder / "gpt2")
    save_bert(folder / "bert")
    return folder


@pytest.fixture
def trained(folder, tmp_path):
    """trained(autoencoder, model, hook_points, known, **settings) → a module after some steps, with its data."""

    def train(autoencoder, model="gpt2", hook_points=("residual.1",), known=True, **settings):
        if model == "bert":
            hook_points = ("encoder.layer.0",)
        data = activations(str(folder / model), folder / f"{model} {' '.join(hook_points)}", hook_points, known)
        module = SparseAutoencoding(autoencoder, **settings)
        trainer(tmp_path, max_epochs=1, limit_val_batches=0).fit(module, data)
        return module.eval()

    return train


def texts_of(module, *arguments):
    predictor = module.predictor(*arguments)
    with torch.no_grad():
        return predictor, predictor.answers()


@pytest.mark.first_is_fast
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    ("autoencoder", "hook_points"),
    [
        (TopK(48, 4), ("residual.1",)),
        (ReLU(48), ("residual.1",)),
        (BatchTopK(48, 4), ("residual.1",)),
        (TopK(48, 4, wiring=Transcoder()), ("residual.1", "residual.2")),
        (TopK(48, 4, wiring=Crosscoder()), ("residual.1", "residual.2")),
    ],
    ids=["topk", "relu", "batch_topk", "transcoder", "crosscoder"],
)
def test_tokens_latents_and_errors(trained, autoencoder, hook_points, known):
    module = trained(autoencoder, hook_points=hook_points, known=known)
    predictor, answers = texts_of(module, None, 4, 0, SETTINGS)
    assert [answer.sample.index for answer in answers] == [0, 1, 2, 3]
    member = module.only
    outputs = [hook_points[place] for place in member.pair.sides.reconstructed]
    for answer, text in zip(answers, predictor._texts, strict=True):
        assert "".join(token["text"] for token in answer.prediction["tokens"]) == answer.sample.prompt
        missed, spread, fired = 0.0, 0.0, 0
        for place, token in enumerate(answer.prediction["tokens"]):
            row = [part[place : place + 1] for part in text.activations]
            with torch.no_grad():
                codes, reconstructions = member(*row)
                mean = member.pair(row).undo(member.autoencoder.mean.expand(1, -1))
            targets = [row[hook_points.index(name)] for name in outputs]
            error = sum(float((y - part).square().sum()) for y, part in zip(targets, reconstructions, strict=True))
            whole = sum(float((y - part).square().sum()) for y, part in zip(targets, mean, strict=True))
            assert token["error"] == pytest.approx(error / whole, rel=1e-3)
            values = codes.dense()[0]
            for latent, value in token["latents"]:
                assert value == pytest.approx(float(values[latent]), rel=1e-3)
            strongest = values.abs().topk(3).values
            assert [abs(value) for _, value in token["latents"]] == pytest.approx(
                strongest[strongest > 0].tolist(), rel=1e-3
            )
            missed, spread, fired = missed + error, spread + whole, fired + int((values != 0).sum())
        assert answer.scores["fvu"] == pytest.approx(missed / spread, rel=1e-3)
        assert answer.scores["l0"] == pytest.approx(fired / len(text.tokens))
        assert answer.scores["max_error"] == max(token["error"] for token in answer.prediction["tokens"])
        assert ("continuation" in answer.prediction) == known
        json.dumps(answer.prediction)


def test_texts_are_held_out_and_are_what_the_seed_draws(trained):
    module = trained(TopK(48, 4))
    first, again, other = ([text.text for text in module.predictor(None, 5, s, SETTINGS)._texts] for s in (0, 0, 1))
    assert first == again != other


def test_the_pieces_of_the_validation_set(trained):
    """Every stretch of rows of a document that is held out, one after the other."""
    module = trained(TopK(48, 4))
    store, rows = module.data.store, torch.tensor(sorted(validation_rows(module)))
    documents = store.provenance(rows).documents
    expected = [piece for n in documents.unique() for piece in rows[documents == n].split(16) if len(piece) == 16]
    reader = module.data.text_samples()
    assert reader.pieces(16) == len(expected) > 5
    for place, piece in enumerate(expected):
        text = reader.stored(place, 16)
        assert torch.equal(text.activations[0], store.read(piece)[0])
        assert torch.equal(text.ids, store.provenance(piece).tokens.long())


def validation_rows(module):
    return torch.cat([batch.rows for batch in module.data.val_dataloader()]).tolist()


def test_a_text_of_a_file_is_read_by_the_model(trained, folder):
    module = trained(TopK(48, 4))
    samples = [Sample(3, "def f(x):"), Sample(5, "x = 'é' # " + "long " * 20)]
    predictor, answers = texts_of(module, samples, 5, 0, SETTINGS)
    assert [answer.sample for answer in answers] == samples
    assert "".join(token["text"] for token in answers[0].prediction["tokens"]) == "def f(x):"
    assert len(answers[1].prediction["tokens"]) == 16
    model = AutoModelForCausalLM.from_pretrained(folder / "gpt2")
    ids = torch.cat([torch.tensor([256]), predictor._texts[0].ids])[None]
    with torch.no_grad():
        hidden = model(ids, output_hidden_states=True).hidden_states[1][0, 1:]
    torch.testing.assert_close(predictor._texts[0].activations[0], hidden, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_perfect_reconstruction_goes_on_as_the_model_does_and_a_silent_one_does_not(trained):
    with torch.enable_grad():
        module = trained(ReLU(32)).requires_grad_(False)
    # x = relu(x) − relu(−x)
    both = torch.cat([torch.eye(16), -torch.eye(16)])
    module.autoencoder.W_enc.copy_(both)
    module.autoencoder.W_dec.copy_(both)
    module.autoencoder.b_enc.zero_()
    module.autoencoder.b_dec.zero_()
    predictor, answers = texts_of(module, None, 4, 0, SETTINGS)
    for answer in answers:
        said = answer.prediction["continuation"]
        assert said["original"] == said["spliced"]
        assert answer.scores["fvu"] == pytest.approx(0, abs=1e-5)
    module.autoencoder.W_dec.zero_()
    silent = predictor.answers()
    said = [answer.prediction["continuation"] for answer in silent]
    assert [one["original"] for one in said] == [answer.prediction["continuation"]["original"] for answer in answers]
    assert any(one["original"] != one["spliced"] for one in said)
    assert silent[0].shown["with the reconstruction"] == [said[0]["spliced"]]


def test_the_continuation_is_the_models_own(trained, folder):
    module = trained(TopK(48, 4))
    predictor, answers = texts_of(module, [Sample(0, "import os"), Sample(1, "def f(x)")], 5, 0, SETTINGS)
    model = AutoModelForCausalLM.from_pretrained(folder / "gpt2")
    tokenizer = module.data.tokenizer()
    for answer, text in zip(answers, predictor._texts, strict=True):
        ids = torch.cat([torch.tensor([256]), text.ids])
        for _ in range(6):
            with torch.no_grad():
                ids = torch.cat([ids, model(ids[None]).logits[0, -1].argmax()[None]])
        following = ids[-6:].tolist()
        following = following[: following.index(256)] if 256 in following else following
        assert answer.prediction["continuation"]["original"] == tokenizer.decode(following)


def test_each_member_of_a_sweep_is_told_of_as_it_would_be_alone(trained):
    members = {"few": Member(TopK(48, 2)), "many": Member(TopK(48, 8))}
    _, together = texts_of(trained(TopK(48), members=members), None, 3, 0, SETTINGS)
    assert [(answer.member, answer.sample.index) for answer in together] == [
        (name, index) for name in members for index in range(3)
    ]
    assert {answer.member: answer.scores["l0"] for answer in together} == {"few": 2.0, "many": 8.0}


def test_a_model_that_predicts_no_text_goes_on_with_none(trained):
    _, answers = texts_of(trained(TopK(48, 4), "bert"), None, 2, 0, SETTINGS)
    assert all("continuation" not in answer.prediction and "goes on" not in answer.shown for answer in answers)


def test_short_documents_are_told_of_too(trained):
    predictor, _ = texts_of(
        trained(TopK(48, 4)), None, 3, 0, AnswerSettings(text_tokens=100_000, continuation_tokens=0)
    )
    assert all(len(text.ids) > 100 for text in predictor._texts)


def test_texts_of_a_file_need_the_model(trained):
    with pytest.raises(UserError, match=r"set data\.extractor and data\.text"):
        trained(TopK(48, 4), known=False).predictor([Sample(0, "x")], 5, 0, SETTINGS)


def test_activations_of_no_text_are_one_sentence(tmp_path):
    module = SparseAutoencoding(TopK(16, 2))
    data = SyntheticActivations(FeatureSettings(d=8, count=12, mean_l0=2.0), batch_size=64, validation_rows=64)
    trainer(tmp_path, max_epochs=1).fit(module, data)
    with pytest.raises(UserError, match="SyntheticActivations are not those of a text"):
        module.predictor(None, 5, 0, SETTINGS)
