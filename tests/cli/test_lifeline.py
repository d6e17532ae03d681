"""All ends of the connections in one process, which would be ended by `ended`."""

import json
import socket
import threading
import time
from dataclasses import replace

import pytest

from cli import lifeline
from cli.lifeline import Ending, FirstLifeline, OtherLifeline

SIZE = 3
SOON = 20


@pytest.fixture
def first():
    return watched(FirstLifeline(SIZE, 60, "127.0.0.1", False))


@pytest.fixture
def others(first):
    return [joined(first, rank) for rank in (1, 2)]


def joined(first, rank):
    return watched(OtherLifeline(rank, SIZE, rank == 1, first.meeting))


def watched(line):
    """Notes the exit code instead of ending this process."""
    line.codes = []
    line.over = threading.Event()

    def ended(code):
        line.codes.append(code)
        line.over.set()

    line.ended = ended
    return line


def die(line):
    """As the kernel does for a killed process."""
    line._line.connection.shutdown(socket.SHUT_RDWR)
    line._over = True


def come(first, *ranks):
    end = time.monotonic() + SOON
    while not {0, *ranks} <= first._came and time.monotonic() < end:
        time.sleep(0.001)


def test_all_learn_which_rank_is_gone_and_the_first_says_so_once(first, others):
    come(first, 1, 2)
    die(others[1])
    ending = first.ending(SOON)
    assert ending.sentence.startswith("rank 2 of 3 (process ")
    assert ending.sentence.endswith("a training goes on from its last checkpoint")
    assert others[0].ending(SOON) == ending
    assert first.says(ending)
    assert not first.says(ending)
    assert not others[0].says(ending)


def test_when_the_first_is_gone_one_of_the_others_says_so(first, others):
    come(first, 1, 2)
    for line in list(first._connected):
        line.connection.shutdown(socket.SHUT_RDWR)
    endings = [other.ending(SOON) for other in others]
    assert all(ending.sentence.startswith("rank 0 of 3 is gone") for ending in endings)
    assert [other.says(ending) for other, ending in zip(others, endings, strict=True)] == [True, False]


def test_a_failure_is_told_by_the_first(first, others):
    ending = Ending("memory ran out: take more (rank 2)")
    assert others[1].fail(ending)
    assert first.ending(SOON) == others[0].ending(SOON) == ending
    assert first.says(ending)


def test_the_first_tells_its_own_failure_itself_and_takes_its_time(first, others, monkeypatch):
    monkeypatch.setattr(lifeline, "GRACE", 0.0)
    come(first, 1, 2)
    assert not first.fail(Ending("the disk is full"))
    for other in others:
        ending = other.ending(SOON)
        assert ending == Ending("the disk is full", told=True)
        assert not other.says(ending)
        assert other.over.wait(SOON)
        assert other.codes == [2]
    assert first.codes == []


def test_only_the_first_of_two_failures_counts(first, others):
    come(first, 1, 2)
    assert others[0].fail(Ending("one"))
    assert others[1].fail(Ending("two"))
    assert not first.fail(Ending("three"))
    assert {line.ending(SOON).sentence for line in (first, *others)} == {"one"}


def test_nobody_is_missed_who_has_said_goodbye(first, others):
    come(first, 1, 2)
    others[0].leave()
    others[0]._line.connection.shutdown(socket.SHUT_RDWR)
    first.leave()
    assert others[1].ending(0.2) is None
    assert first.ending() is None
    # and what goes wrong afterwards each says for itself
    assert not others[1].fail(Ending("late"))


def test_a_process_that_does_not_come_out_of_its_collective_is_ended_with_its_last_words(
    first, others, monkeypatch, capsys
):
    monkeypatch.setattr(lifeline, "GRACE", 0.0)
    words = []
    first.last_words = words.append
    come(first, 1, 2)
    die(others[0])
    assert first.over.wait(SOON)
    assert first.codes == [2]
    assert words == [first.ending()]
    assert capsys.readouterr().err.strip().startswith("error: rank 1 of 3")


def test_last_words_that_never_end_are_cut_off(first, others, monkeypatch):
    monkeypatch.setattr(lifeline, "GRACE", 0.0)
    monkeypatch.setattr(lifeline, "LAST_WORDS", 0.05)
    for_ever = threading.Event()
    first.last_words = lambda ending: for_ever.wait(SOON)
    come(first, 1, 2)
    die(others[0])
    assert first.over.wait(SOON)
    for_ever.set()


def test_ranks_that_do_not_come_are_named():
    first = watched(FirstLifeline(4, 0.3, "127.0.0.1", False))
    watched(OtherLifeline(2, 4, False, first.meeting))
    assert first.ending(SOON).sentence.startswith("ranks 1, 3 of 4 did not come within 0.3 s: start the missing")


def test_a_rank_that_ended_before_it_came_is_known_from_its_parent(first):
    first.lost(2, "ended with code 1")
    assert first.ending().sentence == "rank 2 of 3 ended with code 1 before it had begun: see what it printed"


def test_a_rank_that_came_and_ended_is_not_told_twice(first, others):
    come(first, 1, 2)
    first.lost(2, "ended with code 0")
    assert first.ending() is None


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", b'{"secret": "guessed"}\n', b"[1]\n", b"{}\n"])
def test_strangers_are_sent_away_and_change_nothing(first, others, said):
    come(first, 1, 2)
    with socket.create_connection((first.meeting.host, first.meeting.port)) as stranger:
        stranger.sendall(said)
        stranger.settimeout(SOON)
        assert stranger.recv(1) == b""
    assert first.ending() is None
    assert others[0].fail(Ending("still there"))


def test_who_comes_late_learns_what_has_happened(first):
    first.fail(Ending("over"))
    assert joined(first, 1).ending(SOON) == Ending("over", told=True)


def test_nobody_is_there(first):
    port = first._listener.getsockname()[1]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = replace(first.meeting, port=free.getsockname()[1])
    assert meeting.port != port
    with pytest.raises(OSError, match="refused"):
        OtherLifeline(1, SIZE, True, meeting)


def test_a_meeting_is_plain(first):
    assert lifeline.Meeting(**json.loads(json.dumps(vars(first.meeting)))) == first.meeting
