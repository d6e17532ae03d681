"""The random numbers of a run, as state."""

from __future__ import annotations

import random
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import distributed


class RandomStates(Callback):
    """Saves where the random numbers of Python, NumPy, torch and the rank's CUDA device stand, on every rank, and goes
    on from there when a run is resumed.

    Ranks that begin with one seed would drop out the same of different rows, so each but the first draws numbers of its
    own, which follow from the first one's. So do those of a rank that a checkpoint of fewer ranks does not know; of one
    of more ranks the others' are forgotten.

    A state that was saved inside an epoch is restored in front of the first batch, since making loaders draws numbers
    that the saved state has seen drawn; one from an epoch's end before the next epoch begins.
    """

    def __init__(self) -> None:
        self._trainer: Trainer | None = None
        self._restored: dict[str, Any] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._trainer = trainer

    def state_dict(self) -> dict[str, Any]:
        """Every rank's state. To be asked on every rank, as Lightning does when it saves."""
        trainer = self._trainer
        own = collect()
        states: list[Any] = [own]
        if trainer is not None and trainer.world_size > 1:
            states = [None] * trainer.world_size
            distributed.all_gather_object(states, own)
        return {"ranks": states, "inside_epoch": trainer is not None and not trainer.is_last_batch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._restored = state_dict

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._restored is None and trainer.global_rank:
            scatter(collect(), trainer.global_rank)
        if self._restored is not None and not self._restored["inside_epoch"]:
            self._restore(trainer)
            # Lightning has made the next epoch's iterator by now, which draws a seed; the straight run makes it here
            iter(trainer.fit_loop._data_fetcher)  # type: ignore[arg-type]

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if self._restored is not None:
            self._restore(trainer)

    def _restore(self, trainer: Trainer) -> None:
        restored, self._restored, rank = self._restored, None, trainer.global_rank
        assert restored is not None  # or nobody asks
        states = restored["ranks"]
        if rank < len(states):
            restore(states[rank])
        else:
            scatter(states[0], rank)


def collect() -> dict[str, Any]:
    """The state of this process's generators, as tensors and plain values."""
    version, numbers, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state()
    state: dict[str, Any] = {
        "python": [version, list(numbers), gauss],
        "numpy": [str(kind), torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(cached)],  # type: ignore[union-attr, attr-defined]
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore(state: dict[str, Any]) -> None:
    """Puts this process's generators where `collect` found them."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), position, has_gauss, cached))
    # a checkpoint may have been loaded to a device
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())


def scatter(state: dict[str, Any], rank: int) -> None:
    """Puts this process's generators where they are for a rank above 0 when they are at `state` for the first: a
    function of both, and other numbers for every rank.
    """
    digest = sha256(state["torch"].cpu().numpy().tobytes() + f"rank {rank}".encode()).digest()
    random.seed(digest)
    np.random.seed(np.frombuffer(digest, dtype=np.uint32))
    torch.manual_seed(int.from_bytes(digest[:8], "little") >> 1)  # of every device
