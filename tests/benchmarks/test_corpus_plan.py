"""The tables of docs/scale.md are those of benchmarks/corpus_plan.py, and its bytes those of stores."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from datamodules.shards import StoreWriter
from datamodules.shards.format import HookPoint

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def plan():
    spec = importlib.util.spec_from_file_location("corpus_plan", ROOT / "benchmarks" / "corpus_plan.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_page_has_the_tables(plan):
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    for table in plan.TABLES:
        assert plan.as_markdown(table()) in page, f"print {table.__name__} again: python benchmarks/corpus_plan.py"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("d", [384, 768])
def test_a_store_takes_as_many_bytes_a_row(plan, tmp_path, d, dtype):
    rows, shard_bytes = 1000, 300 * HookPoint(d, dtype).row_bytes
    numbers = torch.arange(rows)
    with StoreWriter(tmp_path / "store", {"layer": d}, dtype, shard_bytes) as writer:
        writer.append({"layer": torch.randn(rows, d)}, numbers, numbers, numbers)
        manifest = writer.finish({}, [""] * rows)
    taken = sum(file.bytes for shard in manifest.shards for file in shard.files)
    headers = 8 * 250  # at most, of two files a shard
    assert 0 < taken - rows * plan.row_bytes(d, dtype) <= headers
    assert len(manifest.shards) == 4
