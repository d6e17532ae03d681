import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from lightning_modules.functional import Binary, Int8, Int8Scale, Relevance, relevant_ranks


def test_codes_are_those_of_loops():
    calibration, embeddings = torch.randn(20, 3), 1.5 * torch.randn(9, 3)
    scale = Int8Scale.of(calibration)
    codes = scale.codes(embeddings)
    for column in range(3):
        low, high = float(calibration[:, column].min()), float(calibration[:, column].max())
        for row in range(9):
            level = round((float(embeddings[row, column]) - low) / (high - low) * 255)
            assert int(codes[row, column]) == min(max(level, 0), 255) - 128


def test_codes_stand_for_what_is_within_half_a_step():
    embeddings = torch.randn(50, 6)
    scale = Int8Scale.of(embeddings)
    codes = scale.codes(embeddings)
    assert int(codes.min()) == -128
    assert int(codes.max()) == 127
    errors = (scale.values(codes) - embeddings).abs()
    assert bool((errors <= scale.step / 2 + 1e-6).all())


def test_a_dimension_that_never_changes_costs_nothing():
    embeddings = torch.randn(5, 3)
    embeddings[:, 1] = 0.25
    scale = Int8Scale.of(embeddings)
    assert scale.values(scale.codes(embeddings))[:, 1].tolist() == [0.25] * 5


def test_int8_scores_are_products_of_what_the_codes_stand_for():
    documents = torch.randn(30, 16)
    queries = documents[:4].clone()
    scale = Int8Scale.of(normalize(documents))
    kept = [scale.values(scale.codes(normalize(part))) for part in (queries, documents)]
    scores = Int8().scores(queries, documents).of(0, 4)
    torch.testing.assert_close(scores, kept[0] @ kept[1].T)
    cosines = normalize(queries) @ normalize(documents).T
    assert float((scores - cosines).abs().max()) < 0.02


def hamming(queries, documents):
    """By bits, packed as an index packs them."""
    packed = [np.packbits(part.numpy() > 0, axis=1) for part in (queries, documents)]
    return torch.from_numpy(np.unpackbits(packed[0][:, None] ^ packed[1][None], axis=2).sum(axis=2, dtype=np.int64))


@pytest.mark.parametrize("width", [1, 7, 64, 100])
def test_binary_scores_are_hamming_distances(width):
    queries, documents = torch.randn(6, width), torch.randn(9, width)
    documents[0] = 0  # counts as negative
    scores = Binary().scores(queries, documents)
    torch.testing.assert_close(scores.of(1, 6), 1 - 2 * hamming(queries, documents)[1:] / width)


def test_equal_distances_are_ties():
    # eight bits, so that 200 documents share nine scores
    queries, documents = torch.randn(20, 8), torch.randn(200, 8)
    relevance = Relevance(torch.arange(20), torch.arange(20), torch.ones(20))
    ranks = relevant_ranks(Binary().scores(queries, documents), relevance).ranks
    distances = hamming(queries, documents)
    assert ranks.tolist() == [int((distances[i] <= distances[i, i]).sum()) for i in range(20)]


@pytest.mark.parametrize("shortlist", [1, 5, 40, 1000])
def test_a_shortlist_is_ranked_again_and_the_rest_stays_behind(shortlist):
    queries, documents = torch.randn(6, 12), torch.randn(40, 12)
    scores = Binary(shortlist=shortlist).scores(queries, documents).of(0, 6)
    distances = hamming(queries, documents)
    for row in range(6):
        reach = distances[row].sort().values[min(shortlist, 40) - 1]
        listed = distances[row] <= reach
        signs = torch.where(documents > 0, 1.0, -1.0)
        products = signs @ queries[row] / (queries[row].norm() * 12**0.5)
        torch.testing.assert_close(scores[row][listed], products[listed])
        rest = scores[row][~listed]
        assert bool((rest < -1).all())
        torch.testing.assert_close(rest, -2 - 2 * distances[row][~listed] / 12)
