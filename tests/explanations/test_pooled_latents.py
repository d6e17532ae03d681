import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from explanations import PooledReader, StateReader
from explanations.pooled_latents import added_up
from lightning_modules.functional import Fired
from tests.callbacks.small_models import WIDTH
from tests.explanations.final_states import autoencoder_of
from tests.explanations.test_token_states import TEXTS, built, tokenised


@pytest.mark.parametrize("pooling", ["mean", "cls", "weighted_mean"])
def test_the_reconstruction_is_what_the_pooled_codes_and_the_bias_add_up_to(bert, pooling):
    encoder, model = built(bert, pooling=pooling, tokens_at_once=40), autoencoder_of(WIDTH)
    pooled = PooledReader(StateReader(encoder, model)).read(tokenised(bert))
    codes = torch.zeros(len(TEXTS), 24).index_put((pooled.codes.rows, pooled.codes.latents), pooled.codes.values)
    W, b, scale = model.autoencoder.W_dec.detach(), model.autoencoder.b_dec.detach(), 0.7
    assert_close(codes @ W + b / scale, pooled.reconstructed, rtol=1e-4, atol=1e-5)
    keys = pooled.codes.rows * 24 + pooled.codes.latents
    assert keys.tolist() == sorted(set(keys.tolist()))


def test_what_is_missed_is_counted_over_all_that_was_read(bert):
    reader = PooledReader(StateReader(built(bert), autoencoder_of(WIDTH)))
    states, reconstructions = [], []
    for some in (TEXTS[:2], TEXTS[2:]):
        reader.read(tokenised(bert, some))
        for part in reader.reader.read(tokenised(bert, some)):
            states.append(part.states.double())
            reconstructions.append(part.reconstructions.double())
    x, y = torch.cat(states), torch.cat(reconstructions)
    assert reader.fvu == pytest.approx(float((x - y).square().sum() / (x - x.mean(dim=0)).square().sum()), rel=1e-4)
    assert_close(reader.mean_state, x.mean(dim=0).float())


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(-2, 2)), max_size=20))
def test_entries_of_one_row_and_latent_are_added_up(entries):
    columns = torch.tensor(entries, dtype=torch.int64).reshape(-1, 3).unbind(dim=1)
    found = added_up(Fired(columns[0], columns[1], columns[2].double()), 5)
    sums: dict[tuple[int, int], int] = {}
    for row, latent, value in entries:
        sums[row, latent] = sums.get((row, latent), 0) + value
    assert list(zip(*(part.tolist() for part in found), strict=True)) == [
        (row, latent, value) for (row, latent), value in sorted(sums.items()) if value
    ]
