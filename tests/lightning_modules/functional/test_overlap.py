import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_modules.functional import LatentSets, overlap

SETS = st.lists(st.dictionaries(st.integers(0, 5), st.floats(0.1, 4), max_size=3), min_size=1, max_size=5)


def packed(sets):
    latents, values = torch.zeros(len(sets), 3, dtype=torch.int64), torch.zeros(len(sets), 3, dtype=torch.float64)
    for row, one in enumerate(sets):
        for slot, (latent, value) in enumerate(one.items()):
            latents[row, slot], values[row, slot] = latent, value
    return LatentSets(latents, values, 6)


@given(SETS, st.integers(1, 40))
def test_overlaps_are_those_of_each_pair_and_blocks_change_nothing(sets, at_once):
    n = len(sets)
    texts, others = torch.arange(n), torch.arange(n).expand(n, n)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlap, "VALUES_AT_ONCE", at_once)
        found = packed(sets).overlaps(texts, others)
    for i, one in enumerate(sets):
        for j, other in enumerate(sets):
            every = one.keys() | other.keys()
            least, most = (sum(f(one.get(x, 0), other.get(x, 0)) for x in every) for f in (min, max))
            assert float(found[i, j]) == pytest.approx(least / most if most else 0)


def test_nothing_is_compared_with_nothing():
    sets = packed([{1: 1.0}])
    assert sets.overlaps(torch.empty(0, dtype=torch.int64), torch.empty(0, 4, dtype=torch.int64)).shape == (0, 4)
    assert sets.overlaps(torch.zeros(1, dtype=torch.int64), torch.empty(1, 0, dtype=torch.int64)).shape == (1, 0)
