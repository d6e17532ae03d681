"""What trains an autoencoder asks of the datamodule."""

from __future__ import annotations

from typing import Protocol

from datamodules.shards import ActivationBatch


class ActivationSource(Protocol):
    """What a SparseAutoencoding asks of the datamodule beside its loaders."""

    batch_size: int
    """Rows of a batch, over all ranks."""

    @property
    def shapes(self) -> dict[str, int]:
        """Width d of each hook point of a batch."""
        ...

    def hook_point_names(self) -> list[str]:
        """Which hook points a batch will have, in its order, known before any data is touched."""
        ...

    def sample(self, rows: int) -> ActivationBatch:
        """Always the same rows of the training split."""
        ...

    def describe_row(self, row: int) -> str:
        """Where a row comes from, in words."""
        ...
