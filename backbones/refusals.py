"""What a model cannot read, and what nobody can use of what it gives."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import PreTrainedModel

from datamodules.text import TokenBatch
from run_store import UserError


def refuse_unfit(backbone: PreTrainedModel, tokens: Tensor) -> None:
    """Raises where the model would fail with an index out of range."""
    positions = readable_positions(backbone)
    if positions is not None and tokens.shape[1] > positions:
        raise UserError(f"context_length {tokens.shape[1]} exceeds the {positions} positions of the model: lower it")
    largest, vocabulary = int(tokens.max()), int(backbone.config.get_text_config().vocab_size)
    if largest >= vocabulary:
        raise UserError(f"token id {largest} is beyond the model's {vocabulary}: set `tokenizer` to the model's own")


def readable_positions(backbone: PreTrainedModel) -> int | None:
    """How many tokens of a text the model can read; None where it has no limit."""
    positions = getattr(backbone.config, "max_position_embeddings", None)
    return None if positions is None else int(positions) - _reserved_positions(backbone)


def _reserved_positions(backbone: PreTrainedModel) -> int:
    """How many of its positions a model keeps for padding; RoBERTa and its kin count from there."""
    tables = (module for name, module in backbone.named_modules() if name.endswith("position_embeddings"))
    paddings = (getattr(table, "padding_idx", None) for table in tables)
    return max((padding + 1 for padding in paddings if padding is not None), default=0)


def refuse_non_finite(norms: Mapping[str, Tensor], counted: Tensor, batch: TokenBatch) -> None:
    """Raises where a row's norm is NaN or infinite, as it is when any of its values is."""
    # One question for all hook points: each would wait for the GPU.
    if not bool(torch.stack([(lengths.isfinite() | ~counted).all() for lengths in norms.values()]).all()):
        name, broken = next(
            (name, places)
            for name, lengths in norms.items()
            if len(places := (~lengths.isfinite() & counted).nonzero())
        )
        context, index = broken[0].tolist()
        position = int(batch.positions[context, index])
        raise UserError(
            f"activations at hook point {name!r} are NaN or infinite (document {int(batch.documents[context, index])}, "
            f"{f'position {position}' if position >= 0 else 'a special token'}): check the model's weights or set "
            "`precision` to float32"
        )
