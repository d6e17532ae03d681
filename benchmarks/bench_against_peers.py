"""TopK at equal tokens by our Trainer and by SAELens' and sparsify's: FVU, and the share of known features found.

    FULGURITE_PEERS_PYTHON=… python benchmarks/bench_against_peers.py [--data synthetic real] [--store FOLDER]

Every trainer sees the same rows in the same order and batches, with its own defaults but for the learning rate, which
is the one of `--rates` with the least FVU on the validation's rows (first seed). Seeds are those of the weights. Scores
are those of the test's rows, by one evaluation of ours. `sparsify` is its default optimiser (signum, schedule-free),
`sparsify_adam` its Adam with a warm-up of 5% of the run. A table follows each data set on stderr, JSON follows on
stdout; with `--results FILE` a bench that was interrupted goes on where it was. Without FULGURITE_PEERS_PYTHON, a
Python with the extra `peers`, only ours is trained.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from lightning.pytorch import Callback
from safetensors.torch import load_file, save_file

from benchmarks.training import (
    STORE,
    Results,
    Scores,
    fit,
    module,
    parsed,
    real_activations,
    scores,
    silence,
    truth,
)
from callbacks import DeadNeuronResampling, DictionaryRecovery
from datamodules.activations import ActivationDataModule
from datamodules.synthetic_activations import SyntheticActivations
from lightning_modules.autoencoders import NoNormalization, TopK
from lightning_modules.sparse_autoencoding import SparseAutoencoding

OURS, PEERS = "fulgurite", ("saelens", "sparsify", "sparsify_adam")
SCRIPT = Path(__file__).parent / "peers" / "train_topk.py"
SIZES = {
    "synthetic_features": 256,
    "synthetic_k": 5,
    "synthetic_tokens": 500_000,
    "real_latents": 1024,
    "real_k": 32,
    "real_tokens": 300_000,
    "batch": 1024,
}
QUICK = {
    "synthetic_features": 32,
    "synthetic_k": 2,
    "synthetic_tokens": 8192,
    "real_latents": 32,
    "real_k": 3,
    "real_tokens": 4096,
    "batch": 256,
    "rates": [1e-2],
    "seeds": 1,
}
TOLD = {"fvu": ".4f", "recovered": ".1%", "l0": ".2f", "dead": ".1%"}


@dataclass(frozen=True)
class Task:
    """What is trained on, and in which sizes."""

    data: ActivationDataModule | SyntheticActivations
    d_sae: int
    k: int
    batch: int
    steps: int

    def score(self, model: SparseAutoencoding) -> Scores:
        """Of the test's rows, beside the validation's FVU and, of known features, the share that was found."""
        known = isinstance(self.data, SyntheticActivations)
        # all features are looked for, whoever has trained and whatever they say that they have seen
        recovery: list[Callback] = [DictionaryRecovery(fired_at_least=0)] if known else []
        validation = scores(model, self.data, callbacks=recovery)
        found = scores(model, self.data, "test")
        found = {name: found[name] for name in TOLD if name in found} | {"validation_fvu": validation["fvu"]}
        return found | ({"recovered": validation["recovered"]} if known else {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", choices=["synthetic", "real"], default=["synthetic", "real"])
    parser.add_argument("--store", type=Path, default=STORE, help="of the main job")
    parser.add_argument("--trainers", nargs="+", choices=[OURS, *PEERS], default=[OURS, *PEERS])
    parser.add_argument("--rates", nargs="+", type=float, default=[1e-3, 3e-3, 1e-2, 3e-2])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--results", type=Path, help="JSON file that results are added to")
    for name, default in SIZES.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parsed(parser, QUICK)
    silence()
    trainers = options.trainers
    if not os.environ.get("FULGURITE_PEERS_PYTHON"):
        print("FULGURITE_PEERS_PYTHON is not set: the peers are left out", file=sys.stderr)
        trainers = [OURS]
    results = Results(options.results, {name: getattr(options, name) for name in SIZES})
    tasks = {"synthetic": synthetic, "real": real}
    tables = {}
    for name in options.data:
        task = tasks[name](options)
        if task is None:
            continue
        with rows_in_a_file(task, trainers) as rows:
            tables[name] = {trainer: compared(name, trainer, task, rows, options, results) for trainer in trainers}
        print_table(name, tables[name])
    print(json.dumps({**results.settings, "threads": torch.get_num_threads(), "results": tables}, indent=1))


def synthetic(options: argparse.Namespace) -> Task:
    """As many latents as there are features, and a k of as many as fire in a row on average."""
    d_sae, k, batch = options.synthetic_features, options.synthetic_k, options.batch
    steps = options.synthetic_tokens // batch
    data = SyntheticActivations(truth(d_sae // 2, d_sae, k, seed=0), batch, steps * batch)
    return Task(data, d_sae, k, batch, steps)


def real(options: argparse.Namespace) -> Task | None:
    """Activations of the main job; None where there is no store."""
    data, batch = real_activations(options.store, options.batch), options.batch
    steps = options.real_tokens // batch
    return None if data is None else Task(data, options.real_latents, options.real_k, batch, steps)


@contextmanager
def rows_in_a_file(task: Task, trainers: list[str]) -> Iterator[Path]:
    """A file with the rows that a training reads, in its order, for the peers among the trainers."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.safetensors"
        if set(trainers) - {OURS}:
            task.data.setup("fit")
            loader = task.data.train_dataloader()
            epochs = chain.from_iterable(iter(loader) for _ in count())  # each in an order of its own
            batches = islice(epochs, task.steps)
            save_file({"rows": torch.cat([batch.activations[0] for batch in batches])}, file)
        yield file


def compared(
    data: str, trainer: str, task: Task, rows: Path, options: argparse.Namespace, results: Results
) -> dict[str, Any]:
    """The learning rate that is best for the first seed, and the scores of every seed with it."""

    def of(rate: float, seed: int) -> Scores:
        train = (
            partial(train_ours, task, rate, seed)
            if trainer == OURS
            else partial(train_peers, trainer, task, rate, seed, rows)
        )
        found = results.of(f"{data}/{trainer}/{rate:g}/{seed}", lambda: task.score(train()))
        print(f"{data} {trainer} lr {rate:g} seed {seed}: FVU {found['fvu']:.4f}", file=sys.stderr, flush=True)
        return found

    first = {rate: of(rate, 0)["validation_fvu"] for rate in options.rates}
    best = min(first, key=first.__getitem__)
    return {"lr": best, "rates": first, "seeds": [of(best, seed) for seed in range(options.seeds)]}


def train_ours(task: Task, rate: float, seed: int) -> SparseAutoencoding:
    """As configs/sae.yaml trains."""
    torch.manual_seed(seed)
    model = module(TopK(task.d_sae, task.k), rate)
    fit(model, task.data, task.steps, [DeadNeuronResampling()], clip=1.0)
    return model


def train_peers(trainer: str, task: Task, rate: float, seed: int, rows: Path) -> SparseAutoencoding:
    """What a peer has made of the rows, as a model of ours."""
    sizes = {"d_sae": task.d_sae, "k": task.k, "batch": task.batch, "steps": task.steps}
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled"}
    with tempfile.TemporaryDirectory() as folder:
        output, settings = Path(folder) / "weights.safetensors", Path(folder) / "settings.json"
        settings.write_text(json.dumps({**sizes, "lr": rate, "seed": seed, "rows": str(rows), "output": str(output)}))
        command = [os.environ["FULGURITE_PEERS_PYTHON"], str(SCRIPT), trainer, str(settings)]
        process = subprocess.run(command, capture_output=True, text=True, env=environment)
        if process.returncode:
            raise RuntimeError(f"{trainer} failed: {process.stderr[-3000:]}")
        weights = load_file(output)
    model = SparseAutoencoding(
        TopK(task.d_sae, task.k), normalization=NoNormalization(), shapes={"rows": weights["b_dec"].numel()}
    )
    model.configure_model()
    # decoder rows keep the lengths that they were saved with, which an import would refuse
    model.autoencoder.load_state_dict(model.autoencoder.state_dict() | weights)
    return model


def print_table(data: str, results: dict[str, dict[str, Any]]) -> None:
    """Means over the seeds ± their standard deviation."""
    columns = {name: form for name, form in TOLD.items() if name in next(iter(results.values()))["seeds"][0]}
    print(f"| {data} | lr |", " | ".join(columns), "|", file=sys.stderr)
    print("| --- | --- |" + " --- |" * len(columns), file=sys.stderr)
    for trainer, found in results.items():
        told = []
        for name, form in columns.items():
            values = [scores[name] for scores in found["seeds"]]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            told.append(f"{statistics.mean(values):{form}} ± {spread:{form}}")
        print(f"| {trainer} | {found['lr']:g} |", " | ".join(told), "|", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
