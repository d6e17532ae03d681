"""Takes turns at training one autoencoder with the callbacks that a run has, in one process or several:
ranks_worker.py STORE SETTINGS. SETTINGS is JSON with variant, d_sae, k, batch, ranks and threads (of each rank).
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

from benchmarks.sae_step_worker import TakesTurns
from benchmarks.turns import Turns
from callbacks import GracefulStop, RandomStates, TrainingProgress
from cli.allocator import keep_freed_memory
from cli.launch import exchange_little
from cli.quiet import quiet
from datamodules.activations import ActivationDataModule
from lightning_modules import autoencoders
from lightning_modules.sparse_autoencoding import SparseAutoencoding

IS_FIRST = "LOCAL_RANK" not in os.environ
"""Lightning starts the other ranks with the same command line."""


def main() -> None:
    keep_freed_memory()  # as main.py does
    quiet()
    takes_turns: list[Callback] = [TakesTurns(Turns())] if IS_FIRST else []
    store, settings = sys.argv[1], json.loads(sys.argv[2])
    torch.set_num_threads(settings["threads"])
    train(store, settings, takes_turns)


def train(store: str, settings: dict[str, Any], callbacks: list[Callback]) -> None:
    """For ever, as a user would: logging, progress bar, clipping, AuxK and dead counting on."""
    autoencoder = getattr(autoencoders, settings["variant"])(settings["d_sae"], settings["k"])
    data = ActivationDataModule(store, batch_size=settings["batch"], validation_share=0.0, test_share=0.0, verify=False)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            max_epochs=-1,
            max_steps=1_000_000,
            accelerator="cpu",
            devices=settings["ranks"],
            strategy="ddp" if settings["ranks"] > 1 else "auto",
            default_root_dir=folder,
            gradient_clip_val=1.0,
            log_every_n_steps=10,
            enable_checkpointing=False,
            enable_model_summary=False,
            callbacks=[TrainingProgress(), *callbacks, RandomStates(), GracefulStop(folder)],
        )
        exchange_little(trainer.strategy)
        trainer.fit(SparseAutoencoding(autoencoder), data)


if __name__ == "__main__":
    main()
