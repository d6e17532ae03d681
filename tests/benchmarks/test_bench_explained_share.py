"""The benchmark of explained shares adds up, and draws what it compares with."""

import pytest
import torch

from benchmarks.bench_explained_share import drawn, shares
from explanations import open_reader, refitted
from lightning_modules.autoencoders import TopK
from tests.explanations.readers import LAST, autoencoding, save_embedder


@pytest.fixture
def texts(tmp_path):
    reader = open_reader(autoencoding(TopK(24, k=4)).only, {"model": save_embedder(tmp_path)})
    return [reader.read(each)[LAST] for each in (["open the file", "sort a list"], ["read file", "list of text"])]


def test_shares_make_up_the_cosine(texts):
    for queries, documents in (texts, [refitted(each, 3) for each in texts]):
        found = shares(queries, documents)
        assert sum(found[name] for name in ("diagonal", "cross", "bias", "error")) == pytest.approx(1)
        assert found["between_latents"] == pytest.approx(found["diagonal"] + found["cross"])
        assert found["largest_difference"] < 1e-12


def test_drawn_latents_leave_the_embedding_as_it_is(texts):
    for each in texts:
        other = drawn(each, 5, seed=1)
        torch.testing.assert_close(other.pooled, each.pooled)
        assert all(len(set(other.codes.latents[other.codes.rows == text].tolist())) == 5 for text in range(2))
        assert refitted(other, 5).error.norm() < other.error.norm()
