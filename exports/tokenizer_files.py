"""The tokenizer beside an exported encoder, set up so that others use it as training did."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedTokenizerBase

from backbones import TextEncoder, load_tokenizer
from datamodules.triplets import Tokeniser
from run_store import UserError


def write_tokenizer(encoder: TextEncoder, folder: Path) -> None:
    """Saves it with the encoder's limit, and with padding behind the texts: in front it would shift the positions of
    many a model.

    Raises:
        UserError: it has no token to pad with.
    """
    tokenizer = load_tokenizer(encoder.model, encoder.revision)
    tokenizer.model_max_length = encoder.max_length
    tokenizer.padding_side = "right"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = _any_special_token(tokenizer, encoder.model)
    tokenizer.save_pretrained(folder)


def tokeniser_of(encoder: TextEncoder) -> Tokeniser:
    """How training tokenises its texts."""
    (how,) = encoder.tokenisations()
    return Tokeniser(how, sha256="", load=lambda: load_tokenizer(how.tokenizer, how.revision))


def prompts_of(encoder: TextEncoder) -> dict[str, str]:
    """What stands in front of a text, by what it is for; negatives are documents, as positives are."""
    tokeniser = tokeniser_of(encoder)
    return {"query": tokeniser.prompt("anchor"), "document": tokeniser.prompt("positive")}


def _any_special_token(tokenizer: PreTrainedTokenizerBase, model: str) -> str:
    # The mask hides padding, so any will do; but one that stands for text would be cut out of words from then on.
    token = next(iter(tokenizer.all_special_tokens), None)
    if token is None:
        raise UserError(f"the tokenizer of {model!r} has no special token to pad with: give it a pad_token")
    return str(token)
