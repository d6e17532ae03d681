"""What a run may have trained, and which formats there are for it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from exports.encoder_card import Training
from exports.encoder_formats import ENCODER_FORMATS
from exports.encoders import export_encoder
from exports.exporting import export_model
from exports.formats import FORMATS
from exports.trained import Trained, holds_encoder, load_encoder, load_trained, members_of
from run_store import UserError
from run_store.selection import Direction


class Kind(ABC):
    """Of what was trained.

    Attributes:
        what: in words.
        formats: names of those that hold it.
        metric: what the best checkpoint is chosen by where nothing is said.
        direction: whether its lowest or highest value is the best.
    """

    what: str
    formats: tuple[str, ...]
    metric: str
    direction: Direction

    def check_format(self, format: str) -> None:
        """Raises:
        UserError: the format does not hold it.
        """
        if format not in self.formats:
            raise UserError(
                f"format {format} is not for a {self.what}, which this is: choose {', '.join(self.formats[:-1])} or "
                f"{self.formats[-1]}"
            )

    @abstractmethod
    def members(self, trained: Trained) -> list[str | None]:
        """Names of the models in a checkpoint; None alone where it holds one without a name."""

    @abstractmethod
    def export(self, trained: Trained, output: Path, format: str) -> str:
        """Writes the model into a new folder.

        Args:
            trained: which one.
            output: the folder; it may be there if it is empty.
            format: of the files, one of `formats`.

        Returns:
            What loads it.

        Raises:
            UserError: the format cannot hold this model, or there is something in the folder.
        """


class AutoencoderKind(Kind):
    """A run of `SparseAutoencoding`, or what `import` has made."""

    what = "sparse autoencoder"
    formats = tuple(FORMATS)
    metric = "val/fvu"
    direction = "min"

    def members(self, trained: Trained) -> list[str | None]:
        return members_of(trained)

    def export(self, trained: Trained, output: Path, format: str) -> str:
        (name,) = (known for known in FORMATS if known == format)
        return export_model(load_trained(trained), output, name, trained)


class EncoderKind(Kind):
    """A run of `ContrastiveEmbedding`."""

    what = "text encoder"
    formats = tuple(ENCODER_FORMATS)
    metric = "val/ndcg@10"
    direction = "max"

    def members(self, trained: Trained) -> list[str | None]:
        return [None]

    def export(self, trained: Trained, output: Path, format: str) -> str:
        if trained.member is not None:
            raise UserError(f"there is no member {trained.member!r}, since a text encoder has none: leave it out")
        (name,) = (known for known in ENCODER_FORMATS if known == format)
        return export_encoder(load_encoder(trained), output, name, Training.of(trained))


def kind_of(trained: Trained) -> Kind:
    """Raises:
    UserError: the checkpoint is damaged.
    """
    return EncoderKind() if holds_encoder(trained) else AutoencoderKind()
