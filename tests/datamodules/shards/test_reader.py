import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datamodules.shards import ActivationStore
from run_store import UserError


@pytest.fixture(scope="module")
def opened(tmp_path_factory, rows_of_documents, write_store):
    """Rows and their open store."""
    rows = rows_of_documents()
    return rows, ActivationStore(write_store(tmp_path_factory.mktemp("stores") / "opened", rows))


@given(wanted=st.lists(st.integers(0, 62)))
def test_rows_are_read_in_any_order_aligned_over_hook_points(opened, wanted):
    rows, store = opened
    wanted = torch.tensor(wanted, dtype=torch.int64)
    block, layer = store.read(wanted, ["block/1", "layer.0"])
    assert torch.equal(layer, rows.activations["layer.0"][wanted])
    assert torch.equal(block, rows.activations["block/1"][wanted])
    source = store.provenance(wanted)
    assert torch.equal(source.tokens, rows.tokens[wanted].int())
    assert torch.equal(source.documents, rows.documents[wanted].int())
    assert torch.equal(source.positions, rows.positions[wanted].int())


@pytest.mark.parametrize("wanted", [[-1, 3], [3, 63]])
def test_rows_beyond_the_store_are_refused(opened, wanted):
    with pytest.raises(IndexError, match="of 63 rows"):
        opened[1].read(torch.tensor(wanted))


def test_documents_have_ranges_even_when_they_are_empty(opened):
    assert opened[1].document_ranges().tolist() == [[0, 7], [7, 7], [7, 37], [37, 38], [38, 63], [63, 63]]


def test_a_row_is_described_by_shard_and_document(opened):
    assert opened[1].describe(40).endswith("opened (shard 3, row 1; position 2 of document document 4)")


def test_the_store_on_disk_cannot_be_changed_through_what_was_read(opened):
    _, store = opened
    before = store.read(torch.tensor([0, 1]), dtype=None)
    before[0].zero_()
    assert store.read(torch.tensor([0, 1]), dtype=None)[0].abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, None])
def test_what_was_read_stays_what_it_is_when_more_is_read(opened, dtype):
    rows, store = opened
    with torch.inference_mode():  # as an evaluation reads, before or between training batches
        first = store.read(torch.arange(20), ["layer.0"], dtype)[0]
    second = store.read(torch.arange(20, 60), ["layer.0"], dtype)[0]
    assert torch.equal(first.float(), rows.activations["layer.0"][:20])
    assert torch.equal(second.float(), rows.activations["layer.0"][20:60])


def files_of(kind):
    return {
        "activations": "shard-00002.block%2F1.safetensors",
        "provenance": "provenance-00001.safetensors",
        "documents": "document_names.json",
    }[kind]


KINDS = ["activations", "provenance", "documents"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_file_is_told_by_name(store, kind):
    (store / files_of(kind)).unlink()
    with pytest.raises(UserError, match=f"{files_of(kind)} is missing"):
        ActivationStore(store, verify=False)


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_file_is_told_by_name(store, kind):
    path = store / files_of(kind)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(UserError, match=rf"{path.name} is damaged \({len(whole) - 1} bytes instead of {len(whole)}\)"):
        ActivationStore(store, verify=False)


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_byte_is_told_by_name(store, kind):
    path = store / files_of(kind)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"{path.name} is damaged \(its sha256 is not the one that was written\)"):
        ActivationStore(store)


@pytest.mark.parametrize("place", [0, 9, 20, 60])
def test_a_broken_header_is_told_even_without_the_hash(store, place):
    path = store / "shard-00000.layer.0.safetensors"
    content = bytearray(path.read_bytes())
    content[place : place + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"shard-00000\.layer\.0\.safetensors is damaged"):
        ActivationStore(store, verify=False)


def test_broken_document_names_are_told_even_without_the_hash(store):
    path = store / "document_names.json"
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(UserError, match=r"document_names\.json is damaged \(not JSON"):
        ActivationStore(store, verify=False)


def test_a_shard_of_another_store_is_told_even_without_the_hash(store):
    manifest = json.loads((store / "manifest.json").read_text())
    manifest["hook_points"]["layer.0"]["d"] = 3
    (store / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"it holds \('BF16', \[13, 6\]\) where \('BF16', \[13, 3\]\) should be"):
        ActivationStore(store, verify=False)


def anonymous_kib(folder):
    """RssAnon by which reading a whole store grows a fresh process, at its highest."""
    script = """
import re, sys, torch
from datamodules.shards import ActivationStore, BlockShuffle, TrainingLoader

def kib(kind):
    with open("/proc/self/status") as status:
        return int(re.search(kind + r":\\s+(\\d+)", status.read()).group(1))

def epoch(store):
    ranges = torch.tensor([[0, store.rows]])
    for _ in TrainingLoader(store, BlockShuffle(ranges, 8, 0), ["layer"], 64):
        yield kib("RssAnon")

small, folder = map(ActivationStore, sys.argv[1:])
max(epoch(small))
before = kib("RssAnon")
print(max(epoch(folder)) - before, kib("RssFile"))
"""
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", script, *map(str, folder)]
    done = subprocess.run(command, cwd=root, timeout=120, check=True, capture_output=True, text=True)
    return tuple(map(int, done.stdout.split()))


@pytest.mark.slow
def test_reading_a_larger_store_takes_no_more_memory_of_its_own(tmp_path, rows_of_documents, write_store):
    folders = {}
    for count in (40, 400):
        lengths = [100] * count
        rows = rows_of_documents(lengths, {"layer": 256})
        folders[count] = write_store(tmp_path / str(count), rows, lengths, "float32", 2**20, appended=1000)
    store_kib = 40_000 * 256 * 4 // 1024
    grown, mapped = anonymous_kib([folders[40], folders[400]])
    assert mapped > store_kib, "the whole store was looked at"
    assert grown < store_kib // 40
