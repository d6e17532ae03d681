"""Which tokens of a context give a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from datamodules.text import TokenBatch, real_tokens
from datamodules.text.contexts import SPECIAL


@dataclass
class RowCounts:
    """Rows that were kept, and what took the others; each token is counted once, at the first filter that it meets.

    Padding and tokens that `overlap` repeats are no candidates and are not counted.
    """

    kept: int = 0
    first_tokens: int = 0
    special_tokens: int = 0
    other_positions: int = 0
    outliers: int = 0


class Candidates(NamedTuple):
    """What is known of the tokens [batch, length] before their activations are; all bool and on the CPU."""

    content: Tensor
    """Tokens of documents that are read here for the first time."""
    kept: Tensor
    """Tokens that passed the filters."""
    exempt: Tensor
    """Tokens that are kept however long their vectors are."""


def choose(
    batch: TokenBatch,
    keep_special_tokens: bool,
    keep_first_token: bool | None,
    positions: Sequence[int] | None,
    counts: RowCounts,
) -> Candidates:
    """The tokens that may give rows; `Extractor` says what its settings mean.

    Args:
        counts: Is added to.
    """
    content, special = batch.positions >= 0, (batch.positions == SPECIAL) & real_tokens(batch.tokens, batch.lengths)
    first = torch.zeros_like(content)
    first[:, 0] = keep_first_token is not None
    exempt = first & bool(keep_first_token) & (content | special)

    kept = content | special
    if keep_first_token is False:
        counts.first_tokens += _remove(kept, first)
    if not keep_special_tokens:
        counts.special_tokens += _remove(kept, special & ~exempt)
    if positions is not None:
        counts.other_positions += _remove(kept, ~_at(positions, batch))
    return Candidates(content, kept, exempt)


def outliers(norms: Tensor, content: Tensor, max_norm_ratio: float) -> Tensor:
    """bool [batch, length]: vectors longer than `max_norm_ratio` times the median of the content of their context.

    Where a context has no content there is no median and no outlier.

    Args:
        norms: float [batch, length].
        content: bool [batch, length].
    """
    typical = norms.where(content, torch.nan).nanmedian(dim=1, keepdim=True).values
    return norms > max_norm_ratio * typical


def _remove(kept: Tensor, unwanted: Tensor) -> int:
    """Takes tokens out of `kept`, in place, and says how many there were."""
    before = int(kept.sum())
    kept &= ~unwanted
    return before - int(kept.sum())


def _at(positions: Sequence[int], batch: TokenBatch) -> Tensor:
    """bool [batch, length]: the chosen places in each context, the negative ones counted from its real end."""
    places = torch.arange(batch.tokens.shape[1]).expand_as(batch.tokens)
    chosen = torch.tensor(positions, dtype=torch.int64)
    return torch.isin(places, chosen) | torch.isin(places - batch.lengths[:, None], chosen[chosen < 0])
