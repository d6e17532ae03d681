"""Rows gathered over several memory maps, against plain indexing of their concatenation."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datamodules.shards.mapped_rows import MappedRows


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    d=st.integers(1, 7),
    offset=st.integers(0, 3),
    dtype=st.sampled_from([torch.int16, torch.bfloat16, torch.float32, torch.int32]),
    data=st.data(),
)
def test_any_alignment_gives_what_indexing_gives(tmp_path_factory, lengths, d, offset, dtype, data):
    """Files of odd offsets and widths, so that every unit from 2 to 8 bytes comes up."""
    folder = tmp_path_factory.mktemp("maps")
    parts = []
    for number, length in enumerate(lengths):
        skipped = offset * dtype.itemsize * (number + 1)
        values = np.random.default_rng(number).integers(0, 256, skipped + length * d * dtype.itemsize, dtype=np.uint8)
        values.tofile(folder / str(number))
        mapped = np.memmap(folder / str(number), dtype=np.uint8, mode="c", offset=skipped)
        parts.append(torch.from_numpy(mapped).view(dtype).view(length, d))
    rows = torch.tensor(sorted(data.draw(st.lists(st.integers(0, sum(lengths) - 1), max_size=20))), dtype=torch.int64)

    gathered = MappedRows(parts).gather(rows)

    expected = torch.cat(parts)[rows]
    assert gathered.dtype == dtype
    assert gathered.shape == expected.shape
    assert torch.equal(gathered.view(torch.uint8), expected.view(torch.uint8))


def test_columns_are_gathered_too():
    parts = [torch.arange(5, dtype=torch.int32), torch.arange(5, 8, dtype=torch.int32)]
    assert MappedRows(parts).gather(torch.tensor([0, 4, 5, 5, 7])).tolist() == [0, 4, 5, 5, 7]


@pytest.mark.parametrize("rows", [[-1], [0, 8]])
def test_rows_that_do_not_exist_are_refused(rows):
    with pytest.raises(IndexError, match="of 8 rows"):
        MappedRows([torch.zeros(8, 2)]).gather(torch.tensor(rows))
