"""Several processes at once, without a Trainer."""

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
