"""What a few steps of training come to on one rank, as tensors and plain values that can be compared."""

from __future__ import annotations

import os
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer, seed_everything
from torch import distributed
from torch.testing import assert_close

from tests.distributed.ranks import ddp

TOLERANCE = 1e-10


class Noted(Callback):
    """Keeps losses, gradients after their reduction, and what was read."""

    def __init__(self) -> None:
        self.losses: list[torch.Tensor] = []
        self.gradients: list[dict[str, torch.Tensor]] = []
        self.rows: dict[str, list[list[int]]] = {"train": [], "validation": []}

    def on_train_batch_start(self, trainer: Trainer, model: Any, batch: Any, *_: Any) -> None:
        self.rows["train"].append(_numbers(batch))

    def on_validation_batch_start(self, trainer: Trainer, model: Any, batch: Any, *_: Any) -> None:
        self.rows["validation"].append(_numbers(batch))

    def on_train_batch_end(self, trainer: Trainer, model: Any, outputs: Any, *_: Any) -> None:
        self.losses.append(outputs["loss"].detach().clone())

    def on_before_optimizer_step(self, trainer: Trainer, model: Any, *_: Any) -> None:
        named = model.named_parameters()
        self.gradients.append({name: p.grad.clone() for name, p in named if p.grad is not None})


def trained(
    model: LightningModule, data: LightningDataModule, *callbacks: Callback, steps: int = 4, **settings: Any
) -> dict[str, Any]:
    """Trains in float64 for a few steps, and validates once, in one of the processes of `on_ranks` or alone.

    The ranks begin with the same weights and no buffer is handed from one to the others: they agree by themselves.
    """
    # under DDP Lightning begins once more with the numbers of this seed, which it keeps in the environment
    seed_everything(0, verbose=False)
    noted = Noted()
    connected = distributed.is_initialized()
    several = {"strategy": ddp(broadcast_buffers=False), "devices": distributed.get_world_size()} if connected else {}
    trainer = Trainer(
        **{
            "accelerator": "cpu",
            "devices": 1,
            "precision": "64-true",
            "max_steps": steps,
            "max_epochs": -1,
            "val_check_interval": steps,
            "check_val_every_n_epoch": None,
            "num_sanity_val_steps": 0,
            "log_every_n_steps": 1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "callbacks": [*callbacks, noted],
            **several,
            **settings,
        }
    )
    trainer.fit(model, data)
    os.environ.pop("PL_GLOBAL_SEED")
    return {
        "losses": torch.stack(noted.losses),
        "gradients": noted.gradients,
        "state": {name: value.detach().clone() for name, value in model.state_dict().items()},
        "figures": {name: value.double() for name, value in trainer.callback_metrics.items()},
        "rows": noted.rows,
    }


def assert_same_science(alone: dict[str, Any], together: list[dict[str, Any]]) -> None:
    """What one process and several have come to with the same batches: the mean of the ranks' losses, gradients,
    weights and what was logged are the same to `TOLERANCE`, whatever counts is exactly.
    """
    losses = torch.stack([rank["losses"] for rank in together]).mean(dim=0)
    assert_close(losses, alone["losses"], rtol=TOLERANCE, atol=TOLERANCE)
    for rank in together:
        for mine, expected in zip(rank["gradients"], alone["gradients"], strict=True):
            assert_close(mine, expected, rtol=TOLERANCE, atol=TOLERANCE)
        assert_same_values(rank["state"], alone["state"], TOLERANCE)
        # torchmetrics gives float32
        assert_same_values(rank["figures"], alone["figures"], 1e-6)
    assert all(
        torch.equal(rank["state"][name], value) for rank in together for name, value in together[0]["state"].items()
    )


def assert_same_values(mine: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float) -> None:
    assert mine.keys() == expected.keys()
    for name, value in expected.items():
        exactly = not value.is_floating_point()
        assert_close(mine[name], value, rtol=0 if exactly else tolerance, atol=0 if exactly else tolerance, msg=name)


def assert_shared(alone: dict[str, Any], together: list[dict[str, Any]]) -> None:
    """Every batch of the ranks has the rows of that of one process, each once."""
    for split, batches in alone["rows"].items():
        for number, rows in enumerate(batches):
            shared = [row for rank in together for row in rank["rows"][split][number]]
            assert sorted(shared) == sorted(rows), f"batch {number} of {split}"
        assert all(len(rank["rows"][split]) == len(batches) for rank in together)


def _numbers(batch: Any) -> list[int]:
    numbers: list[int] = (batch.rows if hasattr(batch, "rows") else batch.examples).tolist()
    return numbers
