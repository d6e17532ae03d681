"""Five pieces of code, two pairs of which do alike, and texts as an encoder reads them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from backbones import load_tokenizer, tokenizer_sha256
from backbones.encoder import Encoder
from datamodules.triplets import TokenisedTexts, Tokeniser

SNIPPETS = {
    "sum by loop": "def total(numbers):\n    result = 0\n    for number in numbers:\n        result += number\n"
    "    return result",
    "sum of squares": "def total_squares(numbers):\n    result = 0\n    for number in numbers:\n"
    "        result += number * number\n    return result",
    "lines of a file": 'def read_lines(path):\n    with open(path, encoding="utf-8") as file:\n'
    "        return file.readlines()",
    "text of a file": 'def read_text(path):\n    with open(path, encoding="utf-8") as file:\n'
    "        return file.read()",
    "web server": "class Handler(BaseHTTPRequestHandler):\n    def do_GET(self):\n        self.send_response(200)\n"
    "        self.end_headers()",
}
ALIKE = ((0, 1), (2, 3))
"""Places of snippets that do alike; all other pairs are unlike."""


class Reader:
    """Turns texts into tokens as an encoder wants them, with the prompt of positives.

    Args:
        encoder: Whose tokenisations they are.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._tokenisers = []
        for how in encoder.tokenisations():
            load = partial(load_tokenizer, how.tokenizer, how.revision)
            self._tokenisers.append(Tokeniser(how, tokenizer_sha256(how.tokenizer, how.revision), load))

    def __call__(self, texts: Sequence[str], device: torch.device) -> tuple[TokenisedTexts, ...]:
        """u texts in each of the encoder's tokenisations, on a device."""
        parts = []
        for tokeniser in self._tokenisers:
            ids = [text.ids for text in tokeniser([tokeniser.prompt("positive") + text for text in texts])]
            tokens, lengths = torch.from_numpy(np.concatenate(ids)), torch.tensor([len(text) for text in ids])
            parts.append(TokenisedTexts(tokens.to(device), lengths.to(device)))
        return tuple(parts)


def device_of(encoder: Encoder) -> torch.device:
    """Where a built encoder lies."""
    return next(encoder.parameters()).device
