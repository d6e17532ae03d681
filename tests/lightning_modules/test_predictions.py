import random

from hypothesis import given
from hypothesis import strategies as st

from lightning_modules.contrastive_embedding import ContrastiveEmbedding
from lightning_modules.predictions import Predicts, drawn
from lightning_modules.sparse_autoencoding import SparseAutoencoding


@given(st.integers(0, 200), st.integers(1, 100), st.integers(-5, 5))
def test_a_draw_is_of_different_numbers_and_the_same_each_time(total, count, seed):
    found = drawn(total, count, seed)
    assert found == sorted(set(found)) == drawn(total, count, seed)
    assert len(found) == min(total, count)
    assert not found or 0 <= found[0] <= found[-1] < total


def test_a_draw_touches_no_generator_of_the_training():
    before = random.getstate()
    drawn(10**12, 100, 0)
    assert random.getstate() == before


def test_both_products_predict():
    assert issubclass(ContrastiveEmbedding, Predicts)
    assert issubclass(SparseAutoencoding, Predicts)
