"""What validation says, against formulae over all rows at once."""

import pytest
import torch

from lightning_modules.evaluation import Evaluation
from lightning_modules.functional import DenseCodes


def batches(widths, rows=(7, 20, 13)):
    """(codes, targets, reconstructions, ablated) of some batches of different sizes."""
    for count in rows:
        targets = [2 + torch.randn(count, width) for width in widths]
        reconstructions = [0.9 * x + 0.2 * torch.randn_like(x) for x in targets]
        yield DenseCodes((torch.randn(count, 10) - 1).relu()), targets, reconstructions, [0 * x for x in targets]


def together(parts):
    codes, *others = zip(*parts, strict=True)
    return torch.cat([each.values for each in codes]), *[
        [torch.cat(part) for part in zip(*of_all, strict=True)] for of_all in others
    ]


@pytest.mark.parametrize("widths", [[5], [5, 3]])
def test_scores_are_means_over_hook_points_of_what_the_rows_say(widths):
    parts = list(batches(widths))
    evaluation = Evaluation(widths, [f"point {width}" for width in widths], 10)
    for part in parts:
        evaluation.update(*part)
    scores = evaluation.scores()
    f, targets, reconstructions, _ = together(parts)
    errors = [(x - y).square().sum() for x, y in zip(targets, reconstructions, strict=True)]
    variances = [(x - x.mean(dim=0)).square().sum() for x in targets]
    cosines = [torch.cosine_similarity(x, y, dim=1).mean() for x, y in zip(targets, reconstructions, strict=True)]
    expected = {
        "fvu": sum(e / v for e, v in zip(errors, variances, strict=True)) / len(widths),
        "fvu_without_latents": sum(x.square().sum() / v for x, v in zip(targets, variances, strict=True)) / len(widths),
        "mse": sum(errors) / 40 / len(widths),
        "cosine": sum(cosines) / len(widths),
        "l1": f.sum() / 40,
        "l0": (f > 0).sum() / 40,
    }
    for name, value in expected.items():
        assert float(scores[name]) == pytest.approx(float(value), rel=1e-4), name
    assert scores["explained_variance"] == 1 - scores["fvu"]
    told_apart = {name for name in scores if "/" in name}
    assert told_apart == ({"fvu/point 5", "fvu/point 3"} if len(widths) > 1 else set())


def test_nothing_is_left_of_rows_that_were_forgotten():
    evaluation = Evaluation([5], ["point"], 10)
    first, second = batches([5], (8, 9))
    evaluation.update(*first)
    evaluation.reset()
    evaluation.update(*second)
    scores = evaluation.scores()
    evaluation.reset()
    evaluation.update(*second)
    assert scores == evaluation.scores()
