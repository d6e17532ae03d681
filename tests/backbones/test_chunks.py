import torch
from hypothesis import given
from hypothesis import strategies as st

from backbones.chunks import PADDED_SHARE, cut, in_batch_order
from datamodules.triplets.batch import TokenisedTexts


def texts_of(lengths):
    """Texts in which every token is a number of its own."""
    lengths = torch.tensor(lengths, dtype=torch.int64)
    return TokenisedTexts(torch.arange(1, int(lengths.sum()) + 1, dtype=torch.int32), lengths)


def rows(texts):
    return [part.tolist() for part in texts.tokens.split(texts.lengths.tolist())]


a_length = st.integers(1, 12)


@given(st.lists(st.tuples(a_length, a_length), max_size=30), st.integers(1, 40), st.integers(1, 40))
def test_every_text_is_in_one_chunk_whole_and_within_the_budgets(lengths, first, second):
    texts = tuple(texts_of(list(column)) for column in zip(*lengths, strict=True)) or (texts_of([]), texts_of([]))
    chunks = cut(texts, [first, second])
    assert sorted(place for chunk in chunks for place in chunk.places.tolist()) == list(range(len(lengths)))
    for chunk in chunks:
        for part, padded, budget in zip(texts, chunk.texts, (first, second), strict=True):
            assert padded.tokens.shape == padded.real.shape
            assert len(chunk.places) == 1 or padded.tokens.numel() <= budget
            assert int((~padded.real).sum()) <= PADDED_SHARE * (first + second)
            assert padded.is_padded == (not padded.real.all())
            assert padded.real.any(dim=0).all()
            assert not padded.tokens[~padded.real].any()
            expected = [rows(part)[place] for place in chunk.places]
            assert [row[real].tolist() for row, real in zip(padded.tokens, padded.real, strict=True)] == expected


@given(st.lists(a_length, min_size=1, max_size=30), st.integers(1, 40))
def test_what_is_made_of_chunks_comes_back_in_the_order_of_the_texts(lengths, budget):
    texts = texts_of(lengths)
    chunks = cut((texts,), [budget])
    sums = [chunk.texts[0].tokens.sum(dim=1, dtype=torch.float64).unsqueeze(1) for chunk in chunks]
    for part in sums:
        part.requires_grad_()
    together = in_batch_order(sums, chunks)
    assert together.squeeze(1).tolist() == [sum(row) for row in rows(texts)]
    (together.squeeze(1) * torch.arange(len(lengths))).sum().backward()
    for part, chunk in zip(sums, chunks, strict=True):
        assert torch.equal(part.grad.squeeze(1), chunk.places.double())


def test_sorting_leaves_little_padding():
    lengths = torch.randint(4, 128, (192,)).tolist()
    chunks = cut((texts_of(lengths),), [2048])
    assert sum(chunk.texts[0].tokens.numel() for chunk in chunks) < 1.07 * sum(lengths)


def test_texts_of_one_length_are_not_padded():
    assert not any(chunk.texts[0].is_padded for chunk in cut((texts_of([7] * 10),), [21]))


def test_ties_keep_their_order():
    (chunk,) = cut((texts_of([3, 4, 3, 4]),), [100])
    assert chunk.places.tolist() == [1, 3, 0, 2]
