"""What the predictions of samples cost a training, at the settings of the shipped configs.

    python benchmarks/bench_predictions.py [--store stores/minilm-layer3 --epochs 3 --triplets 1024]

Both products are trained by the shipped configs with the callback in them: the main job's autoencoder on its store, the
fine-tuner for one epoch over triplets of the standard library. Prints JSON; `share` is the time spent on predictions,
reading the samples among it, of the time from the first step to the last epoch's end, validation among it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).parents[1]))

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer

from benchmarks.embedding import CodeSearch, recipe, write_triplets
from benchmarks.training import STORE, module, parsed, real_activations, silence, variant
from callbacks import SamplePredictions
from datamodules.contrastive_triplets import TripletDataModule
from datamodules.triplets import TripletFiles


class Clock(Callback):
    """Seconds of a training between its first and its last hook."""

    seconds = 0.0
    epochs = 0

    def on_train_start(self, *_: Any) -> None:
        self._started = time.perf_counter()

    def on_train_epoch_end(self, *_: Any) -> None:
        self.epochs += 1

    def on_train_end(self, *_: Any) -> None:
        self.seconds = time.perf_counter() - self._started


def cost(model: LightningModule, data: LightningDataModule, epochs: int) -> dict[str, float]:
    """Trains, and says what share of the time the predictions took."""
    clock, predictions = Clock(), SamplePredictions()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            logger=True,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            gradient_clip_val=1.0,
            default_root_dir=folder,
            # the clock starts before and stops after the predictions
            callbacks=[clock, predictions],
        )
        trainer.fit(model, data)
    return {
        "epochs": clock.epochs,
        "seconds_an_epoch": clock.seconds / clock.epochs,
        "predictions_ms_an_epoch": 1e3 * predictions.seconds / clock.epochs,
        "share": predictions.seconds / clock.seconds,
    }


def autoencoder(options: argparse.Namespace, folder: Path) -> dict[str, float] | None:
    """The main job on its store."""
    data = real_activations(Path(options.store), options.batch)
    return None if data is None else cost(module(variant("topk", options.d_sae, options.k), 3e-3), data, options.epochs)


def embedder(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """The fine-tuner, a tenth of the triplets held out."""
    write_triplets(folder / "rows.jsonl", CodeSearch([]).take(options.triplets))
    source = TripletFiles(str(folder / "rows.jsonl"))
    data = TripletDataModule(source, options.triplets_a_batch, validation_share=0.1, cache=str(folder / "cache"))
    return cost(recipe({"max_length": options.max_length}), data, 1)


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes = {"batch": 2048, "d_sae": 3072, "k": 32, "epochs": 3, "triplets": 1024, "triplets_a_batch": 64}
    for name, default in {**sizes, "max_length": 128}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--store", default=str(STORE))
    quick = {"epochs": 1, "triplets": 48, "triplets_a_batch": 8, "max_length": 16}
    options = parsed(parser, quick)
    silence()
    products: dict[str, Callable[[argparse.Namespace, Path], dict[str, float] | None]] = {
        "autoencoder": autoencoder,
        "embedder": embedder,
    }
    found = {}
    for name, measured in products.items():
        with tempfile.TemporaryDirectory() as folder:
            found[name] = measured(options, Path(folder))
    print(json.dumps({**vars(options), **found}, indent=1))


if __name__ == "__main__":
    main()
