"""How well every variant reconstructs at equal L0: FVU of its overlay, trained on known features and on activations.

    python benchmarks/bench_quality.py [--data synthetic real] [--l0 8 16 32 64] [--picture FILE.svg]

Every overlay of configs/autoencoder that names no wiring is trained through the Trainer with as many latents and
tokens, once for every L0, which is its k where it has one, else its target_l0. FVU and the L0 that came of it are those
of the validation's rows. A table grows on stderr, JSON follows on stdout; with `--results FILE` a bench that was
interrupted goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from functools import partial
from itertools import product
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from benchmarks.quality_picture import Curves, draw
from benchmarks.training import (
    SLOW_PURSUIT,
    STORE,
    Results,
    Scores,
    fit,
    module,
    overlays,
    parsed,
    real_activations,
    revival,
    scores,
    silence,
    truth,
    variant,
)
from callbacks import DictionaryRecovery
from datamodules.activations import ActivationDataModule
from datamodules.synthetic_activations import SyntheticActivations

Data = ActivationDataModule | SyntheticActivations
SIZES = {"d_sae": 1024, "tokens": 200_000, "batch": 512}
FEATURES_A_ROW = 16
LEARNING_RATES = {"synthetic": 1e-2, "real": 3e-3}
QUICK = {"d_sae": 64, "tokens": 2048, "batch": 256, "l0": [2, 4]}
COLUMNS = {"l0": ".2f", "fvu": ".4f", "dead": ".1%", "recovered": ".1%"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", choices=LEARNING_RATES, default=list(LEARNING_RATES))
    parser.add_argument("--store", type=Path, default=STORE, help="of the main job")
    parser.add_argument("--variants", nargs="+", choices=overlays(), default=overlays(), help="names of overlays")
    parser.add_argument("--l0", nargs="+", type=int, default=[8, 16, 32, 64])
    parser.add_argument("--picture", type=Path, help="SVG file to draw FVU against L0 in")
    parser.add_argument("--results", type=Path, help="JSON file that results are added to")
    for name, default in SIZES.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parsed(parser, QUICK)
    silence()
    results = Results(options.results, {name: getattr(options, name) for name in SIZES})
    sources = {"synthetic": synthetic, "real": real}
    print("| data | variant | asked |", " | ".join(COLUMNS), "|", file=sys.stderr)
    print("| --- | --- | --- |" + " --- |" * len(COLUMNS), file=sys.stderr)
    curves = {}
    for name in options.data:
        if (data := sources[name](options)) is not None:
            curves[name] = measured(name, data, options, results)
    if options.picture:
        draw(curves, options.picture)
    print(json.dumps({**results.settings, "threads": torch.get_num_threads(), "results": curves}, indent=1))


def measured(name: str, data: Data, options: argparse.Namespace, results: Results) -> Curves:
    """Scores of every variant at every L0, told as they come."""
    curves: Curves = {}
    for overlay, l0 in product(options.variants, options.l0):
        found = results.of(f"{name}/{overlay}/{l0}", partial(train, name, overlay, l0, data, options))
        curves.setdefault(overlay, []).append(found)
        told = [format(found[column], form) if column in found else "" for column, form in COLUMNS.items()]
        print(f"| {name} | {overlay} | {l0} |", " | ".join(told), "|", file=sys.stderr, flush=True)
    return curves


def synthetic(options: argparse.Namespace) -> SyntheticActivations:
    """As many features as there are latents, in a quarter as many dimensions."""
    features = truth(options.d_sae // 4, options.d_sae, min(FEATURES_A_ROW, options.d_sae // 16), seed=0)
    return SyntheticActivations(features, options.batch, options.tokens // options.batch * options.batch)


def real(options: argparse.Namespace) -> ActivationDataModule | None:
    """Activations of the main job; None where there is no store."""
    return real_activations(options.store, options.batch)


def train(name: str, overlay: str, l0: int, data: Data, options: argparse.Namespace) -> Scores:
    """What validation says of a trained variant."""
    torch.manual_seed(0)
    autoencoder = variant(overlay, options.d_sae, l0)
    known = isinstance(data, SyntheticActivations)
    rate = (SLOW_PURSUIT if known else {}).get(overlay, LEARNING_RATES[name])
    model = module(autoencoder, rate)
    fit(model, data, options.tokens // options.batch, revival(autoencoder), clip=1.0)
    found = scores(model, data, callbacks=[DictionaryRecovery(fired_at_least=0)] if known else [])
    return {column: found[column] for column in COLUMNS if column in found}


if __name__ == "__main__":
    main()
