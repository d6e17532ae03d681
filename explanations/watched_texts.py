"""What an encoder makes of the same texts, moment by moment, told by the latents of a frozen autoencoder.

Shapes: n texts, s latents, d width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import MeanMetric
from transformers import PreTrainedTokenizerBase

from datamodules.token_pieces import TokenPieces
from datamodules.triplets import TokenisedTexts
from explanations.token_states import ReadTexts, StateReader
from features import BatchRows, FeatureCollector, Firings, Keeping, automatic_labels, typical_patterns
from lightning_modules.functional import LatentLevels, row_cosines
from lightning_modules.metrics import MeanLatents, ReconstructionScores

SAMPLED_ENTRIES = 2**20
FIRINGS_OF_EACH = 512
PATTERNS = 3
"""Of each kind and latent, all that a label is made of."""


class Look(NamedTuple):
    """What was seen at one moment."""

    levels: LatentLevels
    """Over the tokens of all texts."""
    fvu: float
    """Of the autoencoder on the states of these tokens."""
    embeddings: Tensor
    """[n, d] float32, before they are brought to norm 1; of the texts that this process has read."""
    labels: dict[int, str]
    """What latents fire on, of those that a label was found for; empty where none were asked for."""


class TextWatch:
    """Looks at texts.

    Args:
        reader: of their states.
        texts: in the encoder's tokenisation, on its device: all of them on every rank, or each rank's own share.
    """

    def __init__(self, reader: StateReader, texts: Sequence[TokenisedTexts]) -> None:
        self.reader = reader
        self.texts = texts

    def look(self, tokenizer: PreTrainedTokenizerBase | None = None) -> Look:
        """The texts as the encoder reads them now. Means are over all ranks, which must all look.

        Args:
            tokenizer: what latents fire on is told as its text; None leaves that out.
        """
        trainee, device = self.reader.trainee, self.texts[0].tokens.device
        d_sae, width = trainee.autoencoder.d_sae, self.reader.encoder.width
        levels, reconstruction = MeanLatents(d_sae).to(device), ReconstructionScores(width).to(device)
        embeddings = torch.zeros(len(self.texts[0].lengths), width, device=device)
        collector = FeatureCollector(d_sae, Keeping(1, 1, 0, SAMPLED_ENTRIES), device=device)
        for part in self.reader.read(self.texts):
            levels.update(part.codes)
            reconstruction.update(part.states, part.reconstructions, part.reconstructions)
            embeddings[part.places] = part.pooled
            if tokenizer is not None:
                collector.update(part.codes, _rows(part, collector.rows))
        labels = {} if tokenizer is None else _labels(collector, d_sae, tokenizer)
        return Look(levels.compute(), float(reconstruction.compute()["fvu"]), embeddings, labels)


def mean_cosine(first: Tensor, second: Tensor) -> float:
    """Of embeddings [n, d] with their counterparts, over the texts of all ranks, which must all ask."""
    mean = MeanMetric().to(first.device).set_dtype(torch.float64)
    mean.update(row_cosines(first, second))
    return float(mean.compute())


def texts_sha256(texts: Sequence[TokenisedTexts]) -> str:
    """What stands for texts as a model reads them."""
    digest = hashlib.sha256()
    for part in texts:
        for column in (part.lengths, part.tokens):
            digest.update(column.to("cpu", torch.int64).numpy().tobytes())
    return digest.hexdigest()


def _rows(part: ReadTexts, first: int) -> BatchRows:
    numbers = torch.arange(first, first + len(part.tokens), device=part.tokens.device)
    return BatchRows.whole(numbers, part.places[part.texts], part.tokens)


def _labels(collector: FeatureCollector, d_sae: int, tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    sample = collector.features().sample
    patterns = typical_patterns(sample, Firings.of(sample, d_sae, FIRINGS_OF_EACH), PATTERNS)
    pieces = TokenPieces(tokenizer)
    words = (label.words(pieces.of) for label in automatic_labels(patterns))
    return {latent: label for latent, label in enumerate(words) if label}
