"""What is retrieved for prompts, against a loop over plain cosines."""

import json
from functools import cache

import pytest
import torch
from lightning.pytorch import Trainer

from backbones import TextEncoder
from datamodules.contrastive_triplets import TripletDataModule
from datamodules.triplets import TripletFiles
from lightning_modules.contrastive_embedding import ContrastiveEmbedding
from lightning_modules.predictions import AnswerSettings, Sample
from run_store import UserError
from tests.exports.encoders import save_qwen

ROWS = [
    {"anchor": f"gives {i % 30}", "positive": f"def f{i}(): return {i}", "negative": f"def g{i}(): pass"}
    for i in range(60)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("retrieval")
    save_qwen(folder / "qwen")
    # an anchor is a document, too
    rows = [*ROWS, {"anchor": ROWS[0]["positive"], "positive": "itself", "negative": ROWS[0]["anchor"]}]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def module(folder):
    """A model with its data, before the first step."""
    encoder = TextEncoder(str(folder / "qwen"), pooling="last_token", max_length=32, precision="float32")
    module = ContrastiveEmbedding(encoder)
    source = TripletFiles(str(folder / "rows.jsonl"))
    data = TripletDataModule(
        source, 8, validation=TripletFiles(str(folder / "rows.jsonl")), test_share=0.0, cache=str(folder / "cache")
    )
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.strategy.connect(module)
    module.trainer, data.trainer = trainer, trainer
    trainer.datamodule = data
    trainer._data_connector.attach_data(module, datamodule=data)
    module.configure_model()
    data.prepare_data()
    data.setup("fit")
    return module.eval()


@cache
def embedded(module, text, column):
    return torch.nn.functional.normalize(module.embed(module.data.tokenised([text], column)), dim=1)[0]


def documents():
    return sorted({row[column] for row in ROWS for column in ("positive", "negative")} | {"itself", ROWS[0]["anchor"]})


def by_hand(module, sample, truths, top_k):
    """Rank, margin and the texts retrieved, one document after the other."""
    query = embedded(module, sample.prompt, "anchor")
    candidates = [text for text in {*documents(), *truths} if text != sample.prompt]
    scores = {text: float(query @ embedded(module, text, "positive")) for text in candidates}
    best = max(scores[text] for text in truths)
    wrong = [score for text, score in scores.items() if text not in truths]
    rank = 1 + sum(score >= best - 1e-6 for score in wrong)
    return rank, best - max(wrong), sorted(scores, key=scores.__getitem__, reverse=True)[:top_k], len(candidates)


def test_anchors_of_the_validation_set(module):
    answers = module.predictor(None, 8, 0, AnswerSettings(top_k=4)).answers()
    assert [answer.sample.index for answer in answers] == list(range(8))
    for answer in answers:
        truths = {row["positive"] for row in ROWS if row["anchor"] == answer.sample.prompt} or {"itself"}
        assert answer.sample.ground_truth in truths
        rank, margin, texts, candidates = by_hand(module, answer.sample, truths, 4)
        assert (answer.prediction["rank"], answer.prediction["of"]) == (rank, candidates)
        assert answer.prediction["margin"] == pytest.approx(margin, abs=1e-5)
        assert answer.scores == {"rank": rank, "reciprocal_rank": 1 / rank, "margin": answer.prediction["margin"]}
        assert [found["text"] for found in answer.prediction["retrieved"]] == texts
        assert [found["relevant"] for found in answer.prediction["retrieved"]] == [text in truths for text in texts]
        json.dumps(answer.prediction)


def test_the_prompt_itself_is_not_found(module):
    answers = module.predictor(None, 100, 0, AnswerSettings(top_k=200)).answers()
    assert len(answers) == 31
    (own,) = (answer for answer in answers if answer.sample.prompt == ROWS[0]["positive"])
    assert ROWS[0]["positive"] not in [found["text"] for found in own.prediction["retrieved"]]
    assert own.prediction["of"] == len(own.prediction["retrieved"]) == len(documents()) - 1


def test_samples_of_a_file(module):
    samples = [
        Sample(4, "gives 7", "def f7(): return 7"),  # a document
        Sample(2, "gives 8", "nothing that anybody held out"),  # a text of its own
        Sample(9, "gives 9", "another of its own"),
        Sample(11, "gives 10"),
    ]
    answers = module.predictor(samples, 5, 0, AnswerSettings(top_k=3)).answers()
    assert [answer.sample for answer in answers] == samples
    for answer in answers[:3]:
        rank, margin, texts, candidates = by_hand(module, answer.sample, {answer.sample.ground_truth}, 3)
        assert (answer.prediction["rank"], answer.prediction["of"]) == (rank, candidates)
        assert answer.prediction["margin"] == pytest.approx(margin, abs=1e-5)
        assert [found["text"] for found in answer.prediction["retrieved"]] == texts
    without = answers[3]
    assert without.scores == {}
    assert {"rank", "margin"}.isdisjoint(without.prediction)
    assert "ground truth" not in without.shown
    assert without.prediction["of"] == len(documents())


def test_samples_without_any_ground_truth(module):
    (answer,) = module.predictor([Sample(0, "gives 7")], 5, 0, AnswerSettings()).answers()
    assert len(answer.prediction["retrieved"]) == 5


def test_the_embeddings_of_a_validation_are_taken_and_no_others(module):
    predictor = module.predictor(None, 3, 0, AnswerSettings())
    embedded_texts = []
    embed = predictor._embed
    predictor._embed = lambda texts: embedded_texts.append(len(texts[0].lengths)) or embed(texts)
    plain = predictor.answers()
    assert sum(embedded_texts) == len(documents()) + 3

    embedded_texts.clear()
    module._measured(module.data.val_dataloader())
    kept = predictor.answers()
    assert sum(embedded_texts) == 3
    for one, other in zip(plain, kept, strict=True):
        assert one.scores == pytest.approx(other.scores, abs=1e-5)

    # a validation that was cut short has other documents
    embedded_texts.clear()
    module._measured([next(iter(module.data.val_dataloader()))])
    predictor.answers()
    assert sum(embedded_texts) == len(documents()) + 3

    # and after a step they are others'
    module._measured(module.data.val_dataloader())
    module.log = lambda *_, **__: None
    module.trainer.strategy._optimizers = [torch.optim.SGD(module.parameters(), lr=1.0)]
    module.training_step(next(iter(module.data.train_dataloader())), 0)
    assert module.evaluation.retrieval.kept is None


def test_without_a_predictor_nothing_is_kept(module):
    module._measured(module.data.val_dataloader())
    assert module.evaluation.retrieval.kept is None


def test_nothing_held_out_is_one_sentence(module):
    module.data._rows["validation"] = torch.empty(0, dtype=torch.int64)
    with pytest.raises(UserError, match="no example is held out for validation"):
        module.predictor(None, 3, 0, AnswerSettings())
