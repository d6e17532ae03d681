"""Several processes at once, without a Trainer, and two hook points."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.distributed.ranks import OnRanks
from tests.distributed.ranks import on_ranks as start


@pytest.fixture
def on_ranks() -> OnRanks:
    """on_ranks(work, ranks=2) → what work(rank) returns in each of the connected processes: tensors and plain
    values.
    """
    return start


@pytest.fixture
def two_points(tmp_path: Path, write_store: Callable[..., Path]) -> Callable[..., Any]:
    """two_points(hook_points=None) → a datamodule over a store with the hook points a and b."""
    from datamodules.activations import ActivationDataModule

    folder = write_store(tmp_path / "two", ("a", "b"))

    def data(hook_points: list[str] | None = None) -> ActivationDataModule:
        return ActivationDataModule(
            str(folder), batch_size=64, hook_points=hook_points, validation_share=0.1, test_share=0.1, block_rows=4
        )

    return data
