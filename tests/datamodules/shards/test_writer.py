import resource
import signal
import subprocess
import sys
import textwrap
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.shards import ActivationStore, StoreWriter, read_manifest
from run_store import UserError


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def known(tmp_path_factory, rows_of_documents, write_store):
    """Rows and the bytes of their store."""
    rows = rows_of_documents()
    return rows, contents(write_store(tmp_path_factory.mktemp("stores") / "known", rows))


@settings(max_examples=15)
@given(cuts=st.lists(st.integers(0, 63)))
def test_the_bytes_do_not_depend_on_how_rows_were_appended(tmp_path_factory, known, cuts):
    rows, expected = known
    folder = tmp_path_factory.mktemp("chopped")
    cuts = [0, *sorted(cuts), 63]
    with StoreWriter(folder, {"layer.0": 6, "block/1": 4}, "bfloat16", shard_bytes=160) as writer:
        for start, stop in pairwise(cuts):
            writer.append(*rows.part(start, stop))
        assert writer.rows == 63
        writer.finish({"model": "none"}, [f"document {number}" for number in range(6)])
    assert contents(folder) == expected


def test_shards_hold_as_many_rows_as_the_widest_hook_point_allows(store):
    manifest = read_manifest(store)
    assert all(shard.rows == 160 // (6 * 2) for shard in manifest.shards[:-1])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_store_gives_back_what_was_written(tmp_path, rows, write_store, dtype):
    store = ActivationStore(write_store(tmp_path / dtype, rows, dtype=dtype))
    everything = torch.arange(63)
    for stored in (False, True):
        layer, block = store.read(everything, dtype=None if stored else torch.float32)
        assert layer.dtype == (getattr(torch, dtype) if stored else torch.float32)
        assert torch.equal(layer.float(), rows.activations["layer.0"])
        assert torch.equal(block.float(), rows.activations["block/1"])
    tokens, documents, positions = store.provenance(everything)
    assert tokens.tolist() == rows.tokens.tolist()
    assert documents.tolist() == rows.documents.tolist()
    assert positions.tolist() == rows.positions.tolist()
    assert store.document_names == [f"document {number}" for number in range(6)]


def test_an_exception_in_the_block_leaves_nothing(tmp_path, rows):
    def interrupted():
        with StoreWriter(tmp_path / "store", {"layer.0": 6, "block/1": 4}, shard_bytes=160) as writer:
            writer.append(*rows)
            assert len(list(writer.folder.iterdir())) == 12
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list((tmp_path / "store").iterdir()) == []


def test_a_block_without_finish_leaves_nothing(tmp_path, rows):
    with StoreWriter(tmp_path, {"layer.0": 6, "block/1": 4}, shard_bytes=160) as writer:
        writer.append(*rows)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_what_a_killed_writer_leaves_is_no_store_and_is_swept(tmp_path, known, write_store):
    rows, expected = known
    folder = tmp_path / "store"
    script = f"""
        import os, signal, torch
        from datamodules.shards import StoreWriter
        from datamodules.shards.format import StoredFile
        import run_store.atomic

        def killed_before_the_rename(path):
            if "shard-00002" in str(path):
                os.kill(os.getpid(), signal.SIGKILL)

        run_store.atomic.flush_to_disk = killed_before_the_rename
        writer = StoreWriter({str(folder)!r}, {{"layer.0": 6, "block/1": 4}}, shard_bytes=160)
        numbers = torch.arange(63)
        writer.append({{"layer.0": torch.ones(63, 6), "block/1": torch.ones(63, 4)}}, numbers, numbers * 0, numbers)
    """
    root = Path(__file__).parents[3]
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], cwd=root, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    leftovers = [path.name for path in folder.iterdir()]
    assert len(leftovers) == 7
    assert any(name.endswith(".partial") for name in leftovers)
    (folder / ".tmpAb12Cd").touch()  # safetensors' own temporary file
    with pytest.raises(UserError, match="no activation store"):
        ActivationStore(folder)
    write_store(folder, rows)
    assert contents(folder) == expected


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path):
    for name in ("shard-00000.layer.safetensors", "thesis.tex.partial"):
        (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match=r"holds thesis\.tex\.partial: choose an empty folder"):
        StoreWriter(tmp_path, {"layer": 2})
    assert len(list(tmp_path.iterdir())) == 2


def test_hidden_files_do_not_matter(tmp_path, rows, write_store):
    (tmp_path / ".keep").touch()
    ActivationStore(write_store(tmp_path, rows))
    assert (tmp_path / ".keep").exists()


def test_a_store_is_not_written_over(store):
    before = contents(store)
    with pytest.raises(UserError, match="store already holds an activation store"):
        StoreWriter(store, {"layer": 2})
    assert contents(store) == before


def test_two_writers_of_one_folder_are_not_let_in(tmp_path, rows):
    with StoreWriter(tmp_path, {"layer.0": 6, "block/1": 4}, shard_bytes=160) as first:
        first.append(*rows)
        with pytest.raises(UserError, match="another process is writing the store"):
            StoreWriter(tmp_path, {"layer": 2})
        first.finish({}, ["a"] * 6)
    ActivationStore(tmp_path)


def test_a_file_where_the_folder_should_be_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot make the folder .*file/store"):
        StoreWriter(tmp_path / "file" / "store", {"layer": 2})


@pytest.mark.parametrize(
    ("value", "dtype", "shown"),
    [(float("nan"), "bfloat16", "bfloat16"), (float("-inf"), "float32", "float32"), (1e6, "float16", "float16")],
)
def test_values_that_are_not_finite_as_stored_are_refused(tmp_path, rows, value, dtype, shown):
    rows.activations["block/1"][40, 2] = value

    def write():
        with StoreWriter(tmp_path, {"layer.0": 6, "block/1": 4}, dtype, shard_bytes=160) as writer:
            writer.append(*rows)

    with pytest.raises(UserError, match=rf"hook point block/1 at position 2 of document number 4 .* as torch\.{shown}"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_finite_values_whose_sum_is_not_finite_are_stored(tmp_path, rows, write_store):
    rows.activations["layer.0"][:20] = 3e38
    store = ActivationStore(write_store(tmp_path, rows, dtype="float32"))
    assert torch.equal(store.read(torch.arange(63))[0], rows.activations["layer.0"])


def test_a_full_disk_is_told_and_leaves_nothing(small_disk, rows_of_documents, write_store):
    rows = rows_of_documents([100] * 50, {"layer": 8})
    with pytest.raises(UserError, match=r"no space left on the disk of .*/shard-000\d\d\.layer\.safetensors"):
        write_store(small_disk / "store", rows, [100] * 50, "float32", shard_bytes=3200)
    assert list((small_disk / "store").iterdir()) == []


@pytest.fixture
def small_files():
    """The kernel refuses to let a file grow beyond 2000 bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize(("shard_bytes", "name_length"), [(2400, 1), (160, 500)], ids=["shard", "document names"])
@pytest.mark.usefixtures("small_files")
def test_a_write_that_fails_leaves_nothing(tmp_path, rows, shard_bytes, name_length):
    def write():
        with StoreWriter(tmp_path, {"layer.0": 20, "block/1": 4}, "float32", shard_bytes) as writer:
            writer.append({**rows.activations, "layer.0": torch.ones(63, 20)}, *rows[1:])
            writer.finish({}, [name_length * "a"] * 6)

    with pytest.raises(Exception, match="File too large"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_an_empty_store_is_refused(tmp_path):
    with (
        StoreWriter(tmp_path, {"layer": 2}) as writer,
        pytest.raises(UserError, match="the text gave no rows after filtering"),
    ):
        writer.finish({}, [])
    assert list(tmp_path.iterdir()) == []


def test_rows_that_do_not_fit_together_are_refused(tmp_path, rows):
    with StoreWriter(tmp_path, {"layer.0": 6, "block/1": 4}) as writer:
        one_row = rows._replace(activations={name: values[:1] for name, values in rows.activations.items()})
        with pytest.raises(ValueError, match="do not fit a store of"):
            writer.append(*one_row)
        with pytest.raises(ValueError, match="do not fit a store of"):
            writer.append({"layer.0": rows.activations["layer.0"]}, *rows[1:])
        with pytest.raises(ValueError, match="document numbers must not fall"):
            writer.append(*rows._replace(documents=rows.documents.flip(0)))
        assert writer.rows == 0
        writer.append(*rows)
        with pytest.raises(ValueError, match="document number 4 has no name among 4"):
            writer.finish({}, ["a"] * 4)
