"""Contexts of different lengths: padded, sorted, and told apart from both."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from backbones import CapturedRows, Extractor, RowCounts
from backbones.captured_rows import in_order
from datamodules.text import TokenBatch, make_window
from run_store import UserError

# The last block of each model, so that every kind of attention before it has to leave the padding out.
HOOK_POINTS = {
    "bert": ["embeddings", "encoder.layer.1", "mlp.3", "encoder.layer.2"],
    "gpt2": ["h.0", "mlp.3", "ln_f"],
    "t5": ["encoder.block.1", "mlp.3", "encoder.final_layer_norm"],
}
COLUMNS = ("tokens", "documents", "positions")


def random_contexts(lengths, first_document=0):
    """Contexts of one document each, which begin with a special token."""
    contexts = []
    for number, length in enumerate(lengths, start=first_document):
        tokens = torch.cat([torch.ones(1, dtype=torch.int64), torch.randint(3, 40, (length - 1,))])
        positions = torch.arange(-1, length - 1)
        contexts.append(torch.stack([tokens, torch.full((length,), number), positions]).numpy())
    return contexts


def extractor(model, **settings):
    return Extractor(model, **{"precision": "float32", "store_dtype": "float32", "device": "cpu", **settings})


def rows_alone(reader, contexts):
    """Every context by itself, which is never padded."""
    windows = (make_window(number, [context], 1) for number, context in enumerate(contexts))
    rows = [reader(window.batches[0]) for window in windows]
    activations = {name: torch.cat([part.activations[name] for part in rows]) for name in rows[0].activations}
    return CapturedRows(activations, *(torch.cat([getattr(part, column) for part in rows]) for column in COLUMNS))


def assert_same_rows(rows, expected, exact=False):
    for column in COLUMNS:
        assert torch.equal(getattr(rows, column), getattr(expected, column))
    assert list(rows.activations) == list(expected.activations)
    for name, states in rows.activations.items():
        if exact:
            assert torch.equal(states, expected.activations[name])
        else:
            torch.testing.assert_close(states, expected.activations[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", HOOK_POINTS)
def test_padding_changes_no_row(models, family, attention):
    contexts = random_contexts([3, 16, 1, 2, 9, 16, 12, 4])
    reader = extractor(models[family], hook_points=HOOK_POINTS[family], attention=attention)
    expected = rows_alone(reader, contexts)
    for batch_size in (1, 3, 8):
        rows = reader.read_window(make_window(0, contexts, batch_size))
        assert_same_rows(rows, expected)


@pytest.mark.parametrize("settings", [{"max_norm_ratio": 1.2}, {"positions": [-1, 2]}, {"keep_special_tokens": True}])
def test_padding_changes_no_filter(models, settings):
    contexts = random_contexts([3, 16, 5, 9, 12, 4])
    one_by_one = extractor(models["bert"], hook_points=["embeddings"], **settings)
    together = extractor(models["bert"], hook_points=["embeddings"], **settings)
    assert_same_rows(together.read_window(make_window(0, contexts, 4)), rows_alone(one_by_one, contexts))
    assert one_by_one.counts == together.counts
    assert 0 < together.counts.kept == len(together.read_window(make_window(0, contexts, 4)).tokens)


@pytest.mark.parametrize("padding", [0, 7, 39, 10**6, -100])
def test_the_id_of_the_padding_does_not_matter(models, padding):
    batch = make_window(0, random_contexts([4, 7]), 2).batches[0]
    reader = extractor(models["bert"], hook_points=["encoder.layer.2"])
    filled = batch.tokens.where(torch.arange(7) < batch.lengths[:, None], padding)
    assert_same_rows(reader(batch._replace(tokens=filled)), reader(batch), exact=True)


def test_full_contexts_need_no_mask(models):
    batch = make_window(0, random_contexts([7, 7]), 2).batches[0]
    reader = extractor(models["bert"], hook_points=["encoder.layer.0"])
    masks = []
    layer = reader.load().encoder.layer[0]
    layer.register_forward_pre_hook(lambda module, arguments: masks.append(arguments[1]))
    reader(batch)
    reader(make_window(0, random_contexts([7, 6]), 2).batches[0])
    assert masks[0] is None
    assert masks[1] is not None


def test_a_window_is_read_in_the_order_of_the_corpus_and_told_as_it_goes(models):
    contexts = random_contexts([3, 9, 9, 2, 12, 5, 9])
    window = make_window(5, contexts, 2)
    assert window.order.tolist() != sorted(window.order.tolist())
    reader, told = extractor(models["gpt2"], hook_points=["h.1"]), []
    rows = reader.read_window(window, told.append)
    assert rows.documents.tolist() == [number for number, context in enumerate(contexts) for _ in context[0][1:]]
    assert rows.positions.tolist() == [place for context in contexts for place in range(context.shape[1] - 1)]
    assert told == [int(batch.lengths.sum()) for batch in window.batches]
    assert_same_rows(reader.read_window(window), rows, exact=True)


@given(st.lists(st.lists(st.integers(0, 5), max_size=6), min_size=1, max_size=5))
def test_rows_are_sorted_by_place_and_keep_their_order_in_it(places):
    numbers = iter(range(1000))
    parts = [
        CapturedRows(
            {"a": (ids := torch.tensor([next(numbers) for _ in part], dtype=torch.int64)).float()[:, None]},
            ids,
            ids + 1,
            ids + 2,
        )
        for part in places
    ]
    joined = in_order(parts, [torch.tensor(part, dtype=torch.int64) for part in places])
    flat = [place for part in places for place in part]
    expected = [number for _, number in sorted(zip(flat, range(1000), strict=False))]
    assert joined.tokens.tolist() == expected
    assert joined.documents.tolist() == [number + 1 for number in expected]
    assert joined.positions.tolist() == [number + 2 for number in expected]
    assert joined.activations["a"].squeeze(1).tolist() == expected


def test_rows_are_counted_with_what_took_the_others(models):
    batch = make_window(0, random_contexts([6, 4]), 2).batches[0]
    reader = extractor(models["bert"], hook_points=["encoder.layer.0"], positions=[0, 1, 2], max_norm_ratio=None)
    reader(batch)
    assert reader.counts == RowCounts(kept=4, special_tokens=2, other_positions=4)
    reader(batch)
    assert reader.counts.kept == 8


def test_the_first_token_is_kept_or_left_out_on_its_own(models):
    batch = make_window(0, random_contexts([6, 4]), 2).batches[0]
    settings = {"hook_points": ["embeddings.word_embeddings"], "max_norm_ratio": 0.01}
    kept = extractor(models["bert"], **settings, keep_first_token=True)
    assert kept(batch).positions.tolist() == [-1, -1]  # no outlier, because it was asked for
    assert kept.counts.outliers == 8
    left_out = extractor(models["bert"], **settings | {"max_norm_ratio": None}, keep_first_token=False)
    assert left_out(batch).positions.tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    assert left_out.counts == RowCounts(kept=8, first_tokens=2)


def test_tokens_that_are_there_for_context_alone_give_no_row(models):
    batch = make_window(0, random_contexts([6]), 1).batches[0]
    repeated = TokenBatch(batch.tokens, batch.documents, batch.positions.clone(), batch.lengths)
    repeated.positions[0, 1:3] = -2
    reader = extractor(models["gpt2"], hook_points=["h.0"], keep_special_tokens=True)
    assert reader(repeated).positions.tolist() == [-1, 2, 3, 4]


def test_broken_activations_count_where_they_give_a_row(models):
    reader = extractor(models["bert"], hook_points=["embeddings"])
    reader.load().embeddings.word_embeddings.weight[0] = torch.nan
    window = make_window(0, random_contexts([6, 3]), 2)
    assert len(reader.read_window(window).tokens) == 7
    batch = window.batches[0]
    batch.tokens[1, 0] = 0
    assert len(reader(batch).tokens) == 7
    reader.keep_special_tokens = True
    with pytest.raises(UserError, match=r"NaN or infinite \(document 1, a special token\)"):
        reader(batch)
