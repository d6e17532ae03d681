import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datamodules.shards.file_rows import FilePart, FileRows


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """40 rows [3] int16 in three files, behind 5, 0 and 2 other bytes, and the same in memory."""
    folder, rows, first, handles = tmp_path_factory.mktemp("rows"), torch.arange(120, dtype=torch.int16), 0, []
    rows = rows.view(40, 3)
    for number, (count, before) in enumerate([(13, 5), (1, 0), (26, 2)]):
        content = bytes(before) + rows[first : first + count].numpy().tobytes()
        (folder / str(number)).write_bytes(content)
        handles.append(FilePart(os.open(folder / str(number), os.O_RDONLY), before, count))
        first += count
    yield handles, rows
    for part in handles:
        os.close(part.handle)


@given(wanted=st.lists(st.integers(0, 39), max_size=60).map(sorted))
def test_rows_are_gathered_as_from_memory(parts, wanted):
    handles, rows = parts
    stored = FileRows(handles, torch.int16, (3,))
    wanted = torch.tensor(wanted, dtype=torch.int64)
    assert torch.equal(stored.gather(wanted), rows[wanted])
    into = torch.full((70, 3), -1, dtype=torch.int16)
    stored.gather(wanted, into[: len(wanted)])
    assert torch.equal(into[: len(wanted)], rows[wanted])
    assert (into[len(wanted) :] == -1).all()


@pytest.mark.parametrize("rows", [[-1], [40], [3, 99]])
def test_a_row_that_does_not_exist_is_told(parts, rows):
    with pytest.raises(IndexError, match="of 40 rows"):
        FileRows(parts[0], torch.int16, (3,)).gather(torch.tensor(rows))


def test_a_file_that_ends_too_early_is_told(tmp_path):
    (tmp_path / "short").write_bytes(bytes(10))
    handle = os.open(tmp_path / "short", os.O_RDONLY)
    with pytest.raises(OSError, match="4 of 6 bytes could be read"):
        FileRows([FilePart(handle, 0, 2)], torch.int16, (3,)).gather(torch.tensor([1]))
    os.close(handle)
