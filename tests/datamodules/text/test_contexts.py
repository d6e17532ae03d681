import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.text import ContextRules, TextCounts, cut, grouped
from datamodules.text.contexts import REPEATED, SPECIAL, TOKENS_A_PIECE
from datamodules.text.tokenising import TokenisedDocument

PREFIX, SUFFIX = 1000, 2000


def tokenised(sizes):
    """Documents of these sizes; the token ids of one begin at ten times its number."""
    return [
        TokenisedDocument(number, 10 * number + np.arange(size, dtype=np.int32)) for number, size in enumerate(sizes)
    ]


def contexts_of(sizes, rules, counts=None):
    """The contexts as lists of (token, document, position)."""
    columns = cut(iter(tokenised(sizes)), rules, counts or TextCounts())
    return [list(zip(*context.tolist(), strict=True)) for context in columns]


def naive_packed(sizes, rules):
    """One token at a time."""
    stream = []
    for number, ids in tokenised(sizes):
        if len(ids) >= rules.min_tokens and len(ids):
            stream += [(int(token), number, place) for place, token in enumerate(ids)]
            stream += [(token, number, SPECIAL) for token in rules.suffix]
    contexts, room = [], rules.length - len(rules.prefix)
    while len(stream) >= room:
        body = list(stream[:room])
        if contexts:
            body[: rules.overlap] = [(token, document, REPEATED) for token, document, _ in body[: rules.overlap]]
        contexts.append([(token, body[0][1], SPECIAL) for token in rules.prefix] + body)
        del stream[: room - rules.overlap]
    return contexts if rules.max_tokens is None else contexts[: rules.max_tokens // rules.length]


def naive_unpacked(sizes, rules):
    """One context after the other; every document is gone through until its last token has had its row."""
    contexts, room = [], rules.length - len(rules.prefix) - len(rules.suffix)
    for number, ids in tokenised(sizes):
        done = 0
        while done < len(ids) >= rules.min_tokens and not (rules.truncate and done):
            first = done - rules.overlap if done else 0
            places = range(first, min(first + room, len(ids)))
            contexts.append(
                [(token, number, SPECIAL) for token in rules.prefix]
                + [(int(ids[place]), number, place if place >= done else REPEATED) for place in places]
                + [(token, number, SPECIAL) for token in rules.suffix]
            )
            done = places[-1] + 1
    if rules.max_tokens is not None:
        totals = np.cumsum([len(context) for context in contexts])
        contexts = contexts[: int((totals <= rules.max_tokens).sum())]
    return contexts


@st.composite
def all_rules(draw):
    packed = draw(st.booleans())
    prefix, suffix = draw(st.sampled_from([(), (PREFIX,)])), draw(st.sampled_from([(), (SUFFIX,)]))
    least = len(prefix) + len(suffix) + 1
    length = draw(st.integers(least, least + 10))
    room = length - len(prefix) - (0 if packed else len(suffix))
    truncate = not packed and draw(st.booleans())
    return ContextRules(
        length,
        prefix,
        suffix,
        packed,
        overlap=0 if truncate else draw(st.integers(0, room - 1)),
        truncate=truncate,
        min_tokens=draw(st.integers(1, 4)),
        max_tokens=draw(st.none() | st.integers(1, 200)),
    )


@given(sizes=st.lists(st.integers(0, 40), max_size=25), rules=all_rules())
def test_cuts_like_a_naive_loop(sizes, rules):
    assert contexts_of(sizes, rules) == (naive_packed if rules.packed else naive_unpacked)(sizes, rules)


@given(sizes=st.lists(st.integers(0, 40), max_size=25), rules=all_rules())
def test_every_token_gives_one_row_whatever_the_overlap(sizes, rules):
    rows = [row for context in contexts_of(sizes, rules) for row in context if row[2] >= 0]
    expected = [
        (int(token), number, place)
        for number, ids in tokenised(sizes)
        if len(ids) >= rules.min_tokens
        for place, token in enumerate(ids)
    ]
    whole = not rules.truncate and rules.max_tokens is None
    if whole and not rules.packed:
        assert rows == expected
    elif whole:
        assert rows == expected[: len(rows)]
        assert len(expected) - len(rows) < rules.room
    else:
        assert rows == [row for row in expected if row in set(rows)]


@given(sizes=st.lists(st.integers(0, 40), max_size=25), length=st.integers(3, 20), min_tokens=st.integers(1, 9))
def test_what_is_left_out_is_counted(sizes, length, min_tokens):
    counts = TextCounts()
    rules = ContextRules(length, (PREFIX,), (SUFFIX,), packed=False, truncate=True, min_tokens=min_tokens)
    contexts = contexts_of(sizes, rules, counts)
    assert counts.short_documents == sum(0 < size < min_tokens for size in sizes)
    assert counts.truncated_documents == sum(size >= min_tokens and size > length - 2 for size in sizes)
    kept = sum(position >= 0 for context in contexts for _, _, position in context)
    assert kept + counts.truncated_tokens == sum(size for size in sizes if size >= min_tokens)


@pytest.mark.parametrize("packed", [True, False])
def test_a_document_longer_than_a_piece_is_whole(packed):
    sizes = [3, 2 * TOKENS_A_PIECE + 5, 64]
    contexts = contexts_of(sizes, ContextRules(64, (PREFIX,), (SUFFIX,), packed, overlap=3))
    positions = [
        position for context in contexts for _, document, position in context if document == 1 and position >= 0
    ]
    assert positions == list(range(sizes[1]))


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("sizes", [[], [0], [0, 0, 0]])
def test_no_tokens_no_contexts(packed, sizes):
    assert contexts_of(sizes, ContextRules(8, (PREFIX,), (SUFFIX,), packed)) == []


def test_a_document_of_one_token_is_a_context():
    (context,) = contexts_of([0, 1], ContextRules(8, (PREFIX,), (SUFFIX,), packed=False))
    assert context == [(PREFIX, 1, SPECIAL), (10, 1, 0), (SUFFIX, 1, SPECIAL)]


@pytest.mark.parametrize("packed", [True, False])
def test_reads_no_more_documents_than_it_needs(packed):
    read = []

    def endless():
        while True:
            read.append(TokenisedDocument(len(read), np.arange(3, dtype=np.int32)))
            yield read[-1]

    windows = grouped(cut(endless(), ContextRules(8, (PREFIX,), (SUFFIX,), packed), TextCounts()), 10)
    for _ in range(4):
        next(windows)
    # 40 contexts with room for 7 tokens hold 70 documents of 4 tokens, or one document each.
    assert len(read) == (70 if packed else 40)
