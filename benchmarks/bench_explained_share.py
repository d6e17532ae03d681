"""How much of the cosines of held-out pairs is between latents: by the encoder's codes, and by codes that are fitted
anew, of the latents that the encoder chose and, for comparison, of as many that were drawn.

    python benchmarks/bench_explained_share.py --run diff --triplets configs/triplets/standard_library.yaml

Prints JSON: of each hook point and way, the shares of diagonal, cross, bias and error in the summed cosines, the median
share of diagonal and cross of a pair, and the largest distance of a sum of terms from the cosine of the embeddings.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from cli.extractors import extractor_of
from cli.triplet_configs import triplets_of
from datamodules.triplet_texts import examples_of
from explanations import TextLatents, active, open_reader, refitted
from explanations.text_latents import decoded
from exports import find_trained, load_trained
from lightning_modules.functional import Fired, similarity_terms


def drawn(texts: TextLatents, most: int, seed: int) -> TextLatents:
    """The texts with latents that were drawn in place of those that are in them."""
    generator = torch.Generator().manual_seed(seed)
    n, s = len(texts.lengths), len(texts.W)
    latents = torch.stack([torch.randperm(s, generator=generator)[:most].sort().values for _ in range(n)])
    rows = torch.arange(n).repeat_interleave(latents.shape[1])
    codes = Fired(rows, latents.flatten(), torch.ones(len(rows), dtype=torch.float64))
    return replace(texts, pooled_codes=codes, error=texts.pooled - texts.bias - decoded(codes, n, texts.W))


def shares(queries: TextLatents, documents: TextLatents) -> dict[str, float]:
    """Of the cosines of the i-th query with the i-th document."""
    latents = active(queries, documents)
    terms = similarity_terms(queries.split(latents), documents.split(latents), queries.W[latents])
    of_pairs = {name: value.diagonal() for name, value in terms._asdict().items()}
    whole = float(of_pairs["cosine"].sum())
    between = of_pairs["diagonal"] + of_pairs["cross"]
    exact = torch.nn.functional.cosine_similarity(queries.pooled, documents.pooled)
    return {
        **{name: float(of_pairs[name].sum()) / whole for name in ("diagonal", "cross", "bias", "error")},
        "between_latents": float(between.sum()) / whole,
        "median_pair": float((between / of_pairs["cosine"]).median()),
        "largest_difference": float((between + of_pairs["bias"] + of_pairs["error"] - exact).abs().max()),
    }


def pairs_of(config: str, split: Any, count: int) -> tuple[list[str], list[str]]:
    """Anchors and positives."""
    found = [example for _, example in islice(examples_of(triplets_of(config), split), count)]
    return [example.anchor for example in found], [example.positive for example in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("run", "triplets"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--split", default="test", choices=["train", "validation", "test"])
    parser.add_argument("--folder", default="runs")
    parser.add_argument("--pairs", type=int, default=300)
    parser.add_argument("--fitted", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    trained = find_trained(options.run, options.folder)
    reader = open_reader(load_trained(trained).only, extractor_of(trained))
    anchors, positives = pairs_of(options.triplets, options.split, options.pairs)
    asked, found = reader.read(anchors), reader.read(positives)
    report: dict[str, Any] = {**vars(options), "pairs": len(anchors), "shares": {}}
    for hook_point in reader.hook_points:
        texts = asked[hook_point], found[hook_point]
        ways = {"the encoder's codes": texts}
        for most in options.fitted:
            ways[f"{most} fitted"] = refitted(texts[0], most), refitted(texts[1], most)
            random = [refitted(drawn(each, most, options.seed + place), most) for place, each in enumerate(texts)]
            ways[f"{most} drawn and fitted"] = random[0], random[1]
        report["shares"][hook_point] = {name: shares(*both) for name, both in ways.items()}
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
