from pathlib import Path

import pytest
import torch
from google.protobuf import text_format
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig
from torch.utils.data import DataLoader

from callbacks import EmbeddingProjector
from callbacks.embedding_projector import one_line
from lightning_modules.embedding_evaluation import ShownEmbeddings, Similarities
from run_store import UserError

TEXTS = ["def f():\n\treturn 1", "two\r\nlines", "", "  indented", "a\u2028b", "lone \ud800 surrogate", "x" * 300]


class Bare(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3))

    def training_step(self, batch, batch_idx):
        return self.weight.square().sum()

    def validation_step(self, batch, batch_idx):
        pass

    def test_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Shown(Bare):
    """Embeddings that change with every step."""

    def validation_embeddings(self, texts):
        roles = [("anchor", "positive", "negative")[place % 3] for place in range(len(TEXTS))]
        rows = torch.arange(len(TEXTS) * 3).view(-1, 3) * self.weight
        return ShownEmbeddings(rows[:texts], TEXTS[:texts], roles[:texts])

    def validation_similarities(self):
        return Similarities(torch.tensor([0.9, 0.8]), torch.tensor([[0.1, 0.2], [0.3, -0.5]]))


class WithoutNegatives(Shown):
    def validation_embeddings(self, texts):
        return ShownEmbeddings(torch.zeros(0, 3), [], [])

    def validation_similarities(self):
        return Similarities(torch.tensor([0.9, 0.8]), torch.zeros(2, 0))


def rows():
    return DataLoader(torch.zeros(2, 1), batch_size=1)


def trainer(logger, epochs=2, **settings):
    return Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=logger,
        callbacks=[EmbeddingProjector(**settings)],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=1,
    )


def shown_in(folder):
    """Step → (tensors, lines of metadata), as the projector's configuration names them."""
    config = text_format.Parse((Path(folder) / "projector_config.pbtxt").read_text(), ProjectorConfig())
    found = {}
    for entry in config.embeddings:
        tensors, labels = ((Path(folder) / path).read_text() for path in (entry.tensor_path, entry.metadata_path))
        numbers = [[float(cell) for cell in line.split("\t")] for line in tensors.splitlines()]
        found[entry.tensor_name] = torch.tensor(numbers), labels.removesuffix("\n").split("\n")
    return found


def histograms(folder):
    events = EventAccumulator(str(folder), size_guidance={"histograms": 0}).Reload()
    return {tag: events.Histograms(tag) for tag in events.Tags()["histograms"]}


def test_a_training_ends_with_its_texts_in_the_projector(tmp_path):
    logger, model = TensorBoardLogger(tmp_path), Shown()
    trainer(logger).fit(model, rows(), rows())
    ((name, (tensors, lines)),) = shown_in(logger.log_dir).items()
    assert name == "texts:00004"
    torch.testing.assert_close(tensors, model.validation_embeddings(10).embeddings.detach())
    assert lines == [
        "text\trole",
        "def f():⏎⇥return 1\tanchor",
        "two⏎lines\tpositive",
        "\tnegative",
        "  indented\tanchor",
        "a⏎b\tpositive",
        "lone ? surrogate\tnegative",
        "x" * 199 + "…\tanchor",
    ]


def test_similarities_are_histograms_of_each_validation(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    trainer(logger).fit(Shown(), rows(), rows())
    found = histograms(logger.log_dir)
    assert sorted(found) == ["val/similarities of negatives", "val/similarities of positives"]
    for events in found.values():
        assert [event.step for event in events] == [2, 4]
    negatives = found["val/similarities of negatives"][0].histogram_value
    assert (negatives.num, negatives.min, negatives.max) == (4, pytest.approx(-0.5), pytest.approx(0.3))


def test_every_validation_can_be_shown_with_fewer_texts(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    trainer(logger, texts=2, characters=5, every_validation=True).fit(Shown(), rows(), rows())
    found = shown_in(logger.log_dir)
    assert list(found) == ["texts:00002", "texts:00004"]
    before, after = (tensors for tensors, _ in found.values())
    assert before.shape == (2, 3)
    assert not torch.equal(before, after)
    assert found["texts:00004"][1] == ["text\trole", "def …\tanchor", "two⏎…\tpositive"]


@pytest.mark.parametrize(("way", "prefix"), [("validate", "val"), ("test", "test")])
def test_a_measurement_alone_shows_both(tmp_path, way, prefix):
    logger = TensorBoardLogger(tmp_path)
    getattr(trainer(logger), way)(Shown(), rows(), verbose=False)
    assert list(shown_in(logger.log_dir)) == ["texts:00000"]
    assert sorted(histograms(logger.log_dir)) == [
        f"{prefix}/similarities of {name}" for name in Similarities._fields[::-1]
    ]


def test_what_is_empty_is_left_out(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    trainer(logger).fit(WithoutNegatives(), rows(), rows())
    assert list(histograms(logger.log_dir)) == ["val/similarities of positives"]
    assert not (Path(logger.log_dir) / "projector_config.pbtxt").exists()


def test_another_logger_gets_nothing(tmp_path):
    trainer(CSVLogger(tmp_path)).fit(Shown(), rows(), rows())
    assert not list(tmp_path.rglob("*.tsv"))


def test_a_model_without_embeddings_is_refused(tmp_path):
    with pytest.raises(UserError, match="model Bare has none: leave the callback out"):
        trainer(TensorBoardLogger(tmp_path)).fit(Bare(), rows(), rows())


@pytest.mark.parametrize(
    ("text", "characters", "line"),
    [("abc", 3, "abc"), ("abcd", 3, "ab…"), ("a\tb\nc", 9, "a⇥b⏎c"), ("\n\n", 9, "⏎"), ("é𝄞", 2, "é𝄞"), ("ab", 1, "…")],
)
def test_a_text_is_one_line(text, characters, line):
    assert one_line(text, characters) == line
