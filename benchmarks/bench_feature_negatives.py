"""Do hard negatives that latents choose train a better embedder than those that cosines choose?

Docstring → function triplets of the standard library, the model of configs/embedder.yaml, an epoch, several seeds; each
arm mines one negative a triplet with the base model. NDCG@10 on modules that no arm was trained on, as a line of JSON;
a table goes to stderr. The difference to plain mining is of queries, averaged over the seeds, and its 95% interval a
bootstrap over queries. The autoencoder of the base's final token states is the run that is named, or a small one that
is trained first.

    python benchmarks/bench_feature_negatives.py [--autoencoder RUN --folder runs] [--triplets 512 --seeds 3]
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch import Tensor

from benchmarks.embedding import CodeSearch, recipe, trainer, write_triplets
from callbacks import LatentGuide
from datamodules.contrastive_triplets import TripletDataModule
from datamodules.triplets import HardNegatives, TripletColumns, TripletFiles
from lightning_modules.contrastive_embedding import ContrastiveEmbedding
from lightning_modules.embedding_evaluation import EmbeddingEvaluation
from lightning_modules.functional import paired_bootstrap

ROOT = Path(__file__).parents[1]
SCORE = "ndcg@10"
IN_BATCH, PLAIN = "in_batch", "plain"


def arms(options: argparse.Namespace) -> dict[str, HardNegatives | None]:
    """What each arm mines."""
    window = {"count": 1, "first_rank": 0, "last_rank": options.last_rank, "max_share": options.max_share}
    return {
        IN_BATCH: None,
        PLAIN: HardNegatives(**window),
        "few_false": HardNegatives(**window, most_overlap=options.most_overlap),
        "least_overlap": HardNegatives(**window, sampling="least_overlap"),
    }


def trained_autoencoder(options: argparse.Namespace, folder: Path) -> tuple[str, str]:
    """A run's name and the folder of all runs."""
    if options.autoencoder:
        return options.autoencoder, options.folder
    command = [
        sys.executable,
        "main.py",
        "fit",
        "--config",
        "configs/sae.yaml",
        "--config",
        "configs/final_states.yaml",
    ]
    settings = {
        "run.folder": folder / "runs",
        "data.store": folder / "store",
        "data.text.max_tokens": options.tokens,
        "trainer.max_epochs": 2,
    }
    command += [f"--{name}={value}" for name, value in settings.items()]
    subprocess.run(command, cwd=ROOT, check=True, stdout=sys.stderr)
    return "final", str(folder / "runs")


def data_of(options: argparse.Namespace, folder: Path, mining: HardNegatives | None, seed: int) -> TripletDataModule:
    """The triplets' pairs for training, and the held-out ones for the test."""
    pairs = TripletColumns(negatives=[])
    return TripletDataModule(
        TripletFiles(str(folder / "train.jsonl"), pairs),
        batch_size=options.batch,
        test=TripletFiles(str(folder / "test.jsonl")),
        validation_share=0.0,
        mining=mining,
        cache=str(folder / "cache"),
        seed=seed,
    )


@torch.no_grad()
def evaluated(model: ContrastiveEmbedding, data: TripletDataModule) -> Tensor:
    """[queries] NDCG@10 on the test triplets."""
    evaluation = EmbeddingEvaluation(model.encoder.width)
    model.encoder.eval()
    for batch in data.test_dataloader():
        evaluation.update(batch, model.encoder.encode(batch.texts))
    return evaluation.retrieval.per_query().scores[SCORE]


def train(
    options: argparse.Namespace, folder: Path, mining: HardNegatives | None, seed: int, guide: LatentGuide
) -> tuple[Tensor, float]:
    """Scores of an arm, and the seconds of its training with its mining."""
    torch.manual_seed(seed)
    model = recipe({"max_length": options.max_length}, measure_first=False)
    data = data_of(options, folder, mining, seed)
    guides = [guide] if mining is not None and mining.compares_latents else []
    with redirect_stdout(io.StringIO()):
        started = time.perf_counter()
        trainer(folder / "run", guides, max_epochs=1, logger=False).fit(model, data)
        seconds = time.perf_counter() - started
    data.setup("test")
    return evaluated(model, data), seconds


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Everything that is told."""
    name, runs = trained_autoencoder(options, folder)
    library = CodeSearch([])
    write_triplets(folder / "train.jsonl", library.take(options.triplets))
    write_triplets(folder / "test.jsonl", library.take(options.queries))
    scores: dict[str, list[Tensor]] = {}
    seconds: dict[str, list[float]] = {}
    for seed in range(options.seeds):
        for arm, mining in arms(options).items():
            found, took = train(options, folder, mining, seed, LatentGuide(name, options.latents, folder=runs))
            scores.setdefault(arm, []).append(found)
            seconds.setdefault(arm, []).append(took)
            print(f"{arm} seed {seed}: {float(found.nanmean()):.4f}, {took:.0f} s", file=sys.stderr, flush=True)
    return {arm: told(scores, seconds, arm) for arm in scores}


def told(scores: dict[str, list[Tensor]], seconds: dict[str, list[float]], arm: str) -> dict[str, Any]:
    """Of an arm: mean and spread over the seeds, and the difference to plain mining."""
    means = [float(found.nanmean()) for found in scores[arm]]
    difference = torch.stack(scores[arm]).mean(dim=0) - torch.stack(scores[PLAIN]).mean(dim=0)
    interval = paired_bootstrap(difference, seed=0)
    return {
        SCORE: statistics.fmean(means),
        "spread": statistics.stdev(means) if len(means) > 1 else 0.0,
        "to_plain": interval.mean,
        "to_plain_low": interval.low,
        "to_plain_high": interval.high,
        "seconds": statistics.fmean(seconds[arm]),
    }


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(description=__doc__)
    found.add_argument("--triplets", type=int, default=512)
    found.add_argument("--queries", type=int, default=400)
    found.add_argument("--batch", type=int, default=32)
    found.add_argument("--max_length", type=int, default=64)
    found.add_argument("--seeds", type=int, default=3)
    found.add_argument("--last_rank", type=int, default=30)
    found.add_argument("--max_share", type=float, default=0.95)
    found.add_argument("--most_overlap", type=float, default=0.2)
    found.add_argument("--latents", type=int, default=64)
    found.add_argument("--tokens", type=int, default=200_000, help="that a small autoencoder is trained on")
    found.add_argument("--autoencoder", help="a run, in place of a small one that is trained first")
    found.add_argument("--folder", default="runs", help="of all runs")
    return found


def main(arguments: list[str] | None = None) -> None:
    """Prints the line."""
    options = parser().parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        result = measure(options, Path(folder))
    for arm, figures in result.items():
        print(
            f"{arm:<16}{figures[SCORE]:.4f} ± {figures['spread']:.4f}  to plain {figures['to_plain']:+.4f} "
            f"({figures['to_plain_low']:+.4f} to {figures['to_plain_high']:+.4f}){figures['seconds']:8.0f} s",
            file=sys.stderr,
        )
    print(json.dumps({"bench": "feature_negatives", **vars(options), "arms": result}))


if __name__ == "__main__":
    main()
