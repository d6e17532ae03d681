import pytest
import torch

from reports.dashboard.contexts import Context, contexts, even, varied
from tests.reports.dashboard.subjects import ROWS, store_of_text, subject_of, values_of


def place(document, value, token=0):
    return Context(document, 0, [token, token + 1], 0, [value, 0.0], 0.0)


def test_contexts_are_the_rows_around_with_the_latents_values(tmp_path):
    store = store_of_text(tmp_path / "store")
    features = subject_of(store).facts.features
    every = store.provenance(torch.arange(ROWS))
    values = values_of(every.tokens.long())
    shown = list(contexts(store, features, range(12), 12, 12))
    assert len(shown) == 12
    for latent, of_latent in enumerate(shown):
        for context in [*of_latent.strongest, *of_latent.sampled]:
            row = 40 * context.document + context.position
            first = max(40 * context.document, row - 5)
            rows = torch.arange(first, min(40 * (context.document + 1), row + 6))
            assert context.tokens == every.tokens[rows].tolist()
            assert context.marked == row - first
            assert context.values == pytest.approx(values[rows, latent].tolist(), rel=1e-3)
            weaker = (values[values[:, latent] > 0, latent] < values[row, latent]).float().mean()
            assert context.weaker == pytest.approx(float(weaker), abs=0.16)  # one of seven levels a bin at most
    assert shown[10].strongest == shown[10].sampled == []  # dead


def test_new_documents_come_before_others_and_the_same_words_once():
    places = [place(0, 9.0), place(0, 8.0), place(1, 7.0), place(0, 6.0, 5), place(2, 5.0, 9)]
    assert [context.values[0] for context in varied(places, 3)] == [9.0, 6.0, 5.0]
    assert [context.values[0] for context in varied(places, 2)] == [9.0, 5.0]


def test_the_whole_range_is_shown_evenly():
    places = [place(at, float(at)) for at in range(10)]
    assert [context.values[0] for context in even(places, 5)] == [8.0, 6.0, 4.0, 2.0, 0.0]
    assert [context.values[0] for context in even(places[:3], 5)] == [2.0, 1.0, 0.0]
