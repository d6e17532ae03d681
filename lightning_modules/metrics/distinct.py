"""Texts that come more than once."""

from __future__ import annotations

import torch
from torch import Tensor


def first_of_each(ids: Tensor) -> tuple[Tensor, Tensor]:
    """The different ids of [n], ascending, and the place where each comes first, [k] int64 both."""
    different, places = torch.unique(ids, return_inverse=True)
    every_place = torch.arange(len(ids), device=ids.device)
    first = torch.zeros_like(different).scatter_reduce_(0, places, every_place, "amin", include_self=False)
    return different, first
