"""Which examples are held out."""

from __future__ import annotations

import torch
from torch import Tensor

from datamodules.triplets.table import TripletTable
from run_store import Split, split_of

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def split_rows(table: TripletTable, seed: int, validation_share: float, test_share: float) -> dict[Split, Tensor]:
    """int64 [examples] numbers of each split's examples; the hash of a group decides alone where its examples are."""
    groups = table.groups.tolist()
    part_of = {group: split_of_group(group, seed, validation_share, test_share) for group in set(groups)}
    parts = [part_of[group] for group in groups]
    return {
        split: torch.tensor([row for row, part in enumerate(parts) if part == split], dtype=torch.int64)
        for split in SPLITS
    }


def split_of_group(group: int, seed: int, validation_share: float, test_share: float) -> Split:
    """The split of all examples of a group, which is what `group_of` gives."""
    return split_of(f"{group:016x}", seed, validation_share, test_share)
