"""Takes turns at training one autoencoder under the Trainer, or at the encoder's bare product (the variant `gemm`):
sae_step_worker.py STORE SETTINGS. SETTINGS is JSON with variant, d_sae, k, batch, dtype or screening.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from lightning.pytorch import Callback, Trainer

from benchmarks.turns import Turns
from callbacks import TrainingProgress
from cli.allocator import keep_freed_memory
from datamodules.activations import ActivationDataModule
from lightning_modules import autoencoders
from lightning_modules.sparse_autoencoding import SparseAutoencoding


class TakesTurns(Callback):
    """At the start of every batch, so that reading one belongs to a turn."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns

    def on_train_batch_start(self, *_: Any) -> None:
        self.turns.step_begins()


def train(store: str, settings: dict[str, Any], turns: Turns) -> None:
    """For ever, as a user would: logging, progress bar, clipping, AuxK and dead counting on."""
    options = {"screening": True} if settings.get("screening") else {}
    autoencoder = getattr(autoencoders, settings["variant"])(settings["d_sae"], settings["k"], **options)
    data = ActivationDataModule(store, batch_size=settings["batch"], validation_share=0.0, test_share=0.0, verify=False)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            max_epochs=-1,
            accelerator="cpu",
            default_root_dir=folder,
            gradient_clip_val=1.0,
            log_every_n_steps=10,
            enable_checkpointing=False,
            enable_model_summary=False,
            callbacks=[TrainingProgress(), TakesTurns(turns)],
            max_steps=1_000_000,
        )
        trainer.fit(SparseAutoencoding(autoencoder), data)


def multiply(settings: dict[str, Any], turns: Turns) -> None:
    """The one dense product that an exact step cannot do without."""
    dtype = getattr(torch, settings["dtype"])
    x = torch.randn(settings["batch"], settings["d_in"], dtype=dtype)
    weight, bias = (
        torch.randn(settings["d_sae"], settings["d_in"], dtype=dtype),
        torch.zeros(settings["d_sae"], dtype=dtype),
    )
    with torch.inference_mode():
        while True:
            turns.step_begins()
            torch.nn.functional.linear(x, weight, bias)


def main() -> None:
    keep_freed_memory()  # as main.py does
    turns, store, settings = Turns(), sys.argv[1], json.loads(sys.argv[2])
    if settings["variant"] == "gemm":
        multiply(settings, turns)
    train(store, settings, turns)


if __name__ == "__main__":
    main()
