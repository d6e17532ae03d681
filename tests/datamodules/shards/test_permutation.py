from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from datamodules.shards.permutation import WINDOW, Permutation, images_of, place_of_last


@given(size=st.integers(1, 3000), key=st.text())
@example(size=1, key="")
@example(size=4097, key="a little more than a window")
def test_a_permutation_sends_every_number_to_its_own_place_and_back(size, key):
    permutation = Permutation(size, key)
    images = permutation(np.arange(size))
    assert sorted(images) == list(range(size))
    assert (permutation.inverse(images) == np.arange(size)).all()


def test_a_permutation_of_any_size_is_computed_where_it_is_asked():
    size = 10**15 + 37
    permutation = Permutation(size, "large")
    places = np.array([0, 1, 10**9, size - 1])
    images = permutation(places)
    assert ((images >= 0) & (images < size)).all()
    assert (permutation.inverse(images) == places).all()


@pytest.mark.parametrize("size", [2, 5, 16])
def test_every_number_comes_first_about_equally_often(size):
    counts = Counter(int(Permutation(size, str(key))(np.array([0]))[0]) for key in range(200 * size))
    assert set(counts) == set(range(size))
    # a share of 200 has a standard deviation of 14
    assert all(130 < count < 270 for count in counts.values())


def test_neighbours_do_not_stay_neighbours():
    images = Permutation(10_000, "key")(np.arange(10_000))
    assert (np.abs(np.diff(images)) == 1).sum() < 15
    assert abs(np.corrcoef(images, np.arange(10_000))[0, 1]) < 0.05


@pytest.mark.parametrize("start", [0, 1, WINDOW - 1, WINDOW, 2 * WINDOW - 2])
@pytest.mark.parametrize("count", [1, 2, WINDOW + 2])
def test_images_by_windows_are_the_permutation_s(start, count):
    size = 4 * WINDOW
    assert (
        images_of(size, "key", start, start + count) == Permutation(size, "key")(np.arange(start, start + count))
    ).all()
    assert Permutation(size, "key")(np.array([place_of_last(size, "key")])) == size - 1
