import torch

from lightning_modules.metrics.distinct import first_of_each


def test_the_first_place_of_each_id_is_told():
    different, first = first_of_each(torch.tensor([7, 3, 7, 9, 3, 3]))
    assert different.tolist() == [3, 7, 9]
    assert first.tolist() == [1, 0, 3]


def test_there_may_be_none():
    different, first = first_of_each(torch.zeros(0, dtype=torch.int64))
    assert different.tolist() == first.tolist() == []
