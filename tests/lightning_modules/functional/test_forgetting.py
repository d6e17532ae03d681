import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from lightning_modules.functional import LatentLevels, drift_between, most_changed, row_cosines

LEVEL = st.just(0.0) | st.floats(1e-3, 10)
LEVELS = st.lists(st.tuples(LEVEL, LEVEL), min_size=1, max_size=8)


def levels(*magnitudes):
    return LatentLevels(torch.tensor(magnitudes, dtype=torch.float64), torch.ones(len(magnitudes), dtype=torch.float64))


def test_drift_is_what_is_lost_and_what_is_gained_of_the_bases_activation():
    drift = drift_between(levels(4.0, 1.0, 0.0, 3.0), levels(1.0, 3.0, 2.0, 3.0))
    assert drift.lost == pytest.approx(3 / 8)
    assert drift.gained == pytest.approx(4 / 8)
    assert drift.total == pytest.approx(7 / 8)


@given(LEVELS)
def test_drift_is_the_mean_of_relative_changes_weighted_by_the_base(pairs):
    base, now = levels(*(a for a, _ in pairs)), levels(*(b for _, b in pairs))
    total = sum(a for a, _ in pairs)
    if total == 0:
        with pytest.raises(ValueError, match="no latent fires"):
            drift_between(base, now)
        return
    weighted = sum(a / total * abs(b - a) / a for a, b in pairs if a > 0) + sum(b for a, b in pairs if a == 0) / total
    drift = drift_between(base, now)
    assert drift.total == pytest.approx(weighted, rel=1e-9, abs=1e-9)
    assert 0 <= drift.lost <= 1 + 1e-12
    assert drift.gained >= 0
    unmoved = drift_between(base, base)
    assert (unmoved.lost, unmoved.gained) == (0, 0)


@given(LEVELS, st.integers(1, 10))
def test_the_latents_that_changed_most_come_first_and_none_that_has_not_moved(pairs, count):
    base, now = levels(*(a for a, _ in pairs)), levels(*(b for _, b in pairs))
    moved = [(-abs(b - a), latent) for latent, (a, b) in enumerate(pairs) if a != b]
    assert most_changed(base, now, count).tolist() == [latent for _, latent in sorted(moved)][:count]


def test_cosines_of_rows_and_of_zeros():
    first = torch.tensor([[3.0, 0.0], [1.0, 1.0], [0.0, 0.0], [2.0, 0.0]])
    second = torch.tensor([[5.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    assert_close(row_cosines(first, second), torch.tensor([1.0, 0.5**0.5, 0.0, 0.0], dtype=torch.float64))
