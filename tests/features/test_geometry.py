import pytest
import torch

from features import layout, nearest


@pytest.mark.parametrize(("s", "d"), [(0, 3), (1, 3), (2, 1), (3, 2), (7, 4)])
def test_any_number_of_rows_has_neighbours_and_places(s, d):
    directions = torch.randn(s, d)
    numbers, cosines = nearest(directions, 3)
    assert numbers.shape == cosines.shape == (s, min(3, max(0, s - 1)))
    assert all(row not in numbers[row] for row in range(s))
    places = layout(directions)
    assert places.shape == (s, 2)
    assert places.isfinite().all()


def test_neighbours_are_those_of_highest_cosine(monkeypatch):
    monkeypatch.setattr("features.geometry._AT_ONCE", 7)
    directions = torch.randn(40, 6)
    numbers, cosines = nearest(directions, 4)
    for row in range(40):
        every = torch.cosine_similarity(directions[row : row + 1], directions)
        every[row] = -2
        torch.testing.assert_close(cosines[row], every.sort(descending=True).values[:4])
        torch.testing.assert_close(every[numbers[row]], cosines[row])


def test_on_the_map_rows_of_one_direction_lie_together_and_it_is_always_the_same():
    centres = torch.nn.functional.normalize(torch.randn(6, 32), dim=1)
    directions = centres.repeat_interleave(20, dim=0) + 0.05 * torch.randn(120, 32)
    places = layout(directions)
    assert torch.equal(places, layout(directions))
    apart = torch.cdist(places, places).fill_diagonal_(torch.inf)
    assert (apart.argmin(dim=1) // 20 == torch.arange(120) // 20).float().mean() > 0.95
