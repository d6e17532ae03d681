"""The one-pass statistics against the same told by numpy from all rows at once."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datamodules.shards import ActivationStore, StoreWriter
from reports import store_statistics
from reports.store_statistics import DimensionMoments, NormHistogram, gather_statistics


@given(
    st.lists(st.floats(2**-20, 2**20, width=32), min_size=1, max_size=200), st.sampled_from([0.0, 0.01, 0.5, 0.9, 1.0])
)
def test_quantiles_are_right_to_two_per_mille(values, share):
    histogram = NormHistogram()
    for part in torch.tensor(values).split(70):
        histogram.add(part)
    low, high = (np.quantile(values, share, method=method) for method in ("lower", "higher"))
    assert low * (1 - 0.002) <= histogram.quantile(share) <= high * (1 + 0.002)
    assert histogram.size == len(values)
    assert histogram.mean == pytest.approx(np.mean(values), rel=1e-5)
    assert (histogram.smallest, histogram.largest) == (min(values), max(values))


def test_zero_is_a_norm_too_and_what_is_above_a_limit_is_counted():
    histogram = NormHistogram()
    histogram.add(torch.tensor([0.0, 0.0, 1.0, 2.0, 1000.0]))
    assert histogram.quantile(0.2) == 0
    assert histogram.above(1.5) == 2
    assert histogram.between(np.array([0.5, 1.5, 5000.0])).tolist() == [1, 2]


def test_moments_of_dimensions_far_from_the_origin_lose_nothing():
    x = torch.randn(5000, 6, dtype=torch.float64) * torch.tensor([1, 1e-2, 1, 1, 3, 1]) + torch.tensor(
        [0, 1000, 0, -40, 0, 0]
    )
    x = x.float()
    moments = DimensionMoments(6)
    for part in x.split(999):
        moments.add(part)
    np.testing.assert_allclose(moments.mean, x.double().mean(dim=0), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(moments.std, x.double().std(dim=0, correction=0), rtol=1e-4)
    extremes = x.gather(0, x.abs().argmax(dim=0, keepdim=True))[0]
    assert torch.equal(moments.extremes, extremes)


def test_outlying_dimensions_are_found_by_mean_and_by_std():
    x = torch.randn(2000, 100)
    x[:, 17] += 30
    x[:, 55] *= 12
    moments = DimensionMoments(100)
    moments.add(x)
    assert set(moments.outliers()) == {17, 55}
    assert moments.outliers()[0] == int(moments.deviations().argmax())


def test_one_dimension_and_equal_dimensions_have_no_outliers():
    for x in (torch.randn(10, 1), torch.ones(10, 4)):
        moments = DimensionMoments(x.shape[1])
        moments.add(x)
        assert moments.outliers() == []


@pytest.fixture
def opened(tmp_path):
    """A store of 2000 rows in three shards, with its rows."""
    x = {"a": torch.randn(2000, 8) + 2, "b": torch.randn(2000, 5)}
    tokens = torch.randint(5, 90, (2000,))
    with StoreWriter(tmp_path / "store", {"a": 8, "b": 5}, "float32", 25_000) as writer:
        writer.append(x, tokens, torch.arange(20).repeat_interleave(100), torch.arange(100).repeat(20))
        writer.finish({}, [f"document {number}" for number in range(21)])
    return ActivationStore(tmp_path / "store"), x, tokens


def test_a_pass_over_a_store_sees_every_row_once(opened, monkeypatch):
    monkeypatch.setattr(store_statistics, "CHUNK_ROWS", 300)  # several chunks, of which none ends with a shard
    store, x, tokens = opened
    found = gather_statistics(store)
    assert found.rows == 2000
    assert found.documents == 20
    assert torch.equal(torch.from_numpy(found.tokens), torch.bincount(tokens))
    for name, rows in x.items():
        np.testing.assert_allclose(found.moments[name].mean, rows.double().mean(dim=0), rtol=1e-5)
        assert found.norms[name].size == 2000
        assert found.norms[name].mean == pytest.approx(float(rows.norm(dim=1).mean()), rel=1e-5)


def test_a_sample_is_spread_evenly_and_of_the_size_asked(opened, monkeypatch):
    monkeypatch.setattr(store_statistics, "CHUNK_ROWS", 50)
    store, _, _ = opened
    assert gather_statistics(store, sample_rows=120).rows == 120
    chunks = list(store_statistics._chunks(2000, 120))
    rows = torch.cat(chunks)
    assert len(rows) == len(rows.unique()) == 120
    assert rows.max() < 2000
    assert [int(chunk[0]) for chunk in chunks] == [0, 666, 1333]
    assert gather_statistics(store, sample_rows=10**9).rows == 2000


def test_a_compressed_store_is_read_like_any_other(tmp_path):
    x = torch.randn(500, 64)
    with StoreWriter(tmp_path / "store", {"a": 64}, "int8") as writer:
        writer.append({"a": x}, torch.arange(500), torch.zeros(500, dtype=torch.int64), torch.arange(500))
        writer.finish({}, ["only"])
    found = gather_statistics(ActivationStore(tmp_path / "store"))
    np.testing.assert_allclose(found.moments["a"].std, x.double().std(dim=0, correction=0), rtol=0.01)
    assert found.norms["a"].mean == pytest.approx(float(x.norm(dim=1).mean()), rel=0.002)
