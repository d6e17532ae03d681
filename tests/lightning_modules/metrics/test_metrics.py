"""Metrics against their formulae, written row by row."""

import pytest
import torch

from lightning_modules.functional import DenseCodes, SparseCodes
from lightning_modules.metrics import FiringDensity, MeanL1, ReconstructionScores, log_density, summarize_density


def naive_scores(x, reconstruction, without_latents):
    """Row by row, in float64."""
    x, reconstruction, without_latents = x.double(), reconstruction.double(), without_latents.double()
    mean = sum(x) / len(x)
    variance = sum(float((row - mean) @ (row - mean)) for row in x)
    error = ablated = cosine = products = squares = 0.0
    for row, rebuilt, empty in zip(x, reconstruction, without_latents, strict=True):
        error += float((row - rebuilt) @ (row - rebuilt))
        ablated += float((row - empty) @ (row - empty))
        product, norms = float(row @ rebuilt), float(row.norm() * rebuilt.norm())
        cosine += product / norms if norms else 0.0
        products, squares = products + product, squares + float(rebuilt @ rebuilt)
    return {
        "fvu": error / variance,
        "fvu_without_latents": ablated / variance,
        "mse": error / len(x),
        "cosine": cosine / len(x),
        "relative_reconstruction_bias": squares / products,
    }


def reconstructed(rows=90, d=5, offset=3.0):
    """Rows, a shrunk and noisy reconstruction of them, and what stands for no latents."""
    x = offset + torch.randn(rows, d)
    return x, 0.8 * x + 0.3 * torch.randn(rows, d), x.mean(dim=0).expand(rows, -1)


@pytest.mark.parametrize("offset", [0.0, 3.0, 100.0])
def test_scores_over_batches_are_the_naive_ones_of_all_rows_at_once(offset):
    rows = reconstructed(offset=offset)
    metric = ReconstructionScores(5)
    for start, stop in ((0, 10), (10, 73), (73, 90)):
        metric.update(*(part[start:stop] for part in rows))
    scores, expected = metric.compute(), naive_scores(*rows)
    assert scores.keys() == expected.keys()
    for name, value in expected.items():
        assert float(scores[name]) == pytest.approx(value, rel=2e-5), name
    assert float(scores["fvu_without_latents"]) == pytest.approx(1, rel=1e-5)


def test_the_scores_of_two_ranks_add_up_to_those_of_all_rows():
    rows = reconstructed()
    ranks = [ReconstructionScores(5), ReconstructionScores(5)]
    for rank, metric in enumerate(ranks):
        metric.update(*(part[rank::2] for part in rows))
    ranks[0].merge_state(ranks[1])
    for name, value in naive_scores(*rows).items():
        assert float(ranks[0].compute()[name]) == pytest.approx(value, rel=1e-5), name


def test_the_relative_reconstruction_bias_is_the_factor_that_undoes_the_shrinkage_best():
    x, reconstruction, ablated = reconstructed()
    metric = ReconstructionScores(5)
    metric.update(x, reconstruction, ablated)
    gamma = float(metric.compute()["relative_reconstruction_bias"])
    assert 0.7 < gamma < 0.95
    errors = [(reconstruction / (gamma + shift) - x).square().sum() for shift in (0, 1e-2, -1e-2)]
    assert min(errors) == errors[0]


def test_a_row_of_zeros_has_no_direction_and_counts_as_unlike():
    metric = ReconstructionScores(3)
    metric.update(torch.tensor([[1.0, 0, 0], [0, 0, 0]]), torch.ones(2, 3), torch.zeros(2, 3))
    assert float(metric.compute()["cosine"]) == pytest.approx(3**-0.5 / 2)


def test_fvu_agrees_with_torchmetrics_when_dimensions_vary_alike():
    from torchmetrics.regression import R2Score

    x = torch.randn(200, 1)
    reconstruction = x + 0.5 * torch.randn(200, 1)
    ours = ReconstructionScores(1)
    ours.update(x, reconstruction, torch.zeros(200, 1))
    theirs = R2Score()
    theirs.update(reconstruction[:, 0], x[:, 0])
    torch.testing.assert_close(ours.compute()["fvu"], 1 - theirs.compute(), rtol=1e-4, atol=1e-5)


def test_l1_is_the_mean_sum_of_magnitudes_for_sparse_and_dense_codes():
    values = torch.randn(40, 8)
    kept = values.abs().topk(3, dim=1).indices
    signed = torch.zeros_like(values).scatter(1, kept, values.gather(1, kept))
    for codes in (
        lambda part: DenseCodes(signed[part]),
        lambda part: SparseCodes(values.gather(1, kept)[part], kept[part], 8),
    ):
        halves = [MeanL1(), MeanL1()]
        for metric, part in zip(halves, (slice(0, 13), slice(13, 40)), strict=True):
            metric.update(codes(part))
        halves[0].merge_state(halves[1])
        assert float(halves[0].compute()) == pytest.approx(float(signed.abs().sum() / 40))


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
