import fcntl
import hashlib
import json
import os
from collections import Counter
from pathlib import Path
from threading import Lock

import fsspec
import pytest
import torch

from datamodules.shards import (
    ActivationStore,
    EvaluationLoader,
    GroupedShuffle,
    Rank,
    RemoteStore,
    ShardCache,
    TrainingLoader,
    is_store,
    open_store,
    read_manifest,
)
from datamodules.shards.read_ahead import Following
from remote_files import Retries
from run_store import UserError
from tests.datamodules.shards.served import served

LENGTHS = (40, 0, 90, 3, 70, 55, 142)
NAMES = ["layer.0", "block/1"]
QUICK = Retries(tries=4, sleep=lambda _: None)
PART = 250


@pytest.fixture
def local(tmp_path, rows_of_documents, write_store):
    """Folder of a store of 400 rows in ten shards of 40."""
    return write_store(tmp_path / "served", rows_of_documents(LENGTHS), LENGTHS, shard_bytes=480)


@pytest.fixture
def server(local):
    with served(local) as server:
        yield server


def remote(url, folder, size=10**6, retries=QUICK, connections=2):
    return RemoteStore(url, ShardCache(str(folder), size, connections), retries, PART)


def loader(kind, store, mixed, batch_size=16, rank=0, world_size=1, seed=0, names=NAMES):
    order = GroupedShuffle(torch.tensor([[0, 150], [160, store.rows]]), store.shard_rows, mixed, 4, seed)
    follower = Following(store.read_ahead(names), order) if isinstance(store, RemoteStore) else None
    return kind(store, order, names, batch_size, Rank(rank, world_size), follower=follower)


def epoch_of(training, epoch=0):
    training.set_epoch(epoch)
    return list(training)


def same(one, other):
    assert len(one) == len(other) > 0
    for mine, yours in zip(one, other, strict=True):
        assert torch.equal(mine.rows, yours.rows)
        assert all(map(torch.equal, mine.activations, yours.activations))


def taken(folder):
    """Bytes in a cache, at a moment when nobody changes it."""
    with open(Path(folder) / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return sum(path.stat().st_size for path in Path(folder).iterdir())


@pytest.mark.first_is_fast
@pytest.mark.parametrize("kind", ["http", "file", "memory"])
@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_what_is_read_is_what_a_local_copy_gives(tmp_path, rows_of_documents, write_store, kind, dtype, request):
    folder = write_store(tmp_path / "served", rows_of_documents(LENGTHS), LENGTHS, dtype, 480)
    local = ActivationStore(folder)
    with served(folder) as server:
        if kind == "memory":
            fsspec.filesystem("memory").put(f"{folder}/", f"/{tmp_path.name}/", recursive=True)
        url = {"http": server.url, "file": f"file://{folder}", "memory": f"memory://{tmp_path.name}"}[kind]
        assert is_store(url)
        assert read_manifest(url) == local.manifest
        store = remote(url, tmp_path / "cache")
        assert store.document_names == local.document_names
        assert torch.equal(store.document_ranges(), local.document_ranges())
        wanted = torch.randint(0, 400, (50,))
        for part in (wanted, wanted[:1], wanted[:0], torch.arange(400)):
            for stored in (None, torch.float32):
                assert all(map(torch.equal, store.read(part, dtype=stored), local.read(part, dtype=stored)))
            assert all(map(torch.equal, store.provenance(part), local.provenance(part)))
        assert store.describe(45) == local.describe(45).replace(str(folder), url)
        store.close()


@pytest.mark.first_is_fast
@pytest.mark.parametrize(("mixed", "world_size"), [(1, 1), (3, 2), (None, 1)])
def test_batches_are_those_of_the_local_store_and_the_cache_stays_in_its_bounds(
    tmp_path, local, server, mixed, world_size
):
    plain = ActivationStore(local)
    shard = max(sum(shard.activations[name].bytes for name in NAMES) for shard in plain.manifest.shards)
    size = 10**6 if mixed is None else max(3, 2 * mixed) * shard
    stores = [remote(server.url, tmp_path / "cache", size) for _ in range(world_size)]
    for epoch in range(2):
        ranks = [
            loader(TrainingLoader, store, mixed, rank=rank, world_size=world_size) for rank, store in enumerate(stores)
        ]
        theirs = [loader(TrainingLoader, plain, mixed, rank=rank, world_size=world_size) for rank in range(world_size)]
        for training in (*ranks, *theirs):
            training.set_epoch(epoch)
        for batches in zip(*ranks, *theirs, strict=True):
            assert taken(tmp_path / "cache") <= size
            for mine, yours in zip(batches[:world_size], batches[world_size:], strict=True):
                same([mine], [yours])
    for store in stores:
        store.close()
    if mixed is None:  # everything was fetched once, whoever read it
        files = [file for shard in plain.manifest.shards for file in shard.activations.values()]
        assert {server.requests[file.name] + file.bytes // -PART for file in files} == {0}


def test_an_epoch_fetches_each_file_once_and_no_more_than_the_files(tmp_path, local, server):
    plain = ActivationStore(local)
    store = remote(server.url, tmp_path / "cache", 60_000)
    training = loader(TrainingLoader, store, 3, names=["layer.0"])
    same(epoch_of(training), epoch_of(loader(TrainingLoader, plain, 3, names=["layer.0"])))
    store.close()
    files = [shard.activations["layer.0"] for shard in plain.manifest.shards]
    assert {server.sent[file.name] - file.bytes for file in files} == {0}
    assert not any("block" in name or "provenance" in name for name in server.sent)


def test_evaluation_and_training_take_turns(tmp_path, local, server):
    plain = ActivationStore(local)
    store = remote(server.url, tmp_path / "cache", 8_000)
    for epoch in range(2):
        for kind in (TrainingLoader, EvaluationLoader):
            mine, yours = (loader(kind, one, 2, seed=kind is EvaluationLoader) for one in (store, plain))
            if kind is TrainingLoader:
                same(epoch_of(mine, epoch), epoch_of(yours, epoch))
            else:
                same(list(mine)[:5], list(yours)[:5])
        assert taken(tmp_path / "cache") <= 8_000
    store.close()


def test_counts_of_documents_are_kept(tmp_path, local, server):
    remote(server.url, tmp_path / "cache").document_ranges()
    before = Counter(server.requests)
    remote(server.url, tmp_path / "cache").document_ranges()
    after = server.requests - before
    assert set(after) == {"manifest.json", "document_names.json"}


@pytest.mark.first_is_fast
@pytest.mark.parametrize("fault", [503, 500, "cut", "slow"])
def test_what_passes_is_tried_again_part_by_part(tmp_path, local, server, fault):
    server.faults["*"] = [fault, fault, fault]
    file = read_manifest(local).shards[1].activations["layer.0"]
    server.faults[file.name] = [fault] * (2 if fault == "slow" else 3)
    store, plain = remote(server.url, tmp_path / "cache"), ActivationStore(local)
    assert torch.equal(store.read(torch.arange(400), ["layer.0"])[0], plain.read(torch.arange(400), ["layer.0"])[0])
    assert not any(server.faults.values())
    if fault != "slow":
        assert server.requests[file.name] == 3 + -(-file.bytes // PART)


def told(tmp_path, server, shard=2):
    store = remote(server.url, tmp_path / "cache")
    with pytest.raises(UserError) as refusal:
        store.read(torch.arange(40 * shard, 40 * shard + 40), ["layer.0"])
    assert taken(tmp_path / "cache") == 0
    message = str(refusal.value)
    assert "\n" not in message
    return message.replace(f"{server.url}/shard-0000{shard}.layer.0.safetensors", "URL")


@pytest.mark.parametrize("fault", [503, "cut"])
def test_what_does_not_pass_is_one_sentence(tmp_path, local, server, fault):
    server.faults["shard-00002.layer.0.safetensors"] = [fault] * 100
    message = told(tmp_path, server)
    assert message.startswith("URL could not be read in 4 tries (Client")
    assert message.endswith("): look at the connection and the server, and start again to go on")


@pytest.mark.parametrize("status", [401, 403])
def test_what_is_forbidden_is_one_sentence(tmp_path, local, server, status):
    server.faults["shard-00002.layer.0.safetensors"] = [status] * 100
    assert told(tmp_path, server).startswith(f"URL may not be read (ClientResponseError: {status}")
    assert server.requests["shard-00002.layer.0.safetensors"] == 1


def test_what_is_missing_short_or_changed_is_one_sentence(tmp_path, local, server):
    path = local / "shard-00002.layer.0.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert told(tmp_path, server).startswith("URL is damaged (its sha256 is not the one that was written): put")
    path.write_bytes(content[:-1])
    assert f"EOFError: {len(content) - 1} of {len(content)} bytes came" in told(tmp_path, server)
    path.unlink()
    assert told(tmp_path, server) == "URL is missing: put it back or extract the store again"


def test_a_file_that_was_garbled_on_the_way_is_fetched_again(tmp_path, local, monkeypatch):
    store = remote(f"file://{local}", tmp_path / "cache")
    folder, read = store.fetcher.folder, store.fetcher.folder.read_part
    garbled = []

    def read_part(name, start, stop):
        part = read(name, start, stop)
        if not garbled and start:
            garbled.append(name)
            return bytes(len(part))
        return part

    monkeypatch.setattr(folder, "read_part", read_part)
    assert torch.equal(store.read(torch.arange(400))[0], ActivationStore(local).read(torch.arange(400))[0])
    assert len(garbled) == 1


def test_a_server_without_ranges_is_told(tmp_path, local, server):
    server.faults["shard-00002.layer.0.safetensors"] = ["whole"] * 100
    assert told(tmp_path, server).startswith("URL came as a whole where a part of it was asked for: serve the store")


def test_no_store_at_a_url_is_one_sentence(tmp_path, local, server):
    assert not is_store(f"{server.url}/elsewhere")
    with pytest.raises(UserError, match=r"elsewhere is no activation store, since it has no manifest\.json"):
        read_manifest(f"{server.url}/elsewhere")
    with pytest.raises(UserError, match=r"elsewhere is no activation store"):
        open_store(f"{server.url}/elsewhere")
    with pytest.raises(UserError, match=r"the store's URL nothing://x cannot be reached \("):
        is_store("nothing://x")
    server.faults["manifest.json"] = [403]
    with pytest.raises(UserError, match=r"manifest\.json may not be read"):
        is_store(server.url)


def test_a_background_that_fails_is_told_by_who_reads(tmp_path, local, server):
    server.faults["*"] = []
    store = remote(server.url, tmp_path / "cache", 60_000)
    for shard in range(10):
        server.faults[f"shard-{shard:05d}.layer.0.safetensors"] = [403] * 100
    with pytest.raises(UserError, match="may not be read"):
        epoch_of(loader(TrainingLoader, store, 3, names=["layer.0"]))
    store.close()


def test_a_cache_that_is_too_small_is_told_with_what_would_fit(tmp_path, local):
    store = remote(f"file://{local}", tmp_path / "cache", 9_000)
    store.refuse_small_cache(3, NAMES)
    with pytest.raises(UserError, match=r"data\.cache\.size 9 kB does not hold .*\(all shards, .*set data\.mixed_sh"):
        store.refuse_small_cache(None, NAMES)
    with pytest.raises(UserError, match=r"twice 30 shards, .*to at most (\d+), or raise data\.cache\.size") as refusal:
        store.refuse_small_cache(30, NAMES)
    fitting = int(str(refusal.value).partition("at most ")[2].partition(",")[0])
    store.refuse_small_cache(fitting, NAMES)
    with pytest.raises(UserError, match=r"next \(.*\): raise data\.cache\.size"):
        remote(f"file://{local}", tmp_path / "tiny", 1_000).refuse_small_cache(1, NAMES)


def test_threads_that_fetch_end_with_the_store_whatever_they_wait_for(tmp_path, local, server):
    store = remote(server.url, tmp_path / "cache", retries=None)
    training = loader(TrainingLoader, store, None)
    next(iter(training))
    store.close()
    assert not [path for path in (tmp_path / "cache").iterdir() if path.name.endswith(".partial")]
    for name in os.listdir(tmp_path / "cache"):
        if name != "lock" and "." not in name:
            assert hashlib.sha256((tmp_path / "cache" / name).read_bytes()).hexdigest() == name
    assert torch.equal(store.read(torch.arange(400))[0], ActivationStore(local).read(torch.arange(400))[0])


def test_a_manifest_that_is_damaged_is_named_by_its_url(tmp_path, local, server):
    content = json.loads((local / "manifest.json").read_text())
    del content["shards"]
    (local / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"^{server.url}/manifest\.json is damaged"):
        remote(server.url, tmp_path / "cache")


def test_memory_holds_a_part_for_each_connection_and_one_for_who_reads(tmp_path, local, monkeypatch):
    store = remote(f"file://{local}", tmp_path / "cache", 60_000, connections=3)
    read, lock, under_way, most = store.fetcher.folder.read_part, Lock(), [0], [0]

    def read_part(name, start, stop):
        with lock:
            under_way[0] += stop - start
            most[0] = max(most[0], under_way[0])
        try:
            return read(name, start, stop)
        finally:
            with lock:
                under_way[0] -= stop - start

    monkeypatch.setattr(store.fetcher.folder, "read_part", read_part)
    epoch_of(loader(TrainingLoader, store, 3))
    store.close()
    assert 0 < most[0] <= 4 * PART
