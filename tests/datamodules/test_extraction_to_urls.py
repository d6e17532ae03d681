"""Stores that are written to a URL, by processes that share nothing else."""

from concurrent.futures import ThreadPoolExecutor

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from backbones import Extractor
from datamodules.extraction import Extraction, extract_to_store
from datamodules.shards import is_store, read_manifest
from datamodules.shards.writing import OWNER_NAME, LocalPlace, RemotePlace
from datamodules.text_contexts import TextContexts
from run_store import UserError
from tests.datamodules.test_extraction import LAYER, SHARD_BYTES, TOKENIZER, Conversation, contents


@pytest.fixture
def url(tmp_path):
    return f"memory://{tmp_path.name}/store"


@pytest.fixture(scope="module")
def make(tiny_bert, stories):
    def make(**settings):
        extractor = Extractor(tiny_bert, [LAYER], precision="float32", store_dtype="float32", device="cpu")
        return extractor, TextContexts(
            stories(60), TOKENIZER, **{"context_length": 32, "batch_size": 2, "window_batches": 4, **settings}
        )

    return make


@pytest.fixture(scope="module")
def whole(tmp_path_factory, make):
    """What is in the store that a folder gets."""
    folder = tmp_path_factory.mktemp("whole") / "store"
    extract_to_store(*make(), folder, SHARD_BYTES)
    return contents(folder)


def there(url):
    files, base = fsspec.url_to_fs(url)
    files.invalidate_cache()
    return {path.rpartition("/")[2]: files.cat_file(path) for path in files.ls(base, detail=False)}


def begun(url, make, windows):
    extractor, text = make()
    with Extraction(extractor, text, url, SHARD_BYTES) as extraction:
        for window in text.windows(0, windows):
            extraction.append(window.number, extractor.read_window(window))


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_a_url_gets_what_a_folder_gets_wherever_it_was_interrupted(tmp_path, make, whole, url, kind):
    url = url if kind == "memory" else f"file://{tmp_path}/at/url"
    begun(url, make, 5)
    assert not is_store(url)
    assert {"unfinished-1of1.json", OWNER_NAME} <= there(url).keys()
    extractor, text = make()
    manifest = extract_to_store(extractor, text, url, SHARD_BYTES)
    assert there(url) == whole
    assert extractor.counts.kept < manifest.rows  # what was there was not read again
    assert manifest == read_manifest(url)
    with pytest.raises(UserError, match=f"^{url} already holds an activation store"):
        extract_to_store(*make(), url, SHARD_BYTES)


def test_a_disk_holds_two_shards_at_most(tmp_path, make, whole, url, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "small"))
    (tmp_path / "small").mkdir()
    most, put = [0], RemotePlace._keep

    def counted(self, files, then):
        most[0] = max(most[0], len(list(self.workshop.iterdir())))
        put(self, files, then)

    monkeypatch.setattr(RemotePlace, "_keep", counted)
    extract_to_store(*make(), url, SHARD_BYTES)
    assert 2 <= most[0] <= 4  # two files a shard
    assert there(url) == whole
    assert not list((tmp_path / "small").iterdir())


def test_what_is_missing_or_short_there_is_made_again(make, whole, url):
    begun(url, make, 6)
    files, base = fsspec.url_to_fs(url)
    files.pipe_file(f"{base}/shard-00002.{LAYER}.safetensors", b"short")
    with pytest.warns(UserWarning, match="files of shard 2 or a later one of memory://.* are missing or damaged"):
        extract_to_store(*make(), url, SHARD_BYTES)
    assert there(url) == whole


def test_other_settings_and_other_files_are_refused(make, url):
    begun(url, make, 4)
    with pytest.raises(UserError, match=r"text\.overlap is 0 there and 3 here"):
        extract_to_store(*make(overlap=3), url, SHARD_BYTES)
    files, base = fsspec.url_to_fs(url)
    files.pipe_file(f"{base}/thesis.tex", b"")
    with pytest.raises(UserError, match=r"is no activation store but holds thesis\.tex: choose an empty folder"):
        extract_to_store(*make(), url, SHARD_BYTES)


def test_who_comes_later_takes_over_and_the_other_stops(make, whole, url):
    extractor, text = make()

    def overtaken():
        with Extraction(extractor, text, url, SHARD_BYTES) as extraction:
            for window in text.windows():
                if window.number == 3:
                    begun(url, make, 0)
                extraction.append(window.number, extractor.read_window(window))

    with pytest.raises(UserError, match="another program has begun to write the store memory://"):
        overtaken()
    extract_to_store(*make(), url, SHARD_BYTES)
    assert there(url) == whole


class Cut(MemoryFileSystem):
    """Files in memory behind a line that fails now and then, or from some moment on."""

    protocol = "cut"
    store = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012
    fails = staticmethod(lambda number: False)
    calls = 0

    @classmethod
    def _count(cls):
        cls.calls += 1
        if cls.fails(cls.calls):
            raise ConnectionError("the line is cut")

    def put_file(self, local, remote, **settings):
        self._count()
        super().put_file(local, remote, **settings)

    def pipe_file(self, *arguments, **settings):
        self._count()
        super().pipe_file(*arguments, **settings)

    def cat_file(self, *arguments, **settings):
        self._count()
        return super().cat_file(*arguments, **settings)


fsspec.register_implementation("cut", Cut, clobber=True)


def test_a_line_that_fails_now_and_then_does_no_harm(make, whole, monkeypatch, tmp_path):
    monkeypatch.setattr(Cut, "fails", staticmethod(lambda number: number % 3 == 0))
    monkeypatch.setattr("remote_files.retries.LONGEST_PAUSE", 0.0)
    extract_to_store(*make(), f"cut://{tmp_path.name}", SHARD_BYTES)
    monkeypatch.setattr(Cut, "fails", staticmethod(lambda number: False))
    assert there(f"cut://{tmp_path.name}") == whole


def test_a_line_that_is_cut_is_told_and_gone_on_with(make, whole, monkeypatch, tmp_path):
    url = f"cut://{tmp_path.name}"
    monkeypatch.setattr("remote_files.retries.LONGEST_PAUSE", 0.0)
    for calls in (3, 14, 15, 22):
        Cut.calls = 0
        monkeypatch.setattr(Cut, "fails", staticmethod(lambda number, calls=calls: number > calls))
        with pytest.raises(UserError, match=r"^cut://.* could not be (read|written) in 6 tries \(ConnectionError"):
            extract_to_store(*make(), url, SHARD_BYTES)
    monkeypatch.setattr(Cut, "fails", staticmethod(lambda number: False))
    extract_to_store(*make(), url, SHARD_BYTES)
    assert there(url) == whole


def extract_together(url, make, count, stop=None):
    conversation = Conversation(count)

    def extract(rank):
        extractor, text = make()
        with Extraction(extractor, text, url, SHARD_BYTES, conversation.processes(rank)) as extraction:
            end = extraction.stop_window if stop is None else extraction.first_window + stop
            for window in text.windows(extraction.next_window, end):
                extraction.append(window.number, extractor.read_window(window))
            return None if stop is not None else extraction.finish()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(extract, range(count)))


def test_nodes_that_share_a_url_alone_write_one_store_and_go_on(tmp_path, make, url, monkeypatch):
    monkeypatch.setattr(RemotePlace, "seconds_between_looks", 0.05)
    extract_together(tmp_path / "whole", make, 2)
    extract_together(url, make, 2, stop=3)
    with pytest.raises(UserError, match="processes is 2 there and 1 here"):
        extract_to_store(*make(), url, SHARD_BYTES)
    manifests = extract_together(url, make, 2)
    assert there(url) == contents(tmp_path / "whole")
    assert all(manifest == read_manifest(url) for manifest in manifests)


@pytest.mark.parametrize("exists", [False, True])
def test_nodes_that_do_not_share_the_folder_are_told_at_once(tmp_path, make, exists, monkeypatch):
    monkeypatch.setattr(LocalPlace, "_seconds_until_seen", 0.5)
    conversation = Conversation(2)
    if exists:
        (tmp_path / "node-1").mkdir()

    def refused(rank):
        with pytest.raises(UserError, match=r"write the store .*node-1 do not share that folder: choose one on a disk"):
            Extraction(*make(), tmp_path / f"node-{rank}", SHARD_BYTES, conversation.processes(rank))
        return True

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(refused, range(2))) == [True, True]
    Extraction(*make(), tmp_path / "node-0", SHARD_BYTES).close()  # nobody claims it any more


def test_a_url_that_nothing_can_write_to_is_told(make):
    with pytest.raises(UserError, match="nothing://x cannot be reached"):
        extract_to_store(*make(), "nothing://x", SHARD_BYTES)
