"""Several connected processes at once, in which any number of things can be done before they end."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch import distributed, multiprocessing

OnRanks = Callable[..., list[Any]]
LOOK_EVERY_SECONDS = 0.02
AFTER_A_FAILURE_SECONDS = 10
"""That the others have to end by themselves, once one has failed."""


def on_ranks(work: Callable[[int], Any], ranks: int = 2, timeout: float = 280) -> list[Any]:
    """What work(rank) returns in each of some processes that gloo connects: tensors and plain values. Of one process
    it is what work(0) returns here, where nothing is connected.

    Args:
        work: called in every process, each a fork of this one.
        ranks: how many.
        timeout: seconds after which all of them are killed.

    Raises:
        AssertionError: one of them failed, with its traceback, or they took too long.
    """
    if ranks == 1:
        return [work(0)]
    with tempfile.TemporaryDirectory() as folder:
        context = multiprocessing.get_context("fork")
        processes = [
            context.Process(target=_connected, args=(rank, ranks, work, Path(folder)), daemon=True)
            for rank in range(ranks)
        ]
        for process in processes:
            process.start()
        try:
            _wait(processes, timeout)
        finally:
            for process in processes:
                if process.pid is not None and process.is_alive():
                    os.kill(process.pid, signal.SIGKILL)
                process.join()
        failures = [path.read_text() for path in sorted(Path(folder).glob("*.failure"))]
        assert not failures, "\n".join(failures)
        missing = [rank for rank in range(ranks) if not Path(folder, f"{rank}.pt").exists()]
        assert not missing, f"the ranks {missing} gave no result within {timeout} seconds"
        return [torch.load(Path(folder, f"{rank}.pt"), weights_only=True) for rank in range(ranks)]


def ddp(**settings: Any) -> DDPStrategy:
    """For a Trainer inside of `on_ranks`, with `devices` the number of ranks: these processes are its ranks."""
    return DDPStrategy(cluster_environment=_TheseProcesses(), process_group_backend="gloo", **settings)


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class _TheseProcesses(LightningEnvironment):
    """What `on_ranks` has started."""

    @property
    def creates_processes_externally(self) -> bool:
        return True

    def world_size(self) -> int:
        return distributed.get_world_size()

    def set_world_size(self, size: int) -> None:
        pass

    def global_rank(self) -> int:
        return distributed.get_rank()

    def set_global_rank(self, rank: int) -> None:
        pass

    def local_rank(self) -> int:
        return distributed.get_rank()

    def node_rank(self) -> int:
        return 0


def _connected(rank: int, ranks: int, work: Callable[[int], Any], folder: Path) -> None:
    torch.set_num_threads(1)  # a forked child has lost the threads of its parent
    # Lightning takes a variable of a launcher for its own
    os.environ["LOCAL_RANK"] = str(rank)
    try:
        distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=ranks)
        result = work(rank)
        torch.save(result, folder / f"{rank}.part")
        distributed.barrier()
        os.replace(folder / f"{rank}.part", folder / f"{rank}.pt")
    except BaseException:
        (folder / f"{rank}.failure").write_text(f"rank {rank} of {ranks}\n{traceback.format_exc()}")
        # not exit, which waits for threads that wait for the other ranks
        os._exit(1)
    os._exit(0)


def _wait(processes: Sequence[Any], timeout: float) -> None:
    end = time.monotonic() + timeout
    while any(process.is_alive() for process in processes) and time.monotonic() < end:
        if any(process.exitcode for process in processes):
            end = min(end, time.monotonic() + AFTER_A_FAILURE_SECONDS)
            processes = [process for process in processes if not process.exitcode]
        time.sleep(LOOK_EVERY_SECONDS)
