"""Nothing that goes wrong with predictions stops a training."""

import warnings

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from torch.utils.data import DataLoader

from callbacks import SamplePredictions
from lightning_modules.autoencoders import TopK
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from tests.callbacks.small_models import activations, fitted, kept

SHORT = {"text_tokens": 12, "continuation_tokens": 4}


def told_by(folder, parts, callback, *others, **settings):
    """A training, and what it says of predictions but for what they cost."""
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        fit, _ = fitted(folder, parts, callback, *others, **settings)
    told = [str(each.message) for each in record if "redictions" in str(each.message)]
    return fit, [sentence for sentence in told if "took" not in sentence]


@pytest.mark.first_is_fast
@pytest.mark.parametrize("content", [None, "", '{"prompt": 3}', '{"prompt": "a"'])
def test_a_missing_or_malformed_file_is_one_sentence_and_training_goes_on(parts, tmp_path, content):
    file = tmp_path / "samples.jsonl"
    if content is not None:
        file.write_text(content)
    fit, (sentence,) = told_by(tmp_path, parts, SamplePredictions(samples=str(file)))
    assert sentence.startswith("callback SamplePredictions is off, and training goes on: ")
    assert str(file) in sentence
    assert fit.global_step == 8
    assert kept(tmp_path) == ([], [])


class Bare(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))

    def training_step(self, batch, batch_idx):
        return self.weight.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self):
        return DataLoader(torch.ones(3, 1))


def test_a_model_that_predicts_nothing_is_one_sentence(tmp_path):
    fit, (sentence,) = told_by(tmp_path, lambda: (Bare(), None), SamplePredictions())
    assert "is off, and training goes on: model Bare predicts nothing" in sentence
    assert fit.global_step == 6


def test_an_unknown_origin_of_activations_is_one_sentence_where_it_is_needed(products, tmp_path):
    (tmp_path / "samples.jsonl").write_text('{"prompt": "x"}')
    callbacks = SamplePredictions(samples=str(tmp_path / "samples.jsonl")), SamplePredictions(**SHORT)

    def unknown():
        data = activations(str(products / "gpt2"), products / "store", ["residual.1"], known=False)
        return SparseAutoencoding(TopK(48, 4)), data

    _, (sentence,) = told_by(tmp_path / "file", unknown, callbacks[0])
    assert "is off, and training goes on: " in sentence
    assert "set data.extractor and data.text" in sentence
    _, nothing = told_by(tmp_path / "validation", unknown, callbacks[1])
    assert nothing == []
    assert len(kept(tmp_path / "validation")[1]) == 10


class Broken(Callback):
    """Breaks what answers for a while."""

    def __init__(self, callback, moments, error):
        self.callback, self.moments, self.error = callback, moments, error

    def on_train_start(self, *_):
        whole, self.asked = self.callback._predictor.answers, 0

        def answers():
            self.asked += 1
            if self.asked in self.moments:
                raise self.error
            return whole()

        self.callback._predictor.answers = answers


def test_a_failing_answer_is_told_once_and_counted_at_the_end(parts, tmp_path):
    callback = SamplePredictions(**SHORT)
    broken = Broken(callback, (1, 2), RuntimeError("no\nmemory"))
    _, told = told_by(tmp_path, parts, callback, broken, max_epochs=3)
    assert told == [
        "no predictions of samples at step 4, and training goes on: RuntimeError: no memory",
        "predictions of samples failed at 2 of 3 moments",
    ]
    assert {each.step for each in kept(tmp_path)[1]} == {12}


class FullDisk(Callback):
    """Puts a folder in the place of the store until an epoch begins."""

    def __init__(self, path, until):
        self.path, self.until = path, until

    def on_train_start(self, *_):
        self.path.mkdir()

    def on_train_epoch_start(self, trainer, *_):
        if trainer.current_epoch == self.until:
            self.path.rmdir()


@pytest.mark.slow
def test_what_cannot_be_written_is_kept_and_written_later(parts, tmp_path):
    disk = FullDisk(tmp_path / "predictions.sqlite", 2)
    _, (first, last) = told_by(tmp_path, parts, SamplePredictions(**SHORT), disk, max_epochs=3)
    assert "cannot be written now" in first
    assert "2 times: no prediction is lost" in last
    assert sorted({each.step for each in kept(tmp_path)[1]}) == [4, 8, 12]


@pytest.mark.first_is_fast
def test_what_is_lost_is_counted(parts, tmp_path):
    disk = FullDisk(tmp_path / "predictions.sqlite", 99)
    fit, told = told_by(tmp_path, parts, SamplePredictions(**SHORT), disk)
    assert "10 predictions are lost" in told[-1]
    assert fit.global_step == 8
