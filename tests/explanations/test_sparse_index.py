import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from explanations import SparseIndex, latent_weights, sparse_vectors
from lightning_modules.functional import Fired

S = 6
CODES = st.lists(st.lists(st.sampled_from([0.0, 0.0, 0.5, 1.0, -2.0, 3.0]), min_size=S, max_size=S), max_size=6)


def fired(dense):
    rows, latents = dense.nonzero(as_tuple=True)
    return Fired(rows, latents, dense[rows, latents])


def naive(dense, weights, kept):
    """Rows of v, one by one."""
    vectors = np.zeros(dense.shape)
    for row, codes in enumerate(dense.double().numpy() * np.sqrt(weights.numpy())):
        # of equals the lower latent stays
        for latent in sorted(range(S), key=lambda i: -abs(codes[i]))[:kept]:
            vectors[row, latent] = codes[latent]
        norm = np.linalg.norm(vectors[row])
        vectors[row] /= norm or 1
    return vectors


@given(CODES, CODES, st.sampled_from([None, 1, 2, S]), st.integers(1, 8))
def test_scores_and_searches_are_those_of_every_pair_of_vectors(documents, queries, kept, count):
    weights = torch.tensor([1.0, 0.25, 2.0, 0.0, 1.5, 1.0], dtype=torch.float64)
    sides = [torch.tensor(codes).reshape(-1, S) for codes in (documents, queries)]
    packed = [sparse_vectors(fired(side), len(side), weights, kept) for side in sides]
    vectors = [naive(side, weights, kept) for side in sides]
    index = SparseIndex.of(packed[0])
    expected = vectors[1] @ vectors[0].T
    scores = index.block_scores(packed[1])
    assert_close(scores.of(0, len(queries)).double(), torch.from_numpy(expected), rtol=0, atol=2e-3)
    for query in range(len(queries)):
        found = index.search(*packed[1].row(query), count)
        assert len(found) == len(set(found.tolist())) == min(count, len(documents))
        best = np.sort(expected[query])[::-1][: len(found)]
        assert expected[query][found] == pytest.approx(best, abs=4e-3)


def test_a_list_has_every_document_of_its_latent_and_bytes_count_all_of_it():
    dense = torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 1.0], [3.0, 0.0, 0.0]])
    index = SparseIndex.of(sparse_vectors(fired(dense), 3, torch.ones(3, dtype=torch.float64)))
    lists = [index.documents[index.starts[i] : index.starts[i + 1]].tolist() for i in range(3)]
    assert lists == [[0, 2], [], [0, 1]]
    assert index.nbytes == 4 * 8 + 4 * (4 + 2)


def test_weights_are_squared_norms_and_rare_latents_count_more():
    W = torch.tensor([[3.0, 4.0], [1.0, 0.0], [2.0, 0.0], [1.0, 0.0]])
    dense = torch.tensor([[1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    assert_close(latent_weights(W, fired(dense), 2), torch.tensor([25.0, 1.0, 4.0, 1.0], dtype=torch.float64))
    half = float(np.log(2.0) ** 2)
    # what all documents have tells them apart no more; what none has is as rare as what one has
    expected = torch.tensor([0.0, half, 4 * half, half], dtype=torch.float64)
    assert_close(latent_weights(W, fired(dense), 2, "idf"), expected)
