"""The formats that a text encoder is written in. A new one is a module and a line here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from backbones import TextEncoder
from exports import onnx, sentence_transformers

EncoderFormatName = Literal["sentence-transformers", "onnx"]


class EncoderFormat(NamedTuple):
    """How one model becomes files, and how these are used."""

    write: Callable[[TextEncoder, Path], None]
    library: str
    """As model hubs call it."""
    alone: str
    """Python that uses one model; {folder} stands for where it lies."""
    joined: str
    """Python that joins several."""


ENCODER_FORMATS: dict[EncoderFormatName, EncoderFormat] = {
    "sentence-transformers": EncoderFormat(
        sentence_transformers.write,
        "sentence-transformers",
        sentence_transformers.ALONE,
        sentence_transformers.JOINED,
    ),
    "onnx": EncoderFormat(onnx.write, "onnx", onnx.ALONE, onnx.JOINED),
}
