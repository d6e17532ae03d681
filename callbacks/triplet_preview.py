"""What a contrastive training will be like, told before its first step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from jsonargparse.typing import PositiveInt
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from datamodules.triplets import TokenisedTexts
from run_store import write_json

REPORT_NAME = "triplets.json"


class TripletPreview(Callback):
    """Prints a report of the training examples (duplicates, truncation, padding), the share of triplets that the model
    satisfies already, and how many triplets a second a few steps have made, whose gradients are forgotten. It stands in
    RUN_FOLDER/triplets.json too. A run that goes on tells nothing.

    Args:
        batches: how many steps are tried, after one to warm up.
    """

    def __init__(self, batches: PositiveInt = 2) -> None:
        self.batches = batches

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.global_step:
            return
        encoder, data = pl_module.encoder, pl_module.data

        def padded_tokens(lengths: Sequence[Tensor]) -> int:
            texts = [TokenisedTexts(torch.zeros(int(part.sum()), dtype=torch.int32), part) for part in lengths]
            return sum(part.tokens.numel() for chunk in encoder.chunks(texts) for part in chunk.texts)

        report = data.report(padded_tokens)
        shares, seconds, examples = [], 0.0, 0
        for number, batch in enumerate(data.sample(1 + self.batches)):
            batch = trainer.strategy.batch_to_device(batch, pl_module.device)
            started = time.perf_counter()
            shares.append(pl_module.trial(batch))
            if number:
                seconds += time.perf_counter() - started
                examples += len(batch.examples)
        told = [share for share in shares if share == share]
        report.satisfied = sum(told) / len(told) if told else None
        report.triplets_per_second = examples / seconds * trainer.world_size if seconds else None
        folder = trainer.log_dir  # all ranks must ask together
        if trainer.is_global_zero:
            print(report.as_text(), flush=True)
            if folder is not None:
                write_json(f"{folder}/{REPORT_NAME}", asdict(report))
