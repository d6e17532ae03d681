"""Several processes at once, without a Trainer, and two hook points."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

OnRanks = Callable[..., list[Any]]


@pytest.fixture
def on_ranks(tmp_path: Path) -> OnRanks:
    """on_ranks(work, ranks=2) → what work(rank) returns in each of the connected processes: tensors and plain
    values.
    """
    import torch
    from torch import distributed, multiprocessing

    def ranked(rank: int, ranks: int, work: Callable[[int], Any]) -> None:
        torch.set_num_threads(1)  # a forked child has lost the threads of its parent
        distributed.init_process_group("gloo", f"file://{tmp_path}/meeting", rank=rank, world_size=ranks)
        torch.save(work(rank), tmp_path / f"{rank}.pt")
        distributed.barrier()
        distributed.destroy_process_group()

    def run(work: Callable[[int], Any], ranks: int = 2) -> list[Any]:
        (tmp_path / "meeting").unlink(missing_ok=True)
        multiprocessing.start_processes(ranked, (ranks, work), nprocs=ranks, start_method="fork")
        return [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(ranks)]

    return run


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
