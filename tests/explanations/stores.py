"""Small activation stores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from datamodules.shards import StoreWriter


def write_rows(folder: Path, activations: Mapping[str, Tensor], documents: int) -> Path:
    """Rows as they are, in so many documents of about the same length."""
    rows = len(next(iter(activations.values())))
    numbers = torch.arange(rows) * documents // rows
    firsts = torch.searchsorted(numbers, numbers)
    with StoreWriter(folder, {name: part.shape[1] for name, part in activations.items()}, "float32") as writer:
        writer.append(dict(activations), torch.arange(rows) % 7, numbers, torch.arange(rows) - firsts)
        writer.finish({"text": {"tokenizer": "none"}}, [f"document {at}" for at in range(documents)])
    return folder
