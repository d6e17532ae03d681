"""What a corpus of 10⁹ tokens takes, on paper: the tables of docs/scale.md.

    python benchmarks/corpus_plan.py

Bytes are those of the store's format. Everything else follows from the assumptions below, which are none of ours to
measure here; change them, and print the tables again.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from datamodules.shards import SHARD_BYTES
from datamodules.shards.fetching import PART_BYTES
from datamodules.shards.format import PROVENANCE_KEYS, HookPoint

TOKENS = 10**9
DTYPES = ("float32", "bfloat16", "int8")

# Assumptions: one H100 SXM, its host and its network; prices as clouds ask them.
PEAK = 989e12
"""Dense bfloat16 FLOP/s."""
GPU_HOUR = 3.0
"""Dollars."""
STORAGE_GB_MONTH = 0.023
"""Dollars, for an object store in the same region, which asks nothing for the way to the GPU."""
MILLION_READS = 0.4
"""Dollars."""
NETWORK = 1.25e9
"""Bytes/s of a node, to and from the object store: 10 Gbit/s."""
DISK = 3e9
"""Bytes/s of an NVMe disk."""
TOKENISER = 16 * 0.4e6
"""Tokens/s of 16 cores. Measured for one: half a million tokens in a second of CPU time, of MiniLM's tokenizer."""
READ_SECONDS, READS_AT_ONCE = 0.05, 64
"""Until the first byte of a request to an object store comes, and requests under way."""
BLOCK_ROWS = 16
EXPANSION = 16
"""d_sae / d."""


@dataclass(frozen=True)
class Model:
    """A transformer up to the hook point.

    Attributes:
        d: width of the residual stream.
        layers: that are run.
        layer_parameters: of one of them.
        utilisation: share of the peak that its forward has on such a GPU.
    """

    name: str
    d: int
    layers: int
    layer_parameters: float
    context: int
    utilisation: float

    @property
    def flops(self) -> float:
        """Of a token: two a parameter, and those of attention."""
        return self.layers * (2 * self.layer_parameters + 4 * self.context * self.d)

    @property
    def tokens_per_second(self) -> float:
        return self.utilisation * PEAK / self.flops

    @property
    def hours(self) -> float:
        """Of one GPU, for all tokens."""
        return TOKENS / self.tokens_per_second / 3600


MODELS = (
    Model("MiniLM, layer 3 of 6", 384, 3, 12 * 384**2, 128, 0.10),
    Model("GPT-2 small, layer 6 of 12", 768, 6, 12 * 768**2, 1024, 0.20),
    Model("Llama 3.1 8B, layer 16 of 32", 4096, 16, 218e6, 1024, 0.40),
)


def row_bytes(d: int, dtype: str) -> int:
    """Of one row of one hook point, with where it comes from."""
    return HookPoint(d, dtype).row_bytes + 4 * len(PROVENANCE_KEYS)


def corpus_bytes(d: int, dtype: str) -> int:
    return TOKENS * row_bytes(d, dtype)


def shards(d: int, dtype: str) -> int:
    return math.ceil(TOKENS / (SHARD_BYTES // HookPoint(d, dtype).row_bytes))


def sizes() -> Iterator[Sequence[str]]:
    yield "d", "dtype", "bytes a row", "TB", "shards", "hours on the network", "hours on a disk", "$ a month"
    for model in MODELS:
        for dtype in DTYPES:
            size = corpus_bytes(model.d, dtype)
            yield (
                f"{model.d}",
                dtype,
                f"{row_bytes(model.d, dtype):,}",
                f"{size / 1e12:.2f}",
                f"{shards(model.d, dtype):,}",
                f"{size / NETWORK / 3600:.2f}",
                f"{size / DISK / 3600:.2f}",
                f"{size / 1e9 * STORAGE_GB_MONTH:.0f}",
            )


def extractions() -> Iterator[Sequence[str]]:
    yield "model", "MFLOP a token", "tokens/s, GPU", "network", "tokenizer", "first to saturate", "GPU-hours", "$"
    for model in MODELS:
        rates = {
            "GPU": model.tokens_per_second,
            "network": NETWORK / row_bytes(model.d, "bfloat16"),
            "tokenizer": TOKENISER,
        }
        hours = TOKENS / min(rates.values()) / 3600
        yield (
            model.name,
            f"{model.flops / 1e6:,.0f}",
            *(f"{rate / 1e6:.2f} M" for rate in rates.values()),
            f"the {min(rates, key=lambda name: rates[name])}",
            f"{hours:.2f}",
            f"{hours * GPU_HOUR:.2f}",
        )


def epochs() -> Iterator[Sequence[str]]:
    yield (
        "d",
        "encoder, hours",
        "stored: network, hours",
        "streamed: forward, hours",
        "$ a pass, stored",
        "streamed",
        "passes a month that pay for the store",
    )
    for model in MODELS:
        encoder = TOKENS * 2 * EXPANSION * model.d**2 / (0.4 * PEAK) / 3600
        network = TOKENS * HookPoint(model.d, "bfloat16").row_bytes / NETWORK / 3600
        stored, streamed = max(encoder, network) * GPU_HOUR, (encoder + model.hours) * GPU_HOUR
        month = corpus_bytes(model.d, "bfloat16") / 1e9 * STORAGE_GB_MONTH
        passes = math.ceil(month / (streamed - stored)) if streamed > stored else None
        yield (
            f"{model.d}",
            f"{encoder:.3f}",
            f"{network:.2f}",
            f"{model.hours:.2f}",
            f"{stored:.2f}",
            f"{streamed:.2f}",
            "none do" if passes is None else f"{passes:,}",
        )


def requests() -> Iterator[Sequence[str]]:
    yield "an epoch at d = 768 in bfloat16", "requests", "bytes each", "$", "MB/s", "hours"
    stored = HookPoint(768, "bfloat16").row_bytes
    total = TOKENS * stored
    for name, each in ((f"blocks of {BLOCK_ROWS} rows", BLOCK_ROWS * stored), ("shards, in parts", PART_BYTES)):
        count = math.ceil(total / each)
        rate = min(NETWORK, READS_AT_ONCE * each / READ_SECONDS)
        yield (
            name,
            f"{count:,}",
            f"{each:,}",
            f"{count / 1e6 * MILLION_READS:.2f}",
            f"{rate / 1e6:,.0f}",
            f"{total / rate / 3600:.1f}",
        )


TABLES = (sizes, extractions, epochs, requests)


def as_markdown(rows: Iterator[Sequence[str]]) -> str:
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    print("\n\n".join(as_markdown(table()) for table in TABLES))


if __name__ == "__main__":
    main()
