"""What is planned, and what threads make of it, without a network."""

from threading import Event, Lock

import numpy as np
import torch

from datamodules.shards import GroupedShuffle
from datamodules.shards.cache import Content, FileCache, Outcome
from datamodules.shards.read_ahead import ReadAhead

SHARDS, ROWS, MIXED = 12, 10, 2
LASTING = "counts"


def files_of(shard):
    return [Content(f"file-{shard:02d}", 10)]


def order(seed=0):
    return GroupedShuffle(torch.tensor([[0, SHARDS * ROWS]]), np.full(SHARDS, ROWS), MIXED, 1, seed)


class Recorded:
    """A cache of some files, and what was fetched into it."""

    def __init__(self, folder, files, order):
        self.cache, self.fetched, self.lock = FileCache(folder, 10 * files), [], Lock()
        self.order, self.enough = order, Event()
        self.ahead = ReadAhead(self.cache, files_of, self.fetch, 3, LASTING)

    def fetch(self, content, uses, soon, wanted):
        def fill(path):
            path.write_bytes(bytes(10))
            with self.lock:
                self.fetched.append(int(content.sha256[-2:]))

        outcome = self.cache.add(content, fill, uses, soon, wanted)
        if outcome is Outcome.THERE:
            self.enough.set()
        return outcome

    def read(self, epoch, place):
        """Says where it stands, and waits until what is read there is there, as a reader does."""
        self.ahead.at(self.order, epoch, place, place + 1)
        for shard in self.order.shards_at(epoch, place, place + 1):
            while not self.cache.has(files_of(shard)[0]):
                self.enough.wait(0.01)
                self.enough.clear()


def test_the_plan_is_what_is_read_now_then_next_then_by_the_others_then_later(tmp_path):
    training, validation = order(0), order(1)
    ahead = ReadAhead(FileCache(tmp_path, 100), files_of, lambda *_: Outcome.BUSY, 1, LASTING)
    ahead.at(validation, 0, 0, 1)
    ahead.at_rest(validation)
    ahead.at(training, 3, 25, 26)
    ahead.close()
    plan = ahead.plan
    now, following, later = list(training.groups_from(3, 25))[:3]
    first, second = list(validation.groups_from(0, 0))[:2]

    def soon(group):
        return {plan.uses[files_of(int(shard))[0].sha256] for shard in group}

    assert soon(now) == {0}
    assert soon(following) == {1}
    for group, most in ((first, 2), (second, 3), (later, 4)):
        assert max(soon(group)) <= most
    assert plan.uses[LASTING] == 2
    assert sorted(int(content.sha256[-2:]) for _, content in plan.wanted) == sorted([*now, *following])
    assert len(plan.uses) == SHARDS + 1


def test_each_shard_of_an_epoch_is_fetched_once_in_a_cache_of_two_groups(tmp_path):
    recorded = Recorded(tmp_path, 2 * MIXED, order())
    for place in range(SHARDS * ROWS):
        recorded.read(0, place)
        assert recorded.cache.bytes() <= 20 * MIXED
    recorded.ahead.close()
    assert sorted(set(recorded.fetched)) == list(range(SHARDS))
    # the last group's successor is of the next epoch
    assert len(recorded.fetched) <= SHARDS + MIXED


def test_what_is_read_soonest_stays_where_there_is_room(tmp_path):
    room = 8
    recorded = Recorded(tmp_path, room, order())
    for epoch in range(6):
        for place in range(0, SHARDS * ROWS, 5):
            recorded.read(epoch, place)
    recorded.ahead.close()
    sequence = [
        int(shard) for epoch in range(6) for group in list(order().groups_from(epoch, 0))[:6] for shard in group
    ]
    assert len(recorded.fetched) < least_recently_used(sequence, room)


def least_recently_used(sequence, room):
    """How many of a sequence a cache fetches that lets go what was not read for longest."""
    there, fetched = [], 0
    for shard in sequence:
        if shard in there:
            there.remove(shard)
        else:
            fetched += 1
        there = [*there, shard][-room:]
    return fetched
