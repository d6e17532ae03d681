"""An inverted index of pooled latents against a dense index, as the number of documents grows: bytes, and the seconds
of one search for the first ten, one query at a time.

    python benchmarks/bench_sparse_index.py [--documents 1000 10000 100000] [--kept 16 64]

The texts are drawn: latents by a power law, so that some lists are long. With an exponent of 0.5 a query of 16 latents
meets 0.2 entries a document, as with weights of kind idf on functions of the standard library; with 0.8 it meets 1, and
with weights of kind norm 1.5.
A dense search is an exact product with all documents in float32 and a partial sort. Both take turns, and seconds are
medians. Quality is no matter of drawn texts: `python main.py fidelity` measures it on real ones, beside the same
figures. A table on stderr, JSON on stdout.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import numpy.typing as npt

from explanations import SparseIndex, SparseVectors

FOUND = 10
Search = Callable[[int], npt.NDArray[np.int64]]


def drawn(texts: int, kept: int, d_sae: int, exponent: float, random: np.random.Generator) -> SparseVectors:
    """Unit vectors of `kept` different latents each; the i-th latent is drawn with a weight of i^-exponent."""
    weights = np.arange(1, d_sae + 1, dtype=np.float64) ** -exponent
    latents = np.empty((texts, kept), dtype=np.int32)
    for start in range(0, texts, 4096):
        # the largest of Gumbel noise and log weight: a draw without replacement
        keys = np.log(weights) + random.gumbel(size=(min(4096, texts - start), d_sae))
        latents[start : start + 4096] = np.sort(np.argpartition(-keys, kept - 1, axis=1)[:, :kept], axis=1)
    values = random.exponential(size=(texts, kept)).astype(np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    return SparseVectors(np.arange(texts + 1, dtype=np.int64) * kept, latents.ravel(), values.ravel(), d_sae)


def dense_search(documents: npt.NDArray[np.float32], queries: npt.NDArray[np.float32]) -> Search:
    """Exact, one query at a time."""

    def search(query: int) -> npt.NDArray[np.int64]:
        scores = documents @ queries[query]
        best = np.argpartition(-scores, FOUND - 1)[:FOUND]
        return best[np.argsort(-scores[best], kind="stable")]

    return search


def sparse_search(index: SparseIndex, queries: SparseVectors) -> Search:
    """The same of an inverted index."""
    return lambda query: index.search(*queries.row(query), FOUND)


def timed(searches: dict[str, Search], queries: int) -> dict[str, float]:
    """Median seconds of a search."""
    seconds: dict[str, list[float]] = {name: [] for name in searches}
    for query in range(queries):
        for name, search in searches.items():
            started = time.perf_counter()
            search(query)
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each number of documents and of kept latents."""
    rows = []
    for count in options.documents:
        random = np.random.default_rng(0)
        dense = random.standard_normal((count, options.width), dtype=np.float32)
        asked = random.standard_normal((options.queries, options.width), dtype=np.float32)
        searches, sizes = {"dense": dense_search(dense, asked)}, {"dense": dense.nbytes}
        for kept in options.kept:
            documents, queries = (
                drawn(texts, kept, options.d_sae, options.exponent, random) for texts in (count, options.queries)
            )
            index = SparseIndex.of(documents)
            searches[str(kept)], sizes[str(kept)] = sparse_search(index, queries), index.nbytes
        seconds = timed(searches, options.queries)
        rows += [
            {
                "documents": count,
                "kept": int(name),
                "bytes": sizes[name],
                "bytes_to_dense": sizes[name] / sizes["dense"],
                "seconds": seconds[name],
                "dense_seconds": seconds["dense"],
                "dense_to_sparse": seconds["dense"] / seconds[name],
            }
            for name in sizes
            if name != "dense"
        ]
    return rows


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(description=__doc__)
    found.add_argument("--documents", type=int, nargs="+", default=[1000, 10_000, 100_000])
    found.add_argument("--kept", type=int, nargs="+", default=[16, 64])
    found.add_argument("--queries", type=int, default=50)
    found.add_argument("--width", type=int, default=384)
    found.add_argument("--d_sae", type=int, default=3072)
    found.add_argument("--exponent", type=float, default=0.5, help="of the latents' power law")
    return found


def main(arguments: list[str] | None = None) -> None:
    """Prints the line."""
    options = parser().parse_args(arguments)
    rows = measure(options)
    for row in rows:
        print(
            f"{row['documents']:>9,} documents, {row['kept']:>3} latents: {row['bytes_to_dense']:.2f} of the bytes, "
            f"{row['seconds'] * 1e6:8.0f} µs, dense {row['dense_seconds'] * 1e6:8.0f} µs: "
            f"{row['dense_to_sparse']:.2f}×",
            file=sys.stderr,
        )
    print(json.dumps({"bench": "sparse_index", "rows": rows}))


if __name__ == "__main__":
    main()
