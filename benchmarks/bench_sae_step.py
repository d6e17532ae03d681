"""The training step under the Trainer, logging and AuxK counting on, against the encoder GEMM that no step can do
without.

    python benchmarks/bench_sae_step.py [--batch 4096 --d_in 384 --d_sae 3072 --k 32 --steps 60]

Both are timed in one process, in turns of a few steps, so that a machine that slows down slows both. Prints JSON;
`ratio` is the step's tokens/s over the GEMM's, at most 1.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from lightning.pytorch import Callback, Trainer

from callbacks import TrainingProgress
from datamodules.activations import ActivationDataModule
from datamodules.shards import StoreWriter
from lightning_modules.autoencoders import TopK
from lightning_modules.sparse_autoencoding import SparseAutoencoding

TURN = 5


class Alternating(Callback):
    """Times turns of TURN training steps, and after each a turn of TURN bare encoder GEMMs on the module's own
    weights.
    """

    def __init__(self, x: torch.Tensor) -> None:
        self.x = x
        self.steps: list[float] = []
        self.gemms: list[float] = []

    def on_train_start(self, *_: Any) -> None:
        self.started = time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if (batch_idx + 1) % TURN:
            return
        self.steps.append((time.perf_counter() - self.started) / TURN)
        weights = pl_module.autoencoder
        with torch.inference_mode():
            begin = time.perf_counter()
            for _ in range(TURN):
                torch.nn.functional.linear(self.x, weights.W_enc, weights.b_enc)
            self.gemms.append((time.perf_counter() - begin) / TURN)
        self.started = time.perf_counter()


def make_store(folder: Path, rows: int, d_in: int) -> None:
    """Rows that a dictionary of 4 d_in directions explains, so that selection meets realistic codes."""
    generator = torch.Generator().manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(4 * d_in, d_in, generator=generator), dim=1)
    with StoreWriter(folder, {"layer": d_in}, "bfloat16") as writer:
        for start in range(0, rows, 8192):
            count = min(8192, rows - start)
            active = torch.randint(0, 4 * d_in, (count, 24), generator=generator)
            x = (atoms[active] * torch.rand(count, 24, 1, generator=generator)).sum(dim=1)
            place = torch.arange(start, start + count)
            writer.append({"layer": x}, place % 1000, place // 1000, place % 1000)
        writer.finish({"text": {}}, [f"document-{i}" for i in range(rows // 1000 + 1)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in {"batch": 4096, "d_in": 384, "d_sae": 3072, "k": 32, "steps": 60}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_store(Path(folder) / "store", options.batch * 24, options.d_in)
        data = ActivationDataModule(
            f"{folder}/store", batch_size=options.batch, validation_share=0.0, test_share=0.0, verify=False
        )
        alternating = Alternating(torch.randn(options.batch, options.d_in))
        trainer = Trainer(
            max_steps=options.steps,
            max_epochs=-1,
            accelerator="cpu",
            default_root_dir=folder,
            gradient_clip_val=1.0,
            log_every_n_steps=10,
            enable_checkpointing=False,
            enable_model_summary=False,
            callbacks=[TrainingProgress(), alternating],
        )
        with open(os.devnull, "w") as silence:
            stdout, sys.stdout = sys.stdout, silence
            try:
                trainer.fit(SparseAutoencoding(TopK(options.d_sae, options.k)), data)
            finally:
                sys.stdout = stdout
    step, gemm = (statistics.median(times[1:]) for times in (alternating.steps, alternating.gemms))
    report = {
        **vars(options),
        "threads": torch.get_num_threads(),
        "step_ms": 1e3 * step,
        "gemm_ms": 1e3 * gemm,
        "step_tokens_per_second": options.batch / step,
        "gemm_tokens_per_second": options.batch / gemm,
        "ratio": gemm / step,
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
