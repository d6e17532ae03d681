"""What benches of quality share: variants by the names of their overlays, a known truth, a quiet Trainer, results that
outlive an interrupted run.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from jsonargparse import ArgumentParser
from lightning.pytorch import Callback, LightningDataModule, Trainer

import cli.class_names  # noqa: F401  short class paths in overlays
from callbacks import DeadNeuronResampling
from datamodules.activations import ActivationDataModule
from datamodules.shards import is_store
from datamodules.synthetic import FeatureSettings, Forest, LogNormal
from lightning_modules.autoencoders import Autoencoder
from lightning_modules.autoencoders.aux_k import AuxK
from lightning_modules.schedules import WarmupDecay
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from run_store import UserError, atomic_file

OVERLAYS = Path(__file__).parents[1] / "configs" / "autoencoder"
SLOW_PURSUIT = {"matching_pursuit": 3e-2}
"""Learning rates of variants that need another on synthetic rows: matching pursuit stays at 93% with 1e-2."""

Scores = dict[str, float]

STORE = Path("stores/minilm-layer3")
EXTRACTION = "python main.py predict --config configs/extract.yaml"


def overlays() -> list[str]:
    """Names of the overlays of variants that read and reconstruct one hook point."""
    return [
        path.stem
        for path in sorted(OVERLAYS.glob("*.yaml"))
        if "wiring" not in yaml.safe_load(path.read_text())["init_args"]
    ]


def variant(name: str, d_sae: int, l0: float) -> Autoencoder:
    """The overlay's autoencoder with `d_sae` latents, and an L0 as k where it has one, else as target_l0."""
    config = yaml.safe_load((OVERLAYS / f"{name}.yaml").read_text())
    sparsity = {"k": round(l0)} if "k" in config["init_args"] else {"target_l0": l0}
    config["init_args"] |= {"d_sae": d_sae, **sparsity}
    parser = ArgumentParser()
    parser.add_argument("--autoencoder", type=Autoencoder)
    autoencoder = parser.instantiate(parser.parse_object({"autoencoder": config})).autoencoder
    assert isinstance(autoencoder, Autoencoder)
    return autoencoder


def truth(d: int, features: int, l0: float, seed: int, hierarchy: Forest | None = None) -> FeatureSettings:
    """Features whose rates fall with the root of their rank and whose strengths differ by half."""
    return FeatureSettings(
        d=d,
        count=features,
        mean_l0=l0,
        exponent=0.5,
        magnitudes=LogNormal(1.0, 0.4),
        hierarchy=hierarchy,
        noise=0.02,
        bias_norm=1.0,
        seed=seed,
    )


def real_activations(store: Path, batch: int) -> ActivationDataModule | None:
    """Batches of the main job's store; where there is none, stderr is told the command that makes one."""
    if not is_store(store):
        print(f"no real activations: there is no store in {store}; `{EXTRACTION}` makes {STORE}", file=sys.stderr)
        return None
    return ActivationDataModule(str(store), batch_size=batch, verify=False)


def module(autoencoder: Autoencoder, lr: float, **settings: Any) -> SparseAutoencoding:
    """The main job's module around an autoencoder: Adam, warmed up over 5% of the run and decayed over its last 20%.

    Args:
        autoencoder: the variant.
        lr: learning rate.
        **settings: others of SparseAutoencoding.
    """
    return SparseAutoencoding(
        autoencoder,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=lr, fused=True),
        lr_scheduler=lambda optimizer: WarmupDecay(optimizer, warmup=0.05, decay=0.2),
        **settings,
    )


def revival(autoencoder: Autoencoder) -> list[Callback]:
    """What starts dead latents anew. AuxK revives what it can; a latent that it is about to bring back need not."""
    return [] if isinstance(autoencoder.auxiliary, AuxK) else [DeadNeuronResampling()]


def silence() -> None:
    """Keeps what Lightning says about every Trainer away from the table."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")


def fit(
    model: SparseAutoencoding,
    data: LightningDataModule,
    steps: int,
    callbacks: Sequence[Callback] = (),
    clip: float | None = None,
) -> float:
    """Trains for so many steps, and says how many seconds it took."""
    # stdout is for JSON alone, and callbacks tell there what they do
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        trainer = _trainer(
            folder,
            callbacks,
            max_steps=steps,
            max_epochs=-1,
            limit_val_batches=0,
            gradient_clip_val=clip,
        )
        started = time.perf_counter()
        trainer.fit(model, data)
        return time.perf_counter() - started


def scores(
    model: SparseAutoencoding,
    data: LightningDataModule,
    split: Literal["validate", "test"] = "validate",
    callbacks: Sequence[Callback] = (),
) -> Scores:
    """What the held-out rows of a split say of a model, by the names of the metrics."""
    with tempfile.TemporaryDirectory() as folder:
        (logged,) = getattr(_trainer(folder, callbacks), split)(model, data, verbose=False)
    return {name.partition("/")[2]: float(value) for name, value in logged.items()}


def _trainer(folder: str, callbacks: Sequence[Callback], **settings: Any) -> Trainer:
    return Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        callbacks=list(callbacks),
        **settings,
    )


def parsed(parser: argparse.ArgumentParser, quick: dict[str, Any]) -> argparse.Namespace:
    """The options; with --quick, those in `quick` have other defaults, small enough for a test."""
    parser.add_argument("--quick", action="store_true", help="sizes that show that it runs, and nothing else")
    if parser.parse_known_args()[0].quick:
        parser.set_defaults(**quick)
    return parser.parse_args()


class Results:
    """Scores by name, kept in a file after every training, so that an interrupted bench goes on where it was.

    Args:
        path: of the JSON file; None keeps nothing.
        settings: what all of them were made with.

    Raises:
        UserError: the file has results of other settings.
    """

    def __init__(self, path: Path | None, settings: dict[str, Any]) -> None:
        self.path = path
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))
        self.scores: dict[str, Scores] = {}
        if path is not None and path.exists():
            there = json.loads(path.read_text())
            if there["settings"] != self.settings:
                raise UserError(f"{path} has results of other settings: set --results to another file")
            self.scores = there["scores"]

    def of(self, name: str, train: Callable[[], Scores]) -> Scores:
        """The scores under a name: those that are there, or those of a training that is made now."""
        if name not in self.scores:
            self.scores[name] = train()
            if self.path is not None:
                with atomic_file(self.path) as temporary:
                    temporary.write_text(json.dumps({"settings": self.settings, "scores": self.scores}, indent=1))
        return self.scores[name]
