import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from features import BINS, BatchRows, FeatureCollector, Keeping
from lightning_modules.functional import SparseCodes
from tests.features import naive
from tests.features.streams import Stream

SMALL = Keeping(strongest=3, sampled=4, reach=2, sampled_entries=10**6)


def told(places, latent):
    """(row, value) of the places of a latent."""
    rows, values = places.rows[latent].tolist(), places.values[latent].tolist()
    return [(row, value) for row, value in zip(rows, values, strict=True) if row >= 0]


@settings(max_examples=25)
@given(
    rows=st.integers(0, 40),
    d_sae=st.integers(1, 6),
    size=st.integers(1, 45),
    seed=st.integers(0, 10**6),
    kind=st.sampled_from(["sparse", "batch", "dense"]),
    signed=st.booleans(),
)
def test_a_pass_gathers_what_loops_do(rows, d_sae, size, seed, kind, signed):
    stream = Stream.drawn(rows, d_sae, seed, signed=signed)
    features = stream.features(size, SMALL, kind)
    documents = stream.documents.tolist()
    firings = naive.firings(stream.dense)
    assert features.rows == rows
    for latent in range(d_sae):
        fired = firings[latent]
        assert features.counts[latent] == len(fired)
        assert features.sums[latent] == pytest.approx(sum(abs(value) for _, value in fired))
        for places, expected in (
            (features.strongest, naive.strongest(fired, 3)),
            (features.sampled, naive.sampled(fired, latent, 4)),
        ):
            assert told(places, latent) == expected
            for place, (row, _) in enumerate(expected):
                around = naive.window(stream.dense, documents, latent, row, 2)
                found = places.around[latent, place].tolist()
                assert [None if value != value else pytest.approx(value, rel=1e-3) for value in found] == around
        if fired:
            width, counts = naive.histogram(fired, BINS)
            assert features.bin_widths[latent] == width
            assert features.histogram[latent].tolist() == counts
            assert features.largest[latent] == max(abs(value) for _, value in fired)
        else:
            assert features.bin_widths[latent] == features.largest[latent] == 0


def test_the_whole_sample_has_every_row_with_its_neighbours():
    stream = Stream.drawn(50, 5, seed=3)
    sample = stream.features(7, SMALL).sample
    documents, tokens = stream.documents.tolist(), stream.tokens.tolist()
    assert sample.tokens.tolist() == tokens
    for row in range(50):
        same = [0 <= other < 50 and documents[other] == documents[row] for other in (row - 1, row + 1)]
        assert sample.before[row] == (tokens[row - 1] if same[0] else -1)
        assert sample.after[row] == (tokens[row + 1] if same[1] else -1)
    assert sample.counts.tolist() == (stream.dense != 0).sum(dim=1).tolist()
    dense = torch.zeros(50, 5)
    rows = torch.arange(50).repeat_interleave(sample.counts)
    dense[rows, sample.latents.long()] = sample.values
    assert torch.equal(dense, stream.dense)


def test_a_sample_stays_bounded_and_does_not_depend_on_how_rows_are_cut():
    stream = Stream.drawn(400, 6, seed=5)
    keeping = Keeping(strongest=1, sampled=1, reach=1, sampled_entries=150)
    samples = [stream.features(size, keeping).sample for size in (400, 33, 7)]
    for sample in samples:
        assert len(sample.latents) <= 150
        assert len(sample.tokens) > 15
        for column, first in zip(sample, samples[0], strict=True):
            assert torch.equal(column.sort().values, first.sort().values)


def test_watched_latents_are_gathered_as_among_all():
    stream = Stream.drawn(60, 8, seed=2)
    watched = torch.tensor([1, 4, 6])
    every, some = stream.features(16, SMALL), stream.features(16, SMALL, watched=watched)
    for column in ("counts", "sums", "largest", "histogram", "bin_widths"):
        assert torch.equal(getattr(some, column), getattr(every, column)[watched])
    for mine, whole in zip(some.strongest, every.strongest, strict=True):
        torch.testing.assert_close(mine, whole[watched], equal_nan=True)


def test_a_uniform_sample_of_firings_is_uniform():
    rows = torch.arange(4000)
    collector = FeatureCollector(1, Keeping(strongest=1, sampled=400, reach=0, sampled_entries=100))
    for part in rows.split(512):
        codes = SparseCodes(torch.ones(len(part), 1), torch.zeros(len(part), 1, dtype=torch.int64), 1)
        collector.update(codes, BatchRows.whole(part, torch.zeros_like(part), torch.zeros_like(part)))
    kept = collector.features().sampled.rows[0]
    assert len(kept.unique()) == 400
    counts = torch.histc(kept.float(), bins=8, min=0, max=4000)
    assert ((counts - 50).square() / 50).sum() < 24.3  # chi-squared, 7 degrees of freedom, one in a thousand
