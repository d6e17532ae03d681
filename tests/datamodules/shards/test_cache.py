import hashlib
import os
import signal
import tempfile
from contextlib import ExitStack
from pathlib import Path
from threading import Barrier, Thread

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from datamodules.shards.cache import Content, FileCache, Outcome
from run_store import UserError

SIZE = 100


def content(number, length):
    data = bytes([number]) * length
    return Content(hashlib.sha256(data).hexdigest(), length), data


def fetching(data):
    return lambda path: path.write_bytes(data)


def taken(cache):
    """Bytes in the folder, counted without the cache."""
    return sum(path.stat().st_size for path in cache.folder.iterdir() if path.name != "lock")


class Life(RuleBasedStateMachine):
    """Two processes' views of a cache, and a plain dictionary beside them."""

    @initialize()
    def begin(self):
        self.folder = tempfile.TemporaryDirectory()
        self.caches = [FileCache(Path(self.folder.name), SIZE) for _ in range(2)]
        self.pins = []
        self.present = {}

    def teardown(self):
        for _, _, _, pin in getattr(self, "pins", []):
            pin.close()
        if hasattr(self, "folder"):
            self.folder.cleanup()

    @rule(
        which=st.integers(0, 1),
        number=st.integers(0, 9),
        uses=st.dictionaries(st.integers(0, 9), st.integers(0, 5)),
        soon=st.integers(-1, 5),
    )
    def add(self, which, number, uses, soon):
        wanted, data = content(number, 10 + 3 * number)
        named = {content(other, 10 + 3 * other)[0].sha256: use for other, use in uses.items()}
        outcome = self.caches[which].add(wanted, fetching(data), named, soon)
        before = dict(self.present)
        self.present = {
            name: length for name, length in before.items() if self.caches[which].has(Content(name, length))
        }
        gone = before.keys() - self.present.keys()
        assert not gone & {pinned.sha256 for pinned, *_ in self.pins}
        assert all(named.get(name, len(named) + 1) > soon for name in gone)
        if gone:  # nothing stays that is needed later than what went, unless somebody reads it
            stayed = self.present.keys() - {pinned.sha256 for pinned, *_ in self.pins}
            last = min(named.get(name, len(named) + 1) for name in gone)
            assert all(named.get(name, len(named) + 1) <= last for name in stayed)
        if outcome is Outcome.THERE:
            self.present[wanted.sha256] = wanted.bytes
        else:
            assert outcome is Outcome.FULL
            assert wanted.sha256 not in self.present

    @rule(which=st.integers(0, 1), number=st.integers(0, 9))
    def pin(self, which, number):
        wanted, data = content(number, 10 + 3 * number)
        pin = ExitStack()
        handles = pin.enter_context(self.caches[which].opened([wanted]))
        assert (handles is not None) == (wanted.sha256 in self.present)
        if handles is not None:
            self.pins.append((wanted, data, handles[0], pin))

    @precondition(lambda self: self.pins)
    @rule(which=st.integers(0, 99))
    def let_go(self, which):
        self.pins.pop(which % len(self.pins))[3].close()

    @rule(which=st.integers(0, 1), number=st.integers(0, 9))
    def fail(self, which, number):
        wanted, _ = content(number, 10 + 3 * number)

        def fetch(path):
            assert taken(self.caches[which]) <= SIZE
            path.write_bytes(b"half")
            raise ConnectionError

        if wanted.sha256 in self.present:
            return
        try:
            assert self.caches[which].add(wanted, fetch) is Outcome.FULL
        except ConnectionError:
            assert not self.caches[which].has(wanted)
        self.present = {
            name: length for name, length in self.present.items() if self.caches[which].has(Content(name, length))
        }

    @invariant()
    def it_is_bounded_and_right(self):
        if not hasattr(self, "caches"):
            return
        assert taken(self.caches[0]) == self.caches[0].bytes() == sum(self.present.values()) <= SIZE
        for _, data, handle, _ in self.pins:
            assert os.pread(handle, 1000, 0) == data


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)


def test_what_was_not_used_for_longest_goes_first_where_nothing_is_known(tmp_path):
    cache = FileCache(tmp_path, SIZE)
    for number in range(4):
        wanted, data = content(number, 25)
        cache.add(wanted, fetching(data))
        os.utime(tmp_path / wanted.sha256, (number, number))
    with cache.opened([content(0, 25)[0]]):
        pass
    cache.add(content(9, 30)[0], fetching(content(9, 30)[1]))
    assert [cache.has(content(number, 25)[0]) for number in range(4)] == [True, False, False, True]


def test_two_threads_fetch_a_file_once(tmp_path):
    wanted, data = content(1, 50)
    caches, both, fetched, outcomes = [FileCache(tmp_path, SIZE) for _ in range(2)], Barrier(2), [], []

    def fetch(path):
        both.wait(10)  # the other asks while this one fetches
        fetched.append(path)
        path.write_bytes(data)

    first = Thread(target=lambda: outcomes.append(caches[0].add(wanted, fetch)))
    first.start()
    both.wait(10)
    while (outcome := caches[1].add(wanted, fetch)) is Outcome.BUSY:
        caches[1].wait_for(wanted)
    first.join()
    assert outcomes == [outcome] == [Outcome.THERE]
    assert len(fetched) == 1


@pytest.mark.parametrize("when", ["fetching", "fetched"])
def test_a_process_that_is_killed_leaves_no_half_file_and_no_lock(tmp_path, when):
    wanted, data = content(1, 50)
    child = os.fork()
    if not child:

        def fetch(path):
            path.write_bytes(data[: 25 if when == "fetching" else 50])
            os.kill(os.getpid(), signal.SIGKILL)

        FileCache(tmp_path, SIZE).add(wanted, fetch)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert [path.name for path in tmp_path.glob("*.partial")] == [f"{wanted.sha256}.partial"]
    other, other_data = content(2, 60)
    cache = FileCache(tmp_path, SIZE)  # what was left is gone, and takes no room
    assert cache.bytes() == 0
    assert cache.add(other, fetching(other_data)) is Outcome.THERE
    assert cache.add(wanted, fetching(data)) is Outcome.THERE
    assert (tmp_path / wanted.sha256).read_bytes() == data


def test_a_file_that_somebody_has_cut_is_fetched_again(tmp_path):
    wanted, data = content(1, 50)
    cache = FileCache(tmp_path, SIZE)
    cache.add(wanted, fetching(data))
    os.truncate(tmp_path / wanted.sha256, 20)
    with cache.opened([wanted]) as handles:
        assert handles is None
    assert cache.add(wanted, fetching(data)) is Outcome.THERE
    assert (tmp_path / wanted.sha256).read_bytes() == data


def test_a_file_larger_than_the_cache_is_told(tmp_path):
    with pytest.raises(UserError, match=r"101 bytes does not fit the cache .* of 100: raise data\.cache\.size"):
        FileCache(tmp_path, SIZE).add(content(1, 101)[0], fetching(b""))


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"the cache .*file/cache cannot be written \(.*\): set data\.cache\.folder"):
        FileCache(tmp_path / "file" / "cache", SIZE)


def test_a_full_disk_is_told(small_disk):
    cache, (wanted, data) = FileCache(small_disk, 10**9), content(1, 200_000)
    with pytest.raises(UserError, match="no space left on the disk of the cache"):
        cache.add(wanted, fetching(data))
    assert cache.bytes() == 0


def test_nothing_goes_for_what_is_not_wanted_any_more(tmp_path):
    (wanted, data), (other, other_data) = content(1, 60), content(2, 60)
    cache = FileCache(tmp_path, SIZE)
    cache.add(wanted, fetching(data))
    assert cache.add(other, fetching(other_data), wanted=lambda: False) is Outcome.FULL
    assert cache.has(wanted)
    assert cache.add(other, fetching(other_data), wanted=lambda: True) is Outcome.THERE
    assert not cache.has(wanted)
