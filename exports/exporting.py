"""From a trained model to a folder that others load."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from exports.formats import FORMATS, FormatName
from exports.lineage import lineage_of, write_lineage
from exports.model_card import model_card, sweep_card
from exports.provenance import Provenance
from exports.trained import Trained
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from run_store import atomic_file, atomic_folder

CARD = "README.md"


def export_model(model: SparseAutoencoding, output: Path, format: FormatName, trained: Trained | None = None) -> str:
    """Writes weights, settings and model card into a new folder, which appears whole or not at all.

    Args:
        model: built and trained.
        output: the folder; it may be there if it is empty.
        format: of the files.
        trained: where the model is from, for metadata and card.

    Returns:
        What loads it, as a line of code.

    Raises:
        UserError: the format cannot hold this model, or there is something in the folder.
    """
    chosen = FORMATS[format]
    provenance = Provenance.of(trained)
    files = chosen.to_files(model, provenance.metadata())
    card = model_card(model, format, chosen.loading.format(folder=output.name), provenance)
    with atomic_folder(output) as folder:
        files.write(folder)
        (folder / CARD).write_text(card, encoding="utf-8")
        if trained is not None:
            write_lineage(lineage_of(trained), folder)
    return chosen.loading.format(folder=output)


def write_sweep_card(folder: Path, format: str, members: Mapping[str, Trained]) -> None:
    """Writes the card of a folder in which each member of a sweep has a folder by its name; the format is one of
    `FORMATS`.
    """
    (library,) = (known for known in FORMATS if known == format)
    card = sweep_card(library, {name: Provenance.of(trained) for name, trained in members.items()})
    with atomic_file(folder / CARD) as temporary:
        temporary.write_text(card, encoding="utf-8")
