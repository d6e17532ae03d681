"""What of a gain hangs on which part, against plain loops."""

import math

import pytest
import torch

from datamodules.triplets import Example
from explanations.gain import BothRead, RetrievalTexts, changes, gain_of, moves
from explanations.text_latents import TextLatents
from lightning_modules.functional import Fired

S, D = 6, 4
GROUPS = torch.tensor([0, 1, 2, 0, 1, 2])


def read(seed, lengths, W):
    """Texts with random codes; `seed` decides all but the decoder."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    lengths = torch.tensor(lengths)
    tokens = int(lengths.sum())
    dense = draw(tokens, S).relu()
    at, latents = dense.nonzero(as_tuple=True)
    return TextLatents(
        W,
        torch.zeros(tokens, dtype=torch.int64),
        lengths,
        torch.zeros(len(lengths), dtype=torch.bool),
        (1 / lengths.double()).repeat_interleave(lengths),
        Fired(at, latents, dense[at, latents]),
        draw(len(lengths), D),
        draw(len(lengths), D),
    )


@pytest.fixture
def decoders():
    torch.manual_seed(0)
    return torch.randn(2, S, D, dtype=torch.float64)


def both(decoders, seed, lengths):
    return BothRead(read(seed, lengths, decoders[0]), read(seed + 1, lengths, decoders[1]))


def pooled_codes(texts):
    dense = torch.zeros(len(texts.lengths), S, dtype=torch.float64)
    for row, latent, value in zip(*(column.tolist() for column in texts.codes), strict=True):
        dense[row, latent] += value
    return dense


def test_changes_sum_to_the_difference_of_the_embeddings(decoders):
    base, tuned = both(decoders, 1, [3, 1, 5])
    found = changes(base, tuned, GROUPS, 3)
    torch.testing.assert_close(found.sum(dim=0), tuned.pooled - base.pooled, rtol=0, atol=1e-12)
    for group in range(3):
        mask = (group == GROUPS).double()
        expected = (pooled_codes(tuned) * mask) @ tuned.W - (pooled_codes(base) * mask) @ base.W
        torch.testing.assert_close(found[group], expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(found[3], tuned.bias - base.bias)


def test_how_far_latents_move_embeddings(decoders):
    base, tuned = both(decoders, 1, [3, 1, 5])
    theirs, ours = pooled_codes(base), pooled_codes(tuned)
    expected = [
        sum(float((ours[n, i] * tuned.W[i] - theirs[n, i] * base.W[i]).norm()) for n in range(3)) for i in range(S)
    ]
    assert moves(base, tuned).tolist() == pytest.approx(expected)


def naive_ndcg(queries, documents, task):
    """Mean over queries of NDCG@10, pessimistic about ties."""
    relevant = {}
    for query, document in zip(task.relevance.queries.tolist(), task.relevance.documents.tolist(), strict=True):
        relevant.setdefault(query, []).append(document)
    excluded = set(map(tuple, task.excluded.tolist()))
    scores = []
    for q, wanted in relevant.items():
        ranked = sorted(
            (
                (-float(torch.cosine_similarity(queries[q], document, dim=0)), d in wanted, d)
                for d, document in enumerate(documents)
                if (q, d) not in excluded
            ),
        )
        gains = [1 / math.log2(rank + 1) for rank, (_, hit, _) in enumerate(ranked[:10], 1) if hit]
        scores.append(sum(gains) / sum(1 / math.log2(rank + 1) for rank in range(1, min(10, len(wanted)) + 1)))
    return sum(scores) / len(scores)


def task():
    examples = [Example(f"q{i}", f"d{i}", (f"d{(i + 1) % 12}", "q3")) for i in range(12)]
    return RetrievalTexts.of([*examples, Example("q0", "d5"), Example("q0", "d0")])


def test_a_task_has_each_text_once_and_no_text_is_its_own_document():
    made = task()
    assert made.queries == [f"q{i}" for i in range(12)]
    assert sorted(made.documents) == sorted([f"d{i}" for i in range(12)] + ["q3"])
    assert made.excluded.tolist() == [[3, made.documents.index("q3")]]
    assert len(made.relevance.queries) == 13


def test_what_is_lost_is_what_a_loop_finds(decoders):
    made = task()
    queries, documents = both(decoders, 3, [2] * 12), both(decoders, 7, [3] * 13)
    found = gain_of(made, queries, documents, GROUPS, ["a", "b", "c"], seed=0)
    tuned = naive_ndcg(queries.tuned.pooled, documents.tuned.pooled, made)
    base = naive_ndcg(queries.base.pooled, documents.base.pooled, made)
    assert (found.queries, found.documents) == (12, 13)
    assert (found.base, found.tuned) == pytest.approx((base, tuned))
    assert [part.name for part in found.parts] == ["a", "b", "c", "bias", "error"]
    for place, part in enumerate(found.parts):
        own, other = (changes(*each, GROUPS, 3)[place] for each in (queries, documents))
        without = naive_ndcg(queries.tuned.pooled - own, documents.tuned.pooled - other, made)
        alone = naive_ndcg(queries.base.pooled + own, documents.base.pooled + other, made)
        assert part.lost.mean == pytest.approx(tuned - without)
        assert part.share.mean == pytest.approx((tuned - without) / (tuned - base))
        assert part.alone == pytest.approx((alone - base) / (tuned - base))
        assert part.share.low <= part.share.mean <= part.share.high or not found.is_sure


def test_models_that_are_the_same_have_no_gain_and_nothing_fails(decoders):
    made = task()
    queries, documents = read(3, [2] * 12, decoders[0]), read(7, [3] * 13, decoders[0])
    found = gain_of(made, BothRead(queries, queries), BothRead(documents, documents), GROUPS, ["a", "b", "c"], seed=0)
    assert found.gain == (0, 0, 0)
    assert not found.is_sure
    assert all(part.lost.mean == 0 for part in found.parts)
