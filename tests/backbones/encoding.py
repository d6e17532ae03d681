"""Texts for encoders, and the naive way to encode them."""

import torch

from backbones.chunks import Chunk, PaddedTexts
from datamodules.triplets.batch import TokenisedTexts


def texts_of(lengths, vocabulary=40):
    lengths = torch.tensor(lengths, dtype=torch.int64)
    return TokenisedTexts(torch.randint(3, vocabulary, (int(lengths.sum()),), dtype=torch.int32), lengths)


def one_by_one(encoder, *texts):
    """Embeddings of texts that never share a chunk, in each tokenisation."""
    splits = [part.tokens.split(part.lengths.tolist()) for part in texts]
    rows = []
    for row in zip(*splits, strict=True):
        padded = tuple(
            PaddedTexts(part.long()[None], torch.ones(1, len(part), dtype=torch.bool), False) for part in row
        )
        rows.append(encoder.encode_chunk(Chunk(padded, torch.zeros(1, dtype=torch.int64))))
    return torch.cat(rows)


def gradients(module):
    return {name: value.grad.clone() for name, value in module.named_parameters() if value.grad is not None}
