"""Embeddings in TensorBoard: the projector, and histograms of similarities."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jsonargparse.typing import PositiveInt
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from torch.utils.tensorboard import SummaryWriter

from lightning_modules.embedding_evaluation import ShownEmbeddings, Similarities
from run_store import UserError

TAG = "texts"


@runtime_checkable
class EmbeddingModule(Protocol):
    """What a LightningModule must have to be shown.

    Both speak of the last validation, and are asked after it, and the first once more after the training. All ranks
    are asked at once, so that they may gather; what is written is the answer of the first. Before any validation there
    is nothing to show, and the answers are empty.
    """

    def validation_embeddings(self, texts: int) -> ShownEmbeddings:
        """Embeddings of that many different texts or less, the same texts each time."""

    def validation_similarities(self) -> Similarities:
        """Scores of all triplets, or of a sample of them."""


class EmbeddingProjector(Callback):
    """Writes for TensorBoard the histograms of positive and negative similarities after each validation, and the
    embeddings of some texts for its projector, each with the text and its role, after a training.

    `validate` and `test` write both.

    Args:
        texts: how many are in the projector, at most.
        characters: how many of a text are shown.
        every_validation: the projector gets the embeddings after each validation of a training, too; a file each, of
            about ten bytes a number.
    """

    def __init__(
        self, texts: PositiveInt = 1000, characters: PositiveInt = 200, every_validation: bool = False
    ) -> None:
        self.texts = texts
        self.characters = characters
        self.every_validation = every_validation

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses models that have no embeddings to show.

        Raises:
            UserError: naming the model.
        """
        if not isinstance(pl_module, EmbeddingModule):
            raise UserError(
                f"callback EmbeddingProjector shows embeddings of texts, and model {type(pl_module).__name__} has "
                "none: leave the callback out"
            )

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self._write_similarities(trainer, pl_module, "val")
        if self.every_validation or trainer.state.fn != TrainerFn.FITTING:
            self._write_embeddings(trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write_similarities(trainer, pl_module, "test")
        self._write_embeddings(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.every_validation:
            self._write_embeddings(trainer, pl_module)

    def _write_similarities(self, trainer: Trainer, pl_module: LightningModule, prefix: str) -> None:
        assert isinstance(pl_module, EmbeddingModule)
        for name, scores in pl_module.validation_similarities()._asdict().items():
            for writer in _writers(trainer):
                if scores.numel():
                    writer.add_histogram(f"{prefix}/similarities of {name}", scores.detach(), trainer.global_step)

    def _write_embeddings(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, EmbeddingModule)
        shown = pl_module.validation_embeddings(self.texts)
        labels = [
            [one_line(text, self.characters), one_line(role, len(role))]
            for text, role in zip(shown.texts, shown.roles, strict=True)
        ]
        for writer in _writers(trainer):
            if labels:
                writer.add_embedding(
                    shown.embeddings.detach().float(),
                    metadata=labels,
                    metadata_header=["text", "role"],
                    global_step=trainer.global_step,
                    tag=TAG,
                )


def one_line(text: str, characters: int) -> str:
    """The beginning of a text as a cell of a table of tabs and lines: spaces stay, line ends show as ⏎, tabs as ⇥, and
    what is no character of UTF-8 as ?.
    """
    cut = text if len(text) <= characters else f"{text[: characters - 1]}…"
    line = "⏎".join(cut.splitlines()).replace("\t", "⇥")
    return line.encode("utf-8", "replace").decode("utf-8")


def _writers(trainer: Trainer) -> list[SummaryWriter]:
    if not trainer.is_global_zero:
        return []
    return [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
