import pytest
import torch
from torch.testing import assert_close

from lightning_modules.functional import BatchCodes, DenseCodes, SparseCodes
from lightning_modules.metrics import MeanLatents

FIRST = torch.tensor([[0.0, 2.0, -1.0], [0.0, 0.0, 0.0]])
SECOND = torch.tensor([[1.0, 3.0, 0.0]])


def sparse(dense):
    indices = dense.abs().topk(2, dim=1).indices
    return SparseCodes(dense.gather(1, indices), indices, dense.shape[1])


@pytest.mark.parametrize("kind", [DenseCodes, BatchCodes.of, sparse])
def test_means_over_all_rows_of_all_batches(kind):
    metric = MeanLatents(3)
    for batch in (FIRST, SECOND, torch.zeros(0, 3)) if kind is DenseCodes else (FIRST, SECOND):
        metric.update(kind(batch))
    rows = torch.cat([FIRST, SECOND]).double()
    found = metric.compute()
    assert_close(found.magnitudes, rows.abs().mean(dim=0))
    assert_close(found.rates, (rows != 0).double().mean(dim=0))


def test_ranks_merge_to_the_means_of_all():
    together, parts = MeanLatents(3), [MeanLatents(3), MeanLatents(3)]
    for part, batch in zip(parts, (FIRST, SECOND), strict=True):
        part.update(DenseCodes(batch))
        together.update(DenseCodes(batch))
    merged = MeanLatents(3)
    merged.sums, merged.counts = (sum(getattr(part, name) for part in parts) for name in ("sums", "counts"))
    merged.rows = parts[0].rows + parts[1].rows
    merged._update_count = 1
    assert_close(merged.compute().magnitudes, together.compute().magnitudes)
