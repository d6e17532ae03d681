"""Small stores whose every value is known."""

from typing import NamedTuple

import pytest
import torch

from datamodules.shards import StoreWriter

DOCUMENT_LENGTHS = (7, 0, 30, 1, 25, 0)


class Rows(NamedTuple):
    """What is appended to a store, as one piece."""

    activations: dict
    tokens: torch.Tensor
    documents: torch.Tensor
    positions: torch.Tensor

    def part(self, start, stop):
        """Rows start … stop - 1."""
        activations = {name: values[start:stop] for name, values in self.activations.items()}
        return Rows(activations, self.tokens[start:stop], self.documents[start:stop], self.positions[start:stop])


def make_rows(lengths=DOCUMENT_LENGTHS, hook_points=None):
    """Rows of documents of these lengths; whole numbers up to 127, which every dtype holds exactly."""
    hook_points = hook_points or {"layer.0": 6, "block/1": 4}
    count = sum(lengths)
    activations = {name: torch.randint(-127, 128, (count, d)).float() for name, d in hook_points.items()}
    documents = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    positions = torch.cat([torch.arange(length) for length in lengths])
    return Rows(activations, torch.randint(0, 30_000, (count,)), documents, positions)


def write(folder, rows, lengths=DOCUMENT_LENGTHS, dtype="bfloat16", shard_bytes=160, appended=11):
    """A store of `rows`, appended a few at a time, in several shards."""
    hook_points = {name: values.shape[1] for name, values in rows.activations.items()}
    with StoreWriter(folder, hook_points, dtype, shard_bytes) as writer:
        for start in range(0, len(rows.tokens), appended):
            writer.append(*rows.part(start, start + appended))
        writer.finish({"model": "none"}, [f"document {number}" for number in range(len(lengths))])
    return folder


@pytest.fixture
def rows():
    """63 rows of six documents, two of them empty, at hook points layer.0 (d = 6) and block/1 (d = 4)."""
    return make_rows()


@pytest.fixture
def store(tmp_path, rows):
    """Folder of a bfloat16 store of `rows`: 13 rows in a shard, five shards."""
    return write(tmp_path / "store", rows)


@pytest.fixture(scope="session")
def rows_of_documents():
    """make_rows(lengths, hook_points) → Rows."""
    return make_rows


@pytest.fixture(scope="session")
def write_store():
    """write(folder, rows, lengths, dtype, shard_bytes, appended) → folder."""
    return write
