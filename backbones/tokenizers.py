"""Fast tokenizers from a folder, a package, the hub or a SentencePiece file; never the code that comes with them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from backbones.sentencepiece_files import fast_tokenizer, read_sentencepiece_file
from backbones.sources import explained, model_folder, quiet
from run_store import UserError, sha256_of

TOKENIZER_FILES = ("*.txt", "*.model", "*token*.json", "vocab.json", "merges.txt", "config.json")


def load_tokenizer(model: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """Loads a fast tokenizer.

    Args:
        model: A folder, `package:NAME` or a hub id, as `load_backbone` takes them, or a bare SentencePiece file, whose
            name ends in `.model`.
        revision: Branch, tag or commit on the hub.

    Raises:
        UserError: it cannot be found or loaded, or exists only in Python (too slow for a corpus).
    """
    if file := _sentencepiece_file(model):
        parts = read_sentencepiece_file(file)
        with explained(f"tokenizer {model!r}"):
            return fast_tokenizer(parts)
    folder = model_folder(model, TOKENIZER_FILES, revision)
    with explained(f"tokenizer of {model!r}"), quiet():
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if not tokenizer.is_fast:
        raise UserError(f"tokenizer of {model!r} has no fast version: choose a model with a tokenizer.json")
    return tokenizer


def tokenizer_sha256(model: str, revision: str | None = None) -> str:
    """Hexadecimal sha256 over the names and contents of the tokenizer's files.

    Raises:
        UserError: the tokenizer cannot be found.
    """
    if file := _sentencepiece_file(model):
        files = [file]
    else:
        folder = model_folder(model, TOKENIZER_FILES, revision)
        found = {file for pattern in TOKENIZER_FILES for file in folder.glob(pattern) if file.name != "config.json"}
        files = sorted(found)
    listing = "\n".join(f"{file.name} {sha256_of(file)}" for file in files)
    return hashlib.sha256(listing.encode()).hexdigest()


def _sentencepiece_file(model: str) -> Path | None:
    """The file that a name ending in `.model` stands for; None for other names and for folders."""
    file = Path(model).expanduser()
    if not model.endswith(".model") or file.is_dir():
        return None
    if not file.is_file():
        raise UserError(f"SentencePiece file {model} does not exist: check the path")
    return file
