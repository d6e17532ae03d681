"""What a model folder says of itself where sentence-transformers has saved it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from backbones.sources import explained, model_folder
from lightning_modules.functional import Pooling
from run_store import UserError

SENTENCE_FILES = ("modules.json", "sentence_bert_config.json", "tokenizer_config.json", "*Pooling/config.json")

# sentence-transformers' modes, in both of the ways in which it has written them down.
_MODES: dict[str, Pooling] = {
    "cls": "cls",
    "mean": "mean",
    "max": "max",
    "weightedmean": "weighted_mean",
    "lasttoken": "last_token",
}
_OLD_KEYS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


class SentenceSettings(NamedTuple):
    """None where the folder does not say."""

    pooling: Pooling | None
    normalize: bool | None
    max_length: int | None
    """Tokens of a text."""


def read_sentence_settings(model: str, revision: str | None = None) -> SentenceSettings:
    """What is known of a model beyond its transformer.

    Raises:
        UserError: the model cannot be found, or does with the hidden states what is not done here.
    """
    # Exports to other formats lie in subfolders that are passed over.
    folder = model_folder(model, SENTENCE_FILES, revision, left_out=("onnx/*", "openvino/*"))
    with explained(f"model {model!r}"):
        modules = _read(folder / "modules.json")
        tokenizer = _read(folder / "tokenizer_config.json") or {}
        sentence = _read(folder / "sentence_bert_config.json") or {}
        limits = [sentence.get("max_seq_length"), tokenizer.get("model_max_length")]
        # A tokenizer without a limit is saved with one of 10³⁰.
        said = next((int(limit) for limit in limits if limit is not None and limit < 10**9), None)
        if modules is None:
            return SentenceSettings(None, None, said)
        kinds = [(module["type"].rpartition(".")[2], folder / module["path"]) for module in modules]
    known = {"Transformer", "Pooling", "Normalize"}
    if foreign := [kind for kind, _ in kinds if kind not in known]:
        raise UserError(
            f"model {model!r} has a module {foreign[0]} behind its transformer, which is not read here: remove it from "
            "modules.json to use the model without it, or choose another one"
        )
    pooling = next((_pooling(model, path / "config.json") for kind, path in kinds if kind == "Pooling"), None)
    return SentenceSettings(pooling, any(kind == "Normalize" for kind, _ in kinds), said)


def _pooling(model: str, file: Path) -> Pooling:
    with explained(f"model {model!r}"):
        settings = _read(file) or {}
        modes = settings.get("pooling_mode") or [mode for key, mode in _OLD_KEYS.items() if settings.get(key)] or "mean"
    modes = [modes] if isinstance(modes, str) else modes
    if len(modes) != 1 or modes[0] not in _MODES:
        raise UserError(
            f"{file} asks for the pooling {'+'.join(modes)}, which is not to be had here: set `pooling` to one of "
            f"{', '.join(_MODES.values())}"
        )
    return _MODES[modes[0]]


def _read(file: Path) -> Any:
    return json.loads(file.read_text("utf-8")) if file.is_file() else None
