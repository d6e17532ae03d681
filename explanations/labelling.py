"""Automatic labels of latents, from stored activations or from the texts at hand.

Shapes: t tokens, s = d_sae latents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from datamodules.shards import ActivationStore
from explanations.nearby import nearby_labels
from explanations.text_latents import TextLatents
from features import NO_TOKEN, Firings, Keeping, SampledRows, automatic_labels, typical_patterns
from lightning_modules.feature_pass import feature_pass
from lightning_modules.trainee import Trainee

FIRINGS_LOOKED_AT = 512
PATTERNS = 3
LEAST = Keeping(strongest=1, sampled=1, reach=1)
"""No contexts are wanted here, and keeping them costs most of a pass."""


def labels_from_store(
    member: Trainee,
    store: ActivationStore,
    ranges: Tensor,
    text_of: Callable[[int], str],
    on_progress: Callable[[int, int], None] = lambda done, rows: None,
) -> list[str]:
    """Of s latents, by the rule of `features.labels`, or where that gives none by that of `explanations.nearby`; empty
    where neither does.

    Args:
        member: the autoencoder, in evaluation.
        store: of its hook points.
        ranges: int64 [n, 2] of rows to read.
        text_of: the text of a token id, with the space before it.
        on_progress: told the rows that are done and those that there are.
    """
    passed = feature_pass(member, store, list(member.shapes), ranges, LEAST, on_progress=on_progress)
    sample, d_sae = passed.features.sample, member.autoencoder.d_sae
    of_tokens, of_passages = _labels(sample, d_sae, text_of), nearby_labels(sample, d_sae, text_of)
    return [label or passage for label, passage in zip(of_tokens, of_passages, strict=True)]


def labels_from_texts(texts: Sequence[TextLatents], text_of: Callable[[int], str]) -> list[str]:
    """Of s latents, from what they fire on in some texts: of few texts, few get any."""
    samples = [_sample(each) for each in texts]
    joined = SampledRows(*(torch.cat(columns) for columns in zip(*samples, strict=True)))
    return _labels(joined, len(texts[0].W), text_of)


def _labels(sample: SampledRows, d_sae: int, text_of: Callable[[int], str]) -> list[str]:
    firings = Firings.of(sample, d_sae, FIRINGS_LOOKED_AT)
    return [label.words(text_of) for label in automatic_labels(typical_patterns(sample, firings, PATTERNS))]


def _sample(texts: TextLatents) -> SampledRows:
    """All tokens as a pass samples rows."""
    tokens, text = texts.tokens.int(), texts.text_of_token
    same = text[1:] == text[:-1]
    none = torch.full((1,), NO_TOKEN, dtype=torch.int32)
    before = torch.cat([none, tokens[:-1].where(same, NO_TOKEN)])
    after = torch.cat([tokens[1:].where(same, NO_TOKEN), none])
    rows, latents, values = texts.token_codes
    counts = torch.bincount(rows, minlength=len(tokens)).int()
    return SampledRows(tokens, before, after, counts, latents, values.float())
