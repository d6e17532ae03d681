import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from features import Firings, Keeping, co_firing, typical_patterns
from tests.features import naive
from tests.features.streams import Stream

ALL = Keeping(strongest=1, sampled=1, reach=0, sampled_entries=10**6)
EVERY = 10**6


def keys_of(stream):
    """By kind: what each row shows."""
    documents, tokens = stream.documents.tolist(), stream.tokens.tolist()

    def at(row):
        return tokens[row] if 0 <= row < len(tokens) else None

    def beside(row, by):
        inside = 0 <= row + by < len(tokens) and documents[row + by] == documents[row]
        return at(row + by) if inside else None

    rows = range(len(tokens))
    before, after = [beside(row, -1) for row in rows], [beside(row, 1) for row in rows]
    return {
        "token": [(tokens[row],) for row in rows],
        "before": [None if before[row] is None else (before[row],) for row in rows],
        "after": [None if after[row] is None else (after[row],) for row in rows],
        "ending": [None if before[row] is None else (before[row], tokens[row]) for row in rows],
        "beginning": [None if after[row] is None else (tokens[row], after[row]) for row in rows],
    }


@settings(max_examples=25)
@given(rows=st.integers(0, 40), d_sae=st.integers(1, 6), seed=st.integers(0, 10**6), signed=st.booleans())
def test_patterns_are_those_of_loops(rows, d_sae, seed, signed):
    stream = Stream.drawn(rows, d_sae, seed, signed=signed)
    sample = stream.features(16, ALL).sample._replace()
    found = typical_patterns(sample, Firings.of(sample, d_sae, EVERY), 3)
    firings, keys = naive.firings(stream.dense), keys_of(stream)
    for kind, patterns in found.items():
        for latent in range(d_sae):
            expected = naive.patterns(keys[kind], firings[latent]) if firings[latent] else {}
            scores = sorted((score for *_, score in expected.values()), reverse=True)[:3]
            assert patterns.scores[latent, : len(scores)].tolist() == pytest.approx(scores, abs=1e-5)
            assert (patterns.scores[latent, len(scores) :] < 1e-5).all()
            for at in range(len(scores)):
                key = tuple(token for token in patterns.tokens[latent, at].tolist() if token >= 0)
                share, lift, _ = expected[key]
                assert patterns.shares[latent, at] == pytest.approx(share, rel=1e-4)
                assert patterns.lifts[latent, at] == pytest.approx(lift, rel=1e-4)


@settings(max_examples=25)
@given(rows=st.integers(0, 40), d_sae=st.integers(1, 7), seed=st.integers(0, 10**6), count=st.integers(1, 8))
def test_partners_are_those_of_loops(rows, d_sae, seed, count):
    stream = Stream.drawn(rows, d_sae, seed)
    sample = stream.features(16, ALL).sample
    found = co_firing(sample, Firings.of(sample, d_sae, EVERY), count)
    for latent in range(d_sae):
        expected = naive.partners(stream.dense, latent, count)
        mine = [number for number in found.latents[latent].tolist() if number >= 0]
        # partners with equal cosines may be rounded apart
        shares = dict(naive.partners(stream.dense, latent, d_sae))
        assert len(mine) == len(expected)
        assert [found.shares[latent, at].item() for at in range(len(mine))] == pytest.approx(
            [shares[number] for number in mine]
        )


def test_partners_that_are_counted_in_parts_are_the_same(monkeypatch):
    stream = Stream.drawn(300, 40, seed=1)
    sample = stream.features(64, ALL).sample
    firings = Firings.of(sample, 40, EVERY)
    whole = co_firing(sample, firings, 5)
    monkeypatch.setattr("features.partners._COUNTED_AT_ONCE", 7 * 40)
    for part, expected in zip(co_firing(sample, firings, 5), whole, strict=True):
        assert torch.equal(part, expected)


@pytest.mark.parametrize("most", [1, 3, 10, 299])
def test_at_most_so_many_firings_of_a_latent_are_looked_at_evenly_spread(most):
    stream = Stream.drawn(300, 4, seed=1)
    sample = stream.features(64, ALL).sample
    firings = Firings.of(sample, 4, most)
    for latent, fired in naive.firings(stream.dense).items():
        rows = firings.rows[firings.latents == latent]
        assert len(rows) == min(most, len(fired))
        every = [row for row, _ in fired]
        places = torch.tensor([every.index(row) for row in rows.tolist()])
        steps = places.diff()
        assert len(steps) == 0 or steps.max() - steps.min() <= 1
        assert firings.in_sample[latent] == len(fired)
