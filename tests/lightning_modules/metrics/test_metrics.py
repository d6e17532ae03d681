import torch

from lightning_modules.functional import DenseCodes, SparseCodes
from lightning_modules.metrics import FiringDensity, FractionOfVarianceUnexplained, log_density, summarize_density


def test_fvu_over_batches_is_that_of_all_rows_at_once():
    torch.manual_seed(0)
    x = 100 + torch.randn(90, 5)
    reconstruction = x + 0.3 * torch.randn(90, 5)
    metric = FractionOfVarianceUnexplained(5)
    for start, stop in ((0, 10), (10, 73), (73, 90)):
        metric.update(x[start:stop], reconstruction[start:stop])
    wide = x.double()
    expected = (reconstruction.double() - wide).square().sum() / (wide - wide.mean(dim=0)).square().sum()
    torch.testing.assert_close(metric.compute(), expected.float(), rtol=1e-5, atol=0)


def test_fvu_agrees_with_torchmetrics_when_dimensions_vary_alike():
    from torchmetrics.regression import R2Score

    x = torch.randn(200, 1)
    reconstruction = x + 0.5 * torch.randn(200, 1)
    ours = FractionOfVarianceUnexplained(1)
    ours.update(x, reconstruction)
    theirs = R2Score()
    theirs.update(reconstruction[:, 0], x[:, 0])
    torch.testing.assert_close(ours.compute(), 1 - theirs.compute(), rtol=1e-4, atol=1e-5)


def test_firing_density_counts_rows_for_sparse_and_dense_codes():
    dense = torch.relu(torch.randn(40, 8) - 0.5)
    kept = dense.topk(8, dim=1)
    densities = []
    for codes in (
        lambda part: DenseCodes(dense[part]),
        lambda part: SparseCodes(kept.values[part], kept.indices[part], 8),
    ):
        metric = FiringDensity(8)
        for part in (slice(0, 13), slice(13, 40)):
            metric.update(codes(part))
        densities.append(metric.compute())
    assert torch.equal(*densities)
    torch.testing.assert_close(densities[0], (dense > 0).float().mean(dim=0))


def test_summary_of_a_density():
    density = torch.tensor([0.0, 0.05, 0.5, 0.11])
    summary = summarize_density(density)
    torch.testing.assert_close(summary["l0"], torch.tensor(0.66))
    assert summary["dead"] == 0.25
    assert summary["dense"] == 0.5
    torch.testing.assert_close(log_density(density), torch.tensor([0.05, 0.5, 0.11]).log10())
