"""How much of a dictionary that is known every variant finds: its overlay, trained on synthetic truth.

    python benchmarks/bench_recovery.py [--truth independent|hierarchical] [--variants topk gated …] [--steps 4000 …]

Every overlay of configs/autoencoder that names no wiring is trained through the Trainer in the sizes of the truth: as
many latents as features, and an L0 of `--l0`, as k where the variant has one, else as target_l0. The table grows on
stderr, JSON follows on stdout. Features count that have fired 1000 times or more in the rows trained on (in
expectation, see `DictionaryRecovery`); dead are latents that fire in none of the validation's rows.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
import yaml
from jsonargparse import ArgumentParser
from lightning.pytorch import Trainer

import cli.class_names  # noqa: F401  short class paths in overlays
from callbacks import DeadNeuronResampling, DictionaryRecovery
from datamodules.synthetic import FeatureSettings, Forest, LogNormal
from datamodules.synthetic_activations import SyntheticActivations
from lightning_modules.autoencoders import Autoencoder
from lightning_modules.autoencoders.aux_k import AuxK
from lightning_modules.schedules import WarmupDecay
from lightning_modules.sparse_autoencoding import SparseAutoencoding

OVERLAYS = Path(__file__).parents[1] / "configs" / "autoencoder"
FORESTS = {"independent": None, "hierarchical": Forest(trees=16, branching=3, depth=1)}
SETTINGS = {
    "d": 128,
    "features": 256,
    "l0": 5.0,
    "steps": 4000,
    "batch": 1024,
    "lr": 1e-2,
    "sparsity_warmup": 0.2,
    "dead_after": 20_000,
    "seed": 0,
}
RATES = {"matching_pursuit": 3e-2}
"""Learning rates of variants that need another: matching pursuit stays at 93% with 1e-2."""
COLUMNS = {"recovered": ".1%", "mean_max_cosine": ".3f", "dead": ".1%", "l0": ".2f", "fvu": ".3f"}
ABSORPTION = {"absorption": ".1%", "missed_alone": ".1%"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--truth", choices=FORESTS, default="independent")
    parser.add_argument("--variants", nargs="*", default=overlays(), help="names of overlays")
    for name, default in SETTINGS.items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    columns = COLUMNS | (ABSORPTION if FORESTS[options.truth] else {})
    print("| variant |", " | ".join([*columns, "seconds"]), "|", file=sys.stderr)
    print("| --- |" + " --- |" * (len(columns) + 1), file=sys.stderr)
    results = {}
    for name in options.variants:
        results[name] = scores = train(name, options)
        told = [format(scores[column], form) for column, form in columns.items()]
        print(f"| {name} |", " | ".join([*told, f"{scores['seconds']:.0f}"]), "|", file=sys.stderr, flush=True)
    print(json.dumps({**vars(options), "threads": torch.get_num_threads(), "results": results}, indent=1))


def overlays() -> list[str]:
    """Names of the overlays of variants that read and reconstruct one hook point."""
    return [
        path.stem
        for path in sorted(OVERLAYS.glob("*.yaml"))
        if "wiring" not in yaml.safe_load(path.read_text())["init_args"]
    ]


def variant(name: str, options: argparse.Namespace) -> Autoencoder:
    """The overlay's autoencoder in the sizes of the truth."""
    config = yaml.safe_load((OVERLAYS / f"{name}.yaml").read_text())
    sparsity = {"k": round(options.l0)} if "k" in config["init_args"] else {"target_l0": options.l0}
    config["init_args"] |= {"d_sae": options.features, **sparsity}
    parser = ArgumentParser()
    parser.add_argument("--autoencoder", type=Autoencoder)
    autoencoder = parser.instantiate(parser.parse_object({"autoencoder": config})).autoencoder
    assert isinstance(autoencoder, Autoencoder)
    return autoencoder


def train(name: str, options: argparse.Namespace) -> dict[str, float]:
    """What validation says of a trained variant, its learning rate and the seconds that it took."""
    features = FeatureSettings(
        d=options.d,
        count=options.features,
        mean_l0=options.l0,
        exponent=0.5,
        magnitudes=LogNormal(1.0, 0.4),
        hierarchy=FORESTS[options.truth],
        noise=0.02,
        bias_norm=1.0,
        seed=options.seed,
    )
    torch.manual_seed(options.seed)
    autoencoder = variant(name, options)
    rate = RATES.get(name, options.lr)
    model = SparseAutoencoding(
        autoencoder,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=rate, fused=True),
        lr_scheduler=lambda optimizer: WarmupDecay(optimizer, warmup=0.05, decay=0.2),
        sparsity_warmup=options.sparsity_warmup,
        dead_after_tokens=options.dead_after,
    )
    # AuxK revives what it can; a latent that it is about to bring back need not start again
    revival = [] if isinstance(autoencoder.auxiliary, AuxK) else [DeadNeuronResampling()]
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            max_epochs=1,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            num_sanity_val_steps=0,
            default_root_dir=folder,
            callbacks=[DictionaryRecovery(), *revival],
        )
        data = SyntheticActivations(features, options.batch, options.steps * options.batch)
        started = time.perf_counter()
        trainer.fit(model, data)
        seconds = time.perf_counter() - started
    logged: dict[str, Any] = trainer.callback_metrics
    names = [*COLUMNS, *(ABSORPTION if features.hierarchy else {})]
    return {**{score: float(logged[f"val/{score}"]) for score in names}, "lr": rate, "seconds": seconds}


if __name__ == "__main__":
    main()
