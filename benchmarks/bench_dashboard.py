"""How fast a pass for the dashboard gathers latents, against reading the rows alone and against encoding them alone.

    python benchmarks/bench_dashboard.py                     3072 latents, 32 of them a row, on rows that are made up
    python benchmarks/bench_dashboard.py --store STORE --run RUN     a trained autoencoder on its own rows

Prints JSON. Reader, encoder and pass take turns, a batch each, so that a busy spell of the machine falls on all alike.
The pass reads, encodes, reconstructs for the FVU and gathers; `of_encoding` is its rate by that of reading and
encoding, `of_reading` by that of reading. On a CPU the encoder's product alone is far slower than the reader. Seconds
of the processor, over all threads, are told beside those of the clock, for a machine that is shared.
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
from typing import TypeVar

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as main.py does

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.training import parsed
from datamodules.shards import ActivationStore, StoreWriter
from datamodules.shards.row_ranges import RowRanges
from exports import find_trained, load_trained
from features import Facts, FeatureCollector
from lightning_modules.autoencoders import DatasetScale, TopK
from lightning_modules.feature_pass import StoreRows, batches
from lightning_modules.functional import Codes
from lightning_modules.trainee import Trainee

HOOK_POINT = "encoder.layer.2"
T = TypeVar("T")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=262_144)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--d", type=int, default=384)
    parser.add_argument("--d-sae", type=int, default=3072)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--run", help="a trained run; a new autoencoder by default")
    parser.add_argument("--store", help="its store; rows that are made up by default")
    options = parsed(parser, {"rows": 4096, "batch": 512, "d": 16, "d_sae": 64, "k": 4})
    with tempfile.TemporaryDirectory() as folder:
        store = ActivationStore(options.store, verify=False) if options.store else made_up(Path(folder), options)
        member = trained(options.run) if options.run else untrained(store, options)
        print(json.dumps(measured(member, store, min(options.rows, store.rows), options.batch), indent=1))


def made_up(folder: Path, options: argparse.Namespace) -> ActivationStore:
    """Rows near a few hundred directions, whose latents fire as unevenly as real ones do."""
    directions = torch.randn(512, options.d)
    with StoreWriter(folder / "store", {HOOK_POINT: options.d}, "bfloat16") as writer:
        for document in range(-(-options.rows // options.batch)):
            near = torch.multinomial(1 / torch.arange(1.0, 513), options.batch, replacement=True)
            rows = directions[near] + 0.5 * torch.randn(options.batch, options.d)
            numbers = torch.arange(options.batch)
            writer.append({HOOK_POINT: rows}, near, torch.full_like(numbers, document), numbers)
        names = [f"document {document}" for document in range(-(-options.rows // options.batch))]
        writer.finish({}, names)
    return ActivationStore(folder / "store", verify=False)


def untrained(store: ActivationStore, options: argparse.Namespace) -> Trainee:
    member = Trainee(TopK(options.d_sae, options.k))
    (name,) = store.hook_points
    member.configure({name: options.d}, {name: DatasetScale()})
    member.start_from_data(store.read(torch.arange(min(4096, store.rows))))
    return member.eval()


def trained(run: str) -> Trainee:
    return load_trained(find_trained(run)).only


@torch.inference_mode()
def measured(member: Trainee, store: ActivationStore, rows: int, batch_rows: int) -> dict[str, object]:
    """Rates of reading, encoding and gathering, and what follows the pass in seconds."""
    collector = FeatureCollector(member.autoencoder.d_sae)
    order = RowRanges(torch.tensor([[0, rows]]))
    names = list(member.shapes)
    spent = {name: torch.zeros(2, dtype=torch.float64) for name in ("reading", "encoding", "gathering")}
    feed = batches(store, names, order, collector.keeping.neighbours, batch_rows)
    while True:
        batch, taken = timed(lambda: next(feed, None))
        if batch is None:
            break
        codes, encoding = timed(lambda batch=batch: encoded(member, batch))
        _, gathering = timed(lambda codes=codes, batch=batch: collector.update(codes, batch.rows))
        _, rebuilding = timed(lambda codes=codes: codes.decode(member.autoencoder.W_dec))
        spent["reading"] += taken
        spent["encoding"] += taken + encoding
        spent["gathering"] += taken + encoding + gathering + rebuilding
    features, closing = timed(collector.features)
    _, facts = timed(lambda: Facts.of(features, member.autoencoder.W_dec))
    return {
        "threads": torch.get_num_threads(),
        "rows": rows,
        "batch": batch_rows,
        "d_sae": member.autoencoder.d_sae,
        "rows_per_second": {name: round(rows / float(seconds[0])) for name, seconds in spent.items()},
        "by_the_clock": ratios(*(float(seconds[0]) for seconds in spent.values())),
        "by_the_processor": ratios(*(float(seconds[1]) for seconds in spent.values())),
        "seconds_after_the_pass": {"features": round(float(closing[0]), 2), "facts": round(float(facts[0]), 2)},
    }


def ratios(reading: float, encoding: float, gathering: float) -> dict[str, float]:
    return {
        "of_encoding": round(encoding / gathering, 3),
        "of_reading": round(reading / gathering, 3),
        "encoding_of_reading": round(reading / encoding, 3),
    }


def encoded(member: Trainee, batch: StoreRows) -> Codes:
    return member.autoencoder.encode(member.pair(member.seen(list(batch.activations))).x)


def timed(work: Callable[[], T]) -> tuple[T, Tensor]:
    """The result, and seconds [2] of the clock and of the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    result = work()
    taken = [time.perf_counter() - clock, time.process_time() - processor]
    return result, torch.tensor(taken, dtype=torch.float64)


if __name__ == "__main__":
    main()
