"""From a text encoder to a folder that others load."""

from __future__ import annotations

from pathlib import Path

from backbones import ConcatenatedEncoder, Encoder, TextEncoder
from exports.encoder_card import Training, encoder_card
from exports.encoder_formats import ENCODER_FORMATS, EncoderFormat, EncoderFormatName
from exports.exporting import CARD
from exports.lineage import write_lineage
from run_store import UserError, atomic_folder, write_json

JOINED = "joined.json"
UNKNOWN_TRAINING = Training()


def export_encoder(
    encoder: Encoder, output: Path, format: EncoderFormatName, training: Training = UNKNOWN_TRAINING
) -> str:
    """Writes weights, tokenizer, settings and model card into a new folder, which appears whole or not at all.

    Of a `ConcatenatedEncoder`, for which no library has a form, each part gets a folder of its own, `parts/0` and so
    on; joined.json says how they are joined, and the card has the Python that does it.

    Args:
        encoder: built and trained.
        output: the folder; it may be there if it is empty.
        format: of the files.
        training: what is known of it, for the card.

    Returns:
        Python that uses it.

    Raises:
        UserError: the format cannot hold this model, a package is missing, or there is something in the folder.
    """
    chosen = ENCODER_FORMATS[format]
    parts = parts_of(encoder)
    is_joined = isinstance(encoder, ConcatenatedEncoder)
    usage = chosen.joined if is_joined else chosen.alone
    card = encoder_card(encoder, parts, chosen.library, usage.format(folder=output.name), training)
    with atomic_folder(output) as folder:
        if isinstance(encoder, ConcatenatedEncoder):
            _write_parts(encoder, folder, chosen)
        else:
            chosen.write(parts[0], folder)
        # transformers leaves a card of its own where there is none
        (folder / CARD).write_text(card, encoding="utf-8")
        write_lineage(training.lineage, folder)
    return usage.format(folder=output)


def parts_of(encoder: Encoder) -> list[TextEncoder]:
    """The models in an encoder.

    Raises:
        UserError: it is of a class that is not known here.
    """
    if isinstance(encoder, ConcatenatedEncoder):
        return encoder.parts
    if isinstance(encoder, TextEncoder):
        return [encoder]
    raise UserError(f"a {type(encoder).__name__} cannot be exported: use TextEncoder or ConcatenatedEncoder")


def _write_parts(encoder: ConcatenatedEncoder, folder: Path, chosen: EncoderFormat) -> None:
    weights = encoder.weights or [1.0] * len(encoder.parts)
    shares = [weight / sum(weights) for weight in weights]
    for index, part in enumerate(encoder.parts):
        place = folder / "parts" / str(index)
        place.mkdir(parents=True)
        chosen.write(part, place)
    rule = "embedding = concatenation of sqrt(share) * part / norm(part); its cosine is the mean of theirs by share"
    write_json(folder / JOINED, {"rule": rule, "shares": shares, "widths": [part.width for part in encoder.parts]})
