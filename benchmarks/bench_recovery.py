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
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from benchmarks.training import SLOW_PURSUIT, Scores, fit, module, overlays, revival, scores, silence, truth, variant
from callbacks import DictionaryRecovery
from datamodules.synthetic import Forest
from datamodules.synthetic_activations import SyntheticActivations

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
COLUMNS = {"recovered": ".1%", "mean_max_cosine": ".3f", "dead": ".1%", "l0": ".2f", "fvu": ".3f"}
ABSORPTION = {"absorption": ".1%", "missed_alone": ".1%"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--truth", choices=FORESTS, default="independent")
    parser.add_argument("--variants", nargs="*", default=overlays(), help="names of overlays")
    for name, default in SETTINGS.items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    options = parser.parse_args()
    silence()
    columns = COLUMNS | (ABSORPTION if FORESTS[options.truth] else {})
    print("| variant |", " | ".join([*columns, "seconds"]), "|", file=sys.stderr)
    print("| --- |" + " --- |" * (len(columns) + 1), file=sys.stderr)
    results = {}
    for name in options.variants:
        results[name] = found = train(name, options, list(columns))
        told = [format(found[column], form) for column, form in columns.items()]
        print(f"| {name} |", " | ".join([*told, f"{found['seconds']:.0f}"]), "|", file=sys.stderr, flush=True)
    print(json.dumps({**vars(options), "threads": torch.get_num_threads(), "results": results}, indent=1))


def train(name: str, options: argparse.Namespace, columns: list[str]) -> Scores:
    """What validation says of a trained variant, its learning rate and the seconds that it took."""
    features = truth(options.d, options.features, options.l0, options.seed, FORESTS[options.truth])
    torch.manual_seed(options.seed)
    autoencoder = variant(name, options.features, options.l0)
    rate = SLOW_PURSUIT.get(name, options.lr)
    model = module(autoencoder, rate, sparsity_warmup=options.sparsity_warmup, dead_after_tokens=options.dead_after)
    data = SyntheticActivations(features, options.batch, options.steps * options.batch)
    seconds = fit(model, data, options.steps, revival(autoencoder))
    found = scores(model, data, callbacks=[DictionaryRecovery()])
    return {**{column: found[column] for column in columns}, "lr": rate, "seconds": seconds}


if __name__ == "__main__":
    main()
